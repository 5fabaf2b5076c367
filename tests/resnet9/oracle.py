# SPDX-License-Identifier: Apache-2.0
"""ResNet9 in training mode in numpy: loss, gradients, and the update of cifar10-fast, in float64.

Parameters are a mapping by PyTorch's names; batch normalisation uses the statistics of the batch.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

Arrays = dict[str, np.ndarray]

HEAD_SCALE = 0.125


def _patches(x) -> np.ndarray:
    """The 3x3 neighbourhood of every pixel, (N H W, 9 C)."""
    n, c, h, w = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return sliding_window_view(padded, (3, 3), (2, 3)).transpose(0, 2, 3, 1, 4, 5).reshape(n * h * w, 9 * c)


def _rows(x) -> np.ndarray:
    """(N, C, H, W) -> (N H W, C)"""
    return x.transpose(0, 2, 3, 1).reshape(-1, x.shape[1])


def _images(rows, like) -> np.ndarray:
    n, _, h, w = like.shape
    return rows.reshape(n, h, w, -1).transpose(0, 3, 1, 2)


def _conv(x, weight):
    patches = _patches(x)
    flipped = weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)

    def back(d):
        return (
            _images(_patches(d) @ flipped.reshape(len(flipped), -1).T, x),
            (_rows(d).T @ patches).reshape(weight.shape),
        )

    return _images(patches @ weight.reshape(len(weight), -1).T, x), back


def _batch_norm(x, scale, offset):
    rows = _rows(x)
    root = np.sqrt(rows.var(axis=0) + 1e-5)
    normal = (rows - rows.mean(axis=0)) / root

    def back(d):
        d = _rows(d)
        inner = d * scale
        inner = (inner - inner.mean(axis=0) - normal * (inner * normal).mean(axis=0)) / root
        return _images(inner, x), (d * normal).sum(axis=0), d.sum(axis=0)

    return _images(normal * scale + offset, x), back


def _max_pool(x, k):
    n, c, h, w = x.shape
    tiles = (
        x.reshape(n, c, h // k, k, w // k, k).transpose(0, 1, 2, 4, 3, 5).reshape(n, c, h // k, w // k, -1)
    )
    where = tiles.argmax(axis=-1)[..., None]

    def back(d):
        spread = np.zeros_like(tiles)
        np.put_along_axis(spread, where, d[..., None], axis=-1)
        return spread.reshape(n, c, h // k, w // k, k, k).transpose(0, 1, 2, 4, 3, 5).reshape(x.shape)

    return np.take_along_axis(tiles, where, axis=-1)[..., 0], back


def sum_loss_and_gradients(
    parameters: Arrays, images: np.ndarray, labels: np.ndarray
) -> tuple[float, Arrays]:
    """The cross-entropy summed over the batch, and its gradient by every parameter."""
    gradients: Arrays = {}

    def block(name, x, pool=1):
        x, conv_back = _conv(x, parameters[f"{name}.conv.weight"])
        x, norm_back = _batch_norm(x, parameters[f"{name}.bn.weight"], parameters[f"{name}.bn.bias"])
        positive = x > 0
        x, pool_back = _max_pool(x * positive, pool)

        def back(d):
            d, *of_norm = norm_back(pool_back(d) * positive)
            gradients[f"{name}.bn.weight"], gradients[f"{name}.bn.bias"] = of_norm
            d, gradients[f"{name}.conv.weight"] = conv_back(d)
            return d

        return x, back

    def residual(name, x):
        inner, first_back = block(f"{name}_res1", x)
        inner, second_back = block(f"{name}_res2", inner)
        return x + inner, lambda d: d + first_back(second_back(d))

    backs = []
    x = images
    for layer, *arguments in [(block, "prep"), (block, "layer1", 2), (residual, "layer1"),
                              (block, "layer2", 2), (block, "layer3", 2), (residual, "layer3")]:  # fmt: skip
        x, back = layer(arguments[0], x, *arguments[1:])
        backs.append(back)
    x, back = _max_pool(x, 4)
    backs.append(back)
    features = x.reshape(len(x), -1)
    logits = HEAD_SCALE * features @ parameters["linear.weight"].T
    logits = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    one_hot = np.eye(logits.shape[1])[labels]

    d = HEAD_SCALE * (np.exp(log_probabilities) - one_hot)
    gradients["linear.weight"] = d.T @ features
    d = (d @ parameters["linear.weight"]).reshape(x.shape)
    for back in reversed(backs):
        d = back(d)
    return -(one_hot * log_probabilities).sum(), gradients


def update(
    parameters: Arrays,
    velocity: Arrays,
    gradients: Arrays,
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
) -> tuple[Arrays, Arrays]:
    """Nesterov's update as cifar10-fast has it, with the rate inside the velocity: new parameters, velocity.

    dw = -lr (g + wd w);  v = momentum v + dw;  w += dw + momentum v
    """
    new_parameters, new_velocity = {}, {}
    for name, value in parameters.items():
        change = -lr * (gradients[name] + weight_decay * value)
        new_velocity[name] = momentum * velocity[name] + change
        new_parameters[name] = value + change + momentum * new_velocity[name]
    return new_parameters, new_velocity
