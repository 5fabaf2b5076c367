# SPDX-License-Identifier: Apache-2.0
"""Image files to pixels, for training, evaluation and inference, and a quick look for damaged ones."""

import contextlib
import functools
import io
import logging
import os
import struct
import warnings
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import ExifTags, Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from ..common.errors import UserError
from .resize import Plan

log = logging.getLogger("quartet")

# What the pixels of a whole file end with, by format, and nothing before can look like.
_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB\x60\x82"}
_FRAMES = (0xC0, 0xC1, 0xC2)  # JPEG markers: baseline, extended and progressive coding
_START_OF_JPEG, _START_OF_SCAN, _EXIF = b"\xff\xd8", b"\xff\xda", b"Exif\0\0"
_TURNS = {  # by the orientation in EXIF
    2: functools.partial(cv2.flip, flipCode=1),
    3: functools.partial(cv2.rotate, rotateCode=cv2.ROTATE_180),
    4: functools.partial(cv2.flip, flipCode=0),
    5: cv2.transpose,
    6: functools.partial(cv2.rotate, rotateCode=cv2.ROTATE_90_CLOCKWISE),
    7: lambda pixels: cv2.rotate(cv2.transpose(pixels), cv2.ROTATE_180),
    8: functools.partial(cv2.rotate, rotateCode=cv2.ROTATE_90_COUNTERCLOCKWISE),
}
MAX_PIXELS = 2 * Image.MAX_IMAGE_PIXELS  # above, Pillow takes a picture for a decompression bomb
_limit = MAX_PIXELS
_said: set[int] = set()  # depths of grey, and 0 for colour
_TEXT_BYTES = 64 << 20  # of a PNG's text or colour profile: Pillow calls a file with more than 1 MiB damaged


class UnreadableImage(UserError):
    """A file that cannot be decoded as an image; `reason` says why without naming the file."""

    def __init__(self, path: str | os.PathLike, reason: str) -> None:
        super().__init__(f"{path}: {reason}; replace or remove this file")
        self.reason = reason


def admit(pixels: int) -> None:
    """Sets for the process how many pixels a picture may have: those of a small file can fill the memory.

    Pillow's own limit is raised with it.
    """
    global _limit
    _limit = pixels
    Image.MAX_IMAGE_PIXELS = max(MAX_PIXELS, pixels) // 2 + 1


def decode(source: str | os.PathLike | bytes) -> np.ndarray:
    """Decodes the first frame of a file to RGB, 8 bits a channel.

    The orientation in EXIF is applied; transparent parts are laid on white; grey of 16 or 32 bits is scaled
    to 8 bits (`_grey_to_8_bits`); CMYK and palettes are converted by Pillow.

    Common JPEGs go through simplejpeg, which takes less than half the time and gives the same pixels: both
    use libjpeg-turbo. The rest goes through Pillow.

    Args:
        source: a path, or the content of a file.

    Returns:
        (H, W, 3) uint8, C-contiguous.

    Raises:
        UnreadableImage: missing, empty, truncated, damaged, unknown format or mode, or more pixels than
            `admit` was told.
    """
    data = _read(source)
    header = _jpeg_header(data)
    pixels = header and _decode_jpeg(data, header, header.height, 1)
    return _decode_any(_name(source), data) if pixels is None else pixels


def decode_resized(source: str | os.PathLike | bytes, plan: Plan) -> np.ndarray:
    """Decodes no more of a picture than what is to be resized, and resizes it.

    A JPEG is reduced in the discrete cosine transform by what `Resizing.reduction` allows; the limit of
    `admit` is for what is left. Of an ordinary one (baseline, in one scan, not turned by EXIF) nothing below
    the part that is needed is decoded: damage down there goes unnoticed. Any other file is decoded whole.

    Args:
        source: a path, or the content of a file.
        plan: (height, width) of the picture -> what of it becomes which size.

    Returns:
        (h, w, 3) uint8, C-contiguous.

    Raises:
        UnreadableImage: as `decode`.
    """
    data = _read(source)
    header = _jpeg_header(data)
    if header:
        resizing = plan(*header.upright)
        reduction = header.reduction(resizing.reduction)
        is_turned = header.orientation in _TURNS
        rows = header.height if is_turned else min(header.height, resizing.bottom)
        pixels = _decode_jpeg(data, header, rows, reduction)
        if pixels is not None:
            return resizing(pixels, reduction)
    pixels = _decode_any(_name(source), data)
    return plan(*pixels.shape[:2])(pixels)


