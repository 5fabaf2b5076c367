# SPDX-License-Identifier: Apache-2.0
"""Pictures in memory, and sources of them as those of src.data."""

import threading
import time

import cv2
import numpy as np

from src.data.decode import UnreadableImage
from src.data.resize import Resizing, resize_box


def noise(height: int, width: int, seed: int = 0, *, low: int = 0, high: int = 256) -> np.ndarray:
    """(height, width, 3) uint8, each value drawn from low..high - 1."""
    return np.random.default_rng(seed).integers(low, high, (height, width, 3), np.uint8)


def smooth(height: int, width: int, seed: int = 0, *, low: int = 40, high: int = 216) -> np.ndarray:
    """Soft spots of colour, as photographs have: (height, width, 3) uint8."""
    return cv2.resize(noise(8, 10, seed, low=low, high=high), (width, height), interpolation=cv2.INTER_CUBIC)


def photo(width: int = 61, height: int = 47, seed: int = 0) -> np.ndarray:
    """Smooth colours with some noise, which is what JPEG is made for."""
    grain = np.random.default_rng(seed).integers(-15, 16, (height, width, 3))
    return (smooth(height, width, seed) + grain).clip(0, 255).astype(np.uint8)


def as_it_is(height: int, width: int) -> Resizing:
    """The plan that changes nothing."""
    return resize_box((0, 0, height, width), height, width, "bilinear")


class Pictures:
    """A source of pictures in memory; as many as wanted are damaged or slow to read.

    Attributes:
        damaged: the numbers of pictures whose reading fails.
        slow: the numbers of pictures that take 10 ms.
        threads: the names of the threads that have read.
    """

    def __init__(self, pictures, labels=None, class_names=tuple("abcdefg")):
        labels = np.arange(len(pictures)) % len(class_names) if labels is None else labels
        self.pictures, self.labels = pictures, np.asarray(labels, np.int32)
        self.class_names = tuple(class_names)
        self.damaged, self.slow, self.threads = set(), set(), set()

    def __len__(self) -> int:
        return len(self.pictures)

    def read(self, index: int, plan=None) -> np.ndarray:
        assert type(index) is int
        self.threads.add(threading.current_thread().name)
        if index in self.slow:
            time.sleep(0.01)
        if index in self.damaged:
            raise UnreadableImage(f"picture {index}", "damaged")
        image = self.pictures[index]
        return plan(*image.shape[:2])(image) if plan else image

    def take(self, indices) -> "Pictures":
        return Pictures([self.pictures[k] for k in indices], self.labels[indices], self.class_names)
