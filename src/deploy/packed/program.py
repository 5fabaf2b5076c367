# SPDX-License-Identifier: Apache-2.0
"""A network of 1-bit convolutions as a list of steps: what a packed file holds and an engine runs.

Values are float32, (N, C, H, W) or, behind `mean`, (N, C); an engine may keep them in another layout. A step
computes one value from values of earlier steps, by its kind:

| kind               | inputs        | numbers                   | arrays                                    |
|--------------------|---------------|---------------------------|-------------------------------------------|
| convolution        | x             | stride, padding           | weight (O, I, k, k), bias (O,)            |
| binary_convolution | x[, residual] | channels, stride, padding | bits (O, k, k, words), multiply, add (O,) |
| max_pool           | x             | size, stride, padding     |                                           |
| average_pool       | x             | size, stride              |                                           |
| mean               | x             |                           |                                           |
| dense              | x             |                           | weight (O, I), bias (O,)                  |
| affine             | x             |                           | multiply, add (C,)                        |
| add                | x, y          |                           |                                           |
| clip               | x             | low, high, slope          |                                           |

- convolution, dense: sum over inputs of weight times x, plus bias. The border is 0.
- binary_convolution: multiply * sum + add [+ residual], with sum the whole number of sign(x) * w over the
  filter, sign(x) = +1 where x >= 0, else -1, and the border 0. I is `channels`, words is ceil(I / 64).
  Bit i % 64 (of value 1 << i % 64) of word i // 64 is 1 where the weight of input channel i is +1, 0 where it
  is -1; the bits from I on are 0 and stand for nothing.
- max_pool: the border does not count. average_pool: windows that do not fit are dropped.
- mean: over all pixels, (N, C, H, W) -> (N, C).
- affine: multiply * x + add in each channel.
- clip: c + slope * (x - c), or c where slope is 0, with c = x within [low, high].

H' = (H + 2 * padding - k) // stride + 1, and the same for W. `bits` are uint64, all other arrays float32, and
all are C-contiguous. A size of image at which two inputs of a step differ in shape is not for this network.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

IMAGES, LOGITS = "images", "logits"
"""The names of the input of the first step and of the output of the last."""

WORD = 64
"""Bits in a word."""

Shape = tuple[int, ...]

_MOST_STEPS = 10_000
_MOST_VALUES = 1 << 30  # of one image behind all steps, in whole words of channels: 4 GiB
_MOST_WORK = 1 << 38  # multiply-adds of one image
_LARGEST_WINDOW = 64


@dataclass(frozen=True, eq=False)
class Step:
    """One step; see the table of this module.

    Attributes:
        kind: one of KINDS.
        inputs: names of values of earlier steps, or IMAGES.
        output: the name of the value that it computes.
        numbers: its settings.
        arrays: its weights.
    """

    kind: str
    inputs: tuple[str, ...]
    output: str
    numbers: Mapping[str, int | float] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Program:
    """The steps of a network in order; the last one's output is LOGITS, of shape (N, K).

    Attributes:
        steps: each only uses what comes before it.
        channels: of the images.

    Raises:
        ValueError: a step is not as the table of this module says; the message names it.
    """

    steps: tuple[Step, ...]
    channels: int = 3

    def __post_init__(self):
        if not 1 <= len(self.steps) <= _MOST_STEPS:
            raise ValueError(f"{len(self.steps)} steps")
        known = {IMAGES}
        for step in self.steps:
            _check_step(step, known)
            known.add(step.output)
        if self.steps[-1].output != LOGITS:
            raise ValueError(f"the last step gives {self.steps[-1].output!r}, not {LOGITS!r}")

    def shapes(self, height: int, width: int) -> dict[str, Shape]:
        """The shape of each value of one image, without the batch: (C, H, W) or (C,).

        Raises:
            ValueError: the channels of a step and its input differ, or images of this size are too small, or
                so large that a computer could not run it.
        """
        shapes: dict[str, Shape] = {IMAGES: (self.channels, height, width)}
        values = work = 0
        for step in self.steps:
            inputs = [shapes[name] for name in step.inputs]
            shape = KINDS[step.kind].shape(step, *inputs)
            if min(shape) < 1:
                raise ValueError(f"step {step.output!r}: nothing is left of images of {height} x {width}")
            values += -(-shape[0] // WORD) * WORD * math.prod(shape[1:])
            work += math.prod(shape) * _work(step)
            if values > _MOST_VALUES or work > _MOST_WORK:
                raise ValueError(f"step {step.output!r}: too large for images of {height} x {width}")
            shapes[step.output] = shape
        if len(shapes[LOGITS]) != 1:
            raise ValueError(f"{LOGITS!r} has the shape {shapes[LOGITS]}, which is not one number a class")
        return shapes


@dataclass(frozen=True)
class Kind:
    """What a step of a kind has.

    Attributes:
        inputs: how many, least and most.
        numbers: of each the least and the largest that is allowed; whole numbers where these are.
        arrays: of each the number of its dimensions; all are of one length along the first.
        shape: the step and the shapes of its inputs -> that of its output. Raises ValueError.
    """

    inputs: tuple[int, int]
    shape: Callable[..., Shape]
    numbers: Mapping[str, tuple[int | float, int | float]] = field(default_factory=dict)
    arrays: Mapping[str, int] = field(default_factory=dict)


def _work(step: Step) -> int:
    """Multiply-adds, or comparisons, for each value of the output."""
    if "bits" in step.arrays:
        return WORD * step.arrays["bits"][0].size
    return step.arrays["weight"][0].size if "weight" in step.arrays else step.numbers.get("size", 1) ** 2


def _same(step: Step, x: Shape, y: Shape | None = None) -> Shape:
    channels = {len(array) for array in step.arrays.values()}
    if y not in (None, x) or channels not in (set(), {x[0]}):
        raise ValueError(f"step {step.output!r}: {step.kind} of {x} and {y or channels}")
    return x


def _mean(step: Step, x: Shape) -> Shape:
    return (_image(step, x)[0],)


def _dense(step: Step, x: Shape) -> Shape:
    outputs, inputs = step.arrays["weight"].shape
    if x != (inputs,):
        raise ValueError(f"step {step.output!r}: takes {inputs} features, and gets {x}")
    return (outputs,)


def _pool(step: Step, x: Shape) -> Shape:
    channels, height, width = _image(step, x)
    size, stride, padding = (step.numbers.get(name, 0) for name in ("size", "stride", "padding"))
    return channels, *((side + 2 * padding - size) // stride + 1 for side in (height, width))


def _convolution(step: Step, x: Shape, residual: Shape | None = None) -> Shape:
    weight = step.arrays.get("weight", step.arrays.get("bits"))
    channels = step.numbers.get("channels", weight.shape[1])
    size = weight.shape[2]
    if _image(step, x)[0] != channels:
        raise ValueError(f"step {step.output!r}: takes {channels} channels, and gets {x[0]}")
    stride, padding = step.numbers["stride"], step.numbers["padding"]
    shape = (len(weight), *((side + 2 * padding - size) // stride + 1 for side in x[1:]))
    if residual not in (None, shape):
        raise ValueError(f"step {step.output!r}: adds {residual} to {shape}")
    return shape


def _image(step: Step, x: Shape) -> Shape:
    if len(x) != 3:
        raise ValueError(f"step {step.output!r}: {step.kind} of {x}, which is no image")
    return x


_SIZE, _PADDING = (1, _LARGEST_WINDOW), (0, _LARGEST_WINDOW - 1)
_LARGEST = float(np.finfo(np.float32).max)

KINDS = {
    "convolution": Kind(
        (1, 1), _convolution, {"stride": _SIZE, "padding": _PADDING}, {"weight": 4, "bias": 1}
    ),
    "binary_convolution": Kind(
        (1, 2),
        _convolution,
        {"channels": (1, 1 << 20), "stride": _SIZE, "padding": _PADDING},
        {"bits": 4, "multiply": 1, "add": 1},
    ),
    "max_pool": Kind((1, 1), _pool, {"size": _SIZE, "stride": _SIZE, "padding": _PADDING}),
    "average_pool": Kind((1, 1), _pool, {"size": _SIZE, "stride": _SIZE}),
    "mean": Kind((1, 1), _mean),
    "dense": Kind((1, 1), _dense, {}, {"weight": 2, "bias": 1}),
    "affine": Kind((1, 1), _same, {}, {"multiply": 1, "add": 1}),
    "add": Kind((2, 2), _same),
    "clip": Kind(
        (1, 1),
        _same,
        {"low": (-_LARGEST, _LARGEST), "high": (-_LARGEST, _LARGEST), "slope": (0.0, 1.0)},
    ),
}


def _check_step(step: Step, known: set[str]) -> None:
    """Raises ValueError unless a step, for itself, is as its kind says. `known`: the values before it."""
    kind, who = KINDS.get(step.kind), f"step {step.output!r}"
    if kind is None:
        raise ValueError(f"{who}: unknown kind {step.kind!r}")
    if not kind.inputs[0] <= len(step.inputs) <= kind.inputs[1] or not known.issuperset(step.inputs):
        raise ValueError(f"{who}: {step.kind} of {list(step.inputs)}")
    if step.output in known:
        raise ValueError(f"{who}: computed twice")
    if set(step.numbers) != set(kind.numbers) or set(step.arrays) != set(kind.arrays):
        raise ValueError(f"{who}: {step.kind} has {sorted([*step.numbers, *step.arrays])}")
    for name, (least, most) in kind.numbers.items():
        value = step.numbers[name]
        if type(value) is not type(least) or not least <= value <= most:
            raise ValueError(f"{who}: {name} is {value!r:.80}, not within {least} and {most}")
    for name, dimensions in kind.arrays.items():
        dtype = np.uint64 if name == "bits" else np.float32
        _check_array(f"{who}: {name}", step.arrays[name], dimensions, dtype)
    if len({len(array) for array in step.arrays.values()}) > 1:
        raise ValueError(f"{who}: arrays for different numbers of channels")
    _check_window(who, step)


def _check_array(who: str, array: np.ndarray, dimensions: int, dtype: type) -> None:
    if array.dtype != dtype or array.ndim != dimensions or array.size == 0 or not array.flags.c_contiguous:
        raise ValueError(f"{who}: {array.dtype} of shape {array.shape}")
    if dtype is np.float32 and not np.isfinite(array).all():
        raise ValueError(f"{who}: holds NaN or infinity")


def _check_window(who: str, step: Step) -> None:
    """What one of its numbers must be for the others and the arrays."""
    numbers, size = step.numbers, step.numbers.get("size", 0)
    if "bits" in step.arrays:
        bits, channels = step.arrays["bits"], numbers["channels"]
        size = bits.shape[1]
        if bits.shape[1:] != (size, size, -(-channels // WORD)):
            raise ValueError(f"{who}: bits of shape {bits.shape} for {channels} channels")
        if channels % WORD and (bits[..., -1] >> np.uint64(channels % WORD)).any():
            raise ValueError(f"{who}: bits behind channel {channels} are not 0")
    elif step.kind == "convolution":
        size = step.arrays["weight"].shape[2]
        if step.arrays["weight"].shape[3] != size:
            raise ValueError(f"{who}: weight of shape {step.arrays['weight'].shape}, which is not square")
    if size > _LARGEST_WINDOW or numbers.get("padding", 0) >= max(size, 1):
        raise ValueError(f"{who}: a window of {size} with padding {numbers.get('padding', 0)}")
    if step.kind == "clip" and numbers["low"] > numbers["high"]:
        raise ValueError(f"{who}: from {numbers['low']} to {numbers['high']}")
