# SPDX-License-Identifier: Apache-2.0
"""Augmentation of whole batches in numpy: what is done to each image is given as arrays.

Every operation is a function of explicit parameters (offsets, flips, corners, partners), so that it can be
compared with a loop over single images; the `draw_*` functions draw those parameters from a generator.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def reflect_pad(images: np.ndarray, pad: int) -> np.ndarray:
    """Mirrors `pad` pixels over each border (the border pixel itself is not repeated): (N, C, H+2p, W+2p)."""
    return np.pad(images, ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode="reflect") if pad else images


def crop(
    images: np.ndarray, indices: np.ndarray, tops: np.ndarray, lefts: np.ndarray, size: int
) -> np.ndarray:
    """Cuts one square window out of each of the chosen images.

    Args:
        images: (N, C, H, W), usually the whole padded data set: only the chosen windows are copied.
        indices: (B,) which image each window is from.
        tops: (B,) first row of each window.
        lefts: (B,) first column of each window.
        size: height and width of a window.

    Returns:
        (B, C, size, size), C-contiguous, of the dtype of `images`.
    """
    windows = sliding_window_view(images, (size, size), axis=(2, 3))
    return np.ascontiguousarray(windows[indices, :, tops, lefts])


def flip(images: np.ndarray, flips: np.ndarray) -> np.ndarray:
    """Mirrors left and right, in place, those of the (B, C, H, W) images for which (B,) `flips` is true."""
    images[flips] = images[flips][..., ::-1]
    return images


def translate(images: np.ndarray, downs: np.ndarray, rights: np.ndarray) -> np.ndarray:
    """Shifts each image of a normalised batch; what is uncovered becomes 0, the mean colour.

    Args:
        images: (B, C, S, S) float32, square.
        downs: (B,) rows to move down (negative: up).
        rights: (B,) columns to move right (negative: left).
    """
    batch, channels, size, _ = images.shape
    reach = max(np.abs(downs).max(), np.abs(rights).max())
    canvas = np.zeros((batch, channels, size + 2 * reach, size + 2 * reach), images.dtype)
    canvas[:, :, reach : reach + size, reach : reach + size] = images
    return crop(canvas, np.arange(batch), reach - downs, reach - rights, size)


def cutout(images: np.ndarray, tops: np.ndarray, lefts: np.ndarray, size: int) -> np.ndarray:
    """Sets one `size` x `size` square of each normalised image to 0, the mean colour, in place.

    Cutout (DeVries and Taylor, 2017) in the form of cifar10-fast: always applied and always fully inside.

    Args:
        images: (B, C, H, W) float32.
        tops: (B,) first row of each square.
        lefts: (B,) first column of each square.
        size: height and width of the squares.
    """
    squares = sliding_window_view(images, (size, size), axis=(2, 3), writeable=True)
    squares[np.arange(len(images)), :, tops, lefts] = 0
    return images


def jitter(images: np.ndarray, shifts: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """(x + shift) * factor of each normalised image, in place: brightness and contrast, as Hiverge has them.

    The contrast is about the mean colour of the data set, which is 0, and not about that of the image.

    Args:
        images: (B, C, H, W) float32.
        shifts: (B,) float32, in standard deviations.
        factors: (B,) float32.
    """
    images += shifts[:, None, None, None]
    images *= factors[:, None, None, None]
    return images


def smooth_one_hot(labels: np.ndarray, classes: int, smoothing: float = 0.0) -> np.ndarray:
    """(1 - smoothing) * one-hot + smoothing / classes, as (B, classes) float32 (Szegedy et al., 2016).

    Cross-entropy with these is PyTorch's with `label_smoothing`, as airbench has it, and cifar10-fast's
    (1 - smoothing) * cross-entropy + smoothing * mean over classes of -log p.
    """
    targets = np.full((len(labels), classes), smoothing / classes, np.float32)
    targets[np.arange(len(labels)), labels] = 1 - smoothing + smoothing / classes
    return targets


def mixup(targets: np.ndarray, partners: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """weights * t + (1 - weights) * t[partners], of soft targets (Zhang et al., 2018).

    Args:
        targets: (B, K) float32.
        partners: (B,) which row of the batch each one is mixed with.
        weights: (B,) float32, the share of the row itself, 0..1.
    """
    weights = weights[:, None]
    return weights * targets + (1 - weights) * targets[partners]


def cutmix(images: np.ndarray, partners: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Puts a box of each image's partner in its place, in place (CutMix, Yun et al., 2019).

    Args:
        images: (B, H, W, C).
        partners: (B,) which image of the batch, as it was, each box is from.
        boxes: (B, 4) top, left, height, width.
    """
    holes = [
        (slice(top, top + height), slice(left, left + width)) for top, left, height, width in boxes.tolist()
    ]
    patches = [images[partner][hole].copy() for partner, hole in zip(partners, holes, strict=True)]
    for image, hole, patch in zip(images, holes, patches, strict=True):
        image[hole] = patch
    return images


