# SPDX-License-Identifier: Apache-2.0
"""On which devices a primitive runs, as MindSpore's documentation says: its docstrings.

The docstrings of MindSpore 2.10 have a section "Supported Platforms". It is looked for

1. in the primitive's class (of that name in mindspore.ops; where there are several, all count);
2. in what the two tables below name: primitives that MindSpore puts in the place of others, and those of
   backward passes, have no such section of their own;
3. in the public function that the class refers to, as Abs to `mindspore.ops.abs`.
"""

import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import mindspore as ms
from mindspore.ops.primitive import Primitive

# Primitive -> the public function of which it is one form: how a call with a Python number, or with some
# types or arguments, is compiled.
ONE_FORM_OF = {
    "AllFinite": "amp.all_finite",
    "Divs": "ops.div",
    "EqScalar": "ops.eq",
    "LessScalar": "ops.less",
    "MatMulExt": "mint.matmul",
    "Muls": "ops.mul",
    "RemainderTensorScalar": "mint.remainder",
    "SplitWithSize": "mint.split",
    "SubScalar": "ops.sub",
    "SumExt": "mint.sum",
    # Keeps the old value of a parameter that is assigned to while the value is still needed.
    "TensorMove": "Tensor.copy",
}

# Primitive -> the one whose derivative it computes. A gradient is part of what is documented for that one.
GRADIENT_OF = {
    "AvgPoolGrad": "AvgPool",
    "BatchNormGrad": "BatchNorm",
    "BiasAddGrad": "BiasAdd",
    "Conv2DBackpropFilter": "Conv2D",
    "Conv2DBackpropInput": "Conv2D",
    "EluGrad": "Elu",
    "GatherDGradV2": "GatherD",
    "GroupNormGrad": "GroupNorm",
    "LogSoftmaxGrad": "LogSoftmax",
    "MaxPoolGrad": "MaxPool",
    "ReluGrad": "ReLU",
    "RsqrtGrad": "Rsqrt",
    "SiLUGrad": "SiLU",
    "SqrtGrad": "Sqrt",
    "StridedSliceGrad": "StridedSlice",
}

_SECTION = re.compile(r"Supported Platforms:\s*\n\s*(.*)")
_REFERENCE = re.compile(r"[Rr]efer to :func:`mindspore\.([\w.]+)`")


@dataclass(frozen=True)
class Documentation:
    """Where a primitive runs.

    Attributes:
        platforms: of Ascend, GPU and CPU those that are named; () if nothing was found.
        where: whose docstring says so.
    """

    platforms: tuple[str, ...] = ()
    where: str = ""


@cache
def documentation(primitive: str) -> Documentation:
    """What is documented of a primitive, by its name in a graph."""
    classes = [found for found in _classes(primitive) if _platforms(found)]
    if classes:
        named = [_platforms(found) for found in classes]
        by_all = tuple(name for name in named[0] if all(name in names for names in named))
        return Documentation(by_all, " and ".join(f"{c.__module__}.{c.__name__}" for c in classes))
    if primitive in ONE_FORM_OF:
        name = ONE_FORM_OF[primitive]
        return Documentation(_platforms(_public(name)), f"one form of mindspore.{name}")
    if primitive in GRADIENT_OF:
        forward = documentation(GRADIENT_OF[primitive])
        return Documentation(forward.platforms, f"gradient of {GRADIENT_OF[primitive]}, {forward.where}")
    for found in _classes(primitive):
        for reference in _REFERENCE.findall(found.__doc__ or ""):
            if platforms := _platforms(_public(reference)):
                return Documentation(platforms, f"mindspore.{reference}")
    return Documentation()


def _classes(name: str) -> Iterator[type]:
    """The primitives of that name, each once, in an order that does not depend on what was imported when."""
    modules = sorted(module for module in sys.modules if module.startswith("mindspore.ops."))
    candidates = (vars(sys.modules[module]).get(name) for module in modules)
    for found in dict.fromkeys(c for c in candidates if inspect.isclass(c)):
        if issubclass(found, Primitive):
            yield found


def _public(name: str) -> Any:
    """mindspore.NAME, or None."""
    found = ms
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _platforms(documented: Any) -> tuple[str, ...]:
    section = _SECTION.search(getattr(documented, "__doc__", None) or "")
    return tuple(re.findall(r"``(\w+)``", section[1])) if section else ()
