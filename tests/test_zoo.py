"""Every model of the table builds by name, and its recipe builds the same network."""

import mindspore as ms
import numpy as np
import pytest

from src import zoo
from src.checkpoint.weights import load_weights
from src.common.errors import UserError
from src.recipe import Recipe
from src.shared_config import SharedConfig


def test_the_models():
    names = zoo.list_models()
    assert names == sorted(names) and "resnet9" in names


@pytest.mark.parametrize("name", zoo.list_models())
def test_a_recipe_builds_the_network_of_its_name(name):
    config_class = zoo.config_class_of(name)
    assert issubclass(config_class, SharedConfig)
    narrow = {"width_factor": 0.5} if "width_factor" in config_class.model_fields else {}
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
    [("resnet8", "the nearest known model is resnet9"), ("vgg", "known are "), ("", "known are ")],
)
@pytest.mark.parametrize(
    "use", [lambda name: zoo.create_network(name, num_classes=10), zoo.config_class_of], ids=["net", "config"]
)
def test_an_unknown_model(use, name, hint):
    with pytest.raises(UserError) as caught:
        use(name)
    assert str(caught.value).startswith(f"model: {name!r} given, but there is no such model; {hint}")


def test_an_argument_that_the_network_does_not_have():
    with pytest.raises(TypeError, match="depth"):
        zoo.create_network("resnet9", num_classes=10, depth=9)
