# SPDX-License-Identifier: Apache-2.0
"""int8 of a graph: which numbers become integers, and how they are rounded."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from src.deploy.onnx import quantise as module
from src.deploy.onnx.quantise import quantise, round_weights
from tests.helpers.pictures import smooth

RNG = np.random.default_rng(0)


def graph(*nodes):
    """(N, 3, 8, 8) -> conv -> max-pool -> relu -> conv -> + -> relu -> mean -> gemm, as ResNet9 has them."""
    weights = {
        "a": RNG.normal(size=(6, 3, 3, 3)),
        "b": RNG.normal(size=(6,)),
        "c": RNG.normal(size=(6, 6, 3, 3)) / 6,
        "axes": np.array([2, 3]),
        "d": RNG.normal(size=(6, 5)),
    }
    arrays = {name: w.astype(np.int64 if name == "axes" else np.float32) for name, w in weights.items()}
    made = [
        helper.make_node("Conv", ["images", "a", "b"], ["1"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("MaxPool", ["1"], ["2"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Relu", ["2"], ["3"]),
        helper.make_node("Conv", ["3", "c"], ["4"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["3", "4"], ["5"]),
        helper.make_node("Relu", ["5"], ["6"]),
        helper.make_node("ReduceMean", ["6", "axes"], ["embedding"], keepdims=0),
        helper.make_node("Gemm", ["embedding", "d"], ["logits"]),
        *nodes,
    ]
    answers = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 5])]
    answers.append(helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 6]))
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, 8, 8])
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    made = helper.make_graph(made, "net", [images], answers, tensors)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.fixture(scope="module")
def images():
    pictures = np.stack([smooth(8, 8, seed) for seed in range(64)])
    return np.moveaxis(pictures.astype(np.float32) / 64 - 2, -1, 1)


def run(model, images):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"images": images})[0]


@pytest.fixture(scope="module")
def both(images):
    model = graph()
    before = model.SerializeToString(deterministic=True)
    made = quantise(model, np.split(images, 2))
    assert model.SerializeToString(deterministic=True) == before
    return model, made


def test_the_trunk_is_integer_and_the_head_is_not(both):
    _, made = both
    onnx.checker.check_model(made, full_check=True)
    types = {tensor.name: tensor.data_type for tensor in made.graph.initializer}
    shapes = {tensor.name: tuple(tensor.dims) for tensor in made.graph.initializer}
    assert types["a_quantized"] == types["c_quantized"] == TensorProto.INT8
    assert types["d"] == TensorProto.FLOAT
    assert shapes["a_scale"] == (6,)  # one a filter
    activations = [
        node.input[2] for node in made.graph.node if node.op_type == "QuantizeLinear" and len(node.input) > 2
    ]
    assert activations and {types[name] for name in activations} == {TensorProto.UINT8}
    assert not made.metadata_props  # the writer's business


def test_any_batch_gives_nearly_the_same_answers(both, images):
    model, made = both
    for count in (1, 3, 64):
        exact = run(model, images[:count])
        assert np.abs(run(made, images[:count]) - exact).max() < 0.05 * np.abs(exact).max()


def test_the_convolutions_run_as_integers(both, tmp_path):
    """onnxruntime fuses nothing if a relu, a pooling or a type stands in its way."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    options.log_severity_level = 3
    data = both[1].SerializeToString()
    onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    operators = [node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node]
    assert operators.count("QLinearConv") == 2 and "Conv" not in operators and "Relu" not in operators
    assert operators.count("QLinearAdd") == 1


def test_a_relu_goes_before_the_pooling_if_nothing_else_takes_that(images):
    model = graph()
    exact = run(model, images)
    module._swap_pool_and_relu(model.graph)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node][:3] == ["Conv", "Relu", "MaxPool"]
    np.testing.assert_array_equal(run(model, images), exact)

    other = graph(helper.make_node("Identity", ["2"], ["seen"]))
    module._swap_pool_and_relu(other.graph)
    assert [node.op_type for node in other.graph.node][:3] == ["Conv", "MaxPool", "Relu"]


def test_a_norm_behind_a_pooling_becomes_a_convolution(images):
    """Scales of both signs: none of them can go before the pooling."""
    model = graph()
    numbers = {"gamma": RNG.normal(size=6), "beta": RNG.normal(size=6), "mean": RNG.normal(size=6)}
    numbers["variance"] = RNG.uniform(0.5, 2, size=6)
    tensors = [numpy_helper.from_array(a.astype(np.float32), name) for name, a in numbers.items()]
    model.graph.initializer.extend(tensors)
    norm = helper.make_node("BatchNormalization", ["2", *numbers], ["normed"], epsilon=0.01)
    model.graph.node.insert(2, norm)
    model.graph.node[3].input[0] = "normed"
    exact = run(model, images)
    made = quantise(model, np.split(images, 4))
    module._convolve_for_norms(model.graph)
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_allclose(run(model, images), exact, atol=1e-5)
    assert {t.name for t in model.graph.initializer}.isdisjoint({"mean", "variance"})
    assert "BatchNormalization" not in {node.op_type for node in made.graph.node}
    assert np.abs(run(made, images) - exact).max() < 0.05 * np.abs(exact).max()


@pytest.mark.parametrize("shape", [(5, 3, 3, 3), (4, 16, 1, 1), (2, 1, 5, 5), (1, 1, 1, 1)])
def test_rounding_errors_cancel_in_each_kernel_and_filter(shape):
    weight = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    step = np.abs(weight).reshape(len(weight), -1).max(axis=1).reshape(-1, 1, 1, 1) / 127
    made = round_weights(weight)
    levels = made / step
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)
    error = (made - weight) / step
    assert np.abs(error).max() < 1.5 + 1e-4
    assert np.abs(error.sum(axis=(1, 2, 3))).max() <= 0.5 + 1e-3
    np.testing.assert_allclose(
        np.abs(made).max(axis=(1, 2, 3)), np.abs(weight).max(axis=(1, 2, 3)), rtol=1e-6
    )
    if weight[0].size > 9:
        nearest = np.rint(weight / step) - weight / step
        assert (
            np.abs(error.sum(axis=(2, 3))).mean() < np.abs(nearest.sum(axis=(2, 3))).mean() or shape[2] == 1
        )


def test_filters_of_zeros_stay_so():
    weight = np.zeros((2, 3, 3, 3), np.float32)
    weight[1] = np.random.default_rng(0).normal(size=(3, 3, 3))
    made = round_weights(weight)
    assert not made[0].any() and np.isfinite(made).all() and made[1].any()


def test_onnxruntime_rounds_no_weight_again(both):
    model, made = both
    weight = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == "c")
    stored = {t.name: numpy_helper.to_array(t) for t in made.graph.initializer}
    again = stored["c_quantized"] * stored["c_scale"].reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(again, round_weights(weight), rtol=1e-5, atol=1e-7)
