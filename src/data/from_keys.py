# SPDX-License-Identifier: Apache-2.0
"""From the keys of a config to images and batches: which class, with which settings."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..common.errors import UserError
from .augment.colour import ColourChange
from .augment.erasing import Erasing
from .batches import Arrays, EvalBatches, Mixing, TrainBatches
from .binary import ImageSet, Split
from .crops import PadCrops, PictureCrops
from .damage import ReadablePictures, without_faults
from .few_shot import few_shot
from .keys import OPERATIONS
from .normalise import Normalise
from .order import Order, Step
from .preparation import Preparation
from .sources import SPLITS, ImageFiles, Images, open_splits, open_tests

Source = ImageSet | ReadablePictures
Look = Callable[[Sequence[str]], Mapping[str, str]]  # files -> what is wrong with those that are damaged


def open_source(c: Any, split: Split) -> Source:
    """The images of a split; of the training images a few a class, if the keys `c` say so.

    Raises:
        UserError: there is no such data, or the keys do not fit it.
    """
    (images,) = open_splits(c.data_path, (split,), val_fraction=c.val_fraction, **_how(c))
    return _as_asked(c, split, images)


def open_sources(c: Any, look: Look) -> dict[Split, Source]:
    """Both splits as `open_source` gives them, after a look at their files.

    Args:
        look: finds damaged files; it is asked once, about all image files of the data set.

    Raises:
        UserError: as `open_source`, or files are damaged and `damaged_images` is not skip.
    """
    opened = dict(zip(SPLITS, open_splits(c.data_path, val_fraction=c.val_fraction, **_how(c)), strict=True))
    left_out = dict.fromkeys(SPLITS, 0)
    if all(isinstance(images, ImageFiles) for images in opened.values()):
        faults = look([file for images in opened.values() for file in images.files])
        whole = without_faults(opened, faults, root=c.data_path, skip=c.damaged_images == "skip")
        left_out = {split: len(opened[split]) - len(whole[split]) for split in SPLITS}
        opened = whole
    return {split: _as_asked(c, split, images, left_out[split]) for split, images in opened.items()}


def open_evaluated(c: Any, class_names: Sequence[str], *, all_images: bool) -> Source:
    """The images to evaluate a network of these classes on; see `sources.open_tests`.

    Args:
        all_images: of class folders without val or test: all of them, and not the share that is held out.
    """
    val_fraction = None if all_images else c.val_fraction
    images = open_tests(c.data_path, class_names, val_fraction=val_fraction, **_how(c))
    return _as_asked(c, "test", images)


def _how(c: Any) -> dict[str, Any]:
    return {
        "dataset": c.dataset,
        "seed": c.split_seed,
        "skip_unreadable": c.damaged_images == "skip",
    }


def _as_asked(c: Any, split: Split, images: Images, left_out: int = 0) -> Source:
    if split == "train" and c.examples_per_class:
        chosen = few_shot(
            images.labels, c.examples_per_class, c.few_shot_seed, class_names=images.class_names
        )
        images = images.take(chosen)
    if isinstance(images, ImageSet):
        return images
    if c.train_crop == "pad":
        raise UserError(
            f"train_crop: pad is for sets of 32x32 images, and {c.data_path} holds image files; "
            "use train_crop random_resized or resize, with an image_size"
        )
    how = {"skip": c.damaged_images == "skip", "same_class": split == "train"}
    return ReadablePictures(images, **how, left_out=left_out)


def train_batches(
    c: Any,
    source: Source,
    *,
    host_normalises: bool,
    rank: int,
    size: int,
    more_targets: Callable[[Step], Arrays] | None = None,
    **order: Any,
) -> TrainBatches:
    """The training data of one rank, augmented as the keys `c` say.

    Args:
        source: of the training images.
        host_normalises: whether pictures come normalised; bytes are a quarter of the transfer to a card.
        more_targets: see `TrainBatches`.
        order: `repetitions` and `epoch_length` of `Order`.
    """
    operations = [(stream, from_keys(c)) for stream, from_keys in OPERATIONS.values()]
    how = {"flip": c.flip, "operations": [(stream, change) for stream, change in operations if change]}
    normalise = Normalise(c.image_mean, c.image_std)
    if c.train_crop == "pad":
        crops = PadCrops(
            source,
            normalise,
            crop_pad=c.crop_pad,
            cutout=c.cutout,
            translate=c.translate,
            brightness_jitter=c.brightness_jitter,
            contrast_jitter=c.contrast_jitter,
            **how,
        )
    else:
        crops = PictureCrops(
            source,
            c.image_size,
            train_crop=c.train_crop,
            resize_size=c.resize_size or c.image_size,
            crop_area=c.crop_area,
            crop_ratio=c.crop_ratio,
            interpolation=c.interpolation,
            colour=ColourChange.from_keys(c),
            erasing=Erasing.from_keys(c),
            normalise=normalise if host_normalises else None,
            **how,
        )
    mixing = Mixing(mixup_alpha=c.mixup_alpha, cutmix_alpha=c.cutmix_alpha, per_image=c.mixup_per_image)
    shard = {"batch_size": c.batch_size, "seed": c.seed, "rank": rank, "size": size}
    return TrainBatches(
        Order(len(source.labels), **shard, **order),
        crops,
        mixing=mixing if c.mixup_alpha or c.cutmix_alpha else None,
        label_smoothing=c.label_smoothing,
        more_targets=more_targets,
        workers=c.workers,
    )


def eval_batches(
    c: Any,
    source: Source,
    preparation: Preparation,
    *,
    host_normalises: bool,
    side_multiple: int,
    rank: int,
    size: int,
) -> EvalBatches:
    """One rank's share of the test data, prepared as the keys `c` say.

    Args:
        source: of the test images.
        preparation: of the keys.
        host_normalises: whether pictures come normalised, and not as bytes.
        side_multiple: what the sides of whole pictures are divisible by.
    """
    return EvalBatches(
        source,
        preparation,
        batch_size=c.eval_batch_size,
        whole_multiple=side_multiple if c.eval_crop == "whole" else None,
        normalised=host_normalises,
        workers=c.workers,
        rank=rank,
        size=size,
    )


def preparation(c: Any) -> Preparation:
    """What evaluation makes of a picture; with `eval_crop` whole, of one that must be a square."""
    return Preparation(
        image_size=c.eval_image_size or c.image_size,
        mean=c.image_mean,
        std=c.image_std,
        crop="centre" if c.eval_crop == "whole" else c.eval_crop,
        interpolation=c.interpolation,
        crop_percentage=c.crop_percentage,
    )
