# SPDX-License-Identifier: Apache-2.0
"""Graphs without waste."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from src.deploy.onnx.builder import Builder

IMAGES = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3])


def graph(builder, **outputs):
    return builder.graph("g", IMAGES, outputs)[0]


def constants(made):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in made.initializer}


def test_what_no_output_needs_is_left_out():
    b = Builder({"used": np.ones(3, np.float32), "unused": np.ones(3, np.float32)})
    b.add("Mul", "images", "unused")
    out = b.add("Add", "images", "used")
    made = graph(b, out=out)
    assert [node.op_type for node in made.node] == ["Add"] and list(constants(made)) == ["used"]
    assert list(made.node[0].output) == ["out"]


def test_what_depends_on_constants_alone_is_computed_and_keeps_the_name():
    b = Builder({"conv.weight": np.float32([-2, 4])})
    made = graph(b, out=b.add("Mul", "images", b.add("Abs", "conv.weight")))
    assert [node.op_type for node in made.node] == ["Mul"] and made.node[0].name == "conv/Mul"
    assert {name: array.tolist() for name, array in constants(made).items()} == {"conv.weight": [2, 4]}


def test_a_name_that_is_in_use_is_not_taken():
    b = Builder({"w": np.float32([-2, 4])})
    out = b.add("Add", b.add("Mul", "images", "w"), b.add("Abs", "w"))
    assert {name: array.tolist() for name, array in constants(graph(b, out=out)).items()} == {
        "w": [-2, 4],
        "Abs": [2, 4],
    }


def test_equal_constants_stand_there_once_and_nodes_have_names_of_their_own():
    b = Builder({})
    one = np.ones(3, np.float32)
    out = b.add("Add", b.add("Add", "images", one), one.copy())
    made = graph(b, out=out)
    assert list(constants(made)) == ["constant_float32_3"]
    assert [node.name for node in made.node] == ["Add", "Add_1"]


def test_outputs_that_are_one_value():
    b = Builder({})
    same = b.add("Abs", "images")
    made = graph(b, first=same, second=same)
    assert sorted((node.op_type, node.output[0]) for node in made.node) == [
        ("Abs", "second"),
        ("Identity", "first"),
    ]
    b = Builder({"w": np.ones(3, np.float32)})
    assert [(node.op_type, *node.input) for node in graph(b, out="w").node] == [("Identity", "w")]


def test_the_traced_shapes_go_by_the_names_in_the_graph():
    b = Builder({"fc.weight": np.ones((4, 3), np.float32)})
    b.shapes["images"] = (97, 3)
    left = b.add("Gemm", "images", "fc.weight", transB=1)
    right = b.add("Abs", left)
    b.shapes |= {left: (97, 4), right: (97, 4)}
    made, shapes = b.graph("g", IMAGES, {"out": right})
    assert [(node.name, *node.output) for node in made.node] == [("fc/Gemm", "fc/Gemm"), ("Abs", "out")]
    assert shapes == {"images": (97, 3), "fc.weight": (4, 3), "fc/Gemm": (97, 4), "out": (97, 4)}