def draw_corners(rng: np.random.Generator, count: int, room: int) -> np.ndarray:
    """Rows and columns, (2, count), uniform over 0..room, both ends included."""
    return rng.integers(0, room + 1, (2, count))


def draw_shifts(rng: np.random.Generator, count: int, reach: int) -> np.ndarray:
    """Downward and rightward shifts, (2, count), uniform over -reach..reach, both ends included."""
    return rng.integers(-reach, reach + 1, (2, count))


def draw_jitter(rng: np.random.Generator, count: int, shift: float, factor: float) -> np.ndarray:
    """(2, count) float32: shifts, uniform over -shift..shift, and factors, over 1 - factor..1 + factor."""
    reach = np.array([[shift], [factor]])
    return (np.array([[0.0], [1.0]]) + reach * rng.uniform(-1, 1, (2, count))).astype(np.float32)


def draw_flips(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count,) booleans, true with probability one half."""
    return rng.integers(0, 2, count).astype(bool)


def alternating_flips(first_flips: np.ndarray, indices: np.ndarray, epoch: int) -> np.ndarray:
    """Alternating flip (airbench, Jordan 2024): an image is mirrored in every second epoch.

    Args:
        first_flips: (N,) whether each image of the data set is mirrored in epoch 0, drawn once.
        indices: (B,) the images of the batch.
        epoch: counted from 0.
    """
    return first_flips[indices] ^ bool(epoch % 2)


def partners(count: int, repetitions: int = 1) -> np.ndarray:
    """With which row of a batch each row is mixed, (count,) int32: with its neighbour, both ways.

    A batch's order is random, so that a neighbour is as good as any other image. Of images that come
    `repetitions` times in a row, those of one are mixed with those of the next. Where `count` is a multiple
    of 2 * repetitions, the parts of a batch have the partners of the whole; what is left over otherwise is
    mixed with rows half the batch away.
    """
    rows = np.arange(count, dtype=np.int32)
    block = rows // repetitions
    partner = rows + repetitions * (1 - 2 * (block % 2))
    left_over = rows >= count - count % (2 * repetitions)
    return np.where(left_over, (rows + count // 2) % count, partner)


def draw_mixup(rng: np.random.Generator, count: int, alpha: float, *, per_image: bool = False) -> np.ndarray:
    """(count,) float32 weights ~ Beta(alpha, alpha) of the images themselves.

    One for the batch, as the official PyTorch BiT has it, or one `per_image`, as MindSpore's MixUp has it.
    """
    return np.broadcast_to(rng.beta(alpha, alpha, count if per_image else 1), count).astype(np.float32)


def draw_cutmix(
    rng: np.random.Generator, count: int, alpha: float, side: int, *, per_image: bool = False
) -> np.ndarray:
    """(count, 4) boxes for `cutmix`: one for the batch, as the official code has it, or one `per_image`.

    A box has sqrt(1 - w) of the side, w ~ Beta(alpha, alpha), around a pixel anywhere in the image. What lies
    outside is cut off.

    Args:
        side: of the images, in pixels.
    """
    drawn = count if per_image else 1
    sides = (side * np.sqrt(1 - rng.beta(alpha, alpha, drawn))).astype(int)
    centres = rng.integers(0, side, (2, drawn))
    starts, stops = (np.clip(centres + part, 0, side) for part in (-(sides // 2), sides // 2))
    return np.broadcast_to(np.concatenate([starts, stops - starts]).T, (count, 4))
