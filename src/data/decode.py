"""Image files to pixels, for training, evaluation and inference, and a quick look for damaged ones."""

import contextlib
import functools
import io
import os
import struct
import warnings
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ..common.errors import UserError
from .resize import Box, ChooseBox, cut

# What the pixels of a whole file end with, by format, and nothing before can look like.
_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB\x60\x82"}
_FRAMES = (0xC0, 0xC1, 0xC2)  # JPEG markers: baseline, extended and progressive coding
_START_OF_SCAN, _EXIF = b"\xff\xda", b"Exif\0\0"
_TURNS = {  # by the orientation in EXIF
    2: functools.partial(cv2.flip, flipCode=1),
    3: functools.partial(cv2.rotate, rotateCode=cv2.ROTATE_180),
    4: functools.partial(cv2.flip, flipCode=0),
    5: cv2.transpose,
    6: functools.partial(cv2.rotate, rotateCode=cv2.ROTATE_90_CLOCKWISE),
    7: lambda pixels: cv2.rotate(cv2.transpose(pixels), cv2.ROTATE_180),
    8: functools.partial(cv2.rotate, rotateCode=cv2.ROTATE_90_COUNTERCLOCKWISE),
}
_MANY_PIXELS = 64 << 20  # above, Pillow judges whether it is a decompression bomb


