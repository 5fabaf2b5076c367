# SPDX-License-Identifier: Apache-2.0
"""int8 by onnxruntime's static quantisation: weights and activations of the trunk in 8 bits.

onnxruntime's defaults make activations signed, and are up to three times slower than float32. Its profiler
shows why: of a ResNet-18, onnxruntime 1.31 then leaves 11 of 20 convolutions and all residual sums in float,
and converts their inputs and weights at every call. What is chosen here, and why:

- Activations are unsigned, weights signed: onnxruntime fuses all convolutions and sums of these, and it is
  the pair that AVX512-VNNI multiplies. A processor without it would saturate; onnxruntime then takes other
  kernels if the session asks for `session.x64quantprecision`.
- The format is QDQ (float operators between QuantizeLinear and DequantizeLinear), which onnxruntime fuses to
  integer kernels, and other runtimes, such as OpenVINO, to theirs.
- The range of an activation is the mean, over batches of `BATCH` pictures, of the batch's extremes: a single
  outlier does not make all steps coarse.
- Pooling by a generalised mean, normalisation and the classifier stay in float32: they cost next to nothing
  and a rounding there moves the answer most.
- Weights are rounded so that the errors of a kernel cancel, see `round_weights`.
"""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from ...common.files import temporary_folder

BATCH = 16  # pictures: of 4 to 64 the one whose ranges are nearest to those of least error
LEVELS = 127  # of a weight on each side of 0
TRUNK = ("Conv", "Relu", "MaxPool", "Add")

_PREPARED = ("onnx.quant.pre_process", "onnxruntime.quant")  # otherwise onnxruntime asks for its optimiser


class _Reader(CalibrationDataReader):
    def __init__(self, name: str, batches: Iterator[np.ndarray]):
        self._name, self._batches = name, batches

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch}


def quantise(model: onnx.ModelProto, batches: Iterable[np.ndarray]) -> onnx.ModelProto:
    """The model with int8 weights, a scale a filter, and uint8 activations; without metadata.

    Args:
        model: float32, its batch norms folded, of one input; left as it is.
        batches: what the input takes; the ranges of activations are measured on it. Batches of about
            `BATCH` pictures, all of nearly the same size.
    """
    prepared = onnx.ModelProto()
    prepared.CopyFrom(model)
    _swap_pool_and_relu(prepared.graph)
    _convolve_for_norms(prepared.graph)
    constants = {tensor.name: tensor for tensor in prepared.graph.initializer}
    for name in {node.input[1] for node in prepared.graph.node if node.op_type == "Conv"} & constants.keys():
        weight = round_weights(numpy_helper.to_array(constants[name]))
        constants[name].CopyFrom(numpy_helper.from_array(weight, name))
    helper.set_model_props(prepared, dict([_PREPARED]))
    with temporary_folder(Path(tempfile.gettempdir()) / "quantised") as folder:
        path = folder / "model.onnx"
        quantize_static(
            prepared,
            path,
            _Reader(model.graph.input[0].name, iter(batches)),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=TRUNK,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"CalibMovingAverage": True},
        )
        made = onnx.load(path)
    del made.metadata_props[:]
    return made


def round_weights(weight: np.ndarray) -> np.ndarray:
    """Weights of a convolution on the 255 levels of their filters, (O, I, kH, kW) float32.

    To the nearest level first. Neighbouring pixels are alike, and activations behind a ReLU have all the same
    sign: errors of one direction add up, those of both cancel. So, in each kernel (kH, kW) and then in each
    filter, the weights that are nearest to the other level go there, as many as bring the sum of errors to
    half a level at most. Measured on ResNet9 and MultiGrain, what the rounding of weights adds to the logits
    is about halved.
    """
    largest = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    step = np.where(largest > 0, largest, 1) / np.float32(LEVELS)
    exact = weight / step
    levels = np.rint(exact)
    for axes in ((*weight.shape[:2], -1), (len(weight), -1)):
        error = (exact - levels).reshape(axes)
        missing = np.rint(error.sum(axis=-1, keepdims=True, dtype=np.float64))
        order = np.argsort(-error * np.sign(missing), axis=-1, kind="stable")
        nearest = np.argsort(order, axis=-1) < np.abs(missing)
        levels += (nearest * np.sign(missing)).reshape(weight.shape)
    return (np.clip(levels, -LEVELS, LEVELS) * step).astype(np.float32)


def _swap_pool_and_relu(graph: onnx.GraphProto) -> None:
    """Puts a ReLU behind a maximum pooling before it, which is the same: a convolution then takes it in."""
    users: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            users[name] = users.get(name, 0) + 1
    pools = {node.output[0]: node for node in graph.node if node.op_type == "MaxPool"}
    for relu in graph.node:
        pool = pools.get(relu.input[0]) if relu.op_type == "Relu" else None
        if pool is not None and users[pool.output[0]] == 1:
            source, between, last = pool.input[0], pool.output[0], relu.output[0]
            first, second = onnx.NodeProto(), onnx.NodeProto()
            first.CopyFrom(relu)
            second.CopyFrom(pool)
            first.input[:], first.output[:] = [source], [between]
            second.input[:], second.output[:] = [between], [last]
            pool.CopyFrom(first)
            relu.CopyFrom(second)


def _convolve_for_norms(graph: onnx.GraphProto) -> None:
    """Replaces each batch norm behind a maximum pooling by a 1x1 convolution of each channel by itself.

    Nothing folds such a norm: a negative scale makes another pooling of it. As a float operator it would take
    what surrounds it out of 8 bits.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    pooled = {node.output[0] for node in graph.node if node.op_type == "MaxPool"}
    for node in graph.node:
        if node.op_type != "BatchNormalization" or node.input[0] not in pooled:
            continue
        names = list(node.input[1:])
        gamma, beta, mean, variance = (numpy_helper.to_array(constants[name]) for name in names)
        epsilon = next((one.f for one in node.attribute if one.name == "epsilon"), 1e-5)
        scale = gamma / np.sqrt(variance.astype(np.float64) + epsilon)
        arrays = (scale.reshape(-1, 1, 1, 1), beta - mean * scale)
        for name, array in zip(names, arrays, strict=False):  # in the place of gamma and beta
            constants[name].CopyFrom(numpy_helper.from_array(array.astype(np.float32), name))
        how = {"kernel_shape": [1, 1], "group": len(scale), "name": node.name}
        node.CopyFrom(helper.make_node("Conv", [node.input[0], *names[:2]], list(node.output), **how))
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
