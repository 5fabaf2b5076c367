# SPDX-License-Identifier: Apache-2.0
"""Convolutions that call oneDNN themselves, against loops in float64 and MindSpore's own operator."""

import itertools
import math
from concurrent.futures import ThreadPoolExecutor

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from src.layers import onednn
from src.layers.conv import conv2d
from src.layers.device import use_plain_operators
from src.layers.direct_conv import direct_convolution
from src.layers.onednn import Convolution
from src.training.precision import set_precision

pytestmark = pytest.mark.skipif(onednn.library() is None, reason="this processor has no AVX-512")

CASES = [  # images, channels, side, filters, kernel, stride, padding
    (5, 3, 9, 8, 3, 1, (1, 1, 1, 1)),
    (4, 16, 8, 32, 1, 1, (0, 0, 0, 0)),
    (3, 3, 17, 20, 7, 2, (3, 3, 3, 3)),
    (2, 32, 7, 16, 3, 2, (1, 1, 1, 1)),
    (1, 24, 7, 64, 3, 1, (1, 0, 1, 0)),
    (6, 3, 8, 24, 2, 1, (0, 0, 0, 0)),
]


def by_loops(x, weight, dy, stride, padding):
    """y and the gradients of x and weight, in float64."""
    top, bottom, left, right = padding
    x, weight, dy = (part.astype(np.float64) for part in (x, weight, dy))
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    y, dx, dw = np.zeros(dy.shape), np.zeros(padded.shape), np.zeros(weight.shape)
    height, width = dy.shape[2:]
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            rows, columns = slice(i, i + stride * height, stride), slice(j, j + stride * width, stride)
            window = padded[:, :, rows, columns][:, :, :height, :width]
            y += np.einsum("nchw,oc->nohw", window, weight[:, :, i, j])
            dx[:, :, rows, columns][:, :, :height, :width] += np.einsum(
                "nohw,oc->nchw", dy, weight[:, :, i, j]
            )
            dw[:, :, i, j] = np.einsum("nchw,nohw->oc", window, dy)
    return y, dx[:, :, top : top + x.shape[2], left : left + x.shape[3]], dw


def drawn(count, channels, side, filters, kernel, stride, padding):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, channels, side, side)).astype(np.float32)
    weight = rng.normal(size=(filters, channels, kernel, kernel)).astype(np.float32)
    shape = onednn.output_shape(x.shape, weight.shape, stride=stride, padding=padding)
    return x, weight, rng.normal(size=shape).astype(np.float32)


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize("case", CASES)
def test_it_equals_loops_in_float64(case):
    *_, stride, padding = case
    x, weight, dy = drawn(*case)
    convolution = Convolution(x.shape, weight.shape, stride=stride, padding=padding)
    results = convolution.forward(x, weight), convolution.to_x(dy, weight), convolution.to_weight(x, dy)
    for ours, theirs in zip(results, by_loops(x, weight, dy, stride, padding), strict=True):
        close(ours, theirs)


@pytest.mark.parametrize("mode", [ms.GRAPH_MODE, ms.PYNATIVE_MODE])
def test_it_is_an_operator_with_gradients_like_mindspores(mode):
    x, weight, dy = (ms.Tensor(part) for part in drawn(*CASES[0]))

    class Twice(nn.Cell):  # the results of one operator in two places are not in each other's way
        def __init__(self, convolution):
            super().__init__()
            self.convolution = convolution

        def construct(self, x, weight, dy):
            first, second = self.convolution(x, weight), self.convolution(2 * x, weight)
            return (first * second * dy).sum(axis=(1, 2, 3))

    ms.set_context(mode=mode)
    results = []
    for convolution in (
        direct_convolution(stride=1, padding=(1, 1, 1, 1)),
        ops.Conv2D(out_channel=8, kernel_size=3, pad_mode="pad", pad=1),
    ):
        cell = Twice(convolution)
        value = cell(x, weight, dy)
        results.append((value, *ms.grad(cell, (0, 1))(x, weight, dy)))
    for ours, theirs in zip(*results, strict=True):
        close(ours.asnumpy(), theirs.asnumpy())


def test_arrays_are_used_again_only_when_nobody_has_them():
    buffers = onednn._Buffers()
    first = buffers.take((2, 3))
    second = buffers.take((6,))
    assert not np.shares_memory(first, second)
    view = first[1]
    del first
    assert not np.shares_memory(buffers.take((5,)), view)
    del view
    assert np.shares_memory(buffers.take((5,)), buffers.take((1,))) is False
    assert len(buffers._arrays) == 4


def test_work_in_other_threads_than_the_first_is_right():
    """Shapes that need working memory, which belongs to the thread that computes."""
    x, weight, dy = drawn(8, 64, 16, 96, 3, 1, (1, 1, 1, 1))
    convolution = Convolution(x.shape, weight.shape, stride=1, padding=(1, 1, 1, 1))
    with ThreadPoolExecutor(4) as pool:
        tasks = [pool.submit(convolution.to_weight, x, dy) for _ in range(8)]
        results = [task.result() for task in tasks]
    expected = by_loops(x, weight, dy, 1, (1, 1, 1, 1))
    for result in results:
        close(result, expected[2])
    close(convolution.forward(x, weight), expected[0])
    close(convolution.to_x(dy, weight), expected[1])


@pytest.mark.usefixtures("graph_mode")
def test_a_cell_calls_it_in_a_graph_for_float32_unless_the_user_chose(monkeypatch):
    """Weights of zero: what MindSpore's operator would answer is told apart by a count of calls."""
    calls = []
    forward = Convolution.forward
    monkeypatch.setattr(
        Convolution, "forward", lambda self, *arrays: calls.append(1) or forward(self, *arrays)
    )

    def called(cell, dtype=ms.float32):
        calls.clear()
        x = ms.Tensor(np.ones((2, 3, 4, 4)), dtype)
        assert cell(x).dtype == dtype
        return len(calls)

    def cell():
        return conv2d(in_channels=3, out_channels=4, kernel_size=3)

    assert called(cell()) == 1
    assert called(conv2d(in_channels=3, out_channels=4, kernel_size=1, stride=2)) == 0
    plain = cell()
    use_plain_operators(plain)
    assert called(plain) == 0
    half = set_precision(cell(), "O2")
    assert called(half, ms.float16) == 0
    monkeypatch.delenv("QUARTET_DIRECT_CONVOLUTIONS")
    assert called(cell()) == 0


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (7, 1), (7, 2)])
def test_nothing_is_written_beyond_the_memory_that_is_given(kernel, stride, monkeypatch):
    """A kernel of 1x1 with a stride would: such a cell has MindSpore's operator, see the test above."""
    given = []

    class Guarded:
        def take(self, shape):
            count = math.prod(shape)
            given.append((np.full(count + 2048, 9, np.float32), count))
            return given[-1][0][1024 : 1024 + count].reshape(shape)

    monkeypatch.setattr(onednn, "_buffers", Guarded())
    for count, channels, side, filters in itertools.product((2, 5), (3, 8, 12), (7, 16), (4, 20)):
        case = count, channels, side, filters, kernel, stride, (kernel // 2,) * 4
        x, weight, dy = drawn(*case)
        convolution = Convolution(x.shape, weight.shape, stride=stride, padding=case[-1])
        convolution.forward(x, weight)
        convolution.to_x(dy, weight)
        convolution.to_weight(x, dy)
    assert all((array[:1024] == 9).all() and (array[1024 + n :] == 9).all() for array, n in given)