class UnreadableImage(UserError):
    """A file that cannot be decoded as an image; `reason` says why without naming the file."""

    def __init__(self, path: str | os.PathLike, reason: str) -> None:
        super().__init__(f"{path}: {reason}; replace or remove this file")
        self.reason = reason


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
        UnreadableImage: missing, empty, truncated, damaged, unknown format or mode, or so many pixels that
            Pillow takes it for a decompression bomb.
    """
    with _naming(_name(source)):
        data = _read(source)
        return _decode(data, _jpeg_header(data))


def decode_crop(source: str | os.PathLike | bytes, choose: ChooseBox, least: int) -> np.ndarray:
    """The pixels of a box, which is chosen by the size of the picture before it is decoded.

    Of an ordinary JPEG (baseline, in one scan, not turned by EXIF) only what is needed is decoded. Nothing
    below the box is: the pixels are those of `decode`, but damage down there goes unnoticed. And a box of at
    least 2, 4 or 8 times `least` each way is reduced by as much in the discrete cosine transform, where a
    pixel is about the mean of those it replaces; its edges are rounded to whole pixels of that size. Any
    other file is decoded and cut.

    Args:
        source: a path, or the content of a file.
        choose: (height, width) of the picture -> the box, inside of it.
        least: how many pixels the result must have each way, if the box has as many, at least 1.

    Returns:
        (height, width, 3) uint8, perhaps a view: the box, or what it was reduced to.

    Raises:
        UnreadableImage: as `decode`.
    """
    with _naming(_name(source)):
        data = _read(source)
        header = _jpeg_header(data)
        if header and header.is_baseline and header.orientation not in _TURNS:
            with contextlib.suppress(ValueError):  # Pillow says what is wrong
                return _decode_box(data, header, choose(header.height, header.width), least)
        image = _decode(data, header)
        return cut(image, choose(*image.shape[:2]))


def fault(path: str | os.PathLike) -> str | None:
    """Why a file is no image, None where it seems to be one; a quick look, some 10,000 files a second.

    The header must be of a known format with possible sizes, and a JPEG or PNG must have its end. Other
    damage is found by `decode` alone.
    """
    try:
        with _naming(path):
            size = os.path.getsize(path)
            if not size:
                return "the file is empty"
            with open(path, "rb") as file, Image.open(file) as image:
                _check_end(image, file, size)
    except UnreadableImage as error:
        return error.reason
    return None


def _name(source: str | os.PathLike | bytes) -> str | os.PathLike:
    return "an image in memory" if isinstance(source, bytes) else source


def _read(source: str | os.PathLike | bytes) -> bytes:
    data = source
    if not isinstance(source, bytes):
        with open(source, "rb", buffering=0) as file:  # a buffer makes it twice as slow
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


def _jpeg_header(data: bytes) -> _Jpeg | None:
    """None for any other file. Pillow would take 5 % of the time of decoding for it."""
    if not data.startswith(b"\xff\xd8"):
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
    # Without a height, it comes behind the scan.
    if bits != 8 or components not in (1, 3) or not 0 < height * width <= _MANY_PIXELS:
        return None
    sampling = data[frame + 11 : frame + 11 + 3 * components : 3]
    is_baseline = data[frame + 1] != 0xC2 and data[at + 4] == components
    return _Jpeg(frame, height, width, 8 * max(both & 15 for both in sampling), is_baseline, orientation)


def _orientation(exif: bytes) -> int:
    try:
        tags = Image.Exif()
        tags.load(exif)
        return tags.get(ExifTags.Base.Orientation, 1)
    # A damaged EXIF block does not spoil the pixels: such an image is used as it is stored.
    except Exception:
        return 1


def _decode(data: bytes, header: _Jpeg | None) -> np.ndarray:
    if header:
        with contextlib.suppress(ValueError):  # what simplejpeg gives up is left to Pillow
            pixels = simplejpeg.decode_jpeg(data, strict=False)
            return _TURNS.get(header.orientation, np.asarray)(pixels)
    with io.BytesIO(data) as file, Image.open(file) as image:
        _check_end(image, file, len(data))
        image.load()
        return np.array(_to_rgb(_upright(image)))


def _decode_box(data: bytes, header: _Jpeg, box: Box, least: int) -> np.ndarray:
    """Tells the decoder that the picture ends below the box.

    One row of blocks more is left, since chroma is interpolated between rows.
    """
    top, left, height, width = box
    blocks = -(-(top + height) // header.coded_rows) + 1
    rows = min(header.height, blocks * header.coded_rows)
    shortened = bytearray(data)
    struct.pack_into(">H", shortened, header.frame + 5, rows)
    factor = next((factor for factor in (8, 4, 2) if min(height, width) >= factor * least), 1)
    reduced = {"min_height": -(-rows // factor), "min_width": -(-header.width // factor)}
    pixels = simplejpeg.decode_jpeg(shortened, **reduced, strict=False)
    top, left, bottom, right = (
        (edge + factor // 2) // factor for edge in (top, left, top + height, left + width)
    )
    return pixels[top:bottom, left:right]


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
    """Turns whatever a decoder raises into UnreadableImage."""
    _silence_pillow()
    try:
        yield
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImage(path, "not an image in a known format") from error
    except Image.DecompressionBombError as error:
        raise UnreadableImage(path, "more pixels than the safe limit (decompression bomb)") from error
    # Decoders raise nearly anything on damaged files: OSError, SyntaxError, struct.error, KeyError ...
    except Exception as error:
        detail = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UnreadableImage(path, f"cannot be decoded: {detail.splitlines()[0]}") from error


@functools.cache
def _silence_pillow() -> None:
    """Pillow warns about images above half its limit and about odd metadata; neither matters to a reader.

    For the whole process: `warnings.catch_warnings` is not made for several threads.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    # A damaged EXIF block does not spoil the pixels: such an image is used as it is stored.
    except Exception:
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_grey_to_8_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _grey_to_8_bits(values: np.ndarray) -> np.ndarray:
    """Scales deep grey to uint8, where Pillow itself would clip all above 255 to white.

    16-bit unsigned values always use their full range. 32-bit integers and floats do not say their range, so
    the first of 0..1 (floats only), 0..255 and 0..65535 that holds every value is taken, else the values' own
    range. Values that are not finite become black.
    """
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        low, high = 0.0, 65535.0
    else:
        is_float = values.dtype.kind == "f"
        values = values.astype(np.float64)
        finite = np.isfinite(values)
        low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0.0, 0.0)
        ranges = [1.0, 255.0, 65535.0] if is_float else [255.0, 65535.0]
        if low >= 0 and high <= ranges[-1]:
            low, high = 0.0, next(top for top in ranges if high <= top)
        values = np.where(finite, values, low)
    span = high - low if high > low else 1.0
    return np.rint((values.astype(np.float64) - low) * (255.0 / span)).astype(np.uint8)
