# SPDX-License-Identifier: Apache-2.0
"""From bytes to a network's numbers on the host: to the last bit what `layers.pixels` makes on a device."""

from collections.abc import Sequence

import cv2
import numpy as np


class Normalise:
    """(value - mean) / std per channel, in float32.

    A byte has 256 values: each channel has a table of their results. OpenCV looks up faster than numpy
    subtracts and divides.

    Args:
        mean: per RGB channel, 0..255.
        std: per RGB channel, 0..255.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        self.mean, self.std = tuple(mean), tuple(std)
        values = np.arange(256, dtype=np.float32)[:, None]
        self._tables = [
            (values - np.float32(m)) / np.float32(s) for m, s in zip(self.mean, self.std, strict=True)
        ]

    def __call__(self, picture: np.ndarray, planes: np.ndarray | None = None) -> np.ndarray:
        """(H, W, 3) uint8 -> (3, H, W) float32, into `planes` if they are given."""
        if planes is None:
            planes = np.empty((3, *picture.shape[:2]), np.float32)
        for plane, channel, table in zip(planes, cv2.split(picture), self._tables, strict=True):
            cv2.LUT(channel, table, plane)
        return planes

    def planes(self, pixels: np.ndarray, result: np.ndarray | None = None) -> np.ndarray:
        """The same for many pictures in planes, (N, 3, H, W) uint8 -> float32, into `result` if it is given.

        Both arrays are C-contiguous.
        """
        if result is None:
            result = np.empty(pixels.shape, np.float32)
        rows = (len(pixels), 3, pixels.shape[2] * pixels.shape[3])
        flat, numbers = pixels.reshape(rows), result.reshape(rows)
        for channel, table in enumerate(self._tables):
            cv2.LUT(flat[:, channel], table, numbers[:, channel])
        return result
