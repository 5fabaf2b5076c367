"""What eval.py shows and writes of a checkpoint."""

import argparse
import csv
from types import SimpleNamespace

import numpy as np
import pytest
from mindspore import nn, ops

from src.checkpoint.file import Checkpoint
from src.common.errors import UserError
from src.data.binary import read_cifar10
from src.evaluation.door import evaluate_from_flags, weights_in_words
from src.model_utils.config import check
from src.model_utils.device_adapter import Device
from src.recipe import Recipe
from src.shared_config import SharedConfig

pytestmark = pytest.mark.usefixtures("graph_mode")

CLASSES = ["red", "green", "blue", "grey"]


class Colours(nn.Cell):
    """The mean of each channel, and grey never."""

    def construct(self, images):
        return ops.concat((images.mean((2, 3)), ops.zeros((images.shape[0], 1)) - 9.0), 1)


class ColourRecipe(Recipe):
    network_class = Colours


@pytest.fixture
def trained(data_path, tmp_path):
    config = check({"model": "resnet9", "data_path": str(data_path), "eval_batch_size": 32}, SharedConfig)
    checkpoint = Checkpoint(tmp_path / "best.ckpt", {}, {"class_names": CLASSES, "step": 12})
    made = SimpleNamespace(network=Colours(), recipe=ColourRecipe(config), checkpoint=checkpoint)
    made.device, made.averaged = Device("CPU"), True
    return made


def _flags(**given):
    return argparse.Namespace(**{"predictions": None, "pictures": None} | given)


def test_the_table_and_the_figures(trained, data_path):
    labels = read_cifar10(data_path, "test").labels
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


def test_the_weights_of_a_run_have_their_epoch(trained):
    trained.checkpoint.meta["course"], trained.averaged = {"epoch": 8}, False
    assert weights_in_words(trained) == "step 12, epoch 1.5, raw weights"


def test_the_files_that_are_asked_for(trained, data_path, tmp_path):
    labels = read_cifar10(data_path, "test").labels
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


def test_other_classes_are_refused(trained):
    trained.checkpoint.meta["class_names"] = CLASSES[::-1]
    with pytest.raises(UserError, match="number 0 is red there and grey here"):
        evaluate_from_flags(trained, _flags())
