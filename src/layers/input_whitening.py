# SPDX-License-Identifier: Apache-2.0
"""Input whitening: a fixed first convolution that makes the patches of the training images uncorrelated.

Neighbouring pixels are nearly equal, so what the first layer of a network sees varies along few directions.
With the second moments C = P^T P / n of all k x k patches P (n, 3 k k) of normalised images, not centred, and
C = V diag(s) V^T, the filters V^T / sqrt(s + eps) give 3 k k channels whose second moments are
diag(s / (s + eps)), close to the identity. They are computed once, from training images without augmentation,
and stay as they are.

| form      | filters                            | eps  | images | source                                 |
|-----------|------------------------------------|------|--------|----------------------------------------|
| dawnbench | 3x3, padded: 27 channels           | 1e-2 | 10,000 | D. Page, cifar10-fast, "bag of tricks" |
| airbench  | 2x2, not padded: 12 channels, then | 5e-4 | 5,000  | K. Jordan, arXiv 2404.00498            |
|           | their negatives; a trained bias    |      |        |                                        |

Behind dawnbench's stands a 1x1 convolution. Behind airbench's stands the activation, which cuts one sign off:
so both are there.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import nn
from numpy.lib.stride_tricks import sliding_window_view

from .conv import conv2d


@dataclass(frozen=True)
class Form:
    """A row of the table.

    Attributes:
        channels: of the result.
        images: as many training images as the source takes.
    """

    kernel_size: int
    padding: int
    channels: int
    bias: bool
    eps: float
    images: int


FORMS = {
    "dawnbench": Form(kernel_size=3, padding=1, channels=27, bias=False, eps=1e-2, images=10_000),
    "airbench": Form(kernel_size=2, padding=0, channels=24, bias=True, eps=5e-4, images=5_000),
}


def whitening_conv(form: str) -> nn.Cell:
    """The convolution of that form, (N, 3, H, W) -> (N, `FORMS[form].channels`, H', W').

    Its weight is not trained; `whiten` fills it. A network calls it `whiten`.
    """
    f = FORMS[form]
    conv = conv2d(
        in_channels=3,
        out_channels=f.channels,
        kernel_size=f.kernel_size,
        padding=f.padding,
        bias=f.bias,
    )
    conv.weight.requires_grad = False
    return conv


def whiten(conv: nn.Cell, images: Iterable[np.ndarray], *, eps: float) -> None:
    """Fills a convolution of `whitening_conv` from (3, H, W) normalised images, of any sizes."""
    shape = conv.weight.shape
    filters = whitening_filters(images, side=shape[-1], eps=eps)
    if shape[0] == 2 * len(filters):
        filters = np.concatenate([filters, -filters])
    conv.weight.set_data(ms.Tensor(filters.astype(np.float32)))


def whitening_filters(images: Iterable[np.ndarray], *, side: int, eps: float) -> np.ndarray:
    """The rows of V^T / sqrt(s + eps), largest s first, (3 k k, 3, k, k) float64 with k = `side`.

    An eigenvector has a sign by chance: here its largest number is positive.
    """
    moments, count = 0.0, 0
    for image in images:
        patches = sliding_window_view(image.astype(np.float64), (side, side), (1, 2))
        patches = patches.transpose(1, 2, 0, 3, 4).reshape(-1, len(image) * side * side)
        moments, count = moments + patches.T @ patches, count + len(patches)
    values, vectors = np.linalg.eigh(moments / count)
    rows = vectors.T[::-1]
    largest = rows[np.arange(len(rows)), np.abs(rows).argmax(axis=1)]
    # Rounding can leave a moment that is 0 a little below.
    scales = np.sign(largest) / np.sqrt(np.maximum(values[::-1], 0) + eps)
    return (rows * scales[:, None]).reshape(len(rows), -1, side, side)
