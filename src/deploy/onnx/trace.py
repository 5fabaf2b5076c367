# SPDX-License-Identifier: Apache-2.0
"""A network as one flat list of operators: what MindSpore exports as MINDIR, read into plain values."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn
from mindspore.train.mind_ir_pb2 import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from ...common.files import temporary_folder
from ...layers.inference import LogitsAndEmbedding
from ..mindir import export_graph

TRACED_BATCH = 97
"""The batch size of a trace. It is no other dimension of a network, and so can be told from them."""

_NUMPY = {
    TensorProto.FLOAT: np.float32,
    TensorProto.FLOAT16: np.float16,
    TensorProto.UINT8: np.uint8,
    TensorProto.INT32: np.int32,
    TensorProto.INT64: np.int64,
    TensorProto.BOOL: np.bool_,
}


@dataclass(frozen=True)
class Node:
    """One operator.

    Attributes:
        operator: MindSpore's name of it.
        inputs, output: names of values. An operator with several outputs has one value, a tuple of them.
        attributes: what is set when the operator is made; what is given when it runs is among the inputs.
        shapes, types: of each output; types are ONNX's numbers, which are MindSpore's too.
    """

    operator: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any]
    shapes: tuple[tuple[int, ...], ...]
    types: tuple[int, ...]


@dataclass(frozen=True)
class Traced:
    """A network's list of operators, each behind those that it needs.

    Attributes:
        nodes: the operators.
        constants: by name: arrays, numbers, tuples of numbers, None.
        parameters: name of the value -> name of the network's parameter.
        images, image_shape, image_type: the input.
        answers: the value that is the result, a tuple of logits and embedding.
    """

    nodes: list[Node]
    constants: dict[str, Any]
    parameters: dict[str, str]
    images: str
    image_shape: tuple[int, ...]
    image_type: int
    answers: str


def trace(network: nn.Cell, image_shape: Sequence[int], dtype: np.dtype, inputs: nn.Cell) -> Traced:
    """The operators of a network's logits and embedding.

    Args:
        network: has `embed` (`layers.protocol.Network`).
        image_shape: of one image, as `inputs` takes it.
        dtype: of its values.
        inputs: from images to the network's input.

    Raises:
        UserError: MindSpore cannot export the network, or the folder for temporary files cannot be written.
    """
    images = ms.Tensor(np.zeros((TRACED_BATCH, *image_shape), dtype))
    with temporary_folder(Path(tempfile.gettempdir()) / "traced") as folder:
        path = folder / "traced.mindir"
        export_graph(LogitsAndEmbedding(network, inputs), images, path, network=network)
        split = path.with_name("traced_graph.mindir")  # from 1 GiB on the weights stand apart
        model = ModelProto.FromString((split if split.exists() else path).read_bytes())
    return read_graph(model)


def read_graph(model: ModelProto) -> Traced:
    """The list of operators of a MINDIR file without sub-graphs."""
    graph: GraphProto = model.graph
    primitives = {primitive.name: primitive for primitive in model.primitives}
    constants, nodes = {}, []
    for node in graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = _value(node.attribute[0])
        else:
            nodes.append(_node(node, primitives))
    (images,) = graph.input
    return Traced(
        nodes=nodes,
        constants=constants,
        parameters={one.name: one.name.rpartition(":")[2] for one in graph.parameter},
        images=images.name,
        image_shape=tuple(images.tensor[0].dims),
        image_type=images.tensor[0].data_type,
        answers=graph.output[0].name,
    )


def _node(node: NodeProto, primitives: dict[str, Any]) -> Node:
    primitive = primitives[node.op_type.removeprefix("REF::")]
    tensors = [tensor for one in node.attribute if one.name == "shape" for tensor in _tensors(one)]
    return Node(
        operator=primitive.op_type,
        inputs=tuple(node.input),
        output=node.output[0],
        attributes={one.name: _value(one) for one in primitive.attribute},
        shapes=tuple(tuple(tensor.dims) for tensor in tensors),
        types=tuple(tensor.data_type for tensor in tensors),
    )


def _tensors(attribute: AttributeProto) -> list[TensorProto]:
    return [*attribute.tensors, *(tensor for value in attribute.values for tensor in _tensors(value))]


def _value(attribute: AttributeProto) -> Any:
    kinds = AttributeProto
    if attribute.type in (kinds.TUPLE, kinds.LIST):
        return tuple(map(_value, attribute.values))
    if attribute.type in (kinds.TENSORS, kinds.TENSOR):
        return _array((attribute.tensors or [attribute.t])[0])
    if attribute.type == kinds.STRING:
        return (attribute.s or b"".join(attribute.strings)).decode()
    if attribute.type in (kinds.FLOAT, kinds.DOUBLE):
        several = attribute.floats or attribute.doubles
        return several[0] if several else attribute.f or attribute.d
    if attribute.type in (kinds.BOOL, kinds.INT32, kinds.INT64, kinds.UINT8, kinds.UINT32, kinds.UINT64):
        number = attribute.ints[0] if attribute.ints else attribute.i
        return bool(number) if attribute.type == kinds.BOOL else number
    return None


def _array(tensor: TensorProto) -> np.ndarray | None:
    if tensor.data_type not in _NUMPY:
        return None
    return np.frombuffer(tensor.raw_data, _NUMPY[tensor.data_type]).reshape(tensor.dims)
