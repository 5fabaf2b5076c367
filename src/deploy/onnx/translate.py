# SPDX-License-Identifier: Apache-2.0
"""A network as an ONNX model: inputs `images`, outputs `logits` and `embedding`, any batch size."""

from collections.abc import Mapping

import numpy as np
import onnx
from mindspore import nn
from onnx import helper

from ...common.errors import UserError
from ...layers.pixels import Pixels
from ..card import ModelCard
from .builder import BATCH, IR_VERSION, OPSET, Builder
from .operators import OPERATORS
from .trace import TRACED_BATCH, Traced, trace

_SMALL = 1024  # bytes; shapes and axes, which shapes depend on, are below


def to_onnx(network: nn.Cell, card: ModelCard) -> onnx.ModelProto:
    """Translates a network as it is now, after `fold` and `layers.device.use_plain_operators`.

    The input `images` is (N, 3, S, S) float32 or (N, S, S, 3) uint8, as the card says; with uint8, the model
    normalises. The outputs are `logits` (N, K) and `embedding` (N, D), the network's `embed`. N is any batch
    size. Constants have the names of the network's parameters.

    Args:
        network: float32 (N, 3, S, S) -> logits (N, K), with `embed`. It stays in evaluation mode.
        card: what the model takes.

    Raises:
        UserError: MindSpore cannot export the network, or it has an operator that is not translated.
    """
    inputs = Pixels(card.preparation.mean, card.preparation.std)  # leaves float32 as it is
    traced = trace(network, card.image_shape, card.image_dtype, inputs)
    parameters = {p.name: p.asnumpy() for p in network.get_parameters()}
    return translate(traced, parameters, name=card.model)


def translate(traced: Traced, parameters: Mapping[str, np.ndarray], *, name: str) -> onnx.ModelProto:
    """`to_onnx` of what is traced already.

    Raises:
        UserError: an operator is not translated, or the result depends on the batch size of the trace.
    """
    b = Builder(parameters)
    values = {**traced.constants, **traced.parameters, traced.images: "images"}
    b.shapes["images"], b.types["images"] = traced.image_shape, traced.image_type
    for node in traced.nodes:
        if node.operator not in OPERATORS:
            raise UserError(
                f"file_format: {name} has MindSpore's operator {node.operator}, which is not translated to "
                "ONNX; export to MINDIR, or add it to src/deploy/onnx/operators.py"
            )
        made = OPERATORS[node.operator](b, node, *(values[one] for one in node.inputs))
        values[node.output] = made
        for one, shape, kind in zip(_flat(made), node.shapes, node.types, strict=False):
            if isinstance(one, str):
                b.shapes.setdefault(one, shape)
                b.types.setdefault(one, kind)
    outputs = dict(zip(("logits", "embedding"), values[traced.answers], strict=True))
    outputs = {output: b.cast(value, onnx.TensorProto.FLOAT) for output, value in outputs.items()}
    images = helper.make_tensor_value_info("images", traced.image_type, [BATCH, *traced.image_shape[1:]])
    graph, shapes = b.graph(name, images, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    for info in model.graph.output:
        shape = [BATCH, *shapes[info.name][1:]]
        info.CopyFrom(helper.make_tensor_value_info(info.name, onnx.TensorProto.FLOAT, shape))
    _check(model, shapes)
    return model


def _flat(made):
    return made if isinstance(made, tuple) else (made,)


def _check(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """It must be valid, and each value have its shape in the trace, with N where the batch size was.

    Raises:
        UserError: otherwise.
    """
    light = _without_weights(model)
    try:
        onnx.checker.check_model(light)
        inferred = onnx.shape_inference.infer_shapes(light, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"file_format: not valid as ONNX ({reason}); report this network") from error
    for info in [*inferred.graph.value_info, *inferred.graph.output]:
        first, *others = shapes.get(info.name, (None,))
        traced = [BATCH if first == TRACED_BATCH else first, *others]
        found = [one.dim_param or one.dim_value for one in info.type.tensor_type.shape.dim]
        if first is not None and found != traced:
            raise UserError(
                f"file_format: {info.name} is {found} in ONNX and {traced} in MindSpore: the batch size of "
                "the trace is still in it; report this network"
            )


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its large constants as inputs, for a protobuf is 2 GiB long at most.

    Its outputs have no sides, so that they are inferred too.
    """
    graph = model.graph
    small = [tensor for tensor in graph.initializer if len(tensor.raw_data) <= _SMALL]
    inputs = [
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in graph.initializer
        if len(tensor.raw_data) > _SMALL
    ]
    outputs = [
        helper.make_tensor_value_info(
            one.name, onnx.TensorProto.FLOAT, [None] * len(one.type.tensor_type.shape.dim)
        )
        for one in graph.output
    ]
    light = helper.make_graph(graph.node, graph.name, [*graph.input, *inputs], outputs, small)
    return helper.make_model(light, opset_imports=model.opset_import, ir_version=model.ir_version)
