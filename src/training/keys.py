"""The keys of the training step, and of the loop around it."""

from typing import Literal

from ..evaluation.metrics import METRICS
from ..model_utils.keys import Keys, key

AMP_LEVELS = ("O0", "O2", "auto")
LOSS_SCALES = ("none", "fixed", "dynamic")


class StepKeys(Keys):
    """The training step."""

    amp_level: Literal[AMP_LEVELS] = key(
        "O0", "O0 float32; O2 float16 but for normalisation and losses; auto by operator"
    )
    loss_scale: Literal[LOSS_SCALES] = key("none", "scaling of the loss against underflow")
    loss_scale_value: float = key(65536.0, "fixed scale, or the first dynamic one", unit="factor", ge=1)
    loss_scale_factor: float = key(2.0, "dynamic scale changes by this factor", unit="factor", gt=1)
    loss_scale_window: int = key(2000, "updates without overflow before it grows", unit="updates", ge=1)
    accumulate_steps: int = key(
        1, "batches whose gradients are averaged into one update", unit="batches", ge=1
    )
    dataset_sink: bool = key(False, "batches through a card's own queue; no card has run it yet")
    sync_bn: bool = key(False, "batch normalisation over the batches of all cards, not each card's own")
    bucket_mib: float = key(
        25.0, "most of a message that averages gradients over the cards", unit="MiB", gt=0
    )
    clip_norm: float = key(0.0, "largest global gradient norm; 0: no clipping", unit="norm", ge=0)
    ema_decay: float = key(
        0.0, "decay of the average of weights, which is then evaluated; 0: none", ge=0, lt=1
    )
    ema_warmup: bool = key(True, "average over fewer updates at the start")


class LoopKeys(Keys):
    """Evaluation, logging and checkpoints."""

    eval_every: float = key(1.0, "interval of evaluation", unit="epochs", gt=0)
    flip_tta: bool = key(False, "evaluate the mean of the logits of an image and its mirror image")
    bn_reestimation_batches: int = key(
        0,
        "after the last step, running statistics of batch normalisation anew over so many; 0: no",
        unit="batches",
        ge=0,
    )
    best_metric: Literal[tuple(METRICS)] = key("top1", "which evaluation figure chooses `best`")
    log_every: int = key(20, "interval of log records", unit="batches", ge=1)
    save_every: float = key(1.0, "interval of checkpoints", unit="epochs", gt=0)
    keep_checkpoints: int = key(2, "newest checkpoints kept besides `best`", unit="files", ge=1)
    max_nonfinite_steps: int = key(
        1, "batches in a row with a loss that is not finite before the run stops", unit="batches", ge=1
    )
    allow_changed_data: bool = key(
        False, "go on with --resume although images were added or removed: no longer the same run"
    )
    profile: bool = key(False, "trace some steps and print the ten most expensive operators")
    profile_steps: int = key(5, "batches that are traced, after the first three", unit="batches", ge=1)
