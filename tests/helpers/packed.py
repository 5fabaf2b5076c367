# SPDX-License-Identifier: Apache-2.0
"""A slow obvious interpreter of packed programs, and programs to try."""

import numpy as np

from src.deploy.packed.program import IMAGES, LOGITS, WORD, Program, Step


def pack(signs: np.ndarray) -> np.ndarray:
    """Weights (O, I, k, k) of +1 and -1 -> words (O, k, k, ceil(I / 64)), one bit after the other."""
    outputs, inputs, height, width = signs.shape
    words = [[0] * -(-inputs // WORD) for _ in range(outputs * height * width)]
    for place, filters in zip(words, signs.transpose(0, 2, 3, 1).reshape(-1, inputs), strict=True):
        for channel, sign in enumerate(filters):
            place[channel // WORD] |= int(sign > 0) << channel % WORD
    return np.array(words, np.uint64).reshape(outputs, height, width, -1)


def unpack(bits: np.ndarray, channels: int) -> np.ndarray:
    """The way back of `pack`, float32."""
    ones = (bits[..., None] >> np.arange(WORD, dtype=np.uint64)) & np.uint64(1)
    flat = ones.reshape(*bits.shape[:3], -1)[..., :channels]
    return np.ascontiguousarray(flat.transpose(0, 3, 1, 2).astype(np.float32) * 2 - 1)


def _windows(x: np.ndarray, size: int, stride: int, padding: int, border: float) -> np.ndarray:
    """(N, C, H, W) -> (N, C, H', W', size, size)."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)), constant_values=border)
    found = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(2, 3))
    return found[:, :, ::stride, ::stride]


def _convolve(x: np.ndarray, weight: np.ndarray, stride: int, padding: int) -> np.ndarray:
    windows = _windows(x.astype(np.float64), weight.shape[2], stride, padding, 0)
    return np.einsum("nchwij,ocij->nohw", windows, weight.astype(np.float64), optimize=True)


def binary_sums(step: Step, x: np.ndarray) -> np.ndarray:
    """The whole numbers of a 1-bit convolution, (N, O, H', W') int64."""
    weight = unpack(step.arrays["bits"], step.numbers["channels"])
    sums = _convolve(np.where(x >= 0, 1, -1), weight, step.numbers["stride"], step.numbers["padding"])
    return np.rint(sums).astype(np.int64)


def _per_channel(values: np.ndarray, x: np.ndarray) -> np.ndarray:
    return values.reshape(-1, *[1] * (x.ndim - 2))


def _compute(step: Step, x: np.ndarray, y: np.ndarray | None = None) -> np.ndarray:
    n, a = step.numbers, step.arrays
    if step.kind == "convolution":
        return _convolve(x, a["weight"], n["stride"], n["padding"]) + _per_channel(a["bias"], x)
    if step.kind == "binary_convolution":
        sums = binary_sums(step, x).astype(np.float32)
        out = _per_channel(a["multiply"], x) * sums + _per_channel(a["add"], x)
        return out if y is None else out + y
    if step.kind == "max_pool":
        return _windows(x, n["size"], n["stride"], n["padding"], -np.inf).max((-2, -1))
    if step.kind == "average_pool":
        return _windows(x, n["size"], n["stride"], 0, 0).mean((-2, -1))
    if step.kind == "mean":
        return x.mean((2, 3), dtype=np.float64)
    if step.kind == "dense":
        return x.astype(np.float64) @ a["weight"].T.astype(np.float64) + a["bias"]
    if step.kind == "affine":
        return _per_channel(a["multiply"], x) * x + _per_channel(a["add"], x)
    if step.kind == "add":
        return x + y
    clipped = np.clip(x, n["low"], n["high"])
    return clipped + n["slope"] * (x - clipped) if n["slope"] else clipped


def interpret(program: Program, images: np.ndarray) -> dict[str, np.ndarray]:
    """Every value of a program by its name, float32, of images (N, 3, H, W)."""
    values = {IMAGES: images}
    for step in program.steps:
        found = _compute(step, *(values[name] for name in step.inputs))
        values[step.output] = found.astype(np.float32)
    return values


def random_program(
    *, seed: int = 0, width: int = 70, classes: int = 5, clip: bool = True, bias_scale: float = 0.1
) -> Program:
    """One step at least of each kind, on images (N, 3, H, W) from 16 x 16 on; `width` channels."""
    rng = np.random.default_rng(seed)

    def real(*shape: int) -> np.ndarray:
        fan_in = int(np.prod(shape[1:])) or 1
        return (rng.normal(size=shape) / np.sqrt(fan_in)).astype(np.float32)

    def vector(channels: int, middle: float = 0.0) -> np.ndarray:
        return (middle + bias_scale * rng.normal(size=channels)).astype(np.float32)

    def binary(
        inputs: tuple[str, ...], output: str, channels: tuple[int, int], size: int, stride: int
    ) -> Step:
        signs = np.where(rng.random((channels[1], channels[0], size, size)) < 0.5, -1, 1)
        arrays = {
            "bits": pack(signs),
            "multiply": vector(channels[1], 1.0) / np.float32(np.sqrt(channels[0] * size * size)),
            "add": vector(channels[1]),
        }
        numbers = {"channels": channels[0], "stride": stride, "padding": size // 2}
        return Step("binary_convolution", inputs, output, numbers, arrays)

    def convolution(source: str, output: str, shape: tuple[int, ...], stride: int, padding: int) -> Step:
        arrays = {"weight": real(*shape), "bias": vector(shape[0])}
        return Step("convolution", (source,), output, {"stride": stride, "padding": padding}, arrays)

    wide = 2 * width
    steps = [
        convolution(IMAGES, "stem", (width, 3, 7, 7), 2, 3),
        Step("max_pool", ("stem",), "pooled", {"size": 3, "stride": 2, "padding": 1}),
        Step("clip", ("pooled",), "clipped", {"low": -1.0, "high": 1.0, "slope": 0.1 if clip else 1.0}),
        binary(("clipped", "clipped"), "same", (width, width), 3, 1),
        Step("average_pool", ("same",), "halved", {"size": 2, "stride": 2}),
        convolution("halved", "shortcut", (wide, width, 1, 1), 1, 0),
        binary(("same", "shortcut"), "down", (width, wide), 3, 2),
        binary(("down",), "narrow", (wide, width), 1, 1),
        Step("affine", ("narrow",), "scaled", {}, {"multiply": vector(width, 1.0), "add": vector(width)}),
        binary(("scaled",), "again", (width, width), 1, 1),
        Step("add", ("again", "narrow"), "added"),
        Step("mean", ("added",), "features"),
        Step("affine", ("features",), "normed", {}, {"multiply": vector(width, 1.0), "add": vector(width)}),
        Step("dense", ("normed",), LOGITS, {}, {"weight": real(classes, width), "bias": vector(classes)}),
    ]
    return Program(tuple(steps))
