"""The keys that all models share: type, range, default, unit and meaning of each."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from .model_utils.keys import Keys, key
from .model_utils.modelarts.keys import CloudKeys
from .optim.schedules import SCHEDULES

Numbers = Annotated[tuple[float, ...], Field(strict=False)]
Counts = Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(strict=False)]
Channels = Annotated[tuple[float, float, float], Field(strict=False)]
Range = Annotated[tuple[float, float], Field(strict=False)]
LrSchedule = Literal[tuple(SCHEDULES)]
Jitter = Annotated[tuple[float, float, float, float], Field(strict=False)]


class RunKeys(Keys):
    """The run: what, where, on which device."""

    model: str = key("resnet9", "network to train; src/zoo.py lists them")
    data_path: str = key(
        "data", "folder of the data set, or one that holds cifar-10-batches-bin", unit="folder"
    )
    output_path: str = key("runs", "folder that receives one folder a run", unit="folder")
    run_name: str = key("", "name of the run's folder; empty: recipe, date and time")
    device_target: Literal["auto", "Ascend", "GPU", "CPU"] = key(
        "auto", "device; auto takes the first of Ascend, GPU, CPU that is there"
    )
    seed: int = key(0, "seed of weights, order and augmentation", ge=0, le=4_000_000_000)
    pretrained_path: str = key("", "weights to start from; empty: none", unit="file or folder")
    pretrained_head: Literal["keep", "replace", "zero"] = key(
        "replace", "classifier with pretrained weights: theirs, a new one, or zeros"
    )


class DataKeys(Keys):
    """Data and augmentation; positions and sizes in pixels of the training image."""

    dataset: Literal["auto", "cifar10", "cifar100", "folder", "mindrecord"] = key(
        "auto", "layout of data_path; folder: a folder of images a class; auto: what is found there"
    )
    val_fraction: float = key(
        0.1, "of each class, where a folder has no val or test", unit="0..1", gt=0, lt=1
    )
    damaged_images: Literal["fail", "skip"] = key("fail", "files of a folder that are no whole images")
    examples_per_class: int = key(0, "few-shot: training images of each class; 0: all", unit="images", ge=0)
    subset_seed: int = key(0, "seed of the few-shot choice and of the val split", ge=0, le=4_000_000_000)
    batch_size: int = key(512, "images a card in one batch", unit="images", ge=1)
    eval_batch_size: int = key(500, "images a card in one evaluation batch", unit="images", ge=1)
    image_mean: Channels = key((125.31, 122.95, 113.87), "mean of red, green, blue", unit="0..255")
    image_std: Channels = key((62.99, 62.09, 66.70), "deviation of red, green, blue", unit="0..255")
    image_size: int = key(32, "side of the training image", unit="pixels", ge=1)
    train_crop: Literal["pad", "resize", "random_resized"] = key(
        "pad", "pad: of 32x32 sets, from a border; resize: squash, then crop; random_resized: Inception's"
    )
    crop_pad: int = key(4, "pad: reflected border; 0: none", unit="pixels", ge=0, le=31)
    resize_size: int = key(0, "resize: side before the crop; 0: image_size", unit="pixels", ge=0)
    crop_area: Range = key((0.08, 1.0), "random_resized: share of the image's area", unit="0..1")
    crop_ratio: Range = key((0.75, 4 / 3), "random_resized: width / height of the crop")
    interpolation: Literal["bilinear", "bicubic", "area"] = key("bilinear", "of all resizing")
    eval_image_size: int = key(0, "side in evaluation; 0: image_size", unit="pixels", ge=0)
    eval_crop: Literal["squash", "centre", "whole"] = key(
        "squash",
        "evaluation: resize to a square, or the short side and cut the centre, or the longer side and cut "
        "nothing",
    )
    crop_percentage: float = key(
        1.0, "evaluation: share of the resized side in the centre that is cut out", unit="0..1", gt=0, le=1
    )
    flip: Literal["none", "random", "alternating"] = key(
        "random", "mirror at random, or each image in every second epoch"
    )
    cutout: int = key(
        0, "pad: side of the square set to the mean colour; 0: none", unit="pixels", ge=0, le=32
    )
    translate: int = key(0, "pad: largest shift over the mean colour; 0: none", unit="pixels", ge=0, le=31)
    randaugment_layers: int = key(0, "RandAugment: operations an image; 0: none", unit="operations", ge=0)
    randaugment_magnitude: float = key(10.0, "RandAugment: mean magnitude, 10 the nominal full range", ge=0)
    randaugment_std: float = key(0.5, "RandAugment: deviation of the magnitude", ge=0)
    autoaugment: Literal["none", "imagenet"] = key("none", "AutoAugment: the policy found on ImageNet")
    colour_jitter: Jitter = key(
        (0.0, 0.0, 0.0, 0.0), "strength of brightness, contrast, saturation (factors) and hue (turns)"
    )
    lighting: float = key(0.0, "AlexNet's noise along ImageNet's colours: deviation of its weights", ge=0)
    random_erasing: float = key(0.0, "probability that a rectangle is erased", unit="0..1", ge=0, le=1)
    erasing_fill: Literal["mean", "noise"] = key("mean", "random erasing: image_mean, or noise about it")
    mixup_alpha: float = key(0.0, "mixup weight ~ Beta(alpha, alpha); 0: none", ge=0)
    cutmix_alpha: float = key(
        0.0, "CutMix share ~ Beta(alpha, alpha); 0: none; with mixup, each batch has one of them", ge=0
    )
    mixup_per_image: bool = key(
        False, "mixup, CutMix: each image with the next one, drawn for itself; not alike in a batch"
    )
    label_smoothing: float = key(0.0, "share of the target spread over all classes", unit="0..1", ge=0, lt=1)
    soft_labels: bool = key(True, "targets as distributions over classes; false: integers")


class ScheduleKeys(Keys):
    """Length of training and learning rate. The rate changes with every update."""

    epochs: float = key(24.0, "length of training", unit="epochs", gt=0)
    train_steps: int = key(0, "length of training in batches; 0: `epochs` decides", unit="batches", ge=0)
    lr: float = key(0.4, "peak learning rate, for lr_base_batch images an update", unit="rate", gt=0)
    lr_scale_rule: Literal["none", "linear", "sqrt"] = key(
        "none",
        "how the rates follow images an update / lr_base_batch; none: they do not, and the log says so",
    )
    lr_base_batch: int = key(512, "images an update for which the rates hold", unit="images", ge=1)
    lr_schedule: LrSchedule = key(
        "one_cycle", "course of the learning rate; src/optim/schedules.py has the formulas"
    )
    warmup_epochs: float = key(
        5.0,
        "linear rise from lr_start (one_cycle, multi_step, exponential, polynomial, linear, cosine)",
        unit="epochs",
        ge=0,
    )
    lr_start: float = key(0.0, "rate before the warm-up; lower bound of the cyclic ones", unit="rate", ge=0)
    lr_end: float = key(
        0.0,
        "last rate (one_cycle, polynomial, linear, cosine; exponential and multi_step in the cool-down)",
        unit="rate",
        ge=0,
    )
    cooldown_epochs: float = key(
        0.0,
        "last part of the run, at lr_end (multi_step, exponential, polynomial, linear, cosine)",
        unit="epochs",
        ge=0,
    )
    lr_epochs: Numbers = key((), "where lr_values hold (piecewise)", unit="epochs")
    lr_values: Numbers = key((), "rates at lr_epochs, straight lines between (piecewise)", unit="rate")
    lr_milestones: Numbers = key((), "when the rate is multiplied by lr_gamma (multi_step)", unit="epochs")
    lr_every: float = key(
        30.0,
        "interval of step, halving and exponential; half a cycle of the cyclic ones",
        unit="epochs",
        gt=0,
    )
    lr_gamma: float = key(0.1, "factor of step, multi_step, exponential, and exp_range a step", gt=0, le=1)
    lr_power: float = key(1.0, "power of the polynomial", gt=0)


class OptimizerKeys(Keys):
    """Optimizer and parameter groups."""

    optimizer: Literal["sgd", "adam", "adamw", "rmsprop"] = key("sgd", "update rule")
    momentum: float = key(0.9, "momentum of sgd and rmsprop", ge=0, lt=1)
    nesterov: bool = key(True, "Nesterov's form of momentum (sgd)")
    lr_in_velocity: bool = key(
        False, "sgd's velocity sums rate x gradient, as in cifar10-fast, not the gradient, as in PyTorch"
    )
    beta1: float = key(0.9, "decay of the gradient's mean (adam, adamw)", ge=0, lt=1)
    beta2: float = key(0.999, "decay of its square's mean (adam, adamw)", ge=0, lt=1)
    optimizer_eps: float = key(1e-8, "added to (rmsprop: under) the root of adam, adamw, rmsprop", gt=0)
    rmsprop_decay: float = key(0.9, "decay of the square's mean (rmsprop)", ge=0, lt=1)
    weight_decay: float = key(5e-4, "weight decay, a rate-1 step", ge=0)
    decay_norm_and_bias: bool = key(True, "decay normalisation parameters and biases too")
    bias_lr_multiplier: float = key(
        1.0, "factor on the rate of biases; their decay is divided by it", unit="factor", gt=0
    )


class StepKeys(Keys):
    """The training step."""

    amp_level: Literal["O0", "O2", "auto"] = key(
        "O0", "O0 float32; O2 float16 but for normalisation and losses; auto by operator"
    )
    loss_scale: Literal["none", "fixed", "dynamic"] = key("none", "scaling of the loss against underflow")
    loss_scale_value: float = key(65536.0, "fixed scale, or the first dynamic one", unit="factor", ge=1)
    loss_scale_factor: float = key(2.0, "dynamic scale changes by this factor", unit="factor", gt=1)
    loss_scale_window: int = key(2000, "updates without overflow before it grows", unit="updates", ge=1)
    accumulate_steps: int = key(
        1, "batches whose gradients are averaged into one update", unit="batches", ge=1
    )
    dataset_sink: bool = key(True, "batches through the device's own queue; a CPU has none")
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
    best_metric: Literal["top1", "top5", "loss"] = key("top1", "which evaluation figure chooses `best`")
    log_every: int = key(20, "interval of log records", unit="batches", ge=1)
    save_every: float = key(1.0, "interval of checkpoints", unit="epochs", gt=0)
    keep_checkpoints: int = key(2, "newest checkpoints kept besides `best`", unit="files", ge=1)
    max_nonfinite_steps: int = key(
        1, "batches in a row with a loss that is not finite before the run stops", unit="batches", ge=1
    )
    profile: bool = key(False, "trace some steps and print the ten most expensive operators")
    profile_steps: int = key(5, "batches that are traced, after the first three", unit="batches", ge=1)


def other_default(name: str, default: Any) -> Any:
    """The shared key of that name, with a model's own default; meaning, unit and limits stay."""
    field = SharedConfig.model_fields[name]
    return Field(
        default,
        description=field.description,
        json_schema_extra=field.json_schema_extra,
        **{
            limit: getattr(rule, limit)
            for rule in field.metadata
            for limit in _LIMITS
            if hasattr(rule, limit)
        },
    )


