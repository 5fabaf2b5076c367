"""One file is the same input to the last bit, whichever command reads it."""

from functools import partial
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from PIL import Image

from src.data.decode import decode_resized
from src.deploy.card import ModelCard
from src.deploy.classify import classify
from src.deploy.examples import find_examples
from src.deploy.predict import Predictor
from src.model_utils.config import check
from src.retrieval.embedding import Embedder
from src.zoo import config_class_of, create_recipe
from tests.helpers.image_files import SAVED
from tests.helpers.pictures import photo, smooth

FILES = (
    "rgb.jpg", "progressive.jpg", "grey.jpg", "cmyk.jpg", "one.jpg", "two.mpo", "grey.png", "one_bit.png",
    "palette_and_alpha.png", "rgba.png", "16_bits.png", "turned.png", "palette.gif",
)  # fmt: skip
CLASSES = ("ant", "bee")
MEAN, STD = (125.0, 110.0, 100.0), (60.0, 61.0, 62.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The odd files, a photograph that is read at a fraction, and a panorama, as tests of the class ant."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("train/ant", "train/bee", "val/ant", "val/bee"):
        (folder / name).mkdir(parents=True)
        Image.fromarray(photo()).save(folder / name / "0.png")
    for name in FILES:
        SAVED[name](folder / "val" / "ant" / name)
    Image.fromarray(smooth(1500, 2000)).save(folder / "val" / "ant" / "large.jpg")
    Image.fromarray(smooth(100, 3000)).save(folder / "val" / "ant" / "panorama.jpg")
    return folder


def _recipe(data, **keys):
    config = {
        "model": "bit_r50x1", "block_units": (1, 1, 1, 1), "width_factor": 0.5, "data_path": str(data),
        "image_size": 64, "resize_size": 64, "image_mean": MEAN, "image_std": STD, "device_target": "CPU",
        "eval_batch_size": 4, **keys,
    }  # fmt: skip
    return create_recipe(check(config, config_class_of("bit_r50x1")))


def _evaluated(recipe):
    """What evaluation gives to the network."""
    inputs = recipe.inputs()
    batches = recipe.eval_batches()
    return [
        picture for images, _, valid in batches for picture in inputs(ms.Tensor(images[:valid])).asnumpy()
    ]


def _card(recipe, folder, input_type):
    """As an exported model has it."""
    card = ModelCard(model="m", class_names=CLASSES, preparation=recipe.preparation, input_type=input_type)
    card.save(folder / "card.json")
    return ModelCard.load(folder / "card.json")


def _classified(data, card):
    """What infer.py gives to the network."""
    seen = []

    def run(batch):
        seen.append(batch[0].copy())
        return np.zeros((1, 2), np.float32)

    examples, _ = find_examples([data / "val"], CLASSES)
    found = classify(Predictor({1: run}, card=card), examples)
    assert found.skipped == []
    return seen[1:]  # the first warms up


@pytest.mark.parametrize(
    "keys",
    [
        {"eval_crop": "squash"},
        {"eval_crop": "centre", "crop_percentage": 0.875, "interpolation": "bicubic"},
        {"eval_crop": "centre", "interpolation": "bilinear", "eval_image_size": 48},
    ],
    ids=str,
)
def test_evaluation_and_inference(data, keys, tmp_path):
    recipe = _recipe(data, **keys)
    card = _card(recipe, tmp_path, "float32")
    evaluated, classified = _evaluated(recipe), _classified(data, card)
    assert len(evaluated) == len(classified) == len(FILES) + 4
    for one, other in zip(evaluated, classified, strict=True):
        np.testing.assert_array_equal(one, other)
    of_bytes = _classified(data, _card(recipe, tmp_path, "uint8"))
    for one, pixels in zip(evaluated, of_bytes, strict=True):
        assert pixels.dtype == np.uint8
        np.testing.assert_array_equal(one, recipe.inputs()(ms.Tensor(pixels[None])).asnumpy()[0])


class _Network(ms.nn.Cell):
    def __init__(self):
        super().__init__()
        self.seen = []

    def embed(self, images):
        self.seen += list(images.asnumpy())
        return images.mean((2, 3))


def test_evaluation_of_whole_pictures_and_search(data):
    recipe = _recipe(data, eval_crop="whole")
    network = _Network()
    embedder = Embedder.from_trained(SimpleNamespace(network=network, recipe=recipe, device=None))
    files = [example.file for example in find_examples([data / "val"], CLASSES)[0]]
    assert len(list(embedder.embed((file, partial(decode_resized, file)) for file in files))) == len(files)
    by_shape = [
        sorted(seen, key=lambda picture: picture.shape) for seen in (_evaluated(recipe), network.seen)
    ]
    for one, other in zip(*by_shape, strict=True):
        np.testing.assert_array_equal(one, other)
