# SPDX-License-Identifier: Apache-2.0
"""A packed program as an OpenVINO model: its binary convolution on CPUs is the peer of our engine.

No front end of OpenVINO makes this operator, but its CPU plug-in has kernels for it (AVX-512 with
`vpopcntd`, AVX2, SSE 4.1) and fuses the signs before it and the scale and the sum behind it.

OpenVINO 2026.4.1 computes two things wrongly: a binary convolution of channels that are not a multiple of 8,
which is refused here, and one whose output only another one reads, which no Bi-Real Net has.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from src.deploy.packed.program import IMAGES, LOGITS, Program, Step

Run = Callable[[np.ndarray], np.ndarray]


def open_program(program: Program, *, batch: int, threads: int, precision: str = "f32") -> Run:
    """A function of float32 images (batch, C, H, W) that gives logits; it compiles at its first call.

    Args:
        precision: of the real-valued layers, as OpenVINO calls it: f32 or bf16.

    Raises:
        ValueError: the channels of a binary convolution are not a multiple of 8.
    """
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    requests: dict[tuple[int, ...], Any] = {}

    def run(images: np.ndarray) -> np.ndarray:
        if images.shape not in requests:
            model, buffers = _model(program, (batch, *images.shape[1:]))
            compiled = openvino.Core().compile_model(model, "CPU", settings)
            # The constants of bits share their memory with these buffers.
            requests[images.shape] = compiled.create_infer_request(), buffers
        request, _ = requests[images.shape]
        return request.infer({0: images}, share_inputs=True)[0]

    return run


def _model(program: Program, shape: Sequence[int]) -> tuple[Any, list[np.ndarray]]:
    import openvino
    from openvino import opset13 as ops

    images = ops.parameter(list(shape), np.float32)
    values, buffers = {IMAGES: images.output(0)}, []
    for step in program.steps:
        node = _node(step, [values[name] for name in step.inputs], buffers)
        values[step.output] = node.output(0)
    return openvino.Model([values[LOGITS]], [images]), buffers


def _node(step: Step, inputs: list[Any], buffers: list[np.ndarray]) -> Any:
    from openvino import opset13 as ops

    n, a, x = step.numbers, step.arrays, inputs[0]
    if step.kind == "binary_convolution":
        sums = _binary(step, x, buffers)
        out = ops.add(ops.multiply(sums, _channels(a["multiply"])), _channels(a["add"]))
        return out if len(inputs) == 1 else ops.add(out, inputs[1])
    if step.kind == "convolution":
        padding = [n["padding"]] * 2
        out = ops.convolution(x, a["weight"], [n["stride"]] * 2, padding, padding, [1, 1])
        return ops.add(out, _channels(a["bias"]))
    if step.kind in ("max_pool", "average_pool"):
        padding, size, stride = ([n.get(name, 0)] * 2 for name in ("padding", "size", "stride"))
        if step.kind == "max_pool":
            return ops.max_pool(x, stride, [1, 1], padding, padding, size)
        return ops.avg_pool(x, stride, padding, padding, size, exclude_pad=True)
    if step.kind == "mean":
        return ops.reduce_mean(x, np.array([2, 3]), keep_dims=False)
    if step.kind == "dense":
        return ops.add(ops.matmul(x, a["weight"], False, True), a["bias"])
    if step.kind == "affine":
        rank = len(x.get_partial_shape())
        return ops.add(ops.multiply(x, _channels(a["multiply"], rank)), _channels(a["add"], rank))
    if step.kind == "add":
        return ops.add(x, inputs[1])
    clipped = ops.clamp(x, n["low"], n["high"])
    beyond = ops.multiply(ops.subtract(x, clipped), np.float32(n["slope"]))
    return ops.add(clipped, beyond) if n["slope"] else clipped


def _binary(step: Step, x: Any, buffers: list[np.ndarray]) -> Any:
    """Signs, and the sums of their products with weights of one bit; the border counts 0.

    The plug-in packs signs only where their two levels are written 0 and 1.
    """
    import openvino
    from openvino import opset1, opset13

    channels, bits = step.numbers["channels"], step.arrays["bits"]
    if channels % 8:
        raise ValueError(f"step {step.output!r}: {channels} channels")
    ones = np.unpackbits(bits.view(np.uint8), axis=-1, bitorder="little")[..., :channels]
    filters = np.ascontiguousarray(ones.transpose(0, 3, 1, 2))
    packed = np.packbits(filters.reshape(-1), bitorder="little")
    buffers.append(packed)
    weight = openvino.op.Constant(
        openvino.Tensor(packed, openvino.Shape(filters.shape), openvino.Type.u1), True
    )
    # What is equal to the threshold goes down, and 0 must not.
    least = -np.finfo(np.float32).tiny
    levels = (np.full((1, 1, 1, 1), number, np.float32) for number in (least, least, 0, 1))
    signs = opset13.fake_quantize(x, *levels, 2)
    stride, padding = [step.numbers["stride"]] * 2, [step.numbers["padding"]] * 2
    return opset1.binary_convolution(signs, weight, stride, padding, padding, [1, 1], "xnor-popcount", 0.0)


def _channels(array: np.ndarray, rank: int = 4) -> np.ndarray:
    return array.reshape(1, -1, *[1] * (rank - 2))
