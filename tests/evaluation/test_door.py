# SPDX-License-Identifier: Apache-2.0
"""What eval.py shows and writes of a checkpoint."""

import argparse
import csv
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from mindspore import nn, ops
from PIL import Image

from src.checkpoint.file import Checkpoint
from src.common.errors import UserError
from src.data.binary import CIFAR10, read_set
from src.data.sources import facts_of
from src.evaluation.door import evaluate_from_flags, weights_in_words
from src.model_utils.config import check
from src.model_utils.device_adapter import Device
from src.recipe import Recipe
from src.shared_config import SharedConfig

pytestmark = pytest.mark.usefixtures("graph_mode")

CLASSES = ["red", "green", "blue", "grey"]


class Colours(nn.Cell):
    """The mean of each channel, and grey and `more` classes never."""

    more = 0

    def construct(self, images):
        return ops.concat((images.mean((2, 3)), ops.zeros((images.shape[0], 1 + self.more)) - 9.0), 1)


class ColourRecipe(Recipe):
    network_class = Colours


@pytest.fixture
def trained(data_path, tmp_path):
    config = check({"model": "resnet9", "data_path": str(data_path), "eval_batch_size": 32}, SharedConfig)
    checkpoint = Checkpoint(tmp_path / "best.ckpt", {}, {"class_names": CLASSES, "step": 12})
    made = SimpleNamespace(network=Colours(), recipe=ColourRecipe(config), checkpoint=checkpoint)
    made.device, made.averaged, made.other_data = Device("CPU"), True, False
    return made


def _flags(**given):
    return argparse.Namespace(**{"predictions": None, "pictures": None} | given)


def test_the_table_and_the_figures(trained, data_path):
    labels = read_set(CIFAR10, data_path, "test").labels
    text, figures = evaluate_from_flags(trained, _flags())
    grey = int((labels == 3).sum())
    assert figures["top1"] == pytest.approx(100 * (1 - grey / 70)) and "top5" not in figures
    low, high = figures["top1_interval"]
    lines = text.splitlines()
    assert lines[0] == f"checkpoint  {trained.checkpoint.path} (resnet9, step 12, averaged weights)"
    assert lines[1] == f"data        70 images of 4 classes from {data_path}"
    assert lines[2] == f"top-1       {figures['top1']:.2f} %  (95 % interval {low:.2f} to {high:.2f})"
    assert lines[3] == f"loss        {figures['loss']:.4f}"
    assert lines[4] == "lowest recall" and lines[5].split() == [
        "grey",
        "0.00",
        "%",
        "0",
        "of",
        str(grey),
        "images",
    ]
    assert lines[-1].startswith("note: the test set has 70 images: top-1 is uncertain by up to 11 points")


def test_of_several_views_the_plain_one_is_named(trained):
    trained.recipe = trained.recipe.changed(tta="six", tta_share=0.5)
    text, figures = evaluate_from_flags(trained, _flags())
    assert (figures["tta"], figures["tta_share"]) == ("six", 0.5)
    assert figures["loss"] != figures["loss_plain"]
    assert f"\nloss        {figures['loss']:.4f}  plain view {figures['loss_plain']:.4f}\n" in text


def test_the_weights_of_a_run_have_their_epoch(trained):
    trained.checkpoint.meta["course"], trained.averaged = {"epoch": 8}, False
    assert weights_in_words(trained) == "step 12, epoch 1.5, raw weights"


def test_the_files_that_are_asked_for(trained, data_path, tmp_path):
    labels = read_set(CIFAR10, data_path, "test").labels
    csv_file, folder = tmp_path / "out.csv", tmp_path / "pictures"
    evaluate_from_flags(trained, _flags(predictions=str(csv_file), pictures=str(folder)))
    with csv_file.open() as file:
        lines = list(csv.DictReader(file))
    assert [line["image"] for line in lines] == [str(k) for k in range(70)]
    assert [line["label"] for line in lines] == [CLASSES[label] for label in labels]
    wrong = np.array([line["label"] != line["predicted"] for line in lines])
    np.testing.assert_array_equal(wrong, labels == 3)
    names = {"confusion_matrix.png", "recall_by_class.png", "worst_mistakes.png"}
    assert {path.name for path in folder.iterdir()} == names


def test_predictions_of_several_processes_are_refused(trained, tmp_path):
    trained.device = Device("CPU", 1, 3)
    with pytest.raises(UserError, match=r"--predictions: o\.csv given with 3 processes, allowed: with one"):
        evaluate_from_flags(trained, _flags(predictions="o.csv"))


