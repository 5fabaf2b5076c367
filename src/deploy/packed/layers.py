# SPDX-License-Identifier: Apache-2.0
"""From a step of a program to the call of a kernel."""

import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from . import kernels
from .emit import LANES
from .layout import Buffer, Counts, binary_filters, filled, filled_up, real_filters, windows
from .program import Step

Entries = Mapping[str, int | np.ndarray]


@dataclass(frozen=True)
class Value:
    """A value of a program in memory.

    Attributes:
        channels: without those that fill up the last vector.
        height, width: of its image; 1 where it has none.
        images: in the batch.
        values: its numbers; None: no step reads them.
        bits: of its signs; None: no step reads them.
    """

    channels: int
    height: int
    width: int
    images: int
    values: Buffer | None = None
    bits: Buffer | None = None

    @property
    def is_kept(self) -> bool:
        """Whether a step reads it."""
        return bool(self.values or self.bits)

    def turned(self) -> "Value":
        """(N, C) as one row of N pixels."""
        return replace(self, width=self.images, images=1, values=self.values.turned())

    def read(self) -> Entries:
        return self.values.entries("source")

    def added(self) -> Entries:
        return self.values.entries("residual")

    def written(self) -> Entries:
        """Entries for the kernel that computes it."""
        thresholds = np.zeros(filled_up(self.channels), np.float32)
        thresholds[self.channels :] = np.inf
        sizes = {"rows": self.images * self.height, "height": self.height, "width": self.width}
        values = self.values.entries("values") if self.values else nothing("values")
        bits = self.bits.entries("bits") if self.bits else nothing("bits")
        return {"thresholds": thresholds, **sizes, **values, **bits}


def nothing(name: str) -> dict[str, int]:
    """Entries for a value that there isn't."""
    return dict.fromkeys(kernels.place(name), 0)


@dataclass(frozen=True)
class Call:
    """One kernel and what it works on.

    Attributes:
        kernel: its name.
        names: of the entries of its table, in order.
        items: of its work.
        entries: the table; an array stands for its address.
    """

    kernel: str
    names: tuple[str, ...]
    items: int
    entries: Entries

    def table(self) -> np.ndarray:
        entries = (self.entries[name] for name in self.names)
        return np.array([e.ctypes.data if isinstance(e, np.ndarray) else e for e in entries], np.int64)


