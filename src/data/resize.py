"""Crops and resizing of single pictures, (H, W, 3) uint8 of any size, to explicit parameters.

OpenCV's pixels are those of MindSpore's vision operators: `bilinear` and `area` agree with `vision.Resize`
and `vision.ResizedCrop` in every bit, `bicubic` to 1. Those operators, called one by one, hold the
interpreter's lock: two threads of them do no more than one, and halve the speed of the thread that trains.
OpenCV was measured twice as fast in one thread, and twice that in two.
"""

import math
from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np

Interpolation = Literal["bilinear", "bicubic", "area"]
EvalCrop = Literal["squash", "centre"]

_FLAGS = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC, "area": cv2.INTER_AREA}
_TRIES = 10
_LONGEST = 4  # times the short side: beyond, the ends of a panorama cannot be in its central square

Box = tuple[int, int, int, int]  # top, left, height, width
ChooseBox = Callable[[int, int], Box]  # by height and width of a picture


def cut(image: np.ndarray, box: Box) -> np.ndarray:
    """A view of the box."""
    top, left, height, width = box
    return image[top : top + height, left : left + width]


def resize(image: np.ndarray, height: int, width: int, interpolation: Interpolation) -> np.ndarray:
    """A new (height, width, 3) picture.

    Args:
        image: may be a crop of a larger array; nothing outside of it is read.
        interpolation: `bilinear` and `bicubic` read 2 and 4 pixels each way however much they shrink, as
            TensorFlow does without antialiasing; `area` averages all that a new pixel covers.

    Raises:
        ValueError: unknown interpolation.
    """
    if interpolation not in _FLAGS:
        raise ValueError(f"interpolation must be {', '.join(_FLAGS)}, not {interpolation!r}")
    return cv2.resize(image, (width, height), interpolation=_FLAGS[interpolation])


def draw_boxes(
    rng: np.random.Generator, count: int, area: tuple[float, float], ratio: tuple[float, float]
) -> np.ndarray:
    """What `random_box` needs for `count` pictures, one a column: (22, count).

    Ten shares of the picture, uniform in `area`; ten values of width / height in `ratio`, whose logarithm is
    uniform; and where the box is, down and across, uniform in [0, 1).
    """
    numbers = rng.random((2 * _TRIES + 2, count))
    numbers[:_TRIES] = area[0] + (area[1] - area[0]) * numbers[:_TRIES]
    numbers[_TRIES:-2] = ratio[0] * (ratio[1] / ratio[0]) ** numbers[_TRIES:-2]
    return numbers


def random_box(height: int, width: int, numbers: np.ndarray, ratio: tuple[float, float]) -> Box:
    """The box of an Inception crop (Szegedy et al., 2015) in torchvision's form.

    The first of ten tries that fits is placed by the last two numbers. If none fits, the box is the largest
    central one whose ratio is in range.

    Args:
        height: of the picture.
        width: of the picture.
        numbers: (22,), a column of `draw_boxes`.
        ratio: smallest and largest width / height.

    Returns:
        a box inside the picture, at least 1 pixel each way.
    """
    *tries, down, across = numbers.tolist()
    for share, aspect in zip(tries[:_TRIES], tries[_TRIES:], strict=True):
        pixels = height * width * share
        box_height, box_width = round(math.sqrt(pixels / aspect)), round(math.sqrt(pixels * aspect))
        if 1 <= box_height <= height and 1 <= box_width <= width:
            top, left = int(down * (height - box_height + 1)), int(across * (width - box_width + 1))
            return top, left, box_height, box_width
    box_height = min(height, max(1, round(width / ratio[0])))
    box_width = min(width, max(1, round(height * ratio[1])))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def centre_crop(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """A view of the central (height, width) of a picture, or of all of it where it is smaller."""
    height, width = min(height, image.shape[0]), min(width, image.shape[1])
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return cut(image, (top, left, height, width))


def resize_whole(
    image: np.ndarray, size: int, interpolation: Interpolation, *, multiple: int = 1
) -> np.ndarray:
    """The whole picture, its longer side `size` pixels and the other in proportion, nothing cut.

    Both are rounded to a multiple of `multiple`, once that at least: a panorama so thin that it would come
    out below is stretched.

    Args:
        image: (H, W, 3) uint8.
        size: of the longer side, in pixels.
        interpolation: see `resize`.
        multiple: what the sides must be divisible by; a network that halves maps five times by windows that
            tile them takes 32.

    Returns:
        a new (h, w, 3) uint8, C-contiguous.
    """
    scale = size / max(image.shape[:2])
    height, width = (max(1, round(side * scale / multiple)) * multiple for side in image.shape[:2])
    return resize(image, height, width, interpolation)


def prepare_picture(
    image: np.ndarray, *, size: int, eval_crop: EvalCrop, crop_percentage: float, interpolation: Interpolation
) -> np.ndarray:
    """What evaluation and inference make of a picture: (size, size, 3) uint8, C-contiguous.

    Args:
        image: (H, W, 3) uint8.
        size: side of the result, in pixels.
        eval_crop: what is resized to `size / crop_percentage` before the central square is cut out: `squash`
            both sides, whatever the shape, as the official BiT does; `centre` the short side, and the other
            in proportion. A panorama is first cut to 4:1, so that it needs no more memory than another one.
        crop_percentage: share of the resized side that is shown, in (0, 1]: 0.875 and 224 make 256 before the
            cut.
        interpolation: see `resize`.

    Raises:
        ValueError: an unknown crop or interpolation, or a `crop_percentage` out of range.
    """
    if eval_crop not in ("squash", "centre") or not 0 < crop_percentage <= 1:
        raise ValueError(
            "eval_crop must be squash or centre, with a crop_percentage in (0, 1]; "
            f"given {eval_crop!r} and {crop_percentage}"
        )
    height = width = short = round(size / crop_percentage)
    if eval_crop == "centre":
        reach = _LONGEST * min(image.shape[:2])
        image = centre_crop(image, reach, reach)
        scale = short / min(image.shape[:2])
        height, width = (round(side * scale) for side in image.shape[:2])
    return np.ascontiguousarray(centre_crop(resize(image, height, width, interpolation), size, size))
