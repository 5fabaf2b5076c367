"""Repeated augmentation: several differently augmented copies of an image in one batch."""

from collections.abc import Callable

import numpy as np


def repeated_order(
    permutation: Callable[[], np.ndarray], *, samples: int, repetitions: int, rank: int = 0, size: int = 1
) -> np.ndarray:
    """One rank's samples of an epoch, (samples,): each image that is drawn comes `repetitions` times.

    They come in a row. The images of a permutation go to the ranks by turns, so that all repetitions of one
    stay on one card; with a batch size that is no multiple of `repetitions`, two batches of that card share
    an image. With one rank it is the order of MultiGrain's sampler (Berman et al., arXiv 1902.05509; Hoffer
    et al., arXiv 1901.09335).

    Args:
        permutation: gives the next order of all images, (N,); asked again when it is used up.
        samples: of this rank.
        repetitions: of an image.
        rank: which of `size` shares.
        size: number of shares.
    """
    instances = -(-samples // repetitions)
    order = permutation()
    while len(order) < instances * size:
        order = np.concatenate([order, permutation()])
    return np.repeat(order[rank::size][:instances], repetitions)[:samples]
