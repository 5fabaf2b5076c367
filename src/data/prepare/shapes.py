"""Shapes: a data set drawn by formula, for trying the project without a download.

Ten classes of shapes in 32x32 colour images: filled outlines of random place, size, rotation and colour, over
backgrounds with gradients, textures and clutter, under noise. Flips, small crops and small holes do not turn
one class into another.

The same seed gives the same bytes on every machine: arrays go through additions, products, quotients, square
roots and comparisons alone, which IEEE 754 rounds in one way only (sines, exponentials and matrix products
differ in the last bit between processors).
"""

from collections.abc import Callable
from typing import Literal

import numpy as np

CLASS_NAMES = (
    "circle", "ring", "square", "triangle", "star", "cross", "crescent", "heart", "hourglass", "bars",
)  # fmt: skip
SIZES = {"train": 50_000, "test": 10_000}
SIDE = 32
# Drawn at a time: small enough for the processor's cache, and each with random numbers of its own.
CHUNK = 250

Field = np.ndarray


def draw_shapes(seed: int, split: Literal["train", "test"], count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` images of a split, the same for every `count`.

    Returns:
        images (count, 3, 32, 32) uint8 and labels (count,) int32; every 250 images hold 25 of each class.
    """
    images = np.empty((count, 3, SIDE, SIDE), np.uint8)
    labels = np.empty(count, np.int32)
    for start in range(0, count, CHUNK):
        rows = slice(start, min(start + CHUNK, count))
        key = (list(SIZES).index(split), start // CHUNK)
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
        chunk_labels = rng.permutation(np.arange(CHUNK) % len(CLASS_NAMES))
        images[rows] = _draw_chunk(rng, chunk_labels)[: rows.stop - start]
        labels[rows] = chunk_labels[: rows.stop - start]
    return images, labels


def _draw_chunk(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    x, y = _pixels()
    base = _uniform(rng, 50, 205, 3)
    images = base + _background(rng, x, y)
    for _ in range(4):
        images = _paint(images, _clutter(rng, x, y), _uniform(rng, 0, 255, 3))
    images = _paint(images, _shape(rng, labels, x, y), _contrasting(rng, base) + _gradient(rng, x, y, 25))
    images = _paint(images, _clutter(rng, x, y) * _chosen(rng, 0.3), _uniform(rng, 0, 255, 3))
    # The sum of two bytes has a triangular distribution with a standard deviation of 104.5.
    noise = rng.integers(0, 256, (2, *images.shape), np.uint8).astype(np.float32)
    images += (noise[0] + noise[1] - np.float32(255)) * (_uniform(rng, 5, 35) / np.float32(104.5))
    return np.floor(np.clip(images, 0, 255) + np.float32(0.5)).astype(np.uint8)


def _pixels() -> tuple[Field, Field]:
    """Columns and rows of the pixels' centres, from the middle of the image: -15.5..15.5."""
    line = np.arange(SIDE, dtype=np.float32) - np.float32((SIDE - 1) / 2)
    return line.reshape(1, 1, 1, SIDE), line.reshape(1, 1, SIDE, 1)


def _uniform(rng: np.random.Generator, low: float, high: float, channels: int = 1) -> Field:
    """A number an image (and channel), (CHUNK, channels, 1, 1) float32."""
    numbers = rng.random((CHUNK, channels, 1, 1), np.float32)
    return np.float32(low) + np.float32(high - low) * numbers


def _chosen(rng: np.random.Generator, share: float) -> Field:
    """1 for a share of the images, 0 for the others."""
    return (rng.random((CHUNK, 1, 1, 1), np.float32) < np.float32(share)).astype(np.float32)


def _direction(rng: np.random.Generator, reach: float = 1.0) -> tuple[Field, Field]:
    """Cosine and sine of an angle a and, as often, of a + 180 degrees; tan(a / 2) is uniform over +-reach."""
    t = _uniform(rng, -reach, reach)
    sign = 1 - 2 * _chosen(rng, 0.5)
    return sign * (1 - t * t) / (1 + t * t), sign * 2 * t / (1 + t * t)


def _paint(images: Field, coverage: Field, colour: Field) -> Field:
    return images + coverage * (colour - images)


def _coverage(distance: Field) -> Field:
    """The part of a pixel that an outline covers, from its distance in pixels (negative inside)."""
    return np.clip(np.float32(0.5) - distance, 0, 1)


def _length(x: Field, y: Field) -> Field:
    return np.sqrt(x * x + y * y)


def _gradient(rng: np.random.Generator, x: Field, y: Field, reach: float) -> Field:
    across, down = (_uniform(rng, -reach, reach, 3) / np.float32(SIDE / 2) for _ in range(2))
    return across * x + down * y


def _background(rng: np.random.Generator, x: Field, y: Field) -> Field:
    """A gradient and one of: nothing, stripes, checks, clouds; (CHUNK, 3, 32, 32) around 0."""
    kind = rng.integers(0, 4, (CHUNK, 1, 1, 1))
    c, s = _direction(rng)
    period = _uniform(rng, 5, 14)
    along, across = (c * x + s * y) / period, (c * y - s * x) / period
    stripes = _wave(along)
    checks = _wave(along) * _wave(across)
    texture = np.select([kind == 1, kind == 2, kind == 3], [stripes, checks, _clouds(rng)], np.float32(0))
    return _gradient(rng, x, y, 40) + texture * _uniform(rng, -40, 40, 3)


def _wave(phase: Field) -> Field:
    """A triangle wave of period 1 between -1 and 1."""
    return 4 * np.abs(phase - np.floor(phase) - np.float32(0.5)) - 1


def _clouds(rng: np.random.Generator) -> Field:
    """Random numbers on a grid of 6x6, interpolated linearly between."""
    grid = rng.random((CHUNK, 1, 6, 6), np.float32) * 2 - 1
    place = np.arange(SIDE, dtype=np.float32) * np.float32(5 / SIDE)
    low = place.astype(np.int64)
    part = place - low.astype(np.float32)
    rows = grid[:, :, low] * (1 - part)[:, None] + grid[:, :, low + 1] * part[:, None]
    return rows[..., low] * (1 - part) + rows[..., low + 1] * part


def _clutter(rng: np.random.Generator, x: Field, y: Field) -> Field:
    """The coverage of a dot or of a thin line from border to border."""
    c, s = _direction(rng)
    place_x, place_y = _uniform(rng, -16, 16), _uniform(rng, -16, 16)
    dots = _length(x - place_x, y - place_y) - _uniform(rng, 1, 2.5)
    lines = np.abs(c * (x - place_x) + s * (y - place_y)) - _uniform(rng, 0.3, 0.8)
    return _coverage(np.where(_chosen(rng, 0.6) > 0, dots, lines)) * _chosen(rng, 0.7)


def _contrasting(rng: np.random.Generator, base: Field) -> Field:
    """A colour that is brighter than the background in most images, and darker in the others."""
    sign = 2 * _chosen(rng, 0.9) - 1
    return base + sign * _uniform(rng, 20, 100, 3)


def _shape(rng: np.random.Generator, labels: np.ndarray, x: Field, y: Field) -> Field:
    """The coverage of each image's shape, turned by up to 39 degrees from upright or upside down."""
    radius = _uniform(rng, 5.5, 11)
    c, s = _direction(rng, 0.35)
    x, y = x - _uniform(rng, -4, 4), y - _uniform(rng, -4, 4)
    u, v = (c * x + s * y) / radius, (c * y - s * x) / radius
    distance = np.empty_like(u)
    for label, name in enumerate(CLASS_NAMES):
        mine = labels == label
        distance[mine] = DISTANCES[name](u[mine], v[mine])
    return _coverage(distance * radius)


def _circle(u: Field, v: Field) -> Field:
    return _length(u, v) - np.float32(0.95)


def _ring(u: Field, v: Field) -> Field:
    return np.abs(_length(u, v) - np.float32(0.75)) - np.float32(0.25)


def _square(u: Field, v: Field) -> Field:
    return np.maximum(np.abs(u), np.abs(v)) - np.float32(0.82)


def _triangle(u: Field, v: Field) -> Field:
    """Equilateral: three half-planes with normals 120 degrees apart."""
    lower = np.float32(0.8660254) * np.abs(u) - np.float32(0.5) * v
    return np.maximum(v, lower) - np.float32(0.58)


def _star(u: Field, v: Field) -> Field:
    """Five points: where all but one of five half-planes, with normals 72 degrees apart, hold."""
    first = second = np.full_like(u, -np.inf)
    for c, s in ((0, 1), (0.95105652, 0.30901699), (0.58778525, -0.80901699),
                 (-0.58778525, -0.80901699), (-0.95105652, 0.30901699)):  # fmt: skip
        plane = np.float32(c) * u + np.float32(s) * v
        first, second = np.maximum(first, plane), np.maximum(second, np.minimum(first, plane))
    return second - np.float32(0.37)


def _cross(u: Field, v: Field) -> Field:
    long, short = np.float32(1), np.float32(0.32)
    u, v = np.abs(u), np.abs(v)
    return np.minimum(np.maximum(u - long, v - short), np.maximum(u - short, v - long))


def _crescent(u: Field, v: Field) -> Field:
    return np.maximum(_length(u, v) - 1, np.float32(0.8) - _length(u - np.float32(0.55), v))


def _heart(u: Field, v: Field) -> Field:
    """A square on its corner, with half a disc on each upper side."""
    half = np.float32(0.55)
    turn = np.float32(0.70710678)
    a, b = turn * (u - v), turn * (-u - v)
    square = np.maximum(np.abs(a), np.abs(b)) - half
    return np.minimum(square, np.minimum(_length(a - half, b), _length(a, b - half)) - half)


def _hourglass(u: Field, v: Field) -> Field:
    """Two triangles that meet in a waist."""
    u, v = np.abs(u), np.abs(v)
    return np.maximum(v - np.float32(0.95), np.float32(0.8) * (u - np.float32(0.1) - np.float32(0.75) * v))


def _bars(u: Field, v: Field) -> Field:
    """Two parallel bars."""
    return np.maximum(np.abs(u) - np.float32(0.95), np.abs(np.abs(v) - np.float32(0.62)) - np.float32(0.27))


DISTANCES: dict[str, Callable[[Field, Field], Field]] = {
    "circle": _circle,
    "ring": _ring,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "crescent": _crescent,
    "heart": _heart,
    "hourglass": _hourglass,
    "bars": _bars,
}