def test_other_classes_are_refused_and_the_order_does_not_matter(trained):
    expected = evaluate_from_flags(trained, _flags())[1]
    names = [*CLASSES, "violet"]
    trained.network.more, trained.checkpoint.meta["class_names"] = 1, names
    text, figures = evaluate_from_flags(trained, _flags())
    assert (figures["top1"], figures["classes"], expected["classes"]) == (expected["top1"], 4, 4)
    assert "70 images of 4 of 5 classes" in text and "violet" not in text
    trained.checkpoint.meta["class_names"] = ["pink", *CLASSES[1:]]
    trained.network.more = 0
    with pytest.raises(UserError, match="has classes that the network does not have: red"):
        evaluate_from_flags(trained, _flags())


PALETTE = {"red": (250, 9, 9), "green": (9, 250, 9), "blue": (9, 9, 250), "grey": (9, 9, 9)}


@pytest.fixture
def folder(tmp_path, trained):
    """10 images of each of two classes, and a network that knows them among four."""
    for name in ("blue", "grey"):
        (tmp_path / "folder" / name).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (8, 8), PALETTE[name]).save(tmp_path / "folder" / name / f"{number}.bmp")
    keys = {"model": "resnet9", "train_crop": "resize", "data_path": str(tmp_path / "folder")}
    trained.recipe = ColourRecipe(check(keys, SharedConfig))
    return tmp_path / "folder"


def test_all_images_of_other_data_are_evaluated_by_name(trained, folder):
    """Old behaviour: a tenth of them, silently; a folder of some of the classes was refused."""
    trained.other_data = True
    text, figures = evaluate_from_flags(trained, _flags())
    assert (figures["count"], figures["classes"], figures["top1"]) == (20, 2, 50.0)
    assert (
        "20 test pictures" in text
        and "of 2 of the network's 4 classes" in text
        and text.count("blue") == text.count("grey") == 1
    )
    shutil.rmtree(folder / "grey")
    assert evaluate_from_flags(trained, _flags())[1]["top1"] == 100.0


@pytest.mark.parametrize("moved", [False, True])
def test_of_the_data_that_was_trained_on_the_held_out_images_are_evaluated(trained, folder, moved):
    """It is known by what the checkpoint says of it where its folder is not, with images left out, too."""
    recipe = trained.recipe.changed(damaged_images="skip", sources={})
    looked = recipe.looked_at(lambda files: dict.fromkeys(files[3:5], "damaged"))
    own = {split: looked.source(split) for split in ("train", "test")}
    trained.checkpoint.meta["data"] = facts_of(own)
    trained.recipe, trained.other_data = recipe, moved
    _, figures = evaluate_from_flags(trained, _flags())
    assert figures["count"] == len(own["test"]) < 10


def test_a_folder_of_the_same_names_is_other_data(trained, folder, tmp_path):
    trained.checkpoint.meta["data"] = facts_of({s: trained.recipe.source(s) for s in ("train", "test")})
    shutil.copytree(folder, tmp_path / "more")
    for path in (tmp_path / "more").rglob("*.bmp"):
        Image.new("RGB", (9, 9), PALETTE[path.parent.name]).save(path)
    trained.recipe = trained.recipe.changed(sources={}, data_path=str(tmp_path / "more"))
    trained.other_data = True
    assert evaluate_from_flags(trained, _flags())[1]["count"] == 20


@pytest.mark.parametrize("skip", [False, True])
def test_damaged_images_are_left_out_and_counted(trained, folder, tmp_path, skip):
    for name in ("blue/3", "blue/4", "grey/0"):
        path = folder / f"{name}.bmp"
        path.write_bytes(path.read_bytes()[:120])
    keys = {"damaged_images": "skip" if skip else "fail"}
    trained.recipe, trained.other_data = trained.recipe.changed(**keys), True
    flags = _flags(predictions=str(tmp_path / "out.csv"))
    if not skip:
        with pytest.raises(UserError, match=r"blue/3\.bmp: .*or use --damaged_images skip"):
            evaluate_from_flags(trained, flags)
        return
    text, figures = evaluate_from_flags(trained, flags)
    assert (figures["count"], figures["damaged_images"]) == (17, 3) and "3 images, which are in no" in text
    with open(flags.predictions) as file:
        names = [line["image"].removeprefix(f"{folder}/") for line in csv.DictReader(file)]
    assert len(names) == 17 and not {"blue/3.bmp", "blue/4.bmp", "grey/0.bmp"} & set(names)
