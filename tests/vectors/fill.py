# SPDX-License-Identifier: Apache-2.0
"""Deterministic tensors by name: the weights and inputs that the numbers in this folder's files belong to.

The kind of a tensor is read off its name; n are standard normals of numpy's RandomState seeded with
crc32(name):

    input/...                                                    n
    scale of a normalisation (gamma, bn*.weight, norm*.weight,
      the norm of a downsample)                                  1 + 0.1 n
    running_var                                                  1 + 0.1 |n|
    beta, bias, running_mean                                     0.1 n
    binary_conv.weights                                          0.05 n
    all others                                                   n sqrt(2 / fan_in)

fan_in is the product of all axes but the output one: the last for names ending in "kernel", else the first.
"""

import re
import zlib

import numpy as np

_SCALE = re.compile(r"(gamma|(^|\.)bn\d*\.weight|norm\d*\.weight|downsample\.[12]\.weight)$")


def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The float32 tensor of that name, the same on every machine."""
    n = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if name.startswith("input/"):
        values = n
    elif _SCALE.search(name) and len(shape) == 1:
        values = 1 + 0.1 * n
    elif name.endswith("running_var"):
        values = 1 + 0.1 * np.abs(n)
    elif name.endswith(("beta", "bias", "running_mean")):
        values = 0.1 * n
    elif name.endswith("binary_conv.weights"):
        values = 0.05 * n
    else:
        inputs = np.prod(shape) / (shape[-1] if name.endswith("kernel") else shape[0])
        values = n * np.sqrt(2 / max(inputs, 1))
    return values.astype(np.float32)
