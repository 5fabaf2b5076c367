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
    """One RGB image as the model's square, (S, S, 3) uint8: see `Preparation.square`."""
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