def fault(path: str | os.PathLike) -> str | None:
    """Why a file is no image, None where it seems to be one; a quick look, some 10,000 files a second.

    The header must be of a known format with possible sizes, and a JPEG or PNG must have its end. Other
    damage is found by `decode` alone, and whether a JPEG has too many pixels, which may be reduced.
    """
    try:
        with _naming(path):
            size = os.path.getsize(path)
            if not size:
                return "the file is empty"
            with open(path, "rb") as file:
                is_jpeg = file.read(2) == _START_OF_JPEG
                file.seek(0)
                try:
                    with _open(file) as image:
                        _check_end(image, file, size)
                except Image.DecompressionBombError:
                    if not is_jpeg:
                        raise
    except UnreadableImage as error:
        return error.reason
    return None


def _name(source: str | os.PathLike | bytes) -> str | os.PathLike:
    return "an image in memory" if isinstance(source, bytes) else source


def _read(source: str | os.PathLike | bytes) -> bytes:
    data = source
    if not isinstance(source, bytes):
        with _naming(source), open(source, "rb", buffering=0) as file:  # a buffer makes it twice as slow
            data = file.read()
    if not data:
        raise UnreadableImage(_name(source), "the file is empty")
    return data


class _Jpeg(NamedTuple):
    """What the header of a whole JPEG says that is grey or of three components, of 8 bits."""

    frame: int  # where the segment with the size begins
    height: int
    width: int
    coded_rows: int  # pixels that are coded together, down
    is_baseline: bool  # coded from top to bottom in one scan
    orientation: int  # in EXIF

    @property
    def upright(self) -> tuple[int, int]:
        """Height and width when it is turned as EXIF says."""
        return (self.width, self.height) if self.orientation in (5, 6, 7, 8) else (self.height, self.width)

    def reduction(self, most: int) -> int:
        """`most`, or 1 where turning would put the parts of pixels at the end elsewhere."""
        whole = not (self.height % most or self.width % most)
        return most if whole or self.orientation not in _TURNS else 1


def _jpeg_header(data: bytes) -> _Jpeg | None:
    """None for any other file. Pillow would take 5 % of the time of decoding for it."""
    if not data.startswith(_START_OF_JPEG):
        return None
    at, frame, orientation = 2, 0, 1
    while at + 10 < len(data) and data[at] == 0xFF and not data.startswith(_START_OF_SCAN, at):
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] in _FRAMES:
            frame = at
        elif data.startswith(_EXIF, at + 4) and orientation == 1:
            orientation = _orientation(data[at + 4 : end])
        at = end
    is_whole = data.endswith(_ENDS["JPEG"]) or data.find(_ENDS["JPEG"], at) >= 0
    if not frame or not data.startswith(_START_OF_SCAN, at) or not is_whole:
        return None
    bits, height, width, components = struct.unpack_from(">BHHB", data, frame + 4)
    coded_rows = 8 * max(
        (both & 15 for both in data[frame + 11 : frame + 11 + 3 * components : 3]), default=0
    )
    # Without a height, it comes behind the scan.
    if bits != 8 or components not in (1, 3) or not height * width * coded_rows:
        return None
    is_baseline = data[frame + 1] != 0xC2 and data[at + 4] == components
    return _Jpeg(frame, height, width, coded_rows, is_baseline, orientation)


def _orientation(exif: bytes) -> int:
    try:
        tags = Image.Exif()
        tags.load(exif)
        return tags.get(ExifTags.Base.Orientation, 1)
    # A damaged EXIF block does not spoil the pixels: such an image is used as it is stored.
    except Exception:
        return 1


