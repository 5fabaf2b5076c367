# SPDX-License-Identifier: Apache-2.0
"""Every model of the table builds by name, and its recipe builds the same network."""

import functools
import inspect
import subprocess
import sys
import textwrap
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

import src
from src import zoo
from src.checkpoint.weights import load_weights
from src.common.errors import UserError
from src.layers.build import build_network, network_keys
from src.recipe import Recipe
from src.shared_config import SharedConfig

ROOT = Path(__file__).parents[1]


def test_the_models():
    names = zoo.list_models()
    assert names == sorted(names) and "resnet9" in names


@pytest.mark.parametrize("name", zoo.list_models())
def test_a_recipe_builds_the_network_of_its_name(name):
    config_class = zoo.config_class_of(name)
    assert issubclass(config_class, SharedConfig)
    narrow = {"widths": (4, 4, 8, 8), "width_factor": 0.5}
    narrow = {key: value for key, value in narrow.items() if key in config_class.model_fields}
    if name == "cifarnet":
        narrow = {"widths": (4, 4, 8)}
    recipe = zoo.create_recipe(config_class(model=name, **narrow))
    assert isinstance(recipe, Recipe) and recipe.config.model == name

    by_recipe, by_name = recipe.network(num_classes=3), zoo.create_network(name, num_classes=3, **narrow)
    arrays = {p.name: p.asnumpy() for p in by_name.get_parameters()}
    assert {p.name for p in by_recipe.get_parameters()} == set(arrays)
    assert all((p.asnumpy() == arrays[p.name]).all() for p in by_recipe.get_parameters())


@pytest.mark.usefixtures("graph_mode")
def test_a_network_gives_logits_and_features():
    network = zoo.create_network("resnet9", num_classes=3, widths=(2, 3, 4, 5))
    network.set_train(False)
    images = ms.Tensor(np.zeros((2, 3, 32, 32), np.float32))
    assert network(images).shape == (2, 3)
    assert network.embed(images).shape == (2, 5)


def test_weights_are_loaded_by_the_function_of_weights():
    assert zoo.load_weights is load_weights


@pytest.mark.parametrize(
    ("name", "hint"),
    [("resnet8", "the nearest known model is resnet9"), ("mixer", "known are ")],
)
@pytest.mark.parametrize(
    "use", [lambda name: zoo.create_network(name, num_classes=10), zoo.config_class_of], ids=["net", "config"]
)
def test_an_unknown_model(use, name, hint):
    with pytest.raises(UserError) as caught:
        use(name)
    assert str(caught.value).startswith(f"model: {name!r} given, but there is no such model; {hint}")


@pytest.mark.parametrize("given", [{"depth": 9}, {"depth": 9, "lr": 0.1}])
def test_an_argument_that_the_network_does_not_have(given):
    names = ", ".join(sorted(given))
    with pytest.raises(UserError, match=f"^{names}: no argument of resnet9's network, which takes widths, "):
        zoo.create_network("resnet9", num_classes=10, **given)


def test_an_argument_out_of_range_is_told_as_a_key_is():
    with pytest.raises(UserError, match=r"^widths: \[1, 2\] given, allowed: a list of 4 whole numbers > 0$"):
        zoo.create_network("resnet9", num_classes=10, widths=(1, 2))


MODELS_ONCE = sorted({zoo.config_class_of(name): name for name in zoo.list_models()}.values())


@pytest.mark.parametrize("name", MODELS_ONCE)
def test_a_network_is_described_by_its_config_alone(name):
    recipe = zoo.recipe_class_of(name)
    fields, shared = recipe.config_class.model_fields, set(SharedConfig.model_fields)
    keys = network_keys(recipe.network_class)
    assert set(keys) <= set(fields)
    assert set(keys) - shared and set(keys) & shared >= {"seed"}
    parameters = inspect.signature(recipe.network_class).parameters.values()
    assert all(p.default is p.empty and p.kind is p.KEYWORD_ONLY for p in parameters)


