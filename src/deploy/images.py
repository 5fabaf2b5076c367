"""Image files from anywhere to the model's input: find, decode, resize, crop, normalise."""

import os
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from src.deploy.card import ModelCard
from src.model_utils.errors import UserError

EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".avif", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
)


class UnreadableImage(UserError):
    """A file that cannot be decoded as an image; `reason` says why without naming the file."""

    def __init__(self, path: str | os.PathLike, reason: str) -> None:
        super().__init__(f"{path}: {reason}; replace or remove this file")
        self.reason = reason


def find_images(paths: Iterable[str | os.PathLike]) -> list[Path]:
    """Lists image files, sorted and without repeats.

    A file is taken whatever its extension, since it was named on purpose. A folder is searched to any depth
    for the common extensions in either case; hidden files and linked folders are left out.

    Raises:
        UserError: no path is given, one does not exist, or a folder holds no image.
    """
    found: set[Path] = set()
    paths = [Path(path) for path in paths]
    if not paths:
        raise UserError("no image is named: give image files or folders")
    for path in paths:
        if path.is_dir():
            images = _images_under(path)
            if not images:
                raise UserError(
                    f"{path}: no image in this folder (looked for {', '.join(sorted(EXTENSIONS))})"
                )
            found.update(images)
        elif path.is_file():
            found.add(path)
        else:
            raise UserError(f"{path}: no such image file or folder")
    return sorted(found)


def load_image(path: str | os.PathLike) -> Image.Image:
    """Decodes the first frame of a file to RGB, 8 bits a channel, any size.

    The orientation in EXIF is applied; transparent parts are laid on white; grey of 16 or 32 bits is scaled
    to 8 bits (`_grey_to_8_bits`).

    Raises:
        UnreadableImage: missing, empty, truncated, damaged, unknown format or mode, or so many pixels that
            Pillow takes it for a decompression bomb.
    """
    try:
        # Pillow warns about images above half its limit and about odd metadata; neither matters to a reader.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if os.path.getsize(path) == 0:
                raise UnreadableImage(path, "the file is empty")
            with Image.open(path) as image:
                image.load()
                return _to_rgb(_upright(image))
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


def preprocess(image: Image.Image, card: ModelCard) -> np.ndarray:
    """Prepares one RGB image for the model as the card says.

    The short side is resized to S = `card.image_size` (bicubic; when shrinking, the filter widens so that
    every pixel counts), the long side in proportion, rounded; then the central S x S is cut out. Only that
    part is computed, so a panorama needs no more memory than a square. An image whose short side is S
    already is not resampled.

    Returns:
        float32 of shape (3, S, S), `(value - mean) / std`.
    """
    pixels = np.asarray(_central_square(image, card.image_size), dtype=np.float32)
    normalised = (pixels - np.float32(card.mean)) / np.float32(card.std)
    return np.ascontiguousarray(normalised.transpose(2, 0, 1))


def _images_under(folder: Path) -> list[Path]:
    return [
        Path(parent, name)
        for parent, _, names in os.walk(folder)
        for name in names
        if not name.startswith(".")
        and Path(name).suffix.lower() in EXTENSIONS
        and Path(parent, name).is_file()
    ]


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


def _central_square(image: Image.Image, size: int) -> Image.Image:
    width, height = image.size
    short = min(width, height)
    resized_width, resized_height = (max(size, round(side * size / short)) for side in (width, height))
    left, top = (resized_width - size) // 2, (resized_height - size) // 2
    if short == size:
        return image.crop((left, top, left + size, top + size))
    # The source region of the crop. The filter still reads the pixels around it, so the result is that of
    # resizing the whole image and cropping.
    across, down = width / resized_width, height / resized_height
    box = (left * across, top * down, (left + size) * across, (top + size) * down)
    box = (box[0], box[1], min(box[2], width), min(box[3], height))
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)
