"""The keys of data and augmentation.

A new operation on pictures is a module like randaugment.py, its keys, and a row of OPERATIONS.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ..model_utils.keys import Keys, default_of, key, refusal
from .augment.autoaugment import POLICIES, autoaugment_from_keys
from .augment.randaugment import RandAugment
from .decode import MAX_PIXELS
from .resize import Interpolation
from .sources import DATASETS

Channels = Annotated[tuple[float, float, float], Field(strict=False)]
Range = Annotated[tuple[float, float], Field(strict=False)]
Jitter = Annotated[tuple[float, float, float, float], Field(strict=False)]

# In the order in which they run: the number of its stream of random numbers (order.Stream; new ones: from
# 100 on), and a function from the keys to the operation, None where they ask for none.
OPERATIONS = {
    "autoaugment": (7, autoaugment_from_keys),
    "randaugment": (7, RandAugment.from_keys),
}

# What `train_crop` must be for a key to do something. Of the first, a model has defaults of its own.
_GEOMETRY = {
    "crop_pad": ("pad",),
    "resize_size": ("resize",),
    "crop_area": ("random_resized",),
    "crop_ratio": ("random_resized",),
}
_CROPS = {
    **_GEOMETRY,
    **dict.fromkeys(("cutout", "translate", "brightness_jitter", "contrast_jitter"), ("pad",)),
    **dict.fromkeys(("colour_jitter", "lighting", "random_erasing"), ("resize", "random_resized")),
}


class DataKeys(Keys):
    """Data and augmentation; positions and sizes in pixels of the training image."""

    dataset: Literal["auto", *DATASETS] = key(
        "auto", "kind of data in data_path; folder: one folder of images for each class; auto: detect it"
    )
    val_fraction: float = key(
        0.1,
        "share of each class held out for evaluation, if there is no val or test folder",
        unit="0..1",
        gt=0,
        lt=1,
    )
    split_seed: int = key(0, "seed of the held-out share", ge=0, le=4_000_000_000)
    check_images: bool = key(True, "look for damaged image files once, before the first step of a run")
    damaged_images: Literal["fail", "skip"] = key(
        "fail", "a damaged image; fail: the run ends; skip: another takes its place, evaluation leaves it out"
    )
    max_image_pixels: int = key(
        MAX_PIXELS,
        "larger images are refused; a JPEG counts at the size it is decoded at; raise it for files you trust",
        unit="pixels",
        ge=1,
    )
    examples_per_class: int = key(
        0, "few-shot: training images used of each class; 0: all", unit="images", ge=0
    )
    few_shot_seed: int = key(0, "seed of the few-shot choice", ge=0, le=4_000_000_000)
    batch_size: int = key(512, "images in a batch of one card", unit="images", ge=1)
    eval_batch_size: int = key(500, "images in an evaluation batch of one card", unit="images", ge=1)
    workers: int = key(
        0,
        "threads that read and prepare images; 0: one for each core that the process may use, at most 8",
        unit="threads",
        ge=0,
    )
    image_mean: Channels = key((125.31, 122.95, 113.87), "mean of red, green and blue", unit="0..255")
    image_std: Channels = key(
        (62.99, 62.09, 66.70), "standard deviation of red, green and blue", unit="0..255"
    )
    image_size: int = key(32, "side of a training image", unit="pixels", ge=1)
    train_crop: Literal["pad", "resize", "random_resized"] = key(
        "pad",
        "pad: pad a 32x32 image and crop it; resize: resize to a square and crop it; random_resized: crop a "
        "random area and resize it (Inception)",
    )
    crop_pad: int = key(
        4,
        "pad: width of the reflected border (cifar10-fast 4; airbench, which calls it translate, 2; "
        "airbench96 4); 0: none",
        unit="pixels",
        ge=0,
        le=31,
    )
    resize_size: int = key(
        0, "resize: side of the square before the crop; 0: image_size", unit="pixels", ge=0
    )
    crop_area: Range = key(
        (0.08, 1.0), "random_resized: smallest and largest share of the image's area", unit="0..1"
    )
    crop_ratio: Range = key((0.75, 4 / 3), "random_resized: smallest and largest width / height")
    interpolation: Interpolation = key(
        "bilinear",
        "how images are resized; bilinear, bicubic: antialiased; tf_bilinear: not antialiased, as TensorFlow",
    )
    eval_image_size: int = key(0, "side of an evaluation image; 0: image_size", unit="pixels", ge=0)
    eval_crop: Literal["squash", "centre", "whole"] = key(
        "centre",
        "evaluation; squash: resize to a square; centre: resize the shorter side and crop the centre; whole: "
        "resize the longer side, no crop",
    )
    crop_percentage: float = key(
        1.0, "evaluation: side of the crop as a share of the resized side", unit="0..1", gt=0, le=1
    )
    flip: Literal["none", "random", "alternating"] = key(
        "random",
        "mirror images; random: half of them; alternating: each one in every second epoch (airbench)",
    )
    cutout: int = key(
        0,
        "pad: Cutout, side of the square set to the mean colour (cifar10-fast 8, its shorter runs 5; "
        "airbench96 12); 0: none",
        unit="pixels",
        ge=0,
        le=32,
    )
    translate: int = key(
        0, "pad: largest shift; uncovered pixels get the mean colour; 0: none", unit="pixels", ge=0, le=31
    )
    brightness_jitter: float = key(
        0.0,
        "pad: b; to all normalised values of an image a number between -b and b is added, drawn anew in each "
        "epoch (Hiverge 0.1399); 0: none",
        unit="standard deviations",
        ge=0,
    )
    contrast_jitter: float = key(
        0.0,
        "pad: c; then the values of an image are multiplied by a number between 1 - c and 1 + c, drawn anew "
        "in each epoch (Hiverge 0.1308); 0: none",
        unit="factor",
        ge=0,
        lt=1,
    )
    randaugment_layers: int = key(
        0, "RandAugment: operations for each image; 0: none", unit="operations", ge=0
    )
    randaugment_magnitude: float = key(10.0, "RandAugment: mean magnitude; 10 is the full range", ge=0)
    randaugment_std: float = key(0.5, "RandAugment: standard deviation of the magnitude", ge=0)
    autoaugment: Literal["none", *POLICIES] = key(
        "none",
        "AutoAugment policy; imagenet: a larger magnitude always changes more; "
        "imagenet_paper: ranges of the authors' TPU code",
    )
    colour_jitter: Jitter = key(
        (0.0, 0.0, 0.0, 0.0), "strength of random brightness, contrast, saturation (factors) and hue (turns)"
    )
    lighting: float = key(0.0, "AlexNet's lighting noise: standard deviation of its weights", ge=0)
    random_erasing: float = key(
        0.0, "probability that a random rectangle of an image is erased", unit="0..1", ge=0, le=1
    )
    erasing_fill: Literal["mean", "noise"] = key(
        "mean", "random erasing fills with image_mean, or with noise around it"
    )
    mixup_alpha: float = key(0.0, "mixup: weights from Beta(alpha, alpha); 0: none", ge=0)
    cutmix_alpha: float = key(
        0.0, "CutMix: areas from Beta(alpha, alpha); 0: none; with mixup, a batch has one of the two", ge=0
    )
    mixup_per_image: bool = key(
        False, "mixup and CutMix: draw the weight or rectangle for each image, not once for a batch"
    )
    label_smoothing: float = key(
        0.0,
        "share a of the target that is spread evenly over all classes: (1 - a) * cross-entropy + a * mean of "
        "-log p, the same in cifar10-fast and airbench (0.2) and Hiverge (0.09)",
        unit="0..1",
        ge=0,
        lt=1,
    )

    @model_validator(mode="after")
    def _colours_fit(self) -> "DataKeys":
        if self.autoaugment != "none" and self.randaugment_layers:
            raise refusal("autoaugment", self.autoaugment, "'none' with randaugment_layers above 0")
        if min(self.colour_jitter) < 0 or self.colour_jitter[3] > 0.5:
            raise refusal("colour_jitter", self.colour_jitter, "numbers >= 0, the last <= 0.5")
        return self

    @model_validator(mode="after")
    def _pixels_fit(self) -> "DataKeys":
        if min(self.image_std) <= 0:
            raise refusal("image_std", self.image_std, "numbers > 0")
        # Pixels of 0..255 with a mean below 1 deviate by sqrt(255) at most.
        is_share = {
            "image_std": max(self.image_std) < 1,
            "image_mean": 0 < max(self.image_mean) < 1 and max(self.image_std) > 16,
        }
        for name in (name for name, wrong in is_share.items() if wrong):
            values = getattr(self, name)
            mended = [round(255 * value, 3) for value in values]
            raise refusal(name, values, f"of pixels of 0..255: multiply by 255, {mended}")
        return self

    @model_validator(mode="after")
    def _crops_fit(self) -> "DataKeys":
        if self.resize_size and self.resize_size < self.image_size:
            raise refusal("resize_size", self.resize_size, f"0, or at least image_size ({self.image_size})")
        if not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise refusal("crop_area", self.crop_area, "[low, high] in (0, 1]")
        if not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise refusal("crop_ratio", self.crop_ratio, "[low, high], both > 0")
        return self

    @model_validator(mode="after")
    def _belongs_to_the_crop(self) -> "DataKeys":
        """No key that does nothing has a value of its own."""
        if self.train_crop == "pad" and self.image_size != 32:
            allowed = "32 with train_crop pad; others need train_crop resize or random_resized"
            raise refusal("image_size", self.image_size, allowed)
        for name, crops in _CROPS.items():
            value, default = getattr(self, name), DataKeys.model_fields[name].default
            unused = {default, default_of(type(self), name)} if name in _GEOMETRY else {default}
            if self.train_crop not in crops and value not in unused:
                raise refusal(name, value, f"only with train_crop {' or '.join(crops)}")
        return self