class Convolution:
    """convolution, binary_convolution and dense.

    Args:
        step: of one of these kinds.
        narrow: its input's channels are not filled up to whole vectors.
        tiles: those of `kernels.TILES` that suit the processor.
    """

    def __init__(self, step: Step, *, narrow: bool, tiles: Collection[tuple[int, int]]):
        arrays = step.arrays
        self.binary, self.dense = "bits" in arrays, step.kind == "dense"
        weight = arrays["bits" if self.binary else "weight"]
        outputs = filled_up(len(weight))
        self.blocks = max(blocks for _, blocks in tiles if outputs // LANES % blocks == 0)
        self.pixels = {pixels for pixels, blocks in tiles if blocks == self.blocks}
        self.size = 1 if self.dense else weight.shape[2]
        self.stride, self.padding = step.numbers.get("stride", 1), step.numbers.get("padding", 0)
        self.counts = None
        if self.binary:
            channels = step.numbers["channels"]
            self.counts = Counts(weight, channels=channels)
            self.filters = binary_filters(weight, channels=channels, blocks=self.blocks)
        else:
            weight = weight.reshape(*weight.shape[:2], self.size, self.size)
            inputs = weight.shape[1] if narrow else filled_up(weight.shape[1])
            self.filters = real_filters(weight, inputs=inputs, blocks=self.blocks)
        self.multiply = filled(arrays["multiply"], outputs) if self.binary else 0
        self.add = filled(arrays["add" if self.binary else "bias"], outputs)
        self.nought = np.zeros(outputs, np.float32)

    def call(self, output: Value, source: Value, residual: Value | None = None) -> Call:
        if self.dense:
            output, source = output.turned(), source.turned()
        read = (source.bits if self.binary else source.values).entries(
            "source", padding=self.padding, stride=self.stride
        )
        entries = {
            "weight": self.filters,
            "group": self.filters.strides[0],
            "kernel": self.size,
            "length": self.size * self.filters.shape[3],
            "pitch": read["source_row"] // self.stride,
            "multiply": self.multiply,
            "add": self.add,
            **(nothing("residual") | {"residual": self.nought} if residual is None else residual.added()),
            **read,
            **output.written(),
            **self._counts(output, source),
        }
        pixels = self._pixels(output.width)
        kernel = f"{'binary' if self.binary else 'real'}_{kernels.TILES[pixels, self.blocks]}"
        return Call(kernel, kernels.CONVOLUTION, len(self.filters) * entries["rows"], entries)

    def _pixels(self, width: int) -> int:
        """At once, in rows of `width`: tiles of few pixels are slow, as if each had two more."""
        return min((p for p in self.pixels if p <= width), key=lambda p: (-(-width // p) * (p + 2), -p))

    def _counts(self, output: Value, source: Value) -> Entries:
        if not self.binary:
            return dict.fromkeys(("counts", "count_rows", "count_columns"), 0)
        window = {"size": self.size, "stride": self.stride, "padding": self.padding}
        rows = windows(output.height, source.height, **window)
        columns = windows(output.width, source.width, **window)
        return dict(zip(("counts", "count_rows", "count_columns"), self.counts.of(rows, columns)))


class Pointwise:
    """affine, add and clip."""

    def __init__(self, step: Step, **_: Any):
        self.arrays = step.arrays
        self.clip = {name: _as_bits(step.numbers.get(name, 0.0)) for name in ("low", "high", "slope")}
        self.clip["clips"] = int(step.kind == "clip")

    def call(self, output: Value, source: Value, other: Value | None = None) -> Call:
        channels = filled_up(output.channels)
        nought = np.zeros(channels, np.float32)
        entries = {
            "blocks": channels // LANES,
            "multiply": filled(self.arrays.get("multiply", nought + 1), channels),
            "add": filled(self.arrays.get("add", nought), channels),
            **self.clip,
            **(nothing("residual") | {"residual": nought} if other is None else other.added()),
            **source.read(),
            **output.written(),
        }
        return Call(_name("pointwise", output), kernels.POINTWISE, entries["rows"], entries)


class Pool:
    """max_pool, average_pool and mean."""

    def __init__(self, step: Step, **_: Any):
        self.kernel = "max_pool" if step.kind == "max_pool" else "mean_pool"
        self.size, self.stride, self.padding = (step.numbers.get(n, 0) for n in ("size", "stride", "padding"))

    def call(self, output: Value, source: Value) -> Call:
        size, across = (self.size, self.size) if self.size else (source.height, source.width)
        entries = {
            "blocks": filled_up(output.channels) // LANES,
            "size": size,
            "across": across,
            "stride": self.stride,
            "padding": self.padding,
            "source_height": source.height,
            "source_width": source.width,
            "scale": _as_bits(1.0 if self.kernel == "max_pool" else 1 / (size * across)),
            **source.read(),
            **output.written(),
        }
        return Call(_name(self.kernel, output), kernels.POOL, entries["rows"], entries)


def arrange(output: Value) -> Call:
    """From (N, C, H, W) images to the first value; their address is put into the table for each batch."""
    channel = 4 * output.height * output.width
    source = {
        "source": 0,
        "source_image": channel * output.channels,
        "source_row": 4 * output.width,
        "source_pixel": 4,
    }
    entries = {"channels": output.channels, "channel": channel, **source, **output.written()}
    kernel = "arrange_colours" if output.values.layout.channels == kernels.COLOURS else "arrange"
    return Call(kernel, kernels.ARRANGE, entries["rows"], entries)


LAYERS = {
    "convolution": Convolution,
    "binary_convolution": Convolution,
    "dense": Convolution,
    "affine": Pointwise,
    "add": Pointwise,
    "clip": Pointwise,
    "max_pool": Pool,
    "average_pool": Pool,
    "mean": Pool,
}


def _name(kernel: str, output: Value) -> str:
    """Of the variant that computes as many channels at once as divide the output's."""
    blocks = filled_up(output.channels) // LANES
    return f"{kernel}_{next(v for v in kernels.VECTORS if blocks % v == 0)}"


def _as_bits(number: float) -> int:
    """A float32 in a whole number."""
    return struct.unpack("<I", struct.pack("<f", number))[0]
