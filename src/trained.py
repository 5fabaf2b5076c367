# SPDX-License-Identifier: Apache-2.0
"""A trained network from a checkpoint file, which carries its own config."""

import argparse
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn

from .checkpoint.file import Checkpoint, read_checkpoint
from .checkpoint.formats import Arrays, find_weights, is_foreign, read_weights
from .checkpoint.weights import count_classes, load_weights
from .common.errors import UserError
from .common.log import setup_logging
from .data.labels import read_class_names
from .deploy.card import ModelCard
from .deploy.mindir import network_predictor
from .deploy.predict import BATCH_SIZE, Predictor
from .evaluation.door import evaluated_recipe
from .model_utils.config import load_config, parse_overrides, read_yaml
from .model_utils.device_adapter import Device, set_up_device
from .recipe import Recipe
from .training.precision import set_precision
from .zoo import config_class_of, create_recipe

_MEND = (
    "name its classes (--class_names FILE) or data of them (--data_path), or train a new head "
    "(train.py --pretrained_head replace)"
)


@dataclass(frozen=True)
class Trained:
    """A network in evaluation mode, with what it was trained by.

    Attributes:
        averaged: whether the weights are an average.
        other_data: whether data was named that is not the run's own, so that all its images are evaluated.
    """

    network: nn.Cell
    recipe: Recipe
    checkpoint: Checkpoint
    card: ModelCard
    device: Device
    averaged: bool
    other_data: bool = False

    @property
    def facts(self) -> dict[str, Any]:
        """Which network it is, for a report."""
        return {
            "checkpoint": str(self.checkpoint.path),
            "model": self.recipe.config.model,
            "step": self.checkpoint.meta["step"],
            "averaged_weights": self.averaged,
        }

    @property
    def to_float16(self) -> Callable[[nn.Cell], nn.Cell] | None:
        """What `amp_level` does to a network in float32, in place; None where it leaves it so."""
        level = self.recipe.config.amp_level
        return None if level == "O0" else partial(set_precision, level=level)


def open_trained(
    path: str | Path,
    overrides: Mapping[str, Any],
    *,
    config_path: str | Path | None = None,
    class_names: str | Path | None = None,
    raw_weights: bool = False,
    headless: bool = False,
    with_data: bool = False,
    float32: bool = False,
    flags: Iterable[str] = (),
) -> Trained:
    """Sets up the device and loads the network of a checkpoint: averaged weights where kept.

    Weights of others (.npz, .safetensors, .pth ...) carry neither config nor names of classes. The config is
    then that of `config_path`. The classes are named by `class_names`, else by the data set if it is used or
    the overrides have a `data_path`, else by numbers, as many as the weights' classifier has: no data set is
    opened then.

    Args:
        path: a .ckpt of ours, a run's folder (its best checkpoint), or what else `load_weights` reads.
        overrides: config keys that come after the checkpoint's own.
        config_path: a file whose keys come between the two.
        class_names: a file, see `read_class_names`; of others' weights alone.
        raw_weights: take the weights themselves, not their average.
        headless: only `embed` is needed: weights of others are taken without their classifier.
        with_data: the caller uses the data set.
        float32: the network computes in float32, whatever `amp_level` says.
        flags: the door's own, to find the nearest name for an unknown key.

    Raises:
        UserError: the checkpoint is damaged, or the config does not fit it.
    """
    path = find_weights(path)
    ours = not is_foreign(path)
    if not ours and not config_path and "model" not in overrides:
        raise UserError(f"{path} carries no config; give its recipe as --config_path, or its --model")
    if ours and class_names:
        raise UserError(f"class_names: {class_names} given, but {path} has names of its own; leave it out")
    checkpoint = read_checkpoint(path) if ours else None
    own_data = _data_of_run(path) if ours else {}
    config = load_config(
        overrides,
        config_class_of=config_class_of,
        config_path=config_path,
        base=checkpoint.meta["config"] | own_data if ours else None,
        flags=flags,
    )
    setup_logging(None).setLevel(logging.WARNING)
    device = set_up_device(config.device_target, seed=config.seed)
    recipe = create_recipe(config)
    if ours:
        weights = checkpoint.network_weights(ema=not raw_weights)
        averaged = checkpoint.has_average and not raw_weights
        names = tuple(checkpoint.meta["class_names"])
    else:
        weights, averaged = read_weights(path, averaged=not raw_weights)
        with_data = with_data or "data_path" in overrides
        names = ("none",) if headless else _class_names(recipe, weights, path, class_names, with_data)
    network = recipe.network(num_classes=len(names))
    head = "replace" if headless and not ours else "keep"
    load_weights(network, weights, head=head, mend=_MEND, label=f"checkpoint {path}")
    if not ours:
        arrays = {p.name: p.asnumpy() for p in network.get_parameters()}
        meta = {"config": config.model_dump(mode="json"), "class_names": list(names), "step": 0}
        checkpoint = Checkpoint(path, arrays, meta)
    card = ModelCard(model=config.model, class_names=names, preparation=recipe.preparation)
    network = set_precision(network, "O0" if float32 else config.amp_level).set_train(False)
    other_data = not ours or ("data_path" in overrides and not _is_same(config.data_path, **own_data))
    other_data = other_data and "val_fraction" not in overrides
    return Trained(network, recipe, checkpoint, card, device, averaged, other_data)


