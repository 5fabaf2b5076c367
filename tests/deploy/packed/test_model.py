# SPDX-License-Identifier: Apache-2.0
"""A packed file as a class: pixels or normalised images in, classes out, with few packages."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from src.common.errors import UserError
from src.data.preparation import Preparation
from src.deploy.packed import PackedModel
from src.deploy.packed.program import LOGITS
from tests.helpers.packed import interpret

ROOT = Path(__file__).parents[3]
NEEDED = ("numpy", "llvmlite")  # and what Python brings

ALONE = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        first = name.partition(".")[0]
        if first not in {"src", *sys.argv[3].split(","), *sys.stdlib_module_names}:
            raise ModuleNotFoundError(f"no module {name}", name=first)

sys.meta_path.insert(0, Blocker())
import numpy as np
from src.deploy.packed import PackedModel

images = np.load(sys.argv[2])
np.save(sys.argv[2], PackedModel(sys.argv[1]).logits(images))
assert not {"mindspore", "onnx", "cv2", "pydantic", "scipy", "PIL"} & set(sys.modules)
"""


@pytest.fixture(scope="module")
def model(packed_file) -> PackedModel:
    return PackedModel(packed_file)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, 3, 16, 16)).astype(np.float32)


def test_it_answers_as_its_program(model, program, images, facts):
    expected = interpret(program, images)[LOGITS]
    np.testing.assert_allclose(model.logits(images), expected, atol=1e-5 * np.abs(expected).max())
    assert model.class_names == tuple(facts["class_names"]) and model.image_size == 16


def test_the_folder_of_an_export_is_its_file(model, packed_file, images):
    assert (PackedModel(packed_file.parent, threads=1).logits(images) == model.logits(images)).all()


def test_pixels_are_normalised_as_by_the_preparation(model, facts):
    pixels = np.random.default_rng(1).integers(0, 256, (2, 24, 16, 3), np.uint8)
    how = Preparation(**facts["preparation"])
    normalised = np.stack([how.normalise(one) for one in pixels])
    assert (model.logits(pixels) == model.logits(normalised)).all()


def test_no_images_have_no_logits(model):
    assert model.logits(np.empty((0, 3, 16, 16), np.float32)).shape == (0, 5)


@pytest.mark.parametrize(
    "images, reason",
    [
        (np.zeros((1, 16, 16, 3), np.float32), r"it takes uint8 \(N, H, W, 3\) or float32 \(N, 3, H, W\)"),
        (np.zeros((1, 3, 16, 16)), "it takes"),
        (np.zeros((3, 16, 16), np.float32), "it takes"),
        (np.zeros((1, 3, 2, 2), np.float32), "nothing is left of images of 2 x 2"),
        (np.zeros((1, 3, 17, 20), np.float32), "step 'down'"),
        (None, "it takes"),
    ],
)
def test_images_that_it_does_not_take(model, images, reason):
    with pytest.raises(UserError, match=f"^images of type .*{reason}"):
        model.logits(images)


def test_a_picture_is_classified(model, tmp_path):
    picture = np.random.default_rng(2).integers(0, 256, (40, 30, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), picture[..., ::-1])
    found = model.classify(tmp_path / "a.png", top=2)
    assert found == model.classify(picture, top=2) and len(found) == 2
    logits = model.logits(Preparation(**model.card["preparation"]).square(picture)[None])[0]
    shares = np.exp(logits) / np.exp(logits).sum()
    assert [name for name, _ in found] == [model.class_names[k] for k in np.argsort(-logits)[:2]]
    np.testing.assert_allclose([share for _, share in found], np.sort(shares)[::-1][:2], rtol=1e-5)
    assert sum(share for _, share in model.classify(picture, top=99)) == pytest.approx(1)


@pytest.mark.parametrize("top", [0, -1])
def test_no_class_at_all(model, top):
    with pytest.raises(UserError, match=f"^top: {top} classes cannot be shown; give 1 or more$"):
        model.classify(np.zeros((20, 20, 3), np.uint8), top=top)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_answers_too(model, images, copied):
    """As for a process that multiprocessing starts. Old: a ValueError on ctypes objects."""
    assert (copied(model).logits(images) == model.logits(images)).all()


def test_it_needs_two_packages(model, packed_file, images, tmp_path):
    np.save(tmp_path / "images.npy", images)
    words = [str(packed_file), str(tmp_path / "images.npy"), ",".join(NEEDED)]
    ended = subprocess.run([sys.executable, "-c", ALONE, *words], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert (np.load(tmp_path / "images.npy") == model.logits(images)).all()
