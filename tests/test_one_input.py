# SPDX-License-Identifier: Apache-2.0
"""One picture gives the network one input, whichever door it comes through."""

from functools import partial

import numpy as np
import pytest
from mindspore import Tensor, nn
from PIL import Image

from src.data import from_keys
from src.data.decode import decode, decode_resized
from src.deploy.card import ModelCard
from src.deploy.classify import classify
from src.deploy.examples import find_examples
from src.deploy.predict import Predictor
from src.model_utils.config import check
from src.recipe import Recipe
from src.retrieval.embedding import Embedder
from src.shared_config import SharedConfig
from tests.helpers.image_files import SAVED, orientation
from tests.helpers.pictures import photo, smooth

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

ODD = {
    **{name: SAVED[name] for name in (
        "cmyk.jpg", "grey.jpg", "progressive.jpg", "turned_6.jpg", "palette_and_alpha.png", "16_bits.png",
        "la.png", "turned.png", "palette.gif", "rgb.bmp", "rgb.webp", "cmyk.tiff", "one.jpg",
    )},
    "float.tif": lambda path: Image.fromarray(photo()[..., 0] / np.float32(255)).save(path),
    "panorama.jpg": lambda path: Image.fromarray(photo(900, 7)).save(path),
    "large.jpg": lambda path: Image.fromarray(smooth(501, 603)).save(path),
    "large_turned.jpg": lambda path: Image.fromarray(smooth(504, 600)).save(path, exif=orientation(8)),
    "large.png": lambda path: Image.fromarray(smooth(300, 200)).save(path),
}  # fmt: skip
KEYS = {
    "train_crop": "random_resized", "image_size": 24, "crop_percentage": 0.875, "eval_batch_size": 4,
    "image_mean": [123.675, 116.28, 103.53], "image_std": [58.395, 57.12, 57.375], "dataset": "folder",
}  # fmt: skip


class Seen(nn.Cell):
    """A stand-in for a network, which keeps what it is shown."""

    def __init__(self):
        super().__init__()
        self.images = []

    def embed(self, x):
        self.images.extend(x.asnumpy())
        return Tensor(np.ones((len(x), 2), np.float32))

    def run(self, images):
        self.images.extend(images)
        return np.zeros((len(images), 2), np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    for split in ("train", "val"):
        for number, (name, save) in enumerate(ODD.items()):
            path = folder / split / "ab"[number % 2] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            save(path)
    return folder


def evaluated(recipe, *, host_normalises):
    """What training's evaluation and eval.py show: by the name of the file."""
    source = recipe.source("test")
    batches = from_keys.eval_batches(
        recipe.config, source, recipe.preparation, host_normalises=host_normalises,
        side_multiple=1, rank=0, size=1,
    )  # fmt: skip
    images = [image for images, _, valid in batches for image in images[:valid]]
    return {source.name(number): image for number, image in enumerate(images)}


def classified(recipe, folder, input_type, path):
    """What infer.py shows, by a card that was written and read again."""
    ModelCard(model="m", class_names=("a", "b"), preparation=recipe.preparation, input_type=input_type).save(
        path
    )
    seen = Seen()
    examples, _ = find_examples([folder / "val"], ("a", "b"))
    found = classify(Predictor({1: seen.run}, card=ModelCard.load(path)), examples)
    assert not found.skipped
    return dict(
        zip((example.file for example in examples), seen.images[1:], strict=True)
    )  # the first warms up


def assert_equal(first, second):
    assert first.keys() == second.keys() and len(first) == len(ODD)
    for name, image in first.items():
        assert image.dtype == second[name].dtype, name
        np.testing.assert_array_equal(image, second[name], err_msg=name)


@pytest.mark.parametrize("interpolation", ["bilinear", "tf_bilinear", "bicubic"])
@pytest.mark.parametrize("crop", ["centre", "squash"])
def test_evaluation_inference_and_exports_see_the_same(folder, tmp_path, crop, interpolation):
    keys = {**KEYS, "data_path": str(folder), "eval_crop": crop, "interpolation": interpolation}
    recipe = Recipe(check(keys, SharedConfig))
    for input_type in ("float32", "uint8"):
        expected = evaluated(recipe, host_normalises=input_type == "float32")
        assert_equal(expected, classified(recipe, folder, input_type, tmp_path / f"{input_type}.json"))
    for file, pixels in expected.items():
        if not file.endswith(("large.jpg", "large_turned.jpg")) or interpolation == "tf_bilinear":
            np.testing.assert_array_equal(recipe.preparation.square(decode(file)), pixels, err_msg=file)
        else:  # a fraction was decoded
            assert np.abs(recipe.preparation.square(decode(file)).astype(int) - pixels).mean() < 0.5


@pytest.mark.usefixtures("graph_mode")
@pytest.mark.parametrize("interpolation", ["bilinear", "tf_bilinear"])
def test_search_sees_what_evaluation_of_whole_pictures_sees(folder, interpolation):
    keys = {**KEYS, "data_path": str(folder), "eval_crop": "whole", "interpolation": interpolation}
    recipe, seen = Recipe(check(keys, SharedConfig)), Seen()
    expected = evaluated(recipe, host_normalises=True)
    embedder, found = Embedder.of_network(seen, recipe.preparation), {}
    for file in expected:
        list(embedder.embed([(file, partial(decode_resized, file))]))
        found[file] = seen.images.pop()
    assert_equal(expected, found)
