"""Image files to pixels, for training, evaluation and inference, and a quick look for damaged ones."""

import functools
import io
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from src.model_utils.errors import UserError

# What the pixels of a whole file end with, by format, and nothing before can look like.
_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB\x60\x82"}
_FRAMES = (0xC0, 0xC1, 0xC2)  # JPEG markers: baseline, extended and progressive coding
_START_OF_SCAN = b"\xff\xda"
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

    Common JPEGs go through OpenCV, which is faster and gives the same pixels: both use libjpeg-turbo. The
    rest goes through Pillow.

    Args:
        source: a path, or the content of a file.

    Returns:
        (H, W, 3) uint8, C-contiguous.

    Raises:
        UnreadableImage: missing, empty, truncated, damaged, unknown format or mode, or so many pixels that
            Pillow takes it for a decompression bomb.
    """
    in_memory = isinstance(source, bytes)
    name = "an image in memory" if in_memory else source
    with _naming(name):
        data = source if in_memory else _read(source)
        if not data:
            raise UnreadableImage(name, "the file is empty")
        pixels = _decode_plain_jpeg(data)
        if pixels is not None:
            return pixels
        with io.BytesIO(data) as file, Image.open(file) as image:
            _check_end(image, file, len(data))
            image.load()
            return np.array(_to_rgb(_upright(image)))


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


def _read(path: str | os.PathLike) -> bytes:
    with open(path, "rb", buffering=0) as file:  # a buffer makes it twice as slow
        return file.read()


def _decode_plain_jpeg(data: bytes) -> np.ndarray | None:
    """By OpenCV, if it is whole and grey or of three components, of 8 bits; None leaves it to Pillow.

    The header is read here, since Pillow takes 5 % of the time of decoding for it.
    """
    if not data.startswith(b"\xff\xd8"):
        return None
    at, framed = 2, False
    while at + 10 < len(data) and data[at] == 0xFF and not data.startswith(_START_OF_SCAN, at):
        if data[at + 1] in _FRAMES:
            bits, height, width, components = struct.unpack_from(">BHHB", data, at + 4)
            if bits != 8 or components not in (1, 3) or height * width > _MANY_PIXELS:
                return None
            framed = height > 0  # else it comes behind the scan
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    is_whole = data.endswith(_ENDS["JPEG"]) or data.find(_ENDS["JPEG"], at) >= 0
    if not framed or not data.startswith(_START_OF_SCAN, at) or not is_whole:
        return None
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_COLOR_RGB)


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


@contextmanager
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
