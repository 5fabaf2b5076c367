# SPDX-License-Identifier: Apache-2.0
"""A small convolutional network and its K-FAC step, written out in float64."""

import numpy as np
from mindspore import nn, ops

from src.layers.conv import conv2d, dense
from src.layers.init import initialise, torch_default

IMAGES, CHANNELS, SIDE, CLASSES = 6, 2, 9, 3
# Stride and padding of each convolution, 3x3, to WIDTH channels.
CONVOLUTIONS = ((1, 1), (2, 1), (1, 0), (2, 0))
WIDTH = 4
LEAK = 0.3  # so that no layer is dead


class SmallNet(nn.Cell):
    """Convolutions of every stride and padding, each with a leaky ReLU, mean, dense: (N, 2, 9, 9) -> (N, 3).

    Args:
        first: whether the first convolution has a bias; then every other, and the dense layer if that is due.
    """

    def __init__(self, *, first: bool):
        super().__init__()
        self.convolutions = nn.CellList(
            [
                conv2d(
                    in_channels=WIDTH if i else CHANNELS, out_channels=WIDTH, kernel_size=3,
                    stride=stride, padding=padding, bias=bool(i % 2) != first,
                )
                for i, (stride, padding) in enumerate(CONVOLUTIONS)
            ]
        )  # fmt: skip
        self.dense = dense(in_channels=WIDTH, out_channels=CLASSES, bias=first)
        initialise(self, seed=3, weight=torch_default)
        rng = np.random.default_rng(4)
        for parameter in self.get_parameters():
            if parameter.name.endswith("bias"):
                parameter.set_data(type(parameter.value())(rng.normal(size=parameter.shape, scale=0.1)))

    def construct(self, x):
        for convolution in self.convolutions:
            x = convolution(x)
            x = ops.relu(x) + LEAK * x
        return self.dense(x.mean((2, 3)))

    @property
    def layers(self):
        return [*self.convolutions, self.dense]


def batch(number: int, *, count: int = IMAGES, side: int = SIDE):
    """Images (N, 2, side, side) and soft targets (N, 3), float32."""
    rng = np.random.default_rng([11, number])
    images = rng.normal(size=(count, CHANNELS, side, side)).astype(np.float32)
    return images, rng.dirichlet(np.ones(CLASSES), size=count).astype(np.float32)


class Layer:
    """What a layer's weight and bias are, as one matrix (O, I k k) or, with a bias, (O, I k k + 1)."""

    def __init__(self, cell, stride=1, padding=0):
        self.weight = cell.weight.asnumpy().astype(np.float64)
        self.has_bias = bool(cell.has_bias)
        self.bias = cell.bias.asnumpy().astype(np.float64) if self.has_bias else np.zeros(len(self.weight))
        self.stride, self.padding = stride, padding

    @property
    def matrix(self):
        return self.weight.reshape(len(self.weight), -1)

    def forward(self, x):
        """(N, I, H, W) -> (N, O, H', W'); the rows below the window, (N, T, I k k), are kept."""
        self.x_shape = x.shape
        p, s, k = self.padding, self.stride, self.weight.shape[2]
        padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
        height = (padded.shape[2] - k) // s + 1
        self.corners = [(i * s, j * s) for i in range(height) for j in range(height)]
        self.a = np.stack(
            [padded[:, :, i : i + k, j : j + k].reshape(len(x), -1) for i, j in self.corners], axis=1
        )
        y = self.a @ self.matrix.T + self.bias
        return y.transpose(0, 2, 1).reshape(len(x), -1, height, height)

    def backward(self, dy):
        """The gradient of the input; those of the outputs, (N, T, O), are kept."""
        self.g = dy.reshape(*dy.shape[:2], -1).transpose(0, 2, 1)
        p, k = self.padding, self.weight.shape[2]
        count, channels, height, width = self.x_shape
        dx = np.zeros((count, channels, height + 2 * p, width + 2 * p))
        for t, (i, j) in enumerate(self.corners):
            dx[:, :, i : i + k, j : j + k] += (self.g[:, t] @ self.matrix).reshape(count, channels, k, k)
        return dx[:, :, p : p + height, p : p + width]

    def with_one(self):
        return np.concatenate([self.a, np.ones((*self.a.shape[:2], 1))], 2) if self.has_bias else self.a

    def gradient(self):
        """Of the mean loss."""
        return np.einsum("nto,nti->oi", self.g, self.with_one())

    def factors(self):
        """A and G of the mean loss, as `src.optim.thor.tap` defines them."""
        count, positions = self.a.shape[:2]
        a, g = self.with_one(), count * self.g
        return [np.einsum("nti,ntj->ij", m, m) / (count * np.sqrt(positions)) for m in (a, g)]


