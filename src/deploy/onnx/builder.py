# SPDX-License-Identifier: Apache-2.0
"""An ONNX graph while it is made: nodes, constants under names, and what can be computed at once."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

OPSET = 21  # May 2024: runtimes of the last two years read it, and later ones changed none of our operators
IR_VERSION = 10  # the one of opset 21
BATCH = "N"

Tensor = str
"""The name of a value that is computed when the model runs, or of a constant."""


class Builder:
    """Takes nodes one after another, each behind those whose outputs it takes.

    Args:
        parameters: constants by name, which stand in the graph if something uses them.

    Attributes:
        shapes, types: of the values that are known, as they were traced.
    """

    def __init__(self, parameters: Mapping[str, np.ndarray]):
        self.shapes: dict[Tensor, tuple[int, ...]] = {name: a.shape for name, a in parameters.items()}
        self.types: dict[Tensor, int] = {
            name: helper.np_dtype_to_tensor_dtype(a.dtype) for name, a in parameters.items()
        }
        self._constants: dict[Tensor, np.ndarray] = dict(parameters)
        self._made_of: dict[Tensor, frozenset[str]] = {name: frozenset([name]) for name in parameters}
        self._given: dict[tuple[str, tuple[int, ...], bytes], Tensor] = {}
        self._nodes: dict[Tensor, onnx.NodeProto] = {}
        self._taken: Counter[str] = Counter(self._constants)

    def add(self, operator: str, *inputs: Tensor | np.ndarray | None, **attributes: Any) -> Tensor:
        """Adds a node of one output; returns the output, a constant if all inputs are.

        Args:
            inputs: arrays become constants; None leaves out an optional input.
            attributes: of the operator.
        """
        name = self._free(operator)
        names = ["" if one is None else one if isinstance(one, str) else self.constant(one) for one in inputs]
        node = helper.make_node(operator, names, [name], name=name, **attributes)
        if all(one in self._constants for one in names):
            self._constants[name] = self._computed(node)
            self._made_of[name] = frozenset().union(*(self._made_of[one] for one in names))
        else:
            self._nodes[name] = node
        return name

    def cast(self, tensor: Tensor, kind: int) -> Tensor:
        """The tensor in that type, one of ONNX's numbers; itself if it is so already."""
        if self.types.get(tensor) == kind:
            return tensor
        made = self.add("Cast", tensor, to=kind)
        self.shapes[made], self.types[made] = self.shapes[tensor], kind
        return made

    def constant(self, array: np.ndarray) -> Tensor:
        """The name of a constant; equal ones are kept once."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._given:
            what = f"{array.item():g}" if array.ndim == 0 else "x".join(map(str, array.shape))
            name = self._given[key] = self._free(f"constant_{array.dtype}_{what}")
            self._constants[name], self._made_of[name] = array, frozenset()
        return self._given[key]

    def value(self, tensor: Tensor) -> np.ndarray | None:
        """The value of a constant; None for what is computed when the model runs."""
        return self._constants.get(tensor)

    def producer(self, tensor: Tensor, operator: str) -> onnx.NodeProto | None:
        """The node that computes a value, if it is of that operator."""
        node = self._nodes.get(tensor)
        return node if node is not None and node.op_type == operator else None

    def graph(
        self, name: str, images: onnx.ValueInfoProto, outputs: Mapping[str, Tensor]
    ) -> tuple[onnx.GraphProto, dict[str, tuple[int, ...]]]:
        """The graph of what the outputs need, and the shapes of its values, as far as they were traced.

        A constant that was computed of one parameter alone, which nothing else uses, has its name. A node
        that takes parameters is named after their layer.

        Args:
            name: of the graph.
            images: its input.
            outputs: names of the outputs, and which values they are; float32.
        """
        needed = set(outputs.values())
        for tensor, node in reversed(self._nodes.items()):
            if tensor in needed:
                needed.update(node.input)
        constants = [tensor for tensor in self._constants if tensor in needed]
        nodes = [node for tensor, node in self._nodes.items() if tensor in needed]
        names = self._names(constants, nodes)
        made = []
        for node in nodes:
            new = onnx.NodeProto()
            new.CopyFrom(node)
            new.name = names[node.name]
            made.append(new)
        names |= {tensor: output for output, tensor in outputs.items() if tensor in self._nodes}
        for new in made:
            new.input[:] = [names.get(one, one) for one in new.input]
            new.output[:] = [names[one] for one in new.output]
        for output, tensor in outputs.items():  # one that is a constant, or another output too
            if (source := names.get(tensor, tensor)) != output:
                made.append(helper.make_node("Identity", [source], [output], name=output))
        tensors = [numpy_helper.from_array(self._constants[one], names[one]) for one in constants]
        infos = [helper.make_tensor_value_info(one, onnx.TensorProto.FLOAT, None) for one in outputs]
        shapes = {
            names.get(tensor, tensor): shape for tensor, shape in self.shapes.items() if tensor in needed
        }
        shapes |= {output: self.shapes[tensor] for output, tensor in outputs.items() if tensor in self.shapes}
        return helper.make_graph(made, name, [images], infos, tensors), shapes

    def _names(self, constants: list[Tensor], nodes: list[onnx.NodeProto]) -> dict[Tensor, str]:
        """What constants and nodes are called in the end."""
        users = Counter(source for one in constants for source in self._made_of[one])
        names = {}
        for one in constants:
            sources = self._made_of[one]
            names[one] = next(iter(sources)) if len(sources) == 1 and users[next(iter(sources))] == 1 else one
        taken = Counter(names.values())
        for node in nodes:
            layers = (names[one].rpartition(".")[0] for one in node.input if self._made_of.get(one))
            name = "/".join(filter(None, (next(layers, ""), node.op_type)))
            names[node.name] = f"{name}_{taken[name]}" if taken[name] else name
            taken[name] += 1
        return names

    def _computed(self, node: onnx.NodeProto) -> np.ndarray:
        inputs = {one: self._constants[one] for one in node.input}
        infos = [
            helper.make_tensor_value_info(one, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for one, array in inputs.items()
        ]
        graph = helper.make_graph([node], "constant", infos, [onnx.ValueInfoProto(name=node.output[0])])
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
        (answer,) = ReferenceEvaluator(model).run(None, inputs)
        return np.asarray(answer)

    def _free(self, name: str) -> str:
        self._taken[name] += 1
        return name if self._taken[name] == 1 else self._free(f"{name}_{self._taken[name] - 1}")
