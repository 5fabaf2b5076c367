# SPDX-License-Identifier: Apache-2.0
"""How a run is divided into batches, updates and epochs, how far it is, and what data it has."""

import logging
import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..checkpoint.file import Checkpoint
from ..common.errors import UserError
from ..model_utils.keys import Keys

log = logging.getLogger("quartet")


@dataclass(frozen=True)
class Course:
    """The batches of a run. A resume with other batches, cards or data has another one.

    Attributes:
        batch: images of a batch, over all cards.
        accumulate: batches an update.
        epoch: batches an epoch.
        steps: batches of the whole run, a multiple of `accumulate`.
        unit: images of an update as `train_steps` counts updates, those of the run's start.
    """

    batch: int
    accumulate: int
    epoch: int
    steps: int
    unit: int

    @classmethod
    def of(cls, config: Keys, *, epoch: int, cards: int, before: "Course | None" = None) -> "Course":
        """The course that a config means. Batches at the end that make no whole update are left out.

        Args:
            epoch: batches an epoch.
            cards: how many train together.
            before: of the checkpoint that the run continues from.

        Raises:
            UserError: the run is shorter than one update.
        """
        batch, accumulate = config.batch_size * cards, config.accumulate_steps
        unit = before.unit if before else batch * accumulate
        batches = max(1, round(config.epochs * epoch))
        if config.train_steps:
            batches = accumulate * max(1, round(config.train_steps * unit / (batch * accumulate)))
        if batches < accumulate:
            raise UserError(
                f"accumulate_steps: {accumulate} given, and the run has {batches} batches: "
                "no update would be made; lower it, or train longer"
            )
        return cls(batch, accumulate, epoch, batches - batches % accumulate, unit)

    @property
    def updates(self) -> int:
        """Updates of the whole run."""
        return self.steps // self.accumulate

    def place_of(self, step: int, before: "Course") -> int:
        """Where a run goes on after `step` batches of another course: as many epochs, in whole updates.

        Raises:
            UserError: this course ends before that.
        """
        exact = step * self.epoch / before.epoch
        update = max(self.accumulate, before.accumulate * self.epoch / before.epoch)
        if exact - self.steps >= update:
            raise UserError(
                f"the run has trained {step / before.epoch:.4g} epochs ({step // before.accumulate} updates) "
                f"and cannot end after {self.steps / self.epoch:.4g} ({self.updates}); "
                "give --epochs or --train_steps of at least that"
            )
        if step == before.steps and abs(self.steps - exact) < update:
            return self.steps  # it had ended: rounding adds no update
        return min(round(exact / self.accumulate) * self.accumulate, self.steps)

    def same_batches(self, other: "Course") -> bool:
        """Whether the two differ in the length of the run alone."""
        return replace(self, steps=other.steps) == other


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        step: batches of the present course so far, a multiple of its `accumulate`.
        images: training images so far, over all cards and processes: the same count on any course.
        lr: learning rate of the last update.
        best: the metrics of the best evaluation, with the `images` and `epoch` where it was made.
        evaluation_due: the evaluation after this step is still to be made.
        bn_reestimated: the statistics of batch normalisation are computed anew, after the last step.
        damaged: which training images could not be read so far (`damaged_images` skip), over all ranks.
        seconds: wall time, over all processes.
    """

    step: int = 0
    images: int = 0
    lr: float | None = None
    best: dict[str, Any] | None = None
    evaluation_due: bool = False
    bn_reestimated: bool = False
    damaged: list[int] = field(default_factory=list)
    seconds: float = 0.0

    def place(self, course: Course) -> dict[str, int | float]:
        """Where a record stands: `images` alone grows whatever the batch size and the number of cards."""
        return {"images": self.images, "step": self.step, "epoch": self.step / course.epoch}


def say_rate_from_here(rates: np.ndarray, update: int, *, before: float, config: Keys) -> None:
    """Says what the learning rate of a run does that goes on with another length or other batches.

    Args:
        rates: of each update of the run as it now is.
        update: the number of those made.
        before: rate of the last of them.
    """
    rate = rates[update]
    if math.isclose(rates[update - 1], before, rel_tol=1e-6):
        log.info("the learning rate goes on as it would have: %.4g now", rate)
    else:
        log.warning(
            "the learning rate goes from %.4g to %.4g: lr_schedule %s of the whole run has this rate here",
            before, rate, config.lr_schedule,
        )  # fmt: skip


def check_same_data(data: dict[str, int], checkpoint: Checkpoint, config: Keys) -> None:
    """Compares `facts_of` the data that is trained with those that a checkpoint holds.

    Raises:
        UserError: they differ, and `allow_changed_data` is false.
    """
    before = checkpoint.meta["data"]
    if all(data[name] == before[name] for name in ("train", "test", "labels")):
        return
    what = (
        f"data_path: {config.data_path} has {data['train']} training and {data['test']} held-out images, "
        f"and had {before['train']} and {before['test']} when {checkpoint.path} was written"
    )
    if not config.allow_changed_data:
        raise UserError(
            f"{what}; restore them, or add --allow_changed_data true: it is then no longer the same run"
        )
    log.warning("%s (allow_changed_data): it is no longer the same run", what)
