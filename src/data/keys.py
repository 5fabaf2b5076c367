# SPDX-License-Identifier: Apache-2.0
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
        "auto", "what data_path holds; folder: a folder of images for each class; auto: look"
    )
    val_fraction: float = key(
        0.1,
        "share of each class that is held out for evaluation if there is no val or test folder",
        unit="0..1",
        gt=0,
        lt=1,
    )
    split_seed: int = key(0, "seed that chooses the images held out", ge=0, le=4_000_000_000)
    check_images: bool = key(
        True, "read each image file once before the first step, and name the damaged ones"
    )
    damaged_images: Literal["fail", "skip"] = key(
        "fail",
        "what to do with a damaged image; fail: stop the run; skip: train on another image in its place, "
        "and do not evaluate it",
    )
    max_image_pixels: int = key(
        MAX_PIXELS,
        "images with more pixels are refused, as they could fill the memory; a JPEG counts at the size at "
        "which it is decoded; raise it for files you trust",
        unit="pixels",
        ge=1,
    )
    examples_per_class: int = key(
        0, "few-shot training: how many training images of each class are used; 0: all", unit="images", ge=0
    )
    few_shot_seed: int = key(0, "seed that chooses the few-shot images", ge=0, le=4_000_000_000)
    batch_size: int = key(512, "training images in a batch, on each card", unit="images", ge=1)
    eval_batch_size: int = key(500, "evaluation images in a batch, on each card", unit="images", ge=1)
    workers: int = key(
        0,
        "threads that read and prepare images; 0: one for each core that may be used, at most 8",
        unit="threads",
        ge=0,
    )
    image_mean: Channels = key((125.31, 122.95, 113.87), "mean of red, green and blue", unit="0..255")
    image_std: Channels = key(
        (62.99, 62.09, 66.70), "standard deviation of red, green and blue", unit="0..255"
    )
    image_size: int = key(32, "side of a training image, after the crop", unit="pixels", ge=1)
    train_crop: Literal["pad", "resize", "random_resized"] = key(
        "pad",
        "how training images are cropped; pad: pad a 32x32 image, then crop it; resize: resize to a "
        "square, then crop it; random_resized: crop a random area, then resize it (Inception)",
    )
    crop_pad: int = key(
        4,
        "train_crop pad: width of the mirrored border; 0: none; cifar10-fast and airbench96 use 4, "
        "airbench 2 (there named translate)",
        unit="pixels",
        ge=0,
        le=31,
    )
    resize_size: int = key(
        0, "train_crop resize: side of the square before the crop; 0: image_size", unit="pixels", ge=0
    )
    crop_area: Range = key(
        (0.08, 1.0), "train_crop random_resized: smallest and largest share of the image's area", unit="0..1"
    )
    crop_ratio: Range = key((0.75, 4 / 3), "train_crop random_resized: smallest and largest width / height")
    interpolation: Interpolation = key(
        "bilinear",
        "how images are resized; bilinear and bicubic are antialiased; tf_bilinear is not, as in TensorFlow",
    )
    eval_image_size: int = key(
        0, "side of an evaluation image, after the crop; 0: image_size", unit="pixels", ge=0
    )
    eval_crop: Literal["squash", "centre", "whole"] = key(
        "centre",
        "how evaluation images are cropped; squash: resize to a square, no crop; centre: resize the "
        "shorter side, then crop the centre; whole: resize the longer side, no crop",
    )
    crop_percentage: float = key(
        1.0, "side of the evaluation crop as a share of the resized side", unit="0..1", gt=0, le=1
    )
    flip: Literal["none", "random", "alternating"] = key(
        "random",
        "mirror training images left to right; random: each with probability 0.5; alternating: each in "
        "every second epoch (airbench)",
    )
    cutout: int = key(
        0,
        "train_crop pad: side of the square that Cutout sets to the mean colour; 0: none; cifar10-fast "
        "uses 8, in shorter runs 5, airbench96 12",
        unit="pixels",
        ge=0,
        le=32,
    )
    translate: int = key(
        0,
        "train_crop pad: largest random shift; uncovered pixels get the mean colour; 0: none",
        unit="pixels",
        ge=0,
        le=31,
    )
    brightness_jitter: float = key(
        0.0,
        "train_crop pad: largest number that is added to all normalised values of an image, drawn anew in "
        "each epoch; 0: none; Hiverge uses 0.1399",
        unit="standard deviations",
        ge=0,
    )
    contrast_jitter: float = key(
        0.0,
        "train_crop pad: c; all normalised values of an image are multiplied by a number from 1 - c to 1 "
        "+ c, drawn anew in each epoch; 0: none; Hiverge uses 0.1308",
        unit="factor",
        ge=0,
        lt=1,
    )
    randaugment_layers: int = key(
        0, "RandAugment: operations on each image; 0: none", unit="operations", ge=0
    )
    randaugment_magnitude: float = key(10.0, "RandAugment: mean magnitude; 10 is the full range", ge=0)
    randaugment_std: float = key(0.5, "RandAugment: standard deviation of the magnitude", ge=0)
    autoaugment: Literal["none", *POLICIES] = key(
        "none",
        "policy of AutoAugment; imagenet: a larger magnitude always changes an image more; "
        "imagenet_paper: the ranges of the authors' TPU code",
    )
    colour_jitter: Jitter = key(
        (0.0, 0.0, 0.0, 0.0),
        "largest random change of brightness, contrast and saturation (factors) and of hue (turns of the "
        "colour circle)",
    )
    lighting: float = key(0.0, "standard deviation of AlexNet's lighting noise; 0: none", ge=0)
    random_erasing: float = key(
        0.0, "probability that a random rectangle of a training image is erased", unit="0..1", ge=0, le=1
    )
    erasing_fill: Literal["mean", "noise"] = key(
        "mean", "what fills an erased rectangle; mean: image_mean; noise: random values around it"
    )
    mixup_alpha: float = key(
        0.0, "mixup: two images are blended with a weight from Beta(alpha, alpha); 0: none", ge=0
    )
    cutmix_alpha: float = key(
        0.0,
        "CutMix: a rectangle, its area from Beta(alpha, alpha), is pasted from another image; 0: none; "
        "with mixup, each batch gets one of the two",
        ge=0,
    )
    mixup_per_image: bool = key(
        False, "draw mixup's weight and CutMix's rectangle for each image, not once for a batch"
    )
    label_smoothing: float = key(
        0.0,
        "share a of the target that is spread evenly over all classes; the loss is (1 - a) * "
        "cross-entropy + a * mean of -log p; cifar10-fast and airbench use 0.2, Hiverge 0.09",
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
