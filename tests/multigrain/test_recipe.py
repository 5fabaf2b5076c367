# SPDX-License-Identifier: Apache-2.0
"""MultiGrain's keys reach network, loss, data and parameter groups; impossible ones are refused."""

import math
from pathlib import Path

import numpy as np
import pytest

from src.common.errors import UserError
from src.layers.losses import CrossEntropy
from src.model_utils.config import check, load_config
from src.multigrain.config import MultiGrainConfig
from src.multigrain.losses import GatherRows, JointLoss, MarginLoss, TripletLoss
from src.multigrain.probe import KnnProbe
from src.multigrain.recipe import MultiGrainRecipe
from src.zoo import config_class_of

CONFIGS = Path(__file__).parents[2] / "configs" / "multigrain"
SMALL = {"block_units": [1, 1, 1, 1], "widths": [4, 4, 8, 8], "stem": "small"}
CIFAR = {
    "train_crop": "pad", "image_size": 32, "colour_jitter": [0, 0, 0, 0], "lighting": 0.0,
    "crop_percentage": 1.0, "batch_size": 12,
}  # fmt: skip


def recipe(**keys) -> MultiGrainRecipe:
    return MultiGrainRecipe(check({**SMALL, **keys}, MultiGrainConfig))


def groups(made: MultiGrainRecipe) -> dict[str, tuple[float, float]]:
    """Decay and factor on the rate of each parameter, by its name."""
    optimizer = made.optimizer(made.network(num_classes=3), made.loss())
    names = [p.name for p in optimizer.parameters]
    return dict(zip(names, zip(optimizer.weight_decay, optimizer.lr_multiplier, strict=True), strict=True))


def test_the_paper_is_the_default():
    c = load_config({}, config_class_of=config_class_of, config_path=CONFIGS / "resnet50_imagenet.yaml")
    given = {"model": "multigrain_resnet50", "batch_size": 64}
    assert c == check(given, MultiGrainConfig)
    made = MultiGrainRecipe(c)
    rates = made.rates(updates=1200, updates_per_epoch=10, images_per_update=512)
    assert rates[[0, 299, 300, 600, 1199]] == pytest.approx([0.2, 0.2, 0.02, 0.002, 0.0002])
    loss = made.loss()
    assert isinstance(loss, JointLoss) and loss.weight == 0.5 and loss.gather is None
    assert (loss.metric.margin, float(loss.metric.beta.asnumpy())) == pytest.approx((0.2, 1.2))


def test_beta_has_a_group_of_its_own():
    found = groups(recipe(weight_decay=1e-3, beta_lr_multiplier=0.25))
    assert found["loss.beta"] == (0.0, 0.25)
    assert found["bn1.gamma"] == found["conv1.weight"] == found["fc.bias"] == (1e-3, 1.0)


def test_a_learnt_exponent_does_not_decay():
    found = groups(recipe(learn_pooling_exponent=True, metric_loss="triplet"))
    assert found["pool.p"] == (0.0, 1.0) and "loss.beta" not in found


def test_losses_by_key():
    plain = recipe(classification_weight=1)
    assert isinstance(plain.loss(), CrossEntropy) and not plain.network(num_classes=3).training_embedding
    assert isinstance(recipe(metric_loss="triplet", triplet_margin=0.3).loss().metric, TripletLoss)
    metric = recipe(margin=0.1, margin_beta=0.9, sampling_cutoff=0.4, nonzero_loss_cutoff=1.1).loss().metric
    assert isinstance(metric, MarginLoss)
    assert (metric.margin, metric.cutoff, metric.nonzero_loss_cutoff) == (0.1, 0.4, 1.1)
    assert isinstance(recipe().loss(rank=3, size=8).gather, GatherRows)
    assert recipe(negatives="card").loss(rank=3, size=8).gather is None


def test_data_has_instances_where_pairs_count(data_path):
    keys = {**CIFAR, "data_path": str(data_path), "repetitions": 4}
    batches = recipe(**keys, epoch_length=0.5).train_batches()
    assert len(batches) == 8
    _, (labels, instances, numbers, starts) = batches.batch(0, 0)
    assert labels.shape == (12,) and np.unique(instances, return_counts=True)[1].tolist() == [4, 4, 4]
    assert numbers.shape == (48,) and starts.shape == (12,)
    for negatives, rows in (("global", 24), ("card", 12)):
        shared = recipe(**keys, negatives=negatives).train_batches(rank=1, size=2)
        assert shared.batch(0, 0)[1][3].shape == (rows,)
    _, labels = recipe(**keys, classification_weight=1).train_batches().batch(0, 0)
    assert labels.shape == (12,)


def test_exponents_by_key():
    network = recipe(pooling_exponent="max", eval_pooling_exponent=4.5).network(num_classes=3)
    assert (network.pool.p, network.pool.eval_exponent) == (math.inf, 4.5)
    assert recipe(eval_pooling_exponent="max").network(num_classes=3).pool.eval_exponent == math.inf


def test_the_probe_by_key(data_path):
    made = recipe(**CIFAR, data_path=str(data_path), knn_probe_images=8)
    probe = made.monitor(made.network(num_classes=4), made.inputs())
    assert isinstance(probe, KnnProbe)
    assert probe.measure(None).keys() == {"knn_top1", "instance_recall"}
    assert recipe().monitor(made.network(num_classes=4), made.inputs()) is None


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"repetitions": 1}, "repetitions: 1 given, allowed: 2 or more with classification_weight below 1"),
        ({"mixup_alpha": 0.2}, "a mixture of images is no instance"),
        ({"cutmix_alpha": 0.2}, "a mixture of images is no instance"),
        ({"pooling_exponent": 0}, "pooling_exponent"),
        ({"pooling_exponent": "min"}, "pooling_exponent"),
        ({"eval_pooling_exponent": -1}, "eval_pooling_exponent"),
        ({"pooling_exponent": "max", "learn_pooling_exponent": True}, "pooling_exponent"),
        ({"widths": [4, 4]}, "4 whole numbers"),
        ({"block_units": [1]}, "4 whole numbers"),
        ({"classification_weight": 1.1}, "classification_weight"),
        ({"lamda": 0.5}, "lamda"),
    ],
)
def test_impossible_keys_are_one_line(keys, message):
    with pytest.raises(UserError, match=message) as caught:
        recipe(**keys)
    assert "\n" not in str(caught.value)


def test_lambda_1_allows_single_images_and_mixtures():
    assert recipe(classification_weight=1, repetitions=1, mixup_alpha=0.2).config.mixup_alpha == 0.2
