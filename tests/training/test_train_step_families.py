# SPDX-License-Identifier: Apache-2.0
"""Every family's shipped recipe trains at every precision, and with and without accumulation."""

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from src.layers import norm as module
from src.layers.norm import synchronise_batch_norm
from src.model_utils.config import load_config
from src.training.build import build_train_step
from src.training.feed import as_tensors
from src.training.precision import keeps_float32
from src.zoo import config_class_of, create_recipe

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = {"block_units": [1, 1, 1, 1], "widths": [4, 4, 4, 4], "stem": "small"}
FAMILIES = {
    "resnet9": ("resnet9/cifar10.yaml", {"widths": [4, 4, 4, 4]}),
    "cifarnet": (
        "resnet9/cpu/networks/cifarnet_muon.yaml",
        {"widths": [4, 4, 4], "group_convs": 3, "skip_unpooled": True, "examples_per_class": 0},
    ),
    "cifar resnet": (
        "resnet9/cpu/networks/resnet56.yaml",
        {"stage_blocks": 1, "width_factor": 0.25, "examples_per_class": 0},
    ),
    "vgg": ("resnet9/cpu/networks/vgg11.yaml", {"width_factor": 0.0625, "examples_per_class": 0}),
    "bit": (
        "bit/r50x1_cifar10.yaml",
        {"pretrained_head": "replace", "block_units": [1, 1, 1, 1], "width_factor": 0.5, "resize_size": 36},
    ),
    "bireal": ("bireal/birealnet18_imagenet.yaml", SMALL),
    "bireal port": ("bireal/birealnet34_port.yaml", SMALL),
    "bireal bottleneck": ("bireal/birealnet50_imagenet.yaml", SMALL),
    "multigrain": ("multigrain/resnet50_imagenet.yaml", SMALL | {"learn_pooling_exponent": True}),
    "multigrain triplet": ("multigrain/cifar10.yaml", SMALL | {"metric_loss": "triplet"}),
}
QUICK = {
    ("resnet9", "O2", 2), ("cifarnet", "O2", 1), ("bit", "auto", 1), ("multigrain", "O2", 2),
    ("bireal", "O2", 1), ("bireal", "auto", 2),
}  # fmt: skip
# In turn with 1 and 2 batches an update: accumulation is the step's, and does not know the network.
ALL = [
    (family, level, 1 + (row + column) % 2)
    for row, family in enumerate(FAMILIES)
    for column, level in enumerate(["O0", "O2", "auto"])
    if family not in ("cifar resnet", "vgg") or level == "O2"  # made of resnet9's parts
]
CASES = [pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow) for case in ALL]


def recipe_of(family, data_path, **keys):
    file, own = FAMILIES[family]
    keys = own | keys | {
        "data_path": str(data_path), "device_target": "CPU", "pretrained_path": "", "image_size": 32,
        "batch_size": 12, "epochs": 1.0, "warmup_epochs": 0.0, "loss_scale": "dynamic",
        "loss_scale_value": 16.0,
    }  # fmt: skip
    return create_recipe(load_config(keys, config_class_of=config_class_of, config_path=CONFIGS / file))


@pytest.mark.parametrize(("family", "level", "accumulate_steps"), CASES)
def test_two_updates(graph_mode, data_path, family, level, accumulate_steps):
    recipe = recipe_of(family, data_path, amp_level=level, accumulate_steps=accumulate_steps)
    network = recipe.network(num_classes=4)
    step = build_train_step(recipe, network, steps=8, steps_per_epoch=8, cards=1)
    before = {p.name: p.asnumpy().copy() for p in step.optimizer.parameters}
    for batch in recipe.train_batches().batches(0, 2 * accumulate_steps):
        loss, _, overflow, norm, *_ = (float(value.asnumpy()) for value in step(*map(as_tensors, batch)))
        assert np.isfinite(loss) and overflow == 0 and 0 < norm < np.inf
    assert step.applied.asnumpy() == 2
    for parameter in step.optimizer.parameters:
        value = parameter.asnumpy()
        assert parameter.dtype == ms.float32
        assert np.isfinite(value).all() and (value != before[parameter.name]).any(), parameter.name


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cell_with_a_gradient_of_its_own_stands_in_one_of_its_precision(monkeypatch, data_path, family):
    """Mixed precision does not cast back what a `bprop` gives, so the cell around it must cast the input."""
    monkeypatch.setattr(module.ops, "AllGather", nn.Identity)
    monkeypatch.setattr(module.ops, "AllReduce", lambda _: None)
    network = recipe_of(family, data_path).network(num_classes=4)
    if family != "bit":
        synchronise_batch_norm(network, cards=2)
    cells = [cell for _, cell in network.cells_and_names()]
    found = [(cell, child) for cell in cells for child in cell.cells() if hasattr(child, "bprop")]
    assert all(keeps_float32(cell) == keeps_float32(child) for cell, child in found)
    assert (family == "bit") == (not found)
