"""Augmentation of whole batches in numpy: what is done to each image is given as arrays.

Every operation is a function of explicit parameters (offsets, flips, corners, partners), so that it can be
compared with a loop over single images; the `draw_*` functions draw those parameters from a generator.
"""

from collections.abc import Sequence

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


def normalise(images: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """(images - mean) / std as float32; `mean` and `std` are per channel, in units of the pixels (0..255)."""
    std = np.asarray(std, np.float64)
    scale = (1 / std).astype(np.float32).reshape(-1, 1, 1)
    shift = (np.asarray(mean, np.float64) / std).astype(np.float32).reshape(-1, 1, 1)
    result = np.multiply(images, scale, dtype=np.float32)
    result -= shift
    return result


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


def smooth_one_hot(labels: np.ndarray, classes: int, smoothing: float = 0.0) -> np.ndarray:
    """(1 - smoothing) * one-hot + smoothing / classes, as (B, classes) float32 (Szegedy et al., 2016)."""
    targets = np.full((len(labels), classes), smoothing / classes, np.float32)
    targets[np.arange(len(labels)), labels] = 1 - smoothing + smoothing / classes
    return targets


def mixup(values: np.ndarray, partners: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """weights * x + (1 - weights) * x[partners], of images or of soft targets (Zhang et al., 2018).

    Args:
        values: (B, ...) float32.
        partners: (B,) which row of the batch each one is mixed with.
        weights: (B,) float32, the share of the row itself, 0..1.
    """
    weights = weights.reshape(-1, *[1] * (values.ndim - 1))
    mixed = values[partners]
    mixed *= 1 - weights
    mixed += values * weights
    return mixed


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


def draw_mixup(
    rng: np.random.Generator, count: int, alpha: float, *, per_image: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Partners (count,) int32 and weights (count,) float32 ~ Beta(alpha, alpha).

    One weight and a permutation for the batch, as the official PyTorch BiT has it; or a weight `per_image`,
    each of which is mixed with the next one and the last with the first, as MindSpore's MixUp has it.
    """
    if per_image:
        return (np.arange(count, dtype=np.int32) + 1) % count, rng.beta(alpha, alpha, count).astype(
            np.float32
        )
    partners = rng.permutation(count).astype(np.int32)
    return partners, np.full(count, rng.beta(alpha, alpha), np.float32)


def draw_cutmix(
    rng: np.random.Generator, count: int, alpha: float, side: int, *, per_image: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Partners (count,) int32, weights (count,) float32 and boxes (count, 4) for `cutmix`.

    A box has sqrt(1 - w) of the side, w ~ Beta(alpha, alpha), around a pixel anywhere in the image. What lies
    outside is cut off; the weight is the share of the image that is left. One box and a permutation for the
    batch, as the official code has it; or a box `per_image`, from the next one, the last from the first.

    Args:
        side: of the images, in pixels.
    """
    drawn = count if per_image else 1
    sides = (side * np.sqrt(1 - rng.beta(alpha, alpha, drawn))).astype(int)
    centres = rng.integers(0, side, (2, drawn))
    starts, stops = (np.clip(centres + part, 0, side) for part in (-(sides // 2), sides // 2))
    boxes = np.broadcast_to(np.concatenate([starts, stops - starts]).T, (count, 4))
    partners = (np.arange(count) + 1) % count if per_image else rng.permutation(count)
    weights = 1 - boxes[:, 2] * boxes[:, 3] / side**2
    return partners.astype(np.int32), weights.astype(np.float32), boxes
