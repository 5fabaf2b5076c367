"""A trained network from a checkpoint file, which carries its own config."""

import argparse
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn

from .checkpoint.file import Checkpoint, read_checkpoint
from .checkpoint.formats import find_weights, is_foreign
from .checkpoint.weights import load_weights
from .common.errors import UserError
from .common.log import setup_logging
from .deploy.card import ModelCard
from .deploy.mindir import network_predictor
from .deploy.predict import Predictor
from .model_utils.config import load_config, parse_overrides, read_yaml
from .model_utils.device_adapter import Device, set_up_device
from .recipe import Recipe
from .training.precision import set_precision
from .zoo import config_class_of, create_recipe

_MEND = "name data of its classes (data_path), or train a new head (train.py --pretrained_head replace)"


@dataclass(frozen=True)
class Trained:
    """A network in evaluation mode, with what it was trained by."""

    network: nn.Cell
    recipe: Recipe
    checkpoint: Checkpoint
    card: ModelCard
    device: Device
    averaged: bool


def open_trained(
    path: str | Path,
    overrides: Mapping[str, Any],
    *,
    config_path: str | Path | None = None,
    raw_weights: bool = False,
    headless: bool = False,
    flags: Iterable[str] = (),
) -> Trained:
    """Sets up the device and loads the network of a checkpoint: averaged weights where kept.

    Weights of others (.npz, .safetensors, .pth ...) carry neither config nor names of classes: these are then
    those of `config_path` and of the data set, by their order.

    Args:
        path: a .ckpt of ours, a run's folder (its best checkpoint), or what else `load_weights` reads.
        overrides: config keys that come after the checkpoint's own.
        config_path: a file whose keys come between the two.
        raw_weights: take the weights themselves, not their average.
        headless: only `embed` is needed: weights of others are taken without their classifier, and no data
            set is asked for the names of their classes.
        flags: the door's own, to find the nearest name for an unknown key.

    Raises:
        UserError: the checkpoint is damaged, or the config does not fit it.
    """
    path = find_weights(path)
    ours = not is_foreign(path)
    if not ours and not config_path:
        raise UserError(f"checkpoint_path: {path} carries no config; give its recipe as --config_path")
    checkpoint = read_checkpoint(path) if ours else None
    config = load_config(
        overrides,
        config_class_of=config_class_of,
        config_path=config_path,
        base=checkpoint.meta["config"] | _data_of_run(checkpoint.path) if ours else None,
        flags=flags,
    )
    setup_logging(None).setLevel(logging.WARNING)
    device = set_up_device(config.device_target, seed=config.seed)
    recipe = create_recipe(config)
    head = "keep"
    if ours:
        class_names = checkpoint.meta["class_names"]
    elif headless:
        class_names, head = ("none",), "replace"
    else:
        class_names = recipe.source("test").class_names
    network = recipe.network(num_classes=len(class_names))
    source = checkpoint.network_weights(ema=not raw_weights) if ours else path
    load_weights(network, source, head=head, mend=_MEND, label=f"checkpoint {path}")
    if not ours:
        arrays = {p.name: p.asnumpy() for p in network.get_parameters()}
        meta = {"config": config.model_dump(mode="json"), "class_names": list(class_names), "step": 0}
        checkpoint = Checkpoint(path, arrays, meta)
    card = ModelCard.of(recipe.preparation, model=config.model, class_names=tuple(class_names))
    averaged = checkpoint.has_average and not raw_weights
    network = set_precision(network, config.amp_level).set_train(False)
    return Trained(network, recipe, checkpoint, card, device, averaged)


def _data_of_run(path: Path) -> dict[str, Any]:
    """The data that the run of a checkpoint was trained on, if the file still lies in the run's folder.

    The checkpoint itself says nothing of the machine that it was made on.
    """
    folder = path.resolve().parent
    config = folder.parent / "config.yaml"
    if folder.name != "checkpoints" or not config.is_file():
        return {}
    return {name: value for name, value in read_yaml(config).items() if name == "data_path"}


def open_from_flags(flags: argparse.Namespace, rest: Sequence[str], *, headless: bool = False) -> Trained:
    """`open_trained` for a door: the flags of `checkpoint_parser`, and the words that are config keys."""
    return open_trained(
        flags.checkpoint_path,
        parse_overrides(rest),
        config_path=flags.config_path,
        raw_weights=flags.raw_weights,
        headless=headless,
        flags=vars(flags),
    )


def checkpoint_predictor(
    path: str | Path, *, backend: str = "auto", device_target: str = "auto", batch_size: int | None = None
) -> Predictor:
    """A predictor from a .ckpt of ours; exported models are opened by `src.deploy.backends`.

    Args:
        path: the checkpoint, or the folder of its run.
        backend: auto or mindspore.
        device_target: auto, Ascend, GPU or CPU.
        batch_size: images a call; None for 32.

    Raises:
        UserError: the checkpoint is damaged, or another backend is asked for.
    """
    if backend not in ("auto", "mindspore"):
        raise UserError(
            f"backend: {backend} given, a .ckpt runs on mindspore; export it for MindSpore Lite: "
            f"python export.py --checkpoint_path {path}"
        )
    trained = open_trained(path, {"device_target": device_target})
    size = 32 if batch_size is None else batch_size
    return network_predictor(trained.network, trained.card, size, device=trained.device.target)


def some_images(recipe: Recipe, *, count: int = 64) -> np.ndarray | None:
    """The first test images, (count, 3, S, S) float32; None and a warning without the data set."""
    if recipe.config.eval_crop == "whole":  # what an exported model takes are squares
        recipe = recipe.changed(eval_crop="centre")
    try:
        images, _, valid = next(iter(recipe.eval_batches()))
    except UserError as error:
        logging.getLogger("quartet").warning("no real images to compare with: %s", error)
        return None
    return recipe.inputs()(ms.Tensor(images[: min(valid, count)])).asnumpy()