class DenseLayer(Layer):
    def forward(self, x):
        self.a = x[:, None]
        return x @ self.weight.T + self.bias

    def backward(self, dy):
        self.g = dy[:, None]
        return dy @ self.weight


class Oracle:
    """K-FAC with momentum on a `SmallNet`.

    Args:
        block: rows of a block; factors of no more rows are whole.
    """

    def __init__(self, network, *, damping, momentum=0.9, weight_decay=0.0, balanced=False, block=1000):
        self.convolutions = [
            Layer(cell, *how) for cell, how in zip(network.convolutions, CONVOLUTIONS, strict=True)
        ]
        self.dense = DenseLayer(network.dense)
        self.layers = [*self.convolutions, self.dense]
        self.damping, self.momentum, self.weight_decay = damping, momentum, weight_decay
        self.balanced, self.block = balanced, block
        self.velocity = [0.0] * len(self.layers)
        self.inverses = None

    def differentiate(self, images, targets):
        """The mean loss; every layer keeps what its gradient and factors are made of."""
        x, slopes = images.astype(np.float64), []
        for layer in self.convolutions:
            x = layer.forward(x)
            slopes.append((x > 0) + LEAK)
            x = x * slopes[-1]
        positions = x.shape[2] * x.shape[3]
        logits = self.dense.forward(x.mean((2, 3)))
        logits = logits - logits.max(1, keepdims=True)
        logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        dy = (np.exp(logs) - targets) / len(images)
        dx = self.dense.backward(dy)[:, :, None, None] / positions * np.ones_like(x)
        for layer, slope in zip(reversed(self.convolutions), reversed(slopes), strict=True):
            dx = layer.backward(dx * slope)
        return float(-(targets * logs).sum(1).mean())

    def invert(self):
        root = np.sqrt(self.damping)
        self.inverses = []
        for layer in self.layers:
            a, g = layer.factors()
            p = np.sqrt((np.trace(a) / len(a)) / (np.trace(g) / len(g))) if self.balanced else 1.0
            self.inverses.append(
                [self._inverse(a, root * p, unit=layer.weight[0, 0].size), self._inverse(g, root / p)]
            )

    def _inverse(self, matrix, damping, unit=1):
        if len(matrix) > self.block:
            # Here blocks of as many whole channels as fit are the ones that are most alike.
            side = self.block // unit * unit
            places = np.arange(len(matrix)) // side
            matrix = matrix * (places[:, None] == places)
        return np.linalg.inv(matrix + damping * np.eye(len(matrix)))

    def update(self, rate, scale=1.0):
        for i, layer in enumerate(self.layers):
            a, g = self.inverses[i]
            whole = np.concatenate([layer.matrix, layer.bias[:, None]], 1) if layer.has_bias else layer.matrix
            step = scale * g @ layer.gradient() @ a + self.weight_decay * whole
            self.velocity[i] = self.momentum * self.velocity[i] + step
            whole = whole - rate * self.velocity[i]
            if layer.has_bias:
                layer.bias, whole = whole[:, -1], whole[:, :-1]
            layer.weight = whole.reshape(layer.weight.shape)
