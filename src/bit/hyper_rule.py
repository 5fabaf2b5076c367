# SPDX-License-Identifier: Apache-2.0
"""BiT-HyperRule: fine-tuning settings from the size of the images and of the data set alone.

Kolesnikov et al., "Big Transfer (BiT): General Visual Representation Learning" (arXiv 1912.11370), with the
numbers of `bit_hyperrule.py` in google-research/big_transfer. SGD with momentum 0.9 and without weight decay
belongs to it. `examples` are the training images, after any choice of a few for each class. Its steps are
updates.
"""

import math

import numpy as np

from ..optim import schedules

BATCH = 512
RATE = 0.003
_SMALL, _LARGE = 20_000, 500_000


def resolution(height: int, width: int) -> tuple[int, int]:
    """Sides in pixels of the square that an image is resized to, and of the crop that is trained on.

    Args:
        height: of the data set's images, in pixels, as `width`.
    """
    return (160, 128) if height * width < 96 * 96 else (512, 480)


def mixup_alpha(examples: int) -> float:
    """alpha of mixup's Beta(alpha, alpha); 0 is no mixup."""
    return 0.0 if examples < _SMALL else 0.1


def schedule(examples: int) -> tuple[int, ...]:
    """Updates: the length of the warm-up, the three decays, and the length of the run."""
    if examples < _SMALL:
        return 100, 200, 300, 400, 500
    if examples < _LARGE:
        return 500, 3000, 6000, 9000, 10_000
    return 500, 6000, 12_000, 18_000, 20_000


def rates(examples: int, *, lr: float = RATE, updates: int | None = None) -> np.ndarray:
    """The learning rate of each update of the run, float64, shape (updates,).

    `lr * i / warmup` at update i of the warm-up, so 0 at the first, then `lr`, divided by 10 after each
    decay: the official comparison is strict, and the update of a decay itself still has the rate before it.

    Args:
        updates: length of the run; None: the rule's. Warm-up and decays of another length scale with it.
    """
    warmup, *decays, steps = schedule(examples)
    whole = schedules.multi_step(
        steps, lr=lr, milestones=[decay + 1 for decay in decays], gamma=0.1, warmup_steps=warmup
    )
    updates = updates or steps
    return whole[np.arange(updates) * steps // updates]


def base_rate(images_per_update: int) -> float:
    """The `lr` of `rates` for another batch size: 0.003 * (images / 512) ** log_4(3). The updates stay.

    Published are the paper's pair, 512 images and 0.003, and the README's for smaller machines, 128 and
    0.001 with as many updates and nearly the same results; for other sizes it only says that rate and number
    of updates want adjusting. The power law is this project's: the one through both pairs, a third of the
    rate for a quarter of the batch, between the square-root rule (a half) and the linear one (a quarter).
    """
    return RATE * (images_per_update / BATCH) ** math.log(3, 4)
