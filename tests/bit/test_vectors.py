# SPDX-License-Identifier: Apache-2.0
"""R50x1 against the numbers of the official PyTorch code, its weights read from an official-like file.

The official numbers are float64. In float32 about nine of the three million ReLUs of this network have an
input within rounding of 0 and take the other side, which moves the gradients: the official code itself, run
in float32, is off by 1.4e-4 of the largest norm, and by 4e-3 of a single one. So the gradients are compared
twice: with the same network in float64, to 1e-8 of each, and as trained, in float32, to a few times what the
official code is off.
"""

from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from src.bit.network import ResNetV2
from src.bit.weights import translate
from src.checkpoint.weights import load_weights
from src.layers.device import use_plain_operators
from src.layers.weight_standardization import StdConv2d
from src.zoo import create_network
from tests.vectors.official import error, read, state, training_step


@pytest.fixture(scope="module")
def official(tmp_path_factory) -> SimpleNamespace:
    """The vectors, a file of the weights they belong to, and the gradients' norms by the network's names."""
    numbers = read("bit.npz")
    numbers.file = tmp_path_factory.mktemp("official") / "BiT-M-R50x1.npz"
    np.savez(numbers.file, **state(numbers.npz_names, numbers.npz_shapes))
    norms = {str(name): np.array(norm) for name, norm in zip(numbers.npz_names, numbers.grad_norms)}
    numbers.norms = translate(norms, block_units=numbers.block_units, width_factor=1)
    return numbers


@pytest.fixture
def network(official) -> ResNetV2:
    network = create_network("bit_r50x1", num_classes=int(official.num_classes))
    load_weights(network, official.file)
    return network


def _norms(gradients, official) -> tuple[np.ndarray, np.ndarray]:
    """(ours, official) norms of the gradient of every parameter."""
    assert gradients.keys() == official.norms.keys()
    ours = [np.linalg.norm(gradient.astype(np.float64)) for gradient in gradients.values()]
    return np.array(ours), np.array([official.norms[name] for name in gradients])


@pytest.mark.usefixtures("graph_mode")
def test_training_in_float32(network, official):
    """The logits are those of evaluation too: no cell of this network asks which of the two it is in."""
    loss, logits, gradients = training_step(network, official.images, official.labels)
    assert error(logits, official.logits) < 1e-4
    assert error(loss, official.loss) < 1e-4
    ours, theirs = _norms(gradients, official)
    assert error(ours, theirs) < 5e-4
    assert (np.abs(ours - theirs) / theirs).max() < 1e-2


class _Convolution(nn.Cell):
    """A convolution in numpy, forward and backward: MindSpore's own does not exist in float64."""

    def __init__(self, kernel_size: int, stride: int):
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride

    def _padded(self, x):
        border = (self.kernel_size // 2,) * 2
        return np.pad(x.asnumpy(), ((0, 0), (0, 0), border, border))

    def _met(self, padded):
        """(row, column) of a weight in the kernel, and a view of the pixels that it meets."""
        span = padded.shape[2] - self.kernel_size + 1
        for i, j in np.ndindex(self.kernel_size, self.kernel_size):
            yield (i, j), padded[:, :, i : i + span : self.stride, j : j + span : self.stride]

    def construct(self, x, weight):
        kernel, met = weight.asnumpy(), self._met(self._padded(x))
        sums = sum(np.tensordot(kernel[:, :, i, j], pixels, axes=(1, 1)) for (i, j), pixels in met)
        return ms.Tensor(np.ascontiguousarray(sums.swapaxes(0, 1)))

    def bprop(self, x, weight, out, slope):
        kernel, slope, padded = weight.asnumpy(), slope.asnumpy(), self._padded(x)
        by_weight, by_pixel = np.zeros_like(kernel), np.zeros_like(padded)
        for (i, j), pixels in self._met(padded):
            by_weight[:, :, i, j] = np.tensordot(slope, pixels, axes=((0, 2, 3), (0, 2, 3)))
        for (i, j), pixels in self._met(by_pixel):
            pixels += np.tensordot(kernel[:, :, i, j], slope, axes=(0, 1)).swapaxes(0, 1)
        border = self.kernel_size // 2
        inner = slice(border, border + x.shape[2])
        return ms.Tensor(np.ascontiguousarray(by_pixel[:, :, inner, inner])), ms.Tensor(by_weight)


class _Classifier(nn.Cell):
    def __init__(self, convolution: nn.Cell):
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self.convolution = _Convolution(1, 1)

    def construct(self, x):
        return self.convolution(x, self.weight) + self.bias.reshape(1, -1, 1, 1)


@pytest.mark.usefixtures("without_graph")
def test_everything_in_float64(network, official):
    """The same cells with the same weights; only the convolution operator is another one.

    The forms that are fast on a CPU have no float64: the plain operators, which exports hold, are compared.
    """
    parameters = network.trainable_params()
    names = [parameter.name for parameter in parameters]
    use_plain_operators(network)
    for _, cell in network.cells_and_names():
        if isinstance(cell, StdConv2d):
            plain, _ = cell.operators
            cell.operators = _Convolution(cell.weight.shape[-1], plain.stride[-1]), None
    network.head.conv = _Classifier(network.head.conv)
    for parameter in parameters:
        parameter.set_dtype(ms.float64)
    network.set_train(False)

    softmax = np.exp(official.logits) / np.exp(official.logits).sum(1, keepdims=True)
    rows = np.arange(len(softmax))
    assert official.loss == pytest.approx(-np.log(softmax[rows, official.labels]).mean(), rel=1e-12)
    softmax[rows, official.labels] -= 1
    slope = ms.Tensor(softmax / len(softmax))  # of the mean cross-entropy, by the logits

    def forward(images):
        logits = network(images)
        return (logits * slope).sum(), logits

    step = ms.value_and_grad(forward, None, ms.ParameterTuple(parameters), has_aux=True)
    (_, logits), gradients = step(ms.Tensor(official.images.astype(np.float64)))
    assert logits.dtype == gradients[0].dtype == ms.float64
    assert error(logits.asnumpy(), official.logits) < 1e-12
    ours, theirs = _norms({n: g.asnumpy() for n, g in zip(names, gradients)}, official)
    assert (np.abs(ours - theirs) / theirs).max() < 1e-8
