# SPDX-License-Identifier: Apache-2.0
"""How a picture is resized, the one way of the whole program: (H, W, 3) uint8 to explicit parameters.

When shrinking, `bilinear` and `bicubic` widen their filter, so that every pixel counts (antialiasing), as
Pillow does. Each side is a sparse matrix of weights, which takes 0.4 of Pillow's time. The result is 0.16
grey levels from Pillow's on average, since Pillow rounds between the two sides. SciPy and OpenCV let other
threads run.
"""

import functools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import cv2
import numpy as np
from scipy.sparse import csr_array

Interpolation = Literal["bilinear", "bicubic", "tf_bilinear"]

_TRIES = 10
# How much a picture must still shrink after a decoder has reduced it: then the result is a third of a grey
# level on average from that of the whole.
_LEFT = 3
_STRIP = 1 << 22  # values of a picture that are made floats at once

Box = tuple[int, int, int, int]  # top, left, height, width


class Resizing(NamedTuple):
    """What of a picture is resized to which size.

    Attributes:
        source: the part of the picture that is resized; nothing outside of it is read.
        height: what its height becomes.
        width: what its width becomes.
        part: the part of the result that is computed.
        interpolation: `bilinear` and `bicubic` (Keys, 1981, a = -0.5) antialias when shrinking, as Pillow
            does; `tf_bilinear` reads 2 pixels each way however much it shrinks, as TensorFlow does.
        is_quick: `bilinear` that shrinks by less than 2 is not antialiased, and a decoder may reduce until
            that much is left. So random crops take a fifth less time (benchmarks/records/photo_resize.json).
    """

    source: Box
    height: int
    width: int
    part: Box
    interpolation: Interpolation
    is_quick: bool = False

    @property
    def reduction(self) -> int:
        """By how much a decoder may reduce the picture before: 1, 2, 4 or 8."""
        if self.interpolation == "tf_bilinear":
            return 1
        left = 1 if self.is_quick else _LEFT
        return next((factor for factor in (8, 4, 2) if self._shrinks()[0] >= left * factor), 1)

    @property
    def bottom(self) -> int:
        """How many rows of the picture are read."""
        top, _, height, _ = self.source
        if self.is_quick or self._is_plain(1):
            return top + height
        low, weights = _axis(top, height, self.height, *self.part[::2], 1, self.interpolation)
        return low + weights.shape[1]

    def _shrinks(self) -> list[float]:
        """By how much, the side that shrinks less first."""
        return sorted((self.source[2] / self.height, self.source[3] / self.width))

    def _is_plain(self, reduction: int) -> bool:
        """Whether it is what OpenCV does, which takes half the time."""
        less, more = self._shrinks()
        few = less < 2 * reduction if self.is_quick else more <= 1
        return self.interpolation == "tf_bilinear" or (self.interpolation == "bilinear" and few)

    def __call__(self, image: np.ndarray, reduction: int = 1) -> np.ndarray:
        """The part of the resized picture, (h, w, 3) uint8, C-contiguous.

        Args:
            image: (H, W, 3) uint8, perhaps without rows below `source`.
            reduction: by how much it has been reduced; its last row and column may then be parts of pixels.
        """
        top, left, height, width = self.source
        if self._is_plain(reduction):
            edges = (top, left, top + height, left + width)
            top, left, bottom, right = ((edge + reduction // 2) // reduction for edge in edges)
            resized = cv2.resize(image[top:bottom, left:right], (self.width, self.height))
            return np.ascontiguousarray(cut(resized, self.part))
        first_row, first_column, rows, columns = self.part
        shapes = (top, height, self.height, first_row, rows), (left, width, self.width, first_column, columns)
        (above, down), (before, across) = (_axis(*shape, reduction, self.interpolation) for shape in shapes)
        region = image[above : above + down.shape[1], before : before + across.shape[1]]
        resized = _times(across, cv2.transpose(_times(down, region)))
        resized += 0.5  # rounded half up, as Pillow does
        if self.interpolation == "bicubic":  # it overshoots
            np.clip(resized, 0, 255, out=resized)
        return cv2.transpose(resized.astype(np.uint8))


Plan = Callable[[int, int], Resizing]  # by height and width of a picture


def _axis(
    start: int, length: int, size: int, first: int, count: int, reduction: int, interpolation: Interpolation
) -> tuple[int, csr_array]:
    """Of one side: the first pixel that is read, and the weights from there on."""
    whole, share = divmod(start / reduction, 1)
    low, weights = _weights(share, length / reduction, size, first, count, interpolation)
    return int(whole) + low, weights


@functools.lru_cache(2048)  # the sides of a data set are few; one takes some 10 kB
def _weights(
    start: float, length: float, size: int, first: int, count: int, interpolation: Interpolation
) -> tuple[int, csr_array]:
    """Pixels first .. first + count - 1 of `size` that those of [start, start + length) are resized to.

    Returns:
        the first pixel that counts, and float32 weights (count, pixels from there on), whose rows have sum 1.
    """
    reach, kernel = (2.0, _cubic) if interpolation == "bicubic" else (1.0, _triangle)
    scale = length / size
    widened = max(scale, 1.0)
    centres = start + (np.arange(first, first + count) + 0.5) * scale
    low = np.maximum((centres - reach * widened + 0.5).astype(int), 0)
    high = np.minimum((centres + reach * widened + 0.5).astype(int), math.ceil(start + length))
    pixels = low[:, None] + np.arange(int((high - low).max()))
    weights = kernel((pixels + 0.5 - centres[:, None]) / widened)
    weights[pixels >= high[:, None]] = 0
    weights /= weights.sum(1, keepdims=True)
    counts, first_pixel = weights != 0, int(low.min())
    return first_pixel, csr_array(
        (
            weights[counts].astype(np.float32),
            (pixels[counts] - first_pixel).astype(np.int32),
            np.append(0, counts.sum(1).cumsum()).astype(np.int32),
        ),
        shape=(count, int(high.max()) - first_pixel),
    )


def _triangle(distance: np.ndarray) -> np.ndarray:
    return np.maximum(0, 1 - np.abs(distance))


def _cubic(distance: np.ndarray) -> np.ndarray:
    distance = np.abs(distance)
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return np.where(distance < 1, near, np.where(distance < 2, far, 0))


def _times(weights: csr_array, image: np.ndarray) -> np.ndarray:
    """Resizes the height: (H, W, 3) -> (h, W, 3) float32."""
    height, width = image.shape[:2]
    strip = max(1, _STRIP // (3 * height))
    parts = [
        weights @ image[:, at : at + strip].reshape(height, -1).astype(np.float32, copy=False)
        for at in range(0, width, strip)
    ]
    product = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    return product.reshape(-1, width, 3)


def cut(image: np.ndarray, box: Box) -> np.ndarray:
    """A view of the box."""
    top, left, height, width = box
    return image[top : top + height, left : left + width]


def resize(image: np.ndarray, height: int, width: int, interpolation: Interpolation) -> np.ndarray:
    """The whole picture as (height, width, 3): see `Resizing`."""
    return resize_box((0, 0, *image.shape[:2]), height, width, interpolation)(image)


def resize_box(
    box: Box, height: int, width: int, interpolation: Interpolation, *, is_quick: bool = False
) -> Resizing:
    """All of a box, to (height, width)."""
    return Resizing(box, height, width, (0, 0, height, width), interpolation, is_quick)


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
