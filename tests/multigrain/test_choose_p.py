# SPDX-License-Identifier: Apache-2.0
"""p* is the exponent that is right on images which it was not chosen by."""

import json
import math
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from PIL import Image

from src.multigrain import choose_p, exponent
from src.multigrain.exponent import best_of, split_in_half
from src.multigrain.network import MultiGrain
from src.multigrain.recipe import MultiGrainRecipe
from tests.helpers.checkpoints import save_checkpoint

pytestmark = pytest.mark.usefixtures("graph_mode", "plain_logger")

CLASSES = ("blue", "green", "red")
CHANNEL = {"blue": 2, "green": 1, "red": 0}


class Planted(MultiGrain):
    """The feature map is the image, and each class has a channel."""

    def features(self, x):
        return x


def _network(num_classes):
    network = Planted(
        num_classes=num_classes,
        block_units=(1, 1, 1, 1),
        widths=(1, 1, 1, 3),
        bottleneck=False,
        stem="small",
        pooling_exponent=3.0,
        learn_pooling_exponent=False,
        eval_pooling_exponent=0.0,
        whitening_dim=0,
        seed=0,
    )
    weight = np.zeros((3, 3), np.float32)
    for label, name in enumerate(CLASSES):
        weight[label, CHANNEL[name]] = 10
    network.fc.weight.set_data(ms.Tensor(weight))
    network.fc.bias.set_data(ms.Tensor(np.zeros(3, np.float32)))
    return network


def _picture(name, *, even, rng):
    """The class's channel is bright in 4 of 16 places.

    `even`: another channel is as even as to win for p < 3.7; else it has one peak that wins for p > 4.3.
    """
    own, others = CHANNEL[name], [c for c in CHANNEL.values() if c != CHANNEL[name]]
    pixels = np.zeros((16, 3), np.uint8)
    pixels[:4, own] = 200 if even else 180
    if even:
        pixels[:, rng.choice(others)] = 138
    else:
        pixels[0, rng.choice(others)] = 249
    return Image.fromarray(rng.permutation(pixels).reshape(4, 4, 3))


def _loss(files, p):
    """The mean cross-entropy at that p, written out."""
    losses = []
    for file in map(Path, files):
        pixels = np.maximum(np.asarray(Image.open(file)).reshape(16, 3) / 255, 1e-6)
        logits = 10 * (pixels**p).mean(axis=0) ** (1 / p)
        losses.append(np.log(np.exp(logits).sum()) - logits[CHANNEL[file.parent.name]])
    return np.mean(losses)


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """Words of a command for a checkpoint and its data, of which half needs p > 3.7 and half p < 4.3."""
    monkeypatch.setattr(MultiGrainRecipe, "network", lambda self, *, num_classes: _network(num_classes))
    rng = np.random.default_rng(0)
    for name in CLASSES:
        for k in range(9):
            for split in ("train", "val"):
                folder = tmp_path / "data" / split / name
                folder.mkdir(parents=True, exist_ok=True)
                _picture(name, even=split == "train" or k % 2, rng=rng).save(folder / f"{k}.png")
    keys = {
        "model": "multigrain_resnet18", "data_path": str(tmp_path / "data"), "device_target": "CPU",
        "image_size": 4, "crop_percentage": 1.0, "eval_batch_size": 5, "pooling_exponent": 3.0,
        "image_mean": [0.0, 0.0, 0.0], "image_std": [255.0, 255.0, 255.0],
    }  # fmt: skip
    return ["--checkpoint_path", str(save_checkpoint(tmp_path / "net.ckpt", keys, class_names=CLASSES))]


@pytest.mark.parametrize("eval_crop", ["squash", "whole"])
def test_the_planted_exponent_is_found_on_one_half_and_measured_on_the_other(
    planted, capsys, monkeypatch, eval_crop
):
    seen, figures = [], exponent.figures

    def watched(network, inputs, batches, *given, **named):
        seen.append({batches.source.name(index) for index in range(len(batches.source))})
        return figures(network, inputs, batches, *given, **named)

    monkeypatch.setattr(exponent, "figures", watched)
    choose_p.main([*planted, "--eval_crop", eval_crop])
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    choosing, again, reporting = seen
    assert choosing == again and not choosing & reporting and len(choosing | reporting) == 27
    assert (facts["images_choosing"], facts["images_reporting"]) == (14, 13)
    assert 3.7 < facts["p_star"] < 4.3 and facts["use"] == f"--eval_pooling_exponent {facts['p_star']}"
    assert (facts["p_training"], facts["top1_star"]) == (3, 100)
    assert 0 < facts["top1_training"] < 100
    assert facts["loss_training"] == pytest.approx(_loss(reporting, 3), abs=1e-5)
    assert facts["loss_star"] == pytest.approx(_loss(reporting, facts["p_star"]), abs=1e-5)
    top1 = {row["p"]: row["top1"] for row in facts["table"]}
    assert len(top1) == 16 + 8 and top1.keys() >= {1, 3.6, 4, 4.4, 8, "max"}
    for p, value in top1.items():
        assert (value == 100) == (p != "max" and 3.7 < p < 4.3), p


def test_training_images_choose_where_asked_to(planted, capsys):
    words = ["--split", "train", "--examples_per_class", "7", "--p", "2,6,max", "--criterion", "top1"]
    choose_p.main([*planted, *words])
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["top1"] for row in facts["table"]] == [0, 100, 100]  # here, training images want a large p
    assert (facts["images_choosing"], facts["images_reporting"]) == (21, 27)
    assert facts["use"] == "--eval_pooling_exponent max"
    assert facts["top1_star"] == pytest.approx(100 * 12 / 27)
    assert facts["top1_training"] == pytest.approx(100 * 15 / 27)


def test_all_images_of_other_folders_are_used_by_name(planted, tmp_path, capsys):
    """Old: a tenth of them, and a part of the classes was refused."""
    rng = np.random.default_rng(1)
    for name in ("green", "red"):
        (tmp_path / "other" / name).mkdir(parents=True)
        for k in range(5):
            _picture(name, even=k % 2, rng=rng).save(tmp_path / "other" / name / f"{k}.png")
    choose_p.main([*planted, "--data_path", str(tmp_path / "other"), "--p", "4"])
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert facts["images_choosing"] + facts["images_reporting"] == 10 and facts["top1_star"] == 100


def test_the_best_row():
    rows = [
        {"p": 1, "top1": 80, "loss": 0.5},
        {"p": 2, "top1": 90, "loss": 0.9},
        {"p": 3, "top1": 90, "loss": 0.8},
        {"p": 4, "top1": 90, "loss": math.nan},
    ]
    assert best_of(rows)["p"] == 3
    assert best_of(rows, by_loss=True)["p"] == 1
    assert best_of(rows[::-1])["p"] == 3


def test_halves_are_disjoint_and_stratified():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(5), [1, 2, 5, 8, 9]))
    first, second = split_in_half(labels, 0)
    assert np.array_equal(np.sort(np.concatenate([first, second])), np.arange(25))
    counts = [np.bincount(labels[half], minlength=5) for half in (first, second)]
    assert np.abs(counts[0] - counts[1]).max() <= 1 and len(first) == 13
    assert np.array_equal(split_in_half(labels, 0)[0], first)
    assert not np.array_equal(split_in_half(labels, 1)[0], first)
