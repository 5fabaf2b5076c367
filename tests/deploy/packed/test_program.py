# SPDX-License-Identifier: Apache-2.0
"""A program is as its table says, or is refused by the name of the step."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import ops

from src.deploy.packed.program import LOGITS, Program
from tests.helpers.packed import binary_sums, interpret, pack, random_program, unpack


@pytest.fixture(scope="module")
def program() -> Program:
    return random_program()


def test_bits_are_in_the_order_of_the_channels():
    signs = -np.ones((1, 70, 1, 1))
    signs[0, [0, 5, 63, 64, 69]] = 1
    assert pack(signs).tolist() == [[[[1 | 1 << 5 | 1 << 63, 1 | 1 << 5]]]]
    assert (unpack(pack(signs), 70) == signs).all()


def test_the_interpreter_against_mindspore(program):
    """Of the 1-bit and of the real convolution, with borders and strides."""
    images = np.random.default_rng(1).normal(size=(2, 3, 14, 30)).astype(np.float32)
    values, steps = interpret(program, images), {step.output: step for step in program.steps}
    stem, down = steps["stem"], steps["down"]
    x = ops.conv2d(ms.Tensor(images), ms.Tensor(stem.arrays["weight"]), stride=2, pad_mode="pad", padding=3)
    expected = x.asnumpy() + stem.arrays["bias"][:, None, None]
    np.testing.assert_allclose(values["stem"], expected, atol=1e-5)
    signs = np.where(values["same"] >= 0, 1, -1).astype(np.float32)
    weight = unpack(down.arrays["bits"], down.numbers["channels"])
    sums = ops.conv2d(ms.Tensor(signs), ms.Tensor(weight), stride=2, pad_mode="pad", padding=1)
    assert (binary_sums(down, values["same"]) == sums.asnumpy()).all()


@pytest.mark.parametrize("height, width", [(16, 16), (15, 31), (64, 40)])
def test_the_shapes_are_those_of_the_values(program, height, width):
    images = np.zeros((2, 3, height, width), np.float32)
    values = interpret(program, images)
    assert program.shapes(height, width) == {name: value.shape[1:] for name, value in values.items()}
    assert values[LOGITS].shape == (2, 5)


@pytest.mark.parametrize(
    "height, width, reason",
    [(2, 2, "nothing is left"), (17, 20, "adds"), (1 << 14, 1 << 14, "too large")],
)
def test_images_that_are_not_for_it(program, height, width, reason):
    with pytest.raises(ValueError, match=f"^step .*{reason}"):
        program.shapes(height, width)
