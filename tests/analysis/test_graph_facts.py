# SPDX-License-Identifier: Apache-2.0
"""The figures of graphs that are small enough to count by hand."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from src.analysis.graph_facts import compile_graph, facts, placeholder
from src.common.errors import UserError

pytestmark = pytest.mark.usefixtures("graph_mode")


class _Small(nn.Cell):
    def __init__(self):
        super().__init__()
        self.weight = ms.Parameter(np.ones((4, 5), np.float32), name="weight")
        self.reduce = ops.AllReduce()

    def construct(self, images, others):
        first, second = others
        x = images.astype(ms.float16).transpose(1, 0).astype(ms.float32)
        return self.reduce(ops.matmul(x, self.weight)), first + 1, second


def test_counted_by_hand():
    images = np.zeros((4, 3), np.uint8)
    others = (np.zeros(6, np.int32), np.zeros((2, 2), np.float32))
    found = facts(compile_graph(_Small(), placeholder(images), placeholder(others)))
    assert found.pop("operators") == 6  # two casts, transpose, product, reduction, sum
    assert found.pop("structural") > 0
    assert found == {
        "parameters": 4 * 4 * 5,
        "from_host": 4 * 3 + 6 * 4 + 4 * 4,
        "to_host": 3 * 5 * 4 + 6 * 4 + 4 * 4,
        "casts": [
            {"from": "float16", "to": "float32", "count": 1, "bytes": 3 * 4 * 4},
            {"from": "uint8", "to": "float16", "count": 1, "bytes": 4 * 3 * 2},
        ],
        "transposes": {"count": 1, "bytes": 3 * 4 * 2},
        "collectives": [{"operator": "AllReduce", "bytes": 3 * 5 * 4, "nodes": 1}],
    }


class _Fused(nn.Cell):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.alone = ops.AllReduce(), ops.AllReduce(), ops.AllReduce()
        for reduce in (self.first, self.second):
            reduce.add_prim_attr("fusion", 1)

    def construct(self, x, y):
        return self.first(x), self.second(y), self.alone(x * 2)


def test_what_the_framework_makes_into_one_counts_as_one():
    x, y = (ms.Tensor(shape=shape, dtype=ms.float32) for shape in ((3,), (5,)))
    assert facts(compile_graph(_Fused(), x, y))["collectives"] == [
        {"operator": "AllReduce", "bytes": 8 * 4, "nodes": 2},
        {"operator": "AllReduce", "bytes": 3 * 4, "nodes": 1},
    ]


class _Branches(nn.Cell):
    def construct(self, x):
        if x.sum() > 0:
            return ops.exp(x)
        return ops.sin(x)


def test_both_branches_are_in_the_graph():
    graph = compile_graph(_Branches(), ms.Tensor(shape=(3,), dtype=ms.float32))
    assert {"Exp", "Sin", "Switch", "Call"} <= {node.primitive for node in graph.nodes}


class _OtherDevice(nn.Cell):
    """With an operator that this device has no kernel for."""

    def __init__(self):
        super().__init__()
        self.operator = ops.operations.math_ops.NPUAllocFloatStatus()

    def construct(self, x):
        return x + self.operator().sum()


def test_operators_of_other_devices_are_compiled():
    graph = compile_graph(_OtherDevice(), ms.Tensor(shape=(3,), dtype=ms.float32))
    assert "NPUAllocFloatStatus" in {node.primitive for node in graph.nodes}


class _Wrong(nn.Cell):
    def construct(self, x):
        return ops.matmul(x, x)


def test_what_does_not_compile_is_one_line():
    with pytest.raises(UserError, match=r"cannot compile _Wrong: [^\n]*$"):
        compile_graph(_Wrong(), ms.Tensor(shape=(2, 3), dtype=ms.float32))
