# SPDX-License-Identifier: Apache-2.0
"""The keys of the training step, and of the loop around it."""

from itertools import pairwise
from typing import Literal

from pydantic import model_validator

from ..evaluation.metrics import METRICS
from ..evaluation.views import TTA
from ..model_utils.keys import Keys, Numbers, key, refusal
from ..optim.keys import COURSES

AMP_LEVELS = ("O0", "O2", "auto")
LOSS_SCALES = ("none", "fixed", "dynamic")


class StepKeys(Keys):
    """The training step."""

    amp_level: Literal[AMP_LEVELS] = key(
        "O0",
        "precision; O0: float32; O2: float16 except normalisation and losses; auto: chosen for each operator",
    )
    loss_scale: Literal[LOSS_SCALES] = key(
        "none",
        "number that the loss is multiplied by, so that small float16 gradients are not rounded to 0; "
        "fixed: loss_scale_value; dynamic: it falls at an overflow, and grows without one",
    )
    loss_scale_value: float = key(
        65536.0, "loss_scale fixed: the number; dynamic: the first one", unit="factor", ge=1
    )
    loss_scale_factor: float = key(
        2.0,
        "loss_scale dynamic: factor by which the number falls and grows",
        unit="factor",
        gt=1,
    )
    loss_scale_window: int = key(
        2000, "loss_scale dynamic: updates without an overflow before the number grows", unit="updates", ge=1
    )
    accumulate_steps: int = key(
        1, "batches whose gradients are averaged for one update", unit="batches", ge=1
    )
    dataset_sink: bool = key(False, "send batches through the card's own queue; not run on a card yet")
    sync_bn: bool = key(
        False, "batch normalisation over the batches of all cards together, not of each card alone"
    )
    bucket_mib: float = key(
        25.0, "largest message in which cards send each other gradients", unit="MiB", gt=0
    )
    clip_norm: float = key(
        0.0,
        "largest norm of all gradients together; larger ones are scaled down; 0: no limit",
        unit="norm",
        ge=0,
    )
    ema_decay: float = key(
        0.0,
        "decay of the weights' moving average (EMA), which is then what is evaluated; 0: no average",
        ge=0,
        lt=1,
    )
    ema_warmup: bool = key(True, "a smaller ema_decay in the first updates; not with lookahead")
    ema_every: int = key(
        1,
        "interval of averaging; the decay is then ema_decay to the power of this (cifar10-fast: 5)",
        unit="updates",
        ge=1,
    )
    lookahead: bool = key(
        False,
        "at each average, go on from the averaged weights; their decay grows with the cube of the share "
        "of updates made (airbench: ema_decay 0.95, ema_every 5)",
    )
    freeze_epochs: Numbers = key(
        (),
        "how long each of the network's first stages is trained (FreezeOut); afterwards it has no "
        "backward pass; empty: all to the end",
        unit="epochs",
    )
    freeze_course: Literal[COURSES] = key(
        "fall",
        "learning rate of what is trained for a part of the run; fall: lr_schedule is compressed into "
        "that part; cut: the rate of all others, up to there",
    )

    @model_validator(mode="after")
    def _averages(self) -> "StepKeys":
        if not self.ema_decay:
            if self.ema_every > 1:
                raise refusal("ema_every", self.ema_every, "1 with ema_decay 0")
            if self.lookahead:
                raise refusal("lookahead", True, "false with ema_decay 0")
        return self

    @model_validator(mode="after")
    def _freezes_forwards(self) -> "StepKeys":
        times = self.freeze_epochs
        if any(b < a for a, b in pairwise((0.0, *times))) or 0 in times:
            raise refusal("freeze_epochs", times, "numbers > 0, none below the one before it")
        return self


class LoopKeys(Keys):
    """Evaluation, logging and checkpoints."""

    eval_every: float = key(1.0, "interval of evaluation", unit="epochs", gt=0)
    tta: Literal[tuple(TTA)] = key(
        "none",
        "test-time augmentation: views of an image whose logits are averaged, in the last evaluation of a "
        "run and in eval.py; flip: the image and its mirror image (cifar10-fast); six: these two with "
        "weights 1/4, and both moved by a pixel up left and down right with weights 1/8 (airbench); "
        "six_equal: the same, with weights 1/6 (Hiverge)",
    )
    tta_share: float = key(
        1.0,
        "share of the images that get all views of tta: those with the least certain prediction in the "
        "plain view (airbench 1, Hiverge 0.25)",
        unit="0..1",
        gt=0,
        le=1,
    )
    bn_reestimation_batches: int = key(
        0,
        "compute the statistics of batch normalisation anew over this many training batches after the "
        "last step; 0: no",
        unit="batches",
        ge=0,
    )
    best_metric: Literal[tuple(METRICS)] = key(
        "top1", "figure of the evaluation, without tta, that chooses the checkpoint `best`"
    )
    log_every: int = key(20, "interval of lines in the log", unit="batches", ge=1)
    save_every: float = key(1.0, "interval of checkpoints", unit="epochs", gt=0)
    keep_checkpoints: int = key(
        2, "how many of the newest checkpoints are kept, besides `best`", unit="files", ge=1
    )
    max_nonfinite_steps: int = key(
        1, "stop after this many batches in a row with a NaN or infinite loss", unit="batches", ge=1
    )
    allow_changed_data: bool = key(
        False, "let --resume go on after images were added or removed; it is then another run"
    )
    profile: bool = key(False, "trace some batches, and print the ten slowest operators")
    profile_steps: int = key(5, "how many batches to trace, after the first three", unit="batches", ge=1)

    @model_validator(mode="after")
    def _share_is_of_several_views(self) -> "LoopKeys":
        if self.tta == "none" and self.tta_share != 1:
            raise refusal(
                "tta_share", self.tta_share, "1 with tta none; others need tta flip, six or six_equal"
            )
        return self
