# SPDX-License-Identifier: Apache-2.0
"""Few-shot subsets: the same number of images of each class."""

from collections.abc import Sequence

import numpy as np

from ..common.errors import UserError


def few_shot(
    labels: np.ndarray, examples_per_class: int, seed: int, *, class_names: Sequence[str]
) -> np.ndarray:
    """Chooses images of each class by seed. The sets are nested: 5 a class are among the 10 of that seed.

    Args:
        labels: (N,) integers.
        examples_per_class: how many, 1 or above.
        seed: 0 or above.
        class_names: of all classes, by label.

    Returns:
        (examples_per_class * classes,) int64 indices, sorted.

    Raises:
        UserError: a class has fewer images.
    """
    chosen = []
    for label, name in enumerate(class_names):
        mine = np.flatnonzero(labels == label)
        if len(mine) < examples_per_class:
            raise UserError(
                f"examples_per_class {examples_per_class} is more than the {len(mine)} training images of "
                f"the class {name}; lower it, or add images"
            )
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(label,)))
        chosen.append(rng.permutation(mine)[:examples_per_class])
    return np.sort(np.concatenate(chosen))
