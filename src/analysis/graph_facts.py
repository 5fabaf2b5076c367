# SPDX-License-Identifier: Apache-2.0
"""What a compiled graph holds: its operators, casts, transposes, collectives, and bytes in and out.

The graph is that of MindIR, behind MindSpore's optimisations of all devices and before those of one: fusions
and changes of layout that a backend makes are not in it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn
from mindspore.graph.api import _cell_graph_executor
from mindspore.train.mind_ir_pb2 import AttributeProto, GraphProto, ModelProto, TensorProto

from ..common.errors import UserError, first_line

# They order, group and choose; no device computes anything for them.
STRUCTURAL = frozenset(
    {"Call", "Depend", "Load", "MakeTuple", "Partial", "Switch", "TupleGetItem", "UpdateState"}
)

_TYPES = {
    TensorProto.BOOL: ("bool", 1),
    TensorProto.INT8: ("int8", 1),
    TensorProto.UINT8: ("uint8", 1),
    TensorProto.INT16: ("int16", 2),
    TensorProto.INT32: ("int32", 4),
    TensorProto.INT64: ("int64", 8),
    TensorProto.FLOAT16: ("float16", 2),
    TensorProto.BFLOAT16: ("bfloat16", 2),
    TensorProto.FLOAT: ("float32", 4),
    TensorProto.DOUBLE: ("float64", 8),
}


@dataclass(frozen=True)
class TensorType:
    """Type and shape of a tensor of a graph."""

    dtype: str
    shape: tuple[int, ...]
    nbytes: int


@dataclass(frozen=True)
class Node:
    """One call of a primitive.

    Attributes:
        primitive: its name; "Call": of another part of the graph.
        scope: the cells it is in, "Default/network-ResNet9/prep-ConvBlock"; those of the backward pass start
            with "Gradients" and end with "Grad_" and the primitive that they belong to.
        inputs: types of those inputs that are tensors.
        outputs: types of what it gives.
        group: of a collective, the cards that take part; "" for all others.
        fusion: collectives of one number above 0 are made into one by the framework.
    """

    primitive: str
    scope: str
    inputs: tuple[TensorType, ...]
    outputs: tuple[TensorType, ...]
    group: str
    fusion: int

    @property
    def nbytes(self) -> int:
        """Bytes of what it gives."""
        return sum(tensor.nbytes for tensor in self.outputs)


@dataclass(frozen=True)
class Graph:
    """A graph with all its branches: nodes, and types of what comes in, goes out and is kept."""

    nodes: tuple[Node, ...]
    inputs: tuple[TensorType, ...]
    outputs: tuple[TensorType, ...]
    parameters: tuple[TensorType, ...]


def placeholder(array: np.ndarray | tuple[np.ndarray, ...]) -> ms.Tensor | tuple[ms.Tensor, ...]:
    """A tensor of that type and shape, without values, to compile for; of several arrays a tuple."""
    if isinstance(array, tuple):
        return ms.mutable(tuple(map(placeholder, array)))
    return ms.Tensor(shape=array.shape, dtype=ms.Tensor(array[:0]).dtype)


def compile_graph(cell: nn.Cell, *inputs: ms.Tensor | tuple[ms.Tensor, ...]) -> Graph:
    """Compiles a cell as `ms.export` does: optimised, no kernel chosen, nothing run.

    So the graph may hold operators that the device at hand has not.

    Raises:
        UserError: MindSpore cannot compile it.
    """
    try:
        name, _ = _cell_graph_executor.compile(cell, *inputs, phase="export.mindir", do_convert=False)
    except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError) as error:
        raise UserError(f"MindSpore cannot compile {type(cell).__name__}: {first_line(error)}") from error
    model = ModelProto()
    model.ParseFromString(_cell_graph_executor._get_func_graph_proto(cell, name, "mind_ir"))
    _cell_graph_executor.del_net_res(cell, {name})
    return _read(model)


def _read(model: ModelProto) -> Graph:
    primitives = {f"REF::{p.name}": p for p in model.primitives}
    parts = [model.graph, *model.functions]
    known = {part.name for part in parts}
    types: dict[str, tuple[TensorType, ...]] = {}
    for part in parts:
        types |= {value.name: _types_of(value) for value in part.input}
        types |= {p.name: (_type(p),) for p in part.parameter}
        for node in part.node:
            types[node.name] = tuple(_type(tensor) for a in node.attribute for tensor in _tensors(a))
    nodes = []
    for part in parts:
        for node in part.node:
            if node.op_type == "Constant":
                continue
            primitive = primitives.get(node.op_type)
            attributes = {a.name: a for a in primitive.attribute} if primitive else {}
            called = node.op_type.removeprefix("REF::")
            nodes.append(
                Node(
                    primitive.op_type if primitive else "Call" if called in known | types.keys() else called,
                    node.domain.rpartition("/")[0],
                    tuple(tensor for name in node.input for tensor in types.get(name, ())),
                    types[node.name],
                    attributes["group"].s.decode() if "group" in attributes else "",
                    attributes["fusion"].i if "fusion" in attributes else 0,
                )
            )
    top: GraphProto = model.graph
    inputs, outputs = (tuple(chain.from_iterable(map(_types_of, part))) for part in (top.input, top.output))
    return Graph(tuple(nodes), inputs, outputs, tuple(map(_type, top.parameter)))


def _tensors(attribute: AttributeProto) -> Iterator[TensorProto]:
    yield from attribute.tensors
    for value in attribute.values:
        yield from _tensors(value)


def _type(tensor: TensorProto) -> TensorType:
    name, size = _TYPES.get(tensor.data_type, (TensorProto.DataType.Name(tensor.data_type).lower(), 0))
    return TensorType(name, tuple(tensor.dims), size * int(np.prod(tensor.dims)))


def _types_of(value: Any) -> tuple[TensorType, ...]:
    """Of an input or output of a graph, which may be a tuple."""
    return tuple(map(_type, [*value.tensor, *_tensors(value.attr_info)]))


def facts(graph: Graph) -> dict[str, Any]:
    """The figures of a graph, sizes in bytes.

    operators, structural: nodes that compute, and those that only order and group.
    parameters: what it keeps; from_host, to_host: what one call takes and gives.
    casts: from each type to each, how many, and bytes written.
    transposes: how many, and bytes written.
    collectives: what the cards send each other, in the order of the graph: operator, bytes each card gets of
        it, and how many nodes the framework makes into this one.
    """
    casts, written = Counter(), Counter()
    for node in graph.nodes:
        if node.primitive == "Cast" and node.inputs:
            kinds = node.inputs[0].dtype, node.outputs[0].dtype
            casts[kinds] += 1
            written[kinds] += node.nbytes
    transposes = [node.nbytes for node in graph.nodes if node.primitive == "Transpose"]
    structural = sum(node.primitive in STRUCTURAL for node in graph.nodes)
    return {
        "operators": len(graph.nodes) - structural,
        "structural": structural,
        "parameters": _sum(graph.parameters),
        "from_host": _sum(graph.inputs),
        "to_host": _sum(graph.outputs),
        "casts": [
            {"from": kinds[0], "to": kinds[1], "count": count, "bytes": written[kinds]}
            for kinds, count in sorted(casts.items())
        ],
        "transposes": {"count": len(transposes), "bytes": sum(transposes)},
        "collectives": _collectives(graph.nodes),
    }


def _sum(tensors: Iterable[TensorType]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _collectives(nodes: Iterable[Node]) -> list[dict[str, Any]]:
    merged: dict[Any, dict[str, Any]] = {}
    for number, node in enumerate(nodes):
        if not node.group:
            continue
        one = (node.primitive, node.group, node.fusion) if node.fusion > 0 else number
        entry = merged.setdefault(one, {"operator": node.primitive, "bytes": 0, "nodes": 0})
        entry["bytes"] += node.nbytes
        entry["nodes"] += 1
    return list(merged.values())