@pytest.mark.parametrize("name", MODELS_ONCE)
def test_every_key_of_the_signature_reaches_the_network(name):
    recipe = zoo.recipe_class_of(name)
    config, seen = recipe.config_class(model=name), {}

    @functools.wraps(recipe.network_class)
    def build(**arguments):
        seen.update(arguments)

    build_network(build, config, num_classes=6)
    assert seen.pop("num_classes") == 6
    assert seen == {key: getattr(config, key) for key in network_keys(recipe.network_class)}


def test_a_models_name_stands_for_values_that_a_key_can_change():
    config_class = zoo.config_class_of("bit_r152x2")
    assert config_class(model="bit_r152x2").block_units == (3, 8, 36, 3)
    changed = config_class(model="bit_r152x2", width_factor=0.5)
    assert (changed.block_units, changed.width_factor) == ((3, 8, 36, 3), 0.5)
    for keys in (config_class.VARIANTS, zoo.config_class_of("birealnet18").VARIANTS):
        assert set(keys) < set(zoo.list_models())


def test_names_and_configs_need_no_mindspore():
    """Old behaviour: the table imported every network, so a --help took five seconds and more."""
    code = (
        "import sys; from src.zoo import config_class_of, list_models\n"
        "for name in list_models(): config_class_of(name)(model=name)\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'mindspore'])"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


FIFTH = {
    "config.py": """
        from ..shared_config import SharedConfig

        class FifthConfig(SharedConfig):
            VARIANTS = {"fifth_small": {}, "fifth_large": {}}

        class SixthConfig(SharedConfig):
            VARIANTS = {"sixth": {}}
    """,
    "network.py": """
        class Fifth:
            def __init__(self, *, num_classes, seed):
                self.built = (num_classes, seed)
    """,
}


@pytest.mark.parametrize("own_recipe", [False, True])
def test_a_fifth_model_is_its_package_and_one_row(tmp_path, monkeypatch, own_recipe):
    files = dict(FIFTH)
    if own_recipe:
        files["recipe.py"] = """
            from ..recipe import Recipe
            from .config import FifthConfig, SixthConfig

            class FifthRecipe(Recipe):
                config_class = FifthConfig
                side_multiple = 8

            class SixthRecipe(Recipe):
                config_class = SixthConfig
        """
    (tmp_path / "fifth").mkdir()
    for name, text in files.items():
        (tmp_path / "fifth" / name).write_text(textwrap.dedent(text))
    monkeypatch.setattr(src, "__path__", [*src.__path__, str(tmp_path)])
    for name in ("", ".config", ".network", ".recipe"):
        monkeypatch.delitem(sys.modules, f"src.fifth{name}", raising=False)
    names = ("Fifth", "Sixth") if own_recipe else ("Fifth",)
    monkeypatch.setitem(zoo._PACKAGES, "fifth", names)
    zoo.recipe_class_of.cache_clear()
    assert {"fifth_small", "fifth_large"} < set(zoo.list_models())
    recipe = zoo.create_recipe(zoo.config_class_of("fifth_large")(model="fifth_large", seed=3))
    assert (type(recipe).__name__, recipe.side_multiple) == ("FifthRecipe", 8 if own_recipe else 1)
    if not own_recipe:
        assert recipe.network(num_classes=4).built == (4, 3)
    assert ("sixth" in zoo.list_models()) is own_recipe
    if own_recipe:
        assert zoo.recipe_class_of("sixth").config_class is zoo.config_class_of("sixth")


def test_no_model_is_said_with_what_to_do():
    """Old behaviour: without a word, `python train.py` trained ResNet9 on a folder that was not there."""
    assert zoo.config_class_of("") is SharedConfig
    for use in (lambda: zoo.create_recipe(SharedConfig()), lambda: zoo.create_network("", num_classes=2)):
        with pytest.raises(
            UserError, match=r"^model: none given; name a recipe, --config_path configs/MODEL/"
        ):
            use()
