"""Batches of many shapes are evaluated without a graph, and all others with one."""

import mindspore as ms
import numpy as np
import pytest
from PIL import Image

from src import trained
from src.data.picture_batches import PictureEvalBatches
from src.data.whole_batches import WholePictureBatches
from src.evaluation.network import evaluate_network
from src.layers.pixels import Pixels
from src.model_utils.config import check
from src.model_utils.device_adapter import without_graph
from src.recipe import Recipe
from src.shared_config import SharedConfig

pytestmark = pytest.mark.usefixtures("graph_mode")


@pytest.fixture
def recipe_of(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        for split, shapes in (("train", [(9, 9)]), ("val", [(20, 30), (40, 60), (31, 17)])):
            (tmp_path / split / name).mkdir(parents=True)
            for number, shape in enumerate(shapes):
                pixels = rng.integers(0, 256, (*shape, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{number}.png")

    def make(**keys):
        keys = {"train_crop": "random_resized", "image_size": 12, "eval_batch_size": 4, **keys}
        return Recipe(check({"data_path": str(tmp_path), **keys}, SharedConfig))

    return make


class Modes(list):
    """A stand-in for a network, which keeps the mode and the shape of each call."""

    def set_train(self, mode):
        assert not mode

    def __call__(self, images):
        self.append((ms.get_context("mode"), images.shape))
        return images.mean((2, 3))[:, :2]


def test_whole_pictures_run_without_a_graph(recipe_of):
    recipe, network = recipe_of(eval_crop="whole", eval_image_size=24), Modes()
    batches = recipe.eval_batches()
    assert isinstance(batches, WholePictureBatches) and batches.side_multiple == recipe.side_multiple == 1
    found = evaluate_network(network, Pixels((0, 0, 0), (1, 1, 1)), batches, num_classes=2, flip_tta=True)
    assert found.metrics["count"] == 6
    one_class = [(2, 3, 16, 24), (1, 3, 24, 13)]
    assert network == [(ms.PYNATIVE_MODE, shape) for shape in one_class * 2 for _ in range(2)]
    assert ms.get_context("mode") == ms.GRAPH_MODE


def test_batches_of_one_shape_keep_theirs(recipe_of):
    batches, network = recipe_of().eval_batches(), Modes()
    assert isinstance(batches, PictureEvalBatches)
    evaluate_network(network, Pixels((0, 0, 0), (1, 1, 1)), batches, num_classes=2)
    assert network == [(ms.GRAPH_MODE, (4, 3, 12, 12))] * 2


def test_an_export_of_a_model_evaluated_whole_takes_squares(recipe_of, monkeypatch):
    recipe = recipe_of(eval_crop="whole", crop_percentage=0.5)
    assert recipe.resizing == {"crop": "centre", "interpolation": "bilinear", "crop_percentage": 0.5}
    monkeypatch.setattr(trained, "create_recipe", Recipe)
    assert trained.some_images(recipe).shape == (4, 3, 12, 12)


def test_the_mode_comes_back_after_an_error():
    with pytest.raises(KeyError), without_graph():
        assert ms.get_context("mode") == ms.PYNATIVE_MODE
        raise KeyError
    assert ms.get_context("mode") == ms.GRAPH_MODE
