"""Image files to the model's input: decode, resize, crop, normalise."""

import os

import numpy as np
from PIL import Image

from ..data.decode import decode
from .card import ModelCard


def load_image(path: str | os.PathLike) -> Image.Image:
    """Decodes the first frame of a file to RGB, 8 bits a channel, any size: see `decode`.

    Raises:
        UnreadableImage: the file cannot be decoded.
    """
    return Image.fromarray(decode(path))


def square(image: Image.Image, card: ModelCard) -> np.ndarray:
    """Resizes and crops one RGB image to the model's square as the card says, with S = `card.image_size`.

    With the card's interpolation `antialias`, the short side is resized to S / `crop_percentage` (bicubic;
    when shrinking, the filter widens so that every pixel counts), the long side in proportion, rounded; then
    the central S x S is cut out. Only that part is computed, so a panorama needs no more memory than a
    square. An image whose short side is right already is not resampled. With another, as evaluation does
    (`prepare_picture`).

    Returns:
        uint8 of shape (S, S, 3).
    """
    if card.interpolation == "antialias":
        return np.asarray(_central_square(image, card.image_size, card.crop_percentage))
    return card.preparation.square(np.asarray(image))


def normalise(pixels: np.ndarray, card: ModelCard) -> np.ndarray:
    """uint8 (..., S, S, 3) -> float32 (..., 3, S, S), `(value - mean) / std`, C-contiguous."""
    to_numbers = card.preparation.normalise
    return to_numbers(pixels) if pixels.ndim == 3 else np.stack([to_numbers(picture) for picture in pixels])


def preprocess(image: Image.Image, card: ModelCard) -> np.ndarray:
    """Prepares one RGB image for the model: `square`, then `normalise` unless the model does that itself.

    Returns:
        of `card.image_shape` and `card.image_dtype`.
    """
    pixels = square(image, card)
    return pixels if card.input_type == "uint8" else normalise(pixels, card)


def _central_square(image: Image.Image, size: int, crop_percentage: float) -> Image.Image:
    width, height = image.size
    short, wanted = min(width, height), round(size / crop_percentage)
    resized_width, resized_height = (max(wanted, round(side * wanted / short)) for side in (width, height))
    left, top = (resized_width - size) // 2, (resized_height - size) // 2
    if short == wanted:
        return image.crop((left, top, left + size, top + size))
    # The source region of the crop. The filter still reads the pixels around it, so the result is that of
    # resizing the whole image and cropping.
    across, down = width / resized_width, height / resized_height
    box = (left * across, top * down, (left + size) * across, (top + size) * down)
    box = (box[0], box[1], min(box[2], width), min(box[3], height))
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)
