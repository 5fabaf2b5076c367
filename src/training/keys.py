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
        "O0", "precision; O0: float32; O2: float16 except normalisation and losses; auto: by operator"
    )
    loss_scale: Literal[LOSS_SCALES] = key(
        "none", "scaling of the loss, so that small float16 gradients are not rounded to 0"
    )
    loss_scale_value: float = key(65536.0, "fixed scale, or the first scale of dynamic", unit="factor", ge=1)
    loss_scale_factor: float = key(2.0, "dynamic: factor by which the scale changes", unit="factor", gt=1)
    loss_scale_window: int = key(
        2000, "dynamic: updates without overflow before the scale grows", unit="updates", ge=1
    )
    accumulate_steps: int = key(
        1, "batches whose gradients are averaged into one update", unit="batches", ge=1
    )
    dataset_sink: bool = key(False, "batches through a card's own queue; no card has run it yet")
    sync_bn: bool = key(False, "batch statistics of normalisation over all cards, not over each card alone")
    bucket_mib: float = key(
        25.0, "gradients are averaged over the cards in messages of up to this size", unit="MiB", gt=0
    )
    clip_norm: float = key(
        0.0, "gradients are scaled down to this global norm; 0: no clipping", unit="norm", ge=0
    )
    ema_decay: float = key(
        0.0, "decay of the moving average (EMA) of the weights, which is then evaluated; 0: none", ge=0, lt=1
    )
    ema_warmup: bool = key(True, "EMA: a smaller decay in the first updates; not with lookahead")
    ema_every: int = key(
        1, "interval of EMA, whose decay is then ema_decay to its power (cifar10-fast: 5)", unit="updates",
        ge=1,
    )  # fmt: skip
    lookahead: bool = key(
        False,
        "with each EMA the weights become the average, whose decay grows with the cube of the share of "
        "updates that are made (airbench: ema_decay 0.95, ema_every 5)",
    )
    freeze_epochs: Numbers = key(
        (),
        "how long each of the network's first stages is trained (FreezeOut); what stands still is left out "
        "of the backward pass",
        unit="epochs",
    )
    freeze_course: Literal[COURSES] = key(
        "fall",
        "rates of what is trained for a part of the run; fall: lr_schedule ends with that part; cut: those "
        "of all others, until then",
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
        "views of an image whose mean logits the last evaluation of a run and eval.py take; flip: it and its "
        "mirror image (cifar10-fast); six: these two, weights 1/4, and these moved by a pixel up left and "
        "down right, 1/8 (airbench); six_equal: weights 1/6 (Hiverge)",
    )
    tta_share: float = key(
        1.0,
        "tta: share of the images, those of the least max-softmax in the plain view, that get all views; the "
        "others have the plain one alone (airbench 1, Hiverge 0.25)",
        unit="0..1",
        gt=0,
        le=1,
    )
    bn_reestimation_batches: int = key(
        0,
        "recompute BatchNorm statistics over this many training batches after the last step; 0: off",
        unit="batches",
        ge=0,
    )
    best_metric: Literal[tuple(METRICS)] = key(
        "top1", "evaluation metric, of the plain view, that chooses the checkpoint `best`"
    )
    log_every: int = key(20, "interval of log records", unit="batches", ge=1)
    save_every: float = key(1.0, "interval of checkpoints", unit="epochs", gt=0)
    keep_checkpoints: int = key(2, "newest checkpoints that are kept, besides `best`", unit="files", ge=1)
    max_nonfinite_steps: int = key(
        1, "batches in a row with a NaN or infinite loss that stop the run", unit="batches", ge=1
    )
    allow_changed_data: bool = key(
        False, "let --resume go on after images were added or removed; it is then no longer the same run"
    )
    profile: bool = key(False, "trace some steps and print the ten slowest operators")
    profile_steps: int = key(5, "batches to trace, after the first three", unit="batches", ge=1)

    @model_validator(mode="after")
    def _share_is_of_several_views(self) -> "LoopKeys":
        if self.tta == "none" and self.tta_share != 1:
            raise refusal(
                "tta_share", self.tta_share, "1 with tta none; others need tta flip, six or six_equal"
            )
        return self
