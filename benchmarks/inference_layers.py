# SPDX-License-Identifier: Apache-2.0
"""Chains of the binary convolutions of birealnet18 at 224x224, without the rest of the network.

`sixteen` is all of them, one behind the other. The others are 20 of one shape, each with the binarisation of
its input, a scale, an offset and the shortcut around it, as in the network. MindSpore's are the plain float32
convolutions of the same shapes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Layer:
    """A 3x3 convolution of so many channels at so many pixels, after it."""

    inputs: int
    outputs: int
    side: int
    stride: int = 1

    @property
    def multiply_adds(self) -> int:
        return 9 * self.inputs * self.outputs * self.side**2


STAGES = ((64, 56), (128, 28), (256, 14), (512, 7))
LENGTH = 20


def _sixteen() -> list[Layer]:
    layers = [Layer(64, 64, 56)] * 4
    for channels, side in STAGES[1:]:
        layers += [Layer(channels // 2, channels, side, stride=2), *[Layer(channels, channels, side)] * 3]
    return layers


CHAINS = {
    "sixteen": _sixteen(),
    **{f"{channels} channels": [Layer(channels, channels, side)] * LENGTH for channels, side in STAGES},
}


def shape_of(chain: str) -> tuple[int, int, int]:
    """Of the images that it takes: (C, H, W)."""
    first = CHAINS[chain][0]
    return first.inputs, first.side * first.stride, first.side * first.stride


def network_of(chain: str) -> Any:
    """The float32 convolutions, in MindSpore."""
    from mindspore import nn

    from src.layers.conv import conv2d
    from src.layers.init import he_normal_fan_out, initialise

    cells = [
        conv2d(in_channels=one.inputs, out_channels=one.outputs, kernel_size=3, stride=one.stride)
        for one in CHAINS[chain]
    ]
    network = nn.SequentialCell(cells)
    initialise(network, seed=0, weight=he_normal_fan_out)
    return network


def program_of(chain: str) -> Any:
    """The binary ones as a packed program, with random weights.

    Its two logits are sums of means: of the last values, and of those before a stride, which in the network
    have another reader, too.
    """
    from src.deploy.packed.program import IMAGES, LOGITS, Program, Step

    rng, steps, value, means = np.random.default_rng(0), [], IMAGES, []

    def close(channels: int) -> None:
        steps.append(Step("mean", (value,), f"mean of {value}"))
        dense = {"weight": np.ones((2, channels), np.float32), "bias": np.zeros(2, np.float32)}
        steps.append(Step("dense", (f"mean of {value}",), f"sum of {value}", {}, dense))
        means.append(f"sum of {value}")

    for number, one in enumerate(CHAINS[chain]):
        shape = one.outputs, 3, 3, one.inputs // 64
        arrays = {
            "bits": rng.integers(0, 2**64, shape, np.uint64),
            "multiply": rng.uniform(0.01, 0.1, one.outputs).astype(np.float32),
            "add": rng.normal(0, 0.1, one.outputs).astype(np.float32),
        }
        inputs = (value,) if one.stride > 1 else (value, value)
        if one.stride > 1:
            close(one.inputs)
        numbers = {"channels": one.inputs, "stride": one.stride, "padding": 1}
        value = f"layer{number}"
        steps.append(Step("binary_convolution", inputs, value, numbers, arrays))
    close(CHAINS[chain][-1].outputs)
    total = means[0]
    for number, one in enumerate(means[1:]):
        steps.append(Step("add", (total, one), f"total {number}"))
        total = f"total {number}"
    last = {"multiply": np.ones(2, np.float32), "add": np.zeros(2, np.float32)}
    steps.append(Step("affine", (total,), LOGITS, {}, last))
    return Program(tuple(steps), channels=CHAINS[chain][0].inputs)
