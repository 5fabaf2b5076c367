# SPDX-License-Identifier: Apache-2.0
"""Shapes: a drawn data set, for trying the project without a download.

Ten classes of shapes in 32x32 colour images: filled outlines of random place, size, rotation and colour, over
a background of random clouds, dots and lines, under noise. Flips, small crops and small holes do not turn one
class into another. The same seed gives the same images.
"""

from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from ...common.errors import UserError
from ...common.files import is_free, new_folder, working_in
from ..binary import CIFAR10, ImageSet, write_cifar10
from .cifar import read_existing, report

SIDE = 32
_FINE = 4  # the mask of a shape is drawn so many times larger, and reduced by averaging
_COMPARED = 250  # images of a data set that is in place

Part = tuple[np.ndarray, int]  # a polygon around 0, of about unit size, and whether it adds or takes away


def _round(radius: float, x: float = 0, y: float = 0, corners: int = 48, value: int = 1) -> Part:
    """A regular polygon with the first corner at the top; of many corners, a disc."""
    turn = np.arange(corners) * 2 * np.pi / corners
    return np.stack([x + radius * np.sin(turn), y - radius * np.cos(turn)], axis=1), value


def _box(left: float, top: float, right: float, bottom: float) -> Part:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)]), 1


def _star() -> Part:
    return _round(1, corners=10)[0] * np.tile([[1.1], [0.45]], (5, 1)), 1


_PARTS: dict[str, tuple[Part, ...]] = {
    "circle": (_round(0.95),),
    "ring": (_round(1), _round(0.5, value=0)),
    "square": (_box(-0.82, -0.82, 0.82, 0.82),),
    "triangle": (_round(1.16, corners=3),),
    "star": (_star(),),
    "cross": (_box(-1, -0.32, 1, 0.32), _box(-0.32, -1, 0.32, 1)),
    "crescent": (_round(1), _round(0.8, x=0.55, value=0)),
    "heart": (_round(0.78, corners=4), _round(0.55, x=-0.39, y=-0.39), _round(0.55, x=0.39, y=-0.39)),
    "hourglass": (_round(-0.95, y=-0.55, corners=3), _round(0.95, y=0.55, corners=3)),
    "bars": (_box(-0.95, -0.89, 0.95, -0.35), _box(-0.95, 0.35, 0.95, 0.89)),
}
CLASS_NAMES = tuple(_PARTS)


def prepare_shapes(
    output_path: Path, *, seed: int = 0, train_images: int = 50_000, test_images: int = 10_000
) -> None:
    """Draws the data set, unless the same one is in place already.

    Raises:
        UserError: nothing was put in place, for the reason it gives.
    """
    if seed < 0 or train_images < 1 or test_images < 1:
        raise UserError("--seed must be 0 or above, --train_images and --test_images 1 or above")
    target = output_path / CIFAR10.folder_name
    with working_in(output_path):
        if is_free(target):
            train, test = draw_shapes(seed, "train", train_images), draw_shapes(seed, "test", test_images)
            with new_folder(target) as folder:
                write_cifar10(folder, train, test)
            report(target, train, test, f"drawn with seed {seed}")
            return
        train, test = read_existing(CIFAR10, target, CLASS_NAMES)
        drawn = draw_shapes(seed, "test", min(test_images, _COMPARED)).images
        if (len(train), len(test)) != (train_images, test_images) or (
            test.images[: len(drawn)] != drawn
        ).any():
            raise UserError(
                f"{target} holds shapes of another seed or number; remove it or choose another --output_path"
            )
        report(target, train, test, "already in place, checked")


def draw_shapes(seed: int, split: Literal["train", "test"], count: int) -> ImageSet:
    """The first `count` images of a split, the same for every `count`; the classes take turns."""
    images, labels = np.empty((count, 3, SIDE, SIDE), np.uint8), np.arange(count) % len(CLASS_NAMES)
    for number, label in enumerate(labels):
        key = (["train", "test"].index(split), number)
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
        images[number] = _draw(rng, CLASS_NAMES[label]).transpose(2, 0, 1)
    return ImageSet(images, labels.astype(np.int32), CLASS_NAMES)


def _draw(rng: np.random.Generator, name: str) -> np.ndarray:
    """(32, 32, 3) uint8."""
    base = rng.uniform(50, 205, 3)
    grain = int(rng.integers(2, 7))
    clouds = rng.uniform(-40, 40, (grain, grain, 3)).astype(np.float32)
    image = base.astype(np.float32) + cv2.resize(clouds, (SIDE, SIDE))
    for _ in range(4):
        _add_clutter(rng, image)
    sign = 1 if rng.random() < 0.9 else -1
    mask = _mask(rng, name)[..., None]
    image += mask * (base + sign * rng.uniform(20, 100, 3) - image)
    if rng.random() < 0.3:
        _add_clutter(rng, image)
    image += rng.normal(0, rng.uniform(5, 35), image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _add_clutter(rng: np.random.Generator, image: np.ndarray) -> None:
    """A dot, a line from border to border or nothing, painted onto the image."""
    kind, colour = rng.random(), rng.uniform(0, 255, 3).tolist()
    (x, y), (u, v) = rng.integers(0, SIDE, (2, 2)).tolist()
    if kind < 0.4:
        cv2.circle(image, (x, y), int(rng.integers(1, 3)), colour, cv2.FILLED)
    elif kind < 0.7:
        cv2.line(image, (x - 4 * (u - x), y - 4 * (v - y)), (x + 4 * (u - x), y + 4 * (v - y)), colour)


def _mask(rng: np.random.Generator, name: str) -> np.ndarray:
    """(32, 32) float32, the share of each pixel that the shape covers; turned by up to 40 degrees either way,
    and as often upside down."""
    turn = np.deg2rad(rng.uniform(-40, 40) + 180 * rng.integers(2))
    radius, centre = rng.uniform(5.5, 11), SIDE / 2 + rng.uniform(-4, 4, 2)
    axes = radius * np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    mask = np.zeros((_FINE * SIDE, _FINE * SIDE), np.float32)
    for points, value in _PARTS[name]:
        corners = np.rint(_FINE * (points @ axes + centre)).astype(np.int32)
        cv2.fillPoly(mask, [corners], value)
    return cv2.resize(mask, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
