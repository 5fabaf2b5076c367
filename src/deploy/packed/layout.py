# SPDX-License-Identifier: Apache-2.0
"""How the engine lays out values and weights in memory; see kernels.py."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing

from .emit import LANES, VECTOR
from .kernels import place

_BITS = 32
"""Of a word of signs."""


def filled_up(channels: int, to: int = LANES) -> int:
    """The next whole number of vectors, in channels."""
    return -(-channels // to) * to


@dataclass(frozen=True)
class Layout:
    """Of a value in memory: (images, height, width, channels), with a border of zeros around each image.

    Attributes:
        signs: bits of signs, 16 in a uint16, and not float32 numbers.
        channels: with those that fill up vectors.
        border: in pixels.
    """

    signs: bool
    images: int
    height: int
    width: int
    channels: int
    border: int

    def new(self) -> "Buffer":
        channels = filled_up(self.channels, _BITS) // LANES if self.signs else self.channels
        height, width = self.height + 2 * self.border, self.width + 2 * self.border
        shape = self.images, height, width, channels
        return Buffer(self, zeros(shape, np.uint16 if self.signs else np.float32))


@dataclass(frozen=True, eq=False)
class Buffer:
    """Memory for a value."""

    layout: Layout
    array: np.ndarray

    def entries(self, name: str, *, padding: int = 0, stride: int = 1) -> dict[str, int]:
        """Entries of a kernel's table: where the first window of an image begins, and the distances."""
        image, row, pixel, _ = self.array.strides
        first = (self.layout.border - padding) * (row + pixel)
        numbers = self.array.ctypes.data + first, image, stride * row, stride * pixel
        return dict(zip(place(name), numbers))

    def turned(self) -> "Buffer":
        """(N, 1, 1, C) as one image of N pixels."""
        return replace(self, array=self.array.transpose(1, 2, 0, 3))


def zeros(shape: Sequence[int], dtype: np.typing.DTypeLike) -> np.ndarray:
    """Zeros, of which each vector lies in one line of the cache: others take twice as long to read."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(size + VECTOR, np.uint8)
    first = -memory.ctypes.data % VECTOR
    return memory[first : first + size].view(dtype).reshape(shape)


def filled(array: np.ndarray, length: int) -> np.ndarray:
    """A copy with zeros behind, `length` long."""
    result = zeros((length, *array.shape[1:]), array.dtype)
    result[: len(array)] = array
    return result


def real_filters(weight: np.ndarray, *, inputs: int, blocks: int) -> np.ndarray:
    """(O, I, k, k) -> (groups, k, k, inputs, blocks, 16), with zeros for channels that there are not."""
    outputs, channels, size, _ = weight.shape
    result = np.zeros((filled_up(outputs), size, size, inputs), np.float32)
    result[:outputs, ..., :channels] = weight.transpose(0, 2, 3, 1)
    return _grouped(result, blocks)


def binary_filters(bits: np.ndarray, *, channels: int, blocks: int) -> np.ndarray:
    """(O, k, k, 64-bit words) -> (groups, k, k, 32-bit words, blocks, 16)."""
    words = np.ascontiguousarray(bits, "<u8").view("<u4")[..., : filled_up(channels, _BITS) // _BITS]
    return _grouped(filled(words, filled_up(len(bits))), blocks)


def _grouped(filters: np.ndarray, blocks: int) -> np.ndarray:
    grouped = filters.reshape(-1, blocks, LANES, *filters.shape[1:]).transpose(0, 3, 4, 5, 1, 2)
    result = zeros(grouped.shape, grouped.dtype)
    result[...] = grouped
    return result


class Counts:
    """What the number of different bits is taken from, twice, to give the sum of the products of signs.

    A bit of the border is 0 and counts as different where the weight's bit is 1, but its product is 0. So
    the number depends on which rows and columns of the filter meet the image.

    Args:
        bits: (O, k, k, words) of a binary convolution.
        channels: of its input.
    """

    def __init__(self, bits: np.ndarray, *, channels: int):
        ones = np.unpackbits(bits.view(np.uint8), axis=-1).sum(-1, dtype=np.int64)
        self._products = filled(channels - 2 * ones, filled_up(len(bits)))
        self._ones = filled(ones.sum((1, 2)), len(self._products))

    def of(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For the output's rows and columns, (H, k) and (W, k): which of the filter's lie in the image.

        Returns:
            int32 (kinds of rows, kinds of columns, O), the distance in bytes of each row, and of each column.
        """
        kinds, of_row = np.unique(rows, axis=0, return_inverse=True)
        across, of_column = np.unique(columns, axis=0, return_inverse=True)
        sums = np.einsum("rk,cl,okl->rco", kinds.astype(np.int64), across.astype(np.int64), self._products)
        counts = zeros(sums.shape, np.int32)
        counts[...] = sums + 2 * self._ones
        return counts, of_row.ravel() * counts.strides[0], of_column.ravel() * counts.strides[1]


def windows(outputs: int, side: int, *, size: int, stride: int, padding: int) -> np.ndarray:
    """(outputs, size): which rows of each window lie in the image of `side` rows."""
    rows = np.arange(outputs)[:, None] * stride - padding + np.arange(size)
    return (rows >= 0) & (rows < side)
