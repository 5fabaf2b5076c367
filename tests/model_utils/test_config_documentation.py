# SPDX-License-Identifier: Apache-2.0
"""What is documented is what is implemented: recipes, default file, choices and help."""

import subprocess
import sys
import typing
from pathlib import Path

import numpy as np
import pytest

from src.bireal.config import BiRealConfig
from src.common.errors import UserError
from src.data.binary import ImageSet
from src.key_help import key_help
from src.layers.names import ACTIVATIONS
from src.model_utils.config import DEFAULTS, allowed, as_yaml, default_yaml, describe, load_config, read_yaml
from src.optim.schedules import SCHEDULES, cyclic, piecewise_linear
from src.resnet9.config import ResNet9Config
from src.shared_config import SharedConfig
from src.zoo import config_class_of, create_recipe

ROOT = Path(__file__).parents[2]
IMAGES = ImageSet(np.zeros((50_000, 3, 1, 1), np.uint8), np.zeros(50_000, np.int32), ("one",))
RECIPES = sorted((ROOT / "configs").rglob("*.yaml"))


def _load(config_path=None, **overrides):
    overrides = overrides if config_path else {"model": "resnet9", **overrides}
    return load_config(overrides, config_class_of=config_class_of, config_path=config_path)


def test_there_are_recipes():
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_recipe_loads_and_builds(path):
    config = _load(path)
    if "width_factor" in type(config).model_fields:  # the widest have hundreds of millions of parameters
        config = _load(path, width_factor=0.5)
    recipe = create_recipe(config).changed(sources={"train": IMAGES, "test": IMAGES}).settled()
    config = recipe.config
    network = recipe.network(num_classes=10)
    assert network.trainable_params()
    assert recipe.optimizer(network, recipe.loss()).parameters
    updates_per_epoch = 50_000 // config.batch_size / config.accumulate_steps
    updates = config.train_steps or round(config.epochs * updates_per_epoch)
    rates = recipe.rates(
        updates=updates, updates_per_epoch=updates_per_epoch, images_per_update=config.batch_size
    )
    assert rates.shape == (updates,)


@pytest.mark.parametrize("length", [{"train_steps": 40}, {"train_steps": 1}, {"epochs": 3}], ids=str)
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_recipe_can_be_cut_short(path, length):
    recipe = create_recipe(_load(path, **length)).changed(sources={"train": IMAGES, "test": IMAGES}).settled()
    for name, value in length.items():
        assert getattr(recipe.config, name) == value
    updates_per_epoch = 50_000 / recipe.config.batch_size / recipe.config.accumulate_steps
    updates = length.get("train_steps") or round(length["epochs"] * updates_per_epoch)
    rates = recipe.rates(updates=updates, updates_per_epoch=updates_per_epoch, images_per_update=512)
    assert rates.shape == (updates,) and np.isfinite(rates).all()
    if SCHEDULES[recipe.config.lr_schedule].function in (cyclic, piecewise_linear):  # rises that stay as long
        return
    warmup = recipe.config.warmup_epochs * updates_per_epoch
    assert rates.argmax() <= max(updates / 4, warmup if warmup < updates else 0) + 1


def test_default_config_is_what_the_module_prints():
    printed = subprocess.run(
        [sys.executable, "-m", "src.shared_config"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert printed.stdout == default_yaml(SharedConfig) == DEFAULTS.read_text()
    assert max(map(len, printed.stdout.splitlines())) <= 150


def test_default_config_holds_every_shared_key_with_its_default():
    assert list(read_yaml(DEFAULTS)) == list(SharedConfig.model_fields)
    assert _load() == ResNet9Config()


def _choices(name: str, config_class) -> tuple:
    return typing.get_args(config_class.model_fields[name].annotation)


def test_choices_are_those_of_the_modules():
    assert _choices("activation", ResNet9Config) == ACTIVATIONS


def test_every_key_has_a_meaning_a_default_and_words_for_its_range():
    for name, field in ResNet9Config.model_fields.items():
        assert field.description, name
        assert not field.is_required(), name
        assert isinstance(field.json_schema_extra["unit"], str), name
        assert allowed(field), name


def _lines_of_help(text: str) -> dict[str, tuple[str, str]]:
    """key -> (the line that shows it, the line that explains it)"""
    lines = text.splitlines()
    return {
        line.split()[0].removeprefix("--"): (line, lines[i + 1])
        for i, line in enumerate(lines)
        if line.startswith("  --")
    }


def test_help_lists_every_key_with_type_value_unit_and_meaning():
    config = _load(lr=0.25)
    shown = _lines_of_help(describe(config))
    assert set(shown) == set(ResNet9Config.model_fields)
    for name, field in ResNet9Config.model_fields.items():
        unit = field.json_schema_extra["unit"]
        line, meaning = shown[name]
        assert line == f"  --{name} {as_yaml(getattr(config, name))}" + (f" [{unit}]" if unit else "")
        assert meaning == f"        {field.description} ({allowed(field)})"
    assert shown["lr"][0] == "  --lr 0.25 [rate]" and shown["lr"][1].endswith("(a number > 0)")


DOORS = ["train.py", "eval.py", "export.py", "-m src.tools.summary", "-m src.multigrain.choose_p"]


@pytest.mark.parametrize("door", DOORS)
def test_every_door_prints_that_help_without_mindspore(door):
    """Old behaviour: only train.py did, after five seconds and more in which MindSpore was imported."""
    words = [*door.split(), "--help", "--config_path", "configs/bireal/cifar10.yaml"]
    code = (
        "import runpy, sys\n"
        "sys.modules['mindspore'] = None  # an import would fail\n"
        f"sys.argv = {words!r}\n"
        "as_module = sys.argv.pop(0) if sys.argv[0] == '-m' else None\n"
        "(runpy.run_module if as_module else runpy.run_path)(sys.argv[0], run_name='__main__')"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    shown = _lines_of_help(ended.stdout)
    assert set(shown) >= set(BiRealConfig.model_fields) and "--config_path" in ended.stdout
    assert shown["optimizer"][0] == "  --optimizer adam" and "Keys of birealnet18." in ended.stdout


def test_help_without_a_model_lists_the_shared_keys():
    shown = _lines_of_help(key_help(["--lr", "0.25", "--help"]))
    assert set(shown) == set(SharedConfig.model_fields)
    with pytest.raises(UserError, match="the nearest known model is birealnet18"):
        key_help(["--model", "birealnet8"])