_LIMITS = ("gt", "ge", "lt", "le")
GROUPS = (RunKeys, DataKeys, ScheduleKeys, OptimizerKeys, StepKeys, LoopKeys, CloudKeys)


class SharedConfig(CloudKeys, LoopKeys, StepKeys, OptimizerKeys, ScheduleKeys, DataKeys, RunKeys):
    """Every shared key, checked one by one and against each other. A model's config adds its own."""

    @model_validator(mode="after")
    def _fit_together(self) -> "SharedConfig":
        if not self.soft_labels:
            for name in ("mixup_alpha", "cutmix_alpha", "label_smoothing"):
                if getattr(self, name):
                    raise ValueError(
                        f"{name}: {getattr(self, name)} given, allowed: 0 while soft_labels is false"
                    )
        if self.cooldown_epochs and not SCHEDULES[self.lr_schedule].cools_down:
            raise ValueError(
                f"cooldown_epochs: {self.cooldown_epochs:g} given, allowed: 0 with lr_schedule "
                f"{self.lr_schedule}"
            )
        if self.lr_schedule == "piecewise" and (
            len(self.lr_epochs) != len(self.lr_values) or len(self.lr_epochs) < 2
        ):
            raise ValueError(
                f"lr_values: {len(self.lr_values)} rates given, allowed: as many as lr_epochs "
                f"({len(self.lr_epochs)}), and at least 2"
            )
        if self.lr_schedule == "multi_step" and not self.lr_milestones:
            raise ValueError(
                "lr_milestones: [] given, allowed: at least one epoch with lr_schedule multi_step"
            )
        if self.autoaugment != "none" and self.randaugment_layers:
            raise ValueError(
                f"autoaugment: {self.autoaugment!r} given, allowed: 'none' with randaugment_layers above 0"
            )
        if min(self.colour_jitter) < 0 or self.colour_jitter[3] > 0.5:
            raise ValueError(
                f"colour_jitter: {list(self.colour_jitter)} given, allowed: numbers >= 0, the last <= 0.5"
            )
        if self.train_crop == "pad":
            for name in ("colour_jitter", "lighting", "random_erasing", "crop_percentage"):
                value = getattr(self, name)
                if value != DataKeys.model_fields[name].default:
                    shown = list(value) if isinstance(value, tuple) else value
                    raise ValueError(
                        f"{name}: {shown} given, allowed: only with train_crop resize or random_resized"
                    )
            if self.image_size != 32:
                raise ValueError(
                    f"image_size: {self.image_size} given, allowed: 32 with train_crop pad; "
                    "others want train_crop resize or random_resized"
                )
        else:
            for name in ("cutout", "translate"):
                if getattr(self, name):
                    raise ValueError(
                        f"{name}: {getattr(self, name)} given, allowed: 0 but for train_crop pad"
                    )
        if self.resize_size and self.resize_size < self.image_size:
            raise ValueError(
                f"resize_size: {self.resize_size} given, allowed: 0, "
                f"or at least image_size ({self.image_size})"
            )
        if not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise ValueError(f"crop_area: {list(self.crop_area)} given, allowed: [low, high] in (0, 1]")
        if not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise ValueError(f"crop_ratio: {list(self.crop_ratio)} given, allowed: [low, high], both > 0")
        if min(self.image_std) <= 0:
            raise ValueError(f"image_std: {list(self.image_std)} given, allowed: numbers > 0")
        return self