def _decode_jpeg(data: bytes, header: _Jpeg, rows: int, reduction: int) -> np.ndarray | None:
    """None for what is left to Pillow, which says what is wrong, or takes longer.

    Args:
        data: the file.
        header: its header.
        rows: how many are needed.
        reduction: by how much the picture is reduced.
    """
    is_stream = header.is_baseline  # of the others, the decoder keeps all coefficients
    if header.height * header.width > _limit * (reduction**2 if is_stream else 1):
        return None
    # The decoder is told that the picture ends below the rows: a tenth less work for random crops. One row of
    # blocks more is left, since chroma is interpolated between rows.
    blocks = -(-rows // header.coded_rows) + 1
    rows = header.height
    if is_stream and blocks * header.coded_rows < rows:
        rows = blocks * header.coded_rows
        data = bytearray(data)
        struct.pack_into(">H", data, header.frame + 5, rows)
    size = {"min_height": -(-rows // reduction), "min_width": -(-header.width // reduction)}
    try:
        pixels = simplejpeg.decode_jpeg(data, **size, strict=False)
    except ValueError:
        return None
    return _TURNS.get(header.orientation, np.asarray)(pixels)


def _decode_any(path: str | os.PathLike, data: bytes) -> np.ndarray:
    with _naming(path), io.BytesIO(data) as file, _open(file) as image:
        _check_end(image, file, len(data))
        is_16_bit = any(";16" in str(part.args) for part in image.tile)
        image.load()
        if is_16_bit and image.mode in ("RGB", "RGBA", "LA"):
            _check_range(image, path)
        image = _upright(image)
        is_deep = image.mode == "F" or image.mode.startswith("I")
        pixels = np.array(image if is_deep else _to_rgb(image))
    return cv2.merge([_grey_to_8_bits(pixels, path)] * 3) if is_deep else pixels


def _open(file: BinaryIO) -> Image.Image:
    image = Image.open(file)
    if image.width * image.height > _limit:
        raise Image.DecompressionBombError
    return image


def _check_end(image: Image.Image, file: BinaryIO, size: int) -> None:
    """Refuses a JPEG or PNG that was cut short: decoders make up the pixels that are missing.

    Padding and data of other programs may follow the end. The search begins behind the header, where a
    JPEG may have a whole thumbnail.
    """
    end = _ENDS.get(image.format)
    if end is None:
        return
    start = file.tell()
    file.seek(max(start, size - len(end)))
    if file.read() != end:
        file.seek(start)
        if end not in file.read():
            raise OSError("it is cut short")


@contextlib.contextmanager
def _naming(path: str | os.PathLike) -> Iterator[None]:
    """Turns whatever a decoder raises into UnreadableImage; it stands around nothing else."""
    _prepare_pillow()
    try:
        yield
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImage(path, "not an image in a known format") from error
    except Image.DecompressionBombError as error:
        reason = "more pixels than is safe (a decompression bomb?); max_image_pixels admits more"
        raise UnreadableImage(path, reason) from error
    # Decoders raise nearly anything on damaged files: OSError, SyntaxError, struct.error, KeyError ...
    except Exception as error:
        detail = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UnreadableImage(path, f"cannot be decoded: {detail.splitlines()[0]}") from error


@functools.cache
def _prepare_pillow() -> None:
    """Pillow warns about images above half its limit and about odd metadata; neither matters to a reader.

    Nor does a long text or colour profile in a PNG. For the whole process: `warnings.catch_warnings` is not
    made for several threads.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")
    PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = _TEXT_BYTES, 4 * _TEXT_BYTES


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    # A damaged EXIF block does not spoil the pixels: such an image is used as it is stored.
    except Exception:
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _grey_to_8_bits(values: np.ndarray, path: str | os.PathLike) -> np.ndarray:
    """Scales deep grey to uint8, where Pillow itself would clip all above 255 to white.

    A file does not say which range its values have: cameras and scanners store 10, 12 or 14 bits in 16. So
    the first of 0..1 (floats only) and 8, 10, 12, 14 and 16 bits that holds every value is taken, and fewer
    than 16 are said once; else the values' own range. Values that are not finite become black.
    """
    is_float = values.dtype.kind == "f"
    values = values.astype(np.float64)
    finite = np.isfinite(values)
    low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0.0, 0.0)
    ranges = {1: 1.0} if is_float else {}
    ranges |= {bits: 2.0**bits - 1 for bits in (8, 10, 12, 14, 16)}
    if low >= 0 and high <= ranges[16]:
        bits, high = next((bits, top) for bits, top in ranges.items() if high <= top)
        low = 0.0
        if not is_float and bits < 16:
            _say_once(path, bits)
    span = high - low if high > low else 1.0
    return np.rint((np.where(finite, values, low) - low) * (255.0 / span)).astype(np.uint8)


def _check_range(image: Image.Image, path: str | os.PathLike) -> None:
    """Says once that colour of 16 bits is dark since it holds fewer: Pillow gives the upper 8 bits alone."""
    *colours, alpha = image.getextrema()
    high = max(high for _, high in (colours if "A" in image.mode else (*colours, alpha)))
    if high < 64 and 0 not in _said:
        _said.add(0)
        log.warning(
            "%s: colour of 16 bits without a value above %s is read as it is, and dark; write 8 bits instead",
            path, (high << 8) + 255,
        )  # fmt: skip


def _say_once(path: str | os.PathLike, bits: int) -> None:
    if bits not in _said:
        _said.add(bits)
        log.warning("%s: deep grey without a value above %s is read as %s bits", path, 2**bits - 1, bits)