def _class_names(
    recipe: Recipe, weights: Arrays, path: Path, file: str | Path | None, with_data: bool
) -> tuple[str, ...]:
    """How the classes of others' weights are named."""
    if file:
        return read_class_names(file)
    if with_data:
        try:
            return tuple(recipe.source("test").class_names)
        except UserError as error:
            raise UserError(f"{error}; or name the classes of the weights: --class_names FILE") from error
    count = count_classes(recipe.network(num_classes=1), weights, label=f"checkpoint {path}")
    return tuple(map(str, range(count)))


def _data_of_run(path: Path) -> dict[str, Any]:
    """The data that the run of a checkpoint was trained on, if the file still lies in the run's folder.

    The checkpoint itself says nothing of the machine that it was made on.
    """
    folder = path.resolve().parent
    config = folder.parent / "config.yaml"
    if folder.name != "checkpoints" or not config.is_file():
        return {}
    return {name: value for name, value in read_yaml(config).items() if name == "data_path"}


def _is_same(path: str, data_path: str = "") -> bool:
    return bool(data_path) and Path(path).resolve() == Path(data_path).resolve()


def open_from_flags(
    flags: argparse.Namespace, rest: Sequence[str], *, path: str | None = None, **how: bool
) -> Trained:
    """`open_trained` for a door: the flags of `checkpoint_parser`, and the words that are config keys."""
    return open_trained(
        flags.checkpoint_path if path is None else path,
        parse_overrides(rest),
        config_path=flags.config_path,
        class_names=flags.class_names,
        raw_weights=flags.raw_weights,
        flags=vars(flags),
        **how,
    )


def checkpoint_predictor(flags: argparse.Namespace, rest: Sequence[str]) -> Predictor:
    """A predictor from weights, for infer.py; exported models are opened by `src.deploy.backends`.

    Args:
        flags: model_path, weights of any kind, or the folder of a run; backend, auto or mindspore;
            device_target; batch_size, images a call, None for 32; and those of `add_weights_flags`.
        rest: the words that are config keys.

    Raises:
        UserError: as `open_trained`, or another backend is asked for.
    """
    if flags.backend not in ("auto", "mindspore"):
        raise UserError(
            f"backend: {flags.backend} given, weights run on mindspore; export them for others: "
            f"python export.py --checkpoint_path {flags.model_path}"
        )
    if flags.threads is not None:
        raise UserError(
            f"threads: {flags.threads} given, and MindSpore has settings of its own; leave it out"
        )
    words = [*rest, f"--device_target={flags.device_target}"]
    trained = open_from_flags(flags, words, path=flags.model_path)
    size = BATCH_SIZE if flags.batch_size is None else flags.batch_size
    return network_predictor(trained.network, trained.card, size, device=trained.device.target)


def some_images(trained: Trained, *, count: int = 64) -> np.ndarray | None:
    """The first images that eval.py takes, (count, 3, S, S) float32; None and a warning if there are none."""
    try:
        recipe = evaluated_recipe(trained)
        if recipe.config.eval_crop == "whole":  # what an exported model takes are squares
            recipe = recipe.changed(eval_crop="centre")
        images, _, valid = next(iter(recipe.eval_batches()))
    except UserError as error:
        logging.getLogger("quartet").warning("no real images to compare with: %s", error)
        return None
    return recipe.inputs()(ms.Tensor(images[: min(valid, count)])).asnumpy()
