# SPDX-License-Identifier: Apache-2.0
"""Runs the program of a packed network on this CPU: a plan of kernels for each size of images."""

import functools
import math
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from ...model_utils.cpu import thread_count
from . import kernels
from .layers import LAYERS, Call, Pointwise, Value, arrange
from .layout import Buffer, Layout, filled_up
from .native import native
from .program import IMAGES, LOGITS, Program, Step

_BATCH_BYTES = 1 << 20
"""As many images go through the network at once as keep its largest value below this, or else one."""

_PLANS = 4
"""Sizes of images and batches that stay prepared."""

_CHUNKS = 8
"""Parts of a step's work for each thread."""


class Engine:
    """A network ready to run. Threads may call it at once; it answers one call after the other.

    Args:
        program: the network.
        threads: that compute together; 0: one for each core that this process may use.

    Raises:
        UserError: as `thread_count`.
    """

    def __init__(self, program: Program, *, threads: int = 0):
        self.program, self.threads = program, thread_count(threads)
        self.native = native()
        self.uses = Uses(program)
        tiles = self.native.tiles
        self.layers = [
            LAYERS[step.kind](step, narrow=self.uses.narrow and step.inputs[0] == IMAGES, tiles=tiles)
            for step in program.steps
        ]
        self._plan = functools.lru_cache(_PLANS)(functools.partial(Plan, self))
        self._sizes = functools.lru_cache(_PLANS)(functools.partial(_sizes, program))
        self._start()
        _engines.add(self)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(N, C, H, W) float32 -> logits (N, K). Neither the batch nor the threads change an image's logits.

        Raises:
            ValueError: the network does not take images of this shape.
        """
        images = np.ascontiguousarray(images, np.float32)
        count, channels, height, width = images.shape
        if channels != self.program.channels:
            raise ValueError(f"{channels} channels; the network takes {self.program.channels}")
        at_once, classes = self._sizes(height, width)
        logits = np.empty((count, classes), np.float32)
        with self._lock:
            for first in range(0, count, at_once):
                batch = images[first : first + at_once]
                logits[first : first + len(batch)] = self._plan(len(batch), height, width).run(batch)
        return logits

    def __reduce__(self) -> tuple[Callable[[Program], "Engine"], tuple[Program]]:
        """What a copy, or another process, makes of it: addresses are of this one alone."""
        return functools.partial(Engine, threads=self.threads), (self.program,)

    def _start(self) -> None:
        """In this process; in a child that was forked from it, what threads it had are gone."""
        self._helpers = ThreadPoolExecutor(self.threads - 1, "packed") if self.threads > 1 else None
        self._lock = threading.Lock()

    def help(self, plan: "Plan", counters: np.ndarray) -> None:
        """Asks the other threads to work through a plan as well.

        The system's limit may let none start, and when the program ends none is taken: then one computes.
        """
        try:
            for _ in range(self.threads - 1):
                self._helpers.submit(plan.work, counters)
        except RuntimeError:
            self.threads = 1


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()

if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=lambda: [engine._start() for engine in _engines])


def _sizes(program: Program, height: int, width: int) -> tuple[int, int]:
    """How many images of a size go through a network at once, and its classes."""
    shapes = program.shapes(height, width)
    largest = max(4 * math.prod(shape) for shape in shapes.values())
    return max(1, _BATCH_BYTES // largest), shapes[LOGITS][0]


class Uses:
    """What the steps of a program read of its values; only that is kept.

    Attributes:
        values: the values that are read as numbers, with the border of zeros that is read around them.
        bits: those that are read as signs, likewise.
        last: for each step, the values that no later one reads.
        narrow: only convolutions read the images, which take any number of channels; all other kernels take
            whole vectors of them.
    """

    def __init__(self, program: Program):
        self.values, self.bits = {LOGITS: 0}, {}
        last: dict[str, int] = {}
        self.narrow = True
        for index, step in enumerate(program.steps):
            for position, name in enumerate(step.inputs):
                signs = step.kind == "binary_convolution" and position == 0
                kept = self.bits if signs else self.values
                border = step.numbers["padding"] if signs or step.kind == "convolution" else 0
                kept[name] = max(kept.get(name, 0), border)
                last[name] = index
                self.narrow &= name != IMAGES or step.kind == "convolution"
        self.last = [[name for name in last if last[name] == index] for index in range(len(program.steps))]


class Plan:
    """The calls of the kernels for one size of batch and image, and the memory that they work in."""

    def __init__(self, engine: Engine, images: int, height: int, width: int):
        self.engine, self.images = engine, images
        self._free: dict[Layout, list[Buffer]] = {}
        shapes = engine.program.shapes(height, width)
        values = {IMAGES: self._new(IMAGES, shapes[IMAGES])}
        calls = self._arrange(values[IMAGES])
        for step, layer, last in zip(engine.program.steps, engine.layers, engine.uses.last):
            values[step.output] = self._new(step.output, shapes[step.output])
            if values[step.output].is_kept:
                calls.append(layer.call(values[step.output], *(values[name] for name in step.inputs)))
            for name in last:
                self._release(values[name])
        self._values, self._calls = values, calls
        self._logits = values[LOGITS].values.array[:, 0, 0, : values[LOGITS].channels]
        self._tables = [call.table() for call in calls]
        self._source = calls[0].names.index("source")
        self._steps = np.array([self._step(*pair) for pair in zip(calls, self._tables)], np.int64)

    def run(self, images: np.ndarray) -> np.ndarray:
        """float32 images (N, C, H, W), C-contiguous -> logits (N, K), overwritten by the next call."""
        self._tables[0][self._source] = images.ctypes.data
        counters = np.zeros((len(self._calls), 2, kernels.COUNTER // 8), np.int64)
        self.engine.help(self, counters)
        self.work(counters)
        return self._logits

    def work(self, counters: np.ndarray) -> None:
        """Takes part in a run until it is done."""
        native = self.engine.native
        native.run(self._steps.ctypes.data, len(self._steps), counters.ctypes.data, native.give_way)

    def _step(self, call: Call, table: np.ndarray) -> tuple[int, ...]:
        chunk = -(-call.items // (_CHUNKS * self.engine.threads))
        return self.engine.native.addresses[call.kernel], table.ctypes.data, call.items, chunk

    def _arrange(self, images: Value) -> list[Call]:
        calls = [arrange(replace(images, bits=None))]
        if images.bits:
            copy = Pointwise(Step("affine", (IMAGES,), IMAGES))
            calls.append(copy.call(replace(images, values=None), images))
        return calls

    def _new(self, name: str, shape: tuple[int, ...]) -> Value:
        uses = self.engine.uses
        channels, height, width = shape if len(shape) == 3 else (*shape, 1, 1)
        stored = channels if name == IMAGES and uses.narrow else filled_up(channels)
        size = self.images, height, width, stored
        values = name in uses.values or name == IMAGES
        return Value(
            channels,
            height,
            width,
            self.images,
            values=self._buffer(Layout(False, *size, uses.values.get(name, 0))) if values else None,
            bits=self._buffer(Layout(True, *size, uses.bits[name])) if name in uses.bits else None,
        )

    def _buffer(self, layout: Layout) -> Buffer:
        """New, or that of a value which is no longer read. What must be 0 in this layout still is."""
        free = self._free.get(layout)
        return free.pop() if free else layout.new()

    def _release(self, value: Value) -> None:
        for buffer in (value.values, value.bits):
            if buffer:
                self._free.setdefault(buffer.layout, []).append(buffer)
