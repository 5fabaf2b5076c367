# SPDX-License-Identifier: Apache-2.0
"""A run of a network with the tricks of the layers, cut and gone on with from its checkpoint."""

import numpy as np
import pytest
from mindspore import nn, ops

from src.layers.conv import conv2d, dense
from src.layers.init import initialise, torch_default
from src.layers.input_whitening import whitening_conv
from src.layers.norm import batch_norm2d
from src.training import session
from src.training.signals import Interrupted
from src.zoo import recipe_class_of
from tests.helpers.cut_runs import assert_same, last_of, stop_at
from tests.helpers.tiny import TinyRecipe


class WhitenedNet(nn.Cell):
    """(N, 3, 32, 32) -> (N, num_classes)."""

    def __init__(self, *, num_classes, seed):
        super().__init__()
        self.whiten = whitening_conv("airbench")
        self.conv = conv2d(in_channels=24, out_channels=4, kernel_size=3, stride=2)
        self.bn = batch_norm2d(channels=4, momentum=0.4, eps=1e-12, scale="fixed", ghost_batch=10)
        self.linear = dense(in_channels=4, out_channels=num_classes, bias=False)
        initialise(self, seed=seed, weight=torch_default)

    def construct(self, x):
        return self.linear(ops.silu(self.bn(self.conv(ops.silu(self.whiten(x))))).mean((2, 3)))


class WhitenedRecipe(TinyRecipe):
    def network(self, *, num_classes):
        return WhitenedNet(num_classes=num_classes, seed=self.config.seed)


@pytest.mark.usefixtures("graph_mode", "quartet_log")
def test_a_run_that_goes_on_has_its_whitening_from_the_checkpoint(tmp_path, narrow_config, monkeypatch):
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    config = narrow_config(input_whitening="airbench", epochs=1.0, log_every=1, bn_reestimation_batches=2)
    session.start(config, WhitenedRecipe, run_dir=straight)
    with pytest.raises(Interrupted):
        session.start(config, lambda c: WhitenedRecipe(c, stop_at(3)), run_dir=cut)

    def refuse(*_):
        raise AssertionError("the images are not asked again")

    with monkeypatch.context() as patch:
        patch.setattr(recipe_class_of("resnet9"), "load_pretrained", refuse)
        session.resume(config, WhitenedRecipe, run_dir=cut)
    assert_same(cut, straight)
    arrays, fresh = last_of(cut).arrays, WhitenedRecipe(config).network(num_classes=4)
    WhitenedRecipe(config).load_pretrained(fresh)
    np.testing.assert_array_equal(arrays["whiten.weight"], fresh.whiten.weight.asnumpy())
    assert (arrays["bn.gamma"] == 1).all() and arrays["bn.beta"].any() and arrays["whiten.bias"].any()
