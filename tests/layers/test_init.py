# SPDX-License-Identifier: Apache-2.0
"""Initial weights: bounds, statistics, and dependence on seed and name alone."""

import zlib

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from src.layers.conv import conv2d, dense
from src.layers.init import dirac, initialise, torch_default
from src.layers.norm import batch_norm2d


class _Net(nn.Cell):
    def __init__(self, *, extra=False, seed=0):
        super().__init__()
        self.first = conv2d(in_channels=3, out_channels=4, kernel_size=3)
        if extra:
            self.extra = conv2d(in_channels=4, out_channels=4, kernel_size=3, bias=True)
        self.second = conv2d(in_channels=3, out_channels=4, kernel_size=3, bias=True)
        self.norm = batch_norm2d(channels=4)
        self.head = nn.SequentialCell(dense(in_channels=4, out_channels=2))
        self.second.bias.set_data(self.second.bias + 1)
        initialise(self, seed=seed, weight=torch_default)


def _arrays(network) -> dict[str, np.ndarray]:
    return {parameter.name: parameter.asnumpy() for parameter in network.get_parameters()}


@pytest.mark.parametrize("shape", [(64, 32, 3, 3), (100, 400)])
def test_torch_default_is_uniform_within_its_bound(shape):
    values = torch_default(np.random.default_rng(0), shape)
    bound = 1 / np.sqrt(np.prod(shape[1:]))
    assert values.shape == shape
    assert np.abs(values).max() < bound
    # The standard error of the mean is bound / sqrt(3 n), of the share in a tenth sqrt(0.09 / n).
    n = values.size
    assert abs(values.mean()) < 4 * bound / np.sqrt(3 * n)
    share = np.histogram(values, bins=10, range=(-bound, bound))[0] / n
    assert np.abs(share - 0.1).max() < 4 * np.sqrt(0.09 / n)


def test_the_same_seed_gives_the_same_network():
    first, second = _arrays(_Net(seed=3)), _arrays(_Net(seed=3))
    assert first.keys() == second.keys()
    assert all((first[name] == second[name]).all() for name in first)


def test_another_seed_gives_other_weights():
    first, second = _arrays(_Net(seed=3)), _arrays(_Net(seed=4))
    for name in ("first.weight", "second.weight", "head.0.weight"):
        assert not (first[name] == second[name]).any()


def test_layers_of_one_shape_differ():
    arrays = _arrays(_Net())
    assert arrays["first.weight"].shape == arrays["second.weight"].shape
    assert not (arrays["first.weight"] == arrays["second.weight"]).any()


def test_another_layer_leaves_the_weights_of_the_rest():
    without, with_extra = _arrays(_Net()), _arrays(_Net(extra=True))
    assert "extra.weight" in with_extra
    assert all((without[name] == with_extra[name]).all() for name in without)


def test_a_weight_follows_from_seed_and_name():
    rng = np.random.default_rng([7, zlib.crc32(b"second.weight")])
    expected = rng.uniform(-1 / np.sqrt(27), 1 / np.sqrt(27), (4, 3, 3, 3)).astype(np.float32)
    assert (_arrays(_Net(seed=7))["second.weight"] == expected).all()


def test_biases_become_0_and_normalisations_stay():
    arrays = _arrays(_Net())
    assert not arrays["second.bias"].any() and not arrays["head.0.bias"].any()
    assert (arrays["norm.gamma"] == 1).all() and not arrays["norm.beta"].any()
    assert all(values.dtype == np.float32 for values in arrays.values())


@pytest.mark.parametrize(("channels", "filters"), [(3, 5), (4, 4), (5, 3)])
@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.usefixtures("without_graph")
def test_a_dirac_convolution_passes_its_input(channels, filters, kernel_size):
    """The filters behind the first `channels` are what they would be without."""
    conv = conv2d(in_channels=channels, out_channels=filters, kernel_size=kernel_size)
    conv.initialiser = dirac(torch_default)
    initialise(conv, seed=0, weight=None)
    images = np.random.default_rng(1).normal(size=(2, channels, 6, 5)).astype(np.float32)
    copied = min(channels, filters)
    np.testing.assert_array_equal(conv(ms.Tensor(images)).asnumpy()[:, :copied], images[:, :copied])
    plain = conv2d(in_channels=channels, out_channels=filters, kernel_size=kernel_size)
    initialise(plain, seed=0, weight=torch_default)
    rest = [one.weight.asnumpy()[copied:] for one in (conv, plain)]
    np.testing.assert_array_equal(*rest)
