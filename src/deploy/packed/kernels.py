# SPDX-License-Identifier: Apache-2.0
"""The kernels of packed networks, written for LLVM.

Inside the engine a value is (N, H, W, C): C is filled up to whole vectors of 16 channels, and there may be a
border of zeros around the pixels. Beside its float32 `values`, or in their place, a value has the `bits` of
its signs, 1 for x >= 0, which the kernel that computes it writes too. A pixel's bits are whole 32-bit words.

A kernel works on items, each a row of its output or a part of one; any number of threads divide them. Which
thread computes an item, and how many pixels at once, changes no bit of a result.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain

from llvmlite import ir

from .emit import BYTES, F32, FLOATS, I16, I32, I64, LANES, VECTOR, WORDS, Emitter, Variable


def place(name: str) -> tuple[str, ...]:
    """Entries of a table for a value: its address, and the distances of images, rows and pixels."""
    return name, f"{name}_image", f"{name}_row", f"{name}_pixel"


_OUTPUT = ("thresholds", *place("values"), *place("bits"))
_COUNTED_IN_BYTES = 31  # words: 8 bits each in a byte of 255
_SPINS = 2000  # before a waiting thread lets others run: about a microsecond
_ROWS = ("rows", "height", "width")
"""Of the output: rows of all images together, rows of an image, pixels of a row."""

CONVOLUTION = (
    *_ROWS,
    *("weight", "group", "kernel", "length", "pitch"),
    *("multiply", "add", "counts", "count_rows", "count_columns"),
    *place("source"),
    *place("residual"),
    *_OUTPUT,
)
POINTWISE = (
    *_ROWS,
    *("blocks", "multiply", "add", "clips", "low", "high", "slope"),
    *place("source"),
    *place("residual"),
    *_OUTPUT,
)
POOL = (
    *_ROWS,
    *("blocks", "size", "across", "stride", "padding", "source_height", "source_width", "scale"),
    *place("source"),
    *_OUTPUT,
)
ARRANGE = (*_ROWS, "channels", "channel", *place("source"), *place("values"))

TILES = {(pixels, blocks): f"{pixels}x{blocks}" for pixels in (7, 4, 1) for blocks in (2, 1)}
"""Pixels and vectors of output channels that a convolution computes at once."""

SMALL_TILES = ((4, 1), (1, 1))
"""Those that fit in the registers where a vector takes two of 16, as with AVX2."""

VECTORS = (4, 1)
"""Vectors of channels that the other kernels compute at once."""

NAMES = (
    *(f"{kind}_{tile}" for kind in ("binary", "real") for tile in TILES.values()),
    *(f"{kind}_{vectors}" for kind in ("pointwise", "max_pool", "mean_pool") for vectors in VECTORS),
    *("arrange", "arrange_colours"),
)

COLOURS = 3


def source(*, counts_words: bool) -> str:
    """All kernels, and `run`, which works through a plan of them, in LLVM's language.

    Args:
        counts_words: the processor counts the bits of whole vectors of words by one instruction.
    """
    module = ir.Module("quartet")
    add_row = _count if counts_words else _count_by_bytes
    for (pixels, blocks), name in TILES.items():
        _convolution(module, f"binary_{name}", True, add_row, pixels, blocks)
        _convolution(module, f"real_{name}", False, _multiply, pixels, blocks)
    for vectors in VECTORS:
        _pointwise(module, vectors)
        _pool(module, "max_pool", float("-inf"), lambda e, old, new: e.call("maximum", old, new), vectors)
        _pool(module, "mean_pool", 0.0, lambda e, old, new: e.build.fadd(old, new), vectors)
    _arrange(module)
    _arrange_colours(module)
    return f"{module}{_RUN}"


@dataclass(frozen=True)
class _FilterRow:
    """One row of the filters of a tile, and the neighbours of its pixels that it meets."""

    e: Emitter
    filters: Variable  # the address of what comes next; `each` moves it
    starts: list[ir.Value]  # addresses of the first neighbour of each pixel

    def each(self, sums: list[list[Variable]], kind: ir.VectorType, add: Callable, begin, end) -> None:
        """Of neighbours from `begin` to `end`: sum = add(filter, neighbour, sum) for each pixel and block."""
        e, blocks = self.e, range(len(sums[0]))
        with e.loop(end, begin=begin) as j:
            here = self.filters.get()
            loaded = [e.load(here, VECTOR * o, kind) for o in blocks]
            for start, of_pixel in zip(self.starts, sums):
                number = e.spread(e.load(start, e.times(j, 4), kind.element))
                for total, of_block in zip(of_pixel, loaded):
                    total.set(add(of_block, number, total.get()))
            self.filters.set(e.sum(here, VECTOR * len(blocks)))


def _multiply(row: _FilterRow, sums: list[list[Variable]]) -> None:
    row.each(sums, FLOATS, lambda w, x, total: row.e.call("fmuladd", w, x, total), 0, row.e.length)


def _count(row: _FilterRow, sums: list[list[Variable]]) -> None:
    """Adds the number of different bits."""
    b = row.e.build
    row.each(sums, WORDS, lambda w, x, total: b.add(total, row.e.call("ctpop", b.xor(w, x))), 0, row.e.length)


def _count_by_bytes(row: _FilterRow, sums: list[list[Variable]]) -> None:
    """The same by bytes, where bits are counted by tables: 1.5 times faster."""
    e, b = row.e, row.e.build

    def add(w: ir.Value, x: ir.Value, total: ir.Value) -> ir.Value:
        return b.add(total, e.call("ctpop", b.bitcast(b.xor(w, x), BYTES)))

    def halves(words: ir.Value, bits: int, mask: int) -> ir.Value:
        upper = b.lshr(words, ir.Constant(WORDS, [bits] * LANES))
        mask = ir.Constant(WORDS, [mask] * LANES)
        return b.add(b.and_(words, mask), b.and_(upper, mask))

    with e.loop(e.length, step=_COUNTED_IN_BYTES) as begin:
        counts = [[e.variable(ir.Constant(BYTES, None)) for _ in of_pixel] for of_pixel in sums]
        row.each(counts, WORDS, add, begin, e.least(e.sum(begin, _COUNTED_IN_BYTES), e.length))
        for total, count in zip(chain(*sums), chain(*counts)):
            words = halves(halves(b.bitcast(count.get(), WORDS), 8, 0xFF00FF), 16, 0xFFFF)
            total.set(b.add(total.get(), words))


def _at(e: Emitter, name: str, image: ir.Value, y: ir.Value, *more: ir.Value) -> ir.Value:
    """The address of a row of a value."""
    distances = e.times(image, getattr(e, f"{name}_image")), e.times(y, getattr(e, f"{name}_row"))
    return e.sum(getattr(e, name), *distances, *more)


def _convolution(
    module: ir.Module, name: str, binary: bool, add_row: Callable, pixels: int, blocks: int
) -> None:
    """Sums over a filter, multiply * sum + add + residual. An item is a row of a group of output channels.

    A group is `blocks` vectors of channels; its filters stand together, (k, k, inputs, blocks, 16). As the
    pixels of a row and their channels stand side by side, a row of the filter meets `length` = k * inputs
    neighbours of the source (words of 32 bits where it is binary, else floats). `kernel` such rows, `pitch`
    apart, make the sum.

    Binary: the sum of products of signs is `counts` - 2 * (number of different bits). `counts` also puts
    right what bits of the border added to the number; so it depends on the pixel: `count_rows` and
    `count_columns` have the distances within it of each row and column of the output.
    """
    e = Emitter(module, name, CONVOLUTION)
    b, wide = e.build, VECTOR * blocks
    zero = ir.Constant(WORDS if binary else FLOATS, None)
    with e.loop(e.end, begin=e.begin) as item:
        group, row = e.divide(item, e.rows)
        image, y = e.divide(row, e.height)
        channels = e.times(group, wide)  # bytes of the channels before this group
        weight = e.sum(e.weight, e.times(group, e.group))
        source = _at(e, "source", image, y)
        residual = _at(e, "residual", image, y, channels)
        output = {"values": _at(e, "values", image, y, channels)}
        output["bits"] = _at(e, "bits", image, y, b.sdiv(channels, I64(32)))
        multiply, add, thresholds = (e.sum(p, channels) for p in (e.multiply, e.add, e.thresholds))
        count_row = e.sum(e.counts, e.load(e.count_rows, e.times(y, 8), I64), channels) if binary else None
        with e.loop(e.width, step=pixels) as tile:
            x = e.least(tile, b.sub(e.width, I64(pixels)))  # the last tile moves back into the row
            sums = [[e.variable(zero) for _ in range(blocks)] for _ in range(pixels)]
            source_row = e.variable(e.sum(source, e.times(x, e.source_pixel)))
            filters = e.variable(weight)
            with e.loop(e.kernel):
                starts = [e.sum(source_row.get(), e.times(e.source_pixel, p)) for p in range(pixels)]
                add_row(_FilterRow(e, filters, starts), sums)
                source_row.set(e.sum(source_row.get(), e.pitch))
            results = {}
            for p in range(pixels):
                column = e.sum(x, p)
                added = e.sum(residual, e.times(column, e.residual_pixel))
                if binary:
                    counts = e.sum(count_row, e.load(e.count_columns, e.times(column, 8), I64))
                for o in range(blocks):
                    total, at = sums[p][o].get(), VECTOR * o
                    if binary:
                        total = b.sub(e.load(counts, at, WORDS), b.add(total, total))
                        total = b.fmul(b.sitofp(total, FLOATS), e.load(multiply, at, FLOATS))
                    total = b.fadd(total, e.load(add, at, FLOATS))
                    results[column, o] = b.fadd(total, e.load(added, at, FLOATS))
            _write(e, results, output, thresholds)
    b.ret_void()


def _write(
    e: Emitter, results: Mapping[tuple[ir.Value, int], ir.Value], output: Mapping[str, ir.Value], thresholds
) -> None:
    """Stores values or their bits, or both, of pixels (column, block).

    `thresholds` are 0, and infinity for the channels that fill up a vector, whose bits stay 0. NaN has the
    bit of a negative number.
    """
    with e.when(e.values):
        for (column, block), value in results.items():
            e.store(value, e.sum(output["values"], e.times(column, e.values_pixel)), VECTOR * block)
    with e.when(e.bits):
        for (column, block), value in results.items():
            signs = e.build.fcmp_ordered(">=", value, e.load(thresholds, VECTOR * block, FLOATS))
            place = e.sum(output["bits"], e.times(column, e.bits_pixel))
            e.store(e.build.bitcast(signs, I16), place, LANES // 8 * block)


def _each_row(e: Emitter, vectors: int, compute: Callable[..., list[ir.Value]]) -> None:
    """The loops of a kernel whose item is a row of the output.

    `compute(image, y, x, bytes of the channels before)` gives so many `vectors` of channels at once.
    """
    with e.loop(e.end, begin=e.begin) as item:
        image, y = e.divide(item, e.height)
        with e.loop(e.width) as x, e.loop(e.blocks, step=vectors) as block:
            channels = e.times(block, VECTOR)
            output = {
                "values": _at(e, "values", image, y, channels),
                "bits": _at(e, "bits", image, y, e.times(block, LANES // 8)),
            }
            results = compute(image, y, x, channels)
            _write(e, {(x, v): r for v, r in enumerate(results)}, output, e.sum(e.thresholds, channels))
    e.build.ret_void()


def _pointwise(module: ir.Module, vectors: int) -> None:
    """multiply * x + add + residual, then, where `clips`, c + slope * (x - c) with c within [low, high]."""
    e = Emitter(module, f"pointwise_{vectors}", POINTWISE)
    b = e.build
    low, high, slope = (e.spread(b.bitcast(b.trunc(n, I32), F32)) for n in (e.low, e.high, e.slope))

    def clip(value: ir.Value) -> ir.Value:
        clipped = b.select(b.fcmp_ordered("<", value, low), low, value)
        clipped = b.select(b.fcmp_ordered(">", clipped, high), high, clipped)
        beyond = b.fadd(clipped, b.fmul(slope, b.fsub(value, clipped)))
        flat = b.fcmp_ordered("==", slope, ir.Constant(FLOATS, None))  # infinity times 0 is NaN
        return b.select(flat, clipped, beyond)

    def compute(image, y, x, channels):
        source = _at(e, "source", image, y, e.times(x, e.source_pixel), channels)
        added = _at(e, "residual", image, y, e.times(x, e.residual_pixel), channels)
        multiply, add = e.sum(e.multiply, channels), e.sum(e.add, channels)
        results = []
        for at in range(0, VECTOR * vectors, VECTOR):
            value = b.fmul(e.load(source, at, FLOATS), e.load(multiply, at, FLOATS))
            value = b.fadd(b.fadd(value, e.load(add, at, FLOATS)), e.load(added, at, FLOATS))
            results.append(e.variable(value))
        with e.when(e.clips):
            for result in results:
                result.set(clip(result.get()))
        return [result.get() for result in results]

    _each_row(e, vectors, compute)


def _pool(module: ir.Module, name: str, start: float, combine: Callable, vectors: int) -> None:
    """Windows of `size` rows and `across` columns, as far as they lie in the image; times `scale`."""
    e = Emitter(module, f"{name}_{vectors}", POOL)
    b = e.build
    scale = e.spread(b.bitcast(b.trunc(e.scale, I32), F32))

    def window(position: ir.Value, size: ir.Value, side: ir.Value) -> tuple[ir.Value, ir.Value]:
        first = b.sub(e.times(position, e.stride), e.padding)
        return e.greatest(first, 0), e.least(e.sum(first, size), side)

    def compute(image, y, x, channels):
        results = [e.variable(ir.Constant(FLOATS, [start] * LANES)) for _ in range(vectors)]
        top, bottom = window(y, e.size, e.source_height)
        left, right = window(x, e.across, e.source_width)
        with e.loop(bottom, begin=top) as row:
            at = _at(e, "source", image, row, channels)
            with e.loop(right, begin=left) as column:
                pixel = e.sum(at, e.times(column, e.source_pixel))
                for v, result in enumerate(results):
                    result.set(combine(e, result.get(), e.load(pixel, VECTOR * v, FLOATS)))
        return [b.fmul(result.get(), scale) for result in results]

    _each_row(e, vectors, compute)


def _arrange(module: ir.Module) -> None:
    """(N, C, H, W) images to (N, H, W, C)."""
    e = Emitter(module, "arrange", ARRANGE)
    with e.loop(e.end, begin=e.begin) as item:
        image, y = e.divide(item, e.height)
        source, values = _at(e, "source", image, y), _at(e, "values", image, y)
        with e.loop(e.channels) as c:
            plane, first = e.sum(source, e.times(c, e.channel)), e.sum(values, e.times(c, 4))
            with e.loop(e.width) as x:
                e.store(e.load(plane, e.times(x, 4), F32), first, e.times(x, e.values_pixel))
    e.build.ret_void()


def _arrange_colours(module: ir.Module) -> None:
    """`arrange` for three channels and nothing behind them, which LLVM makes three times faster."""
    e = Emitter(module, "arrange_colours", ARRANGE)
    with e.loop(e.end, begin=e.begin) as item:
        image, y = e.divide(item, e.height)
        source, values = _at(e, "source", image, y), _at(e, "values", image, y)
        with e.loop(e.width) as x:
            pixel = e.sum(source, e.times(x, 4))
            for c in range(COLOURS):
                number = e.load(pixel, e.times(e.channel, c), F32)
                e.store(number, values, e.sum(e.times(x, 4 * COLOURS), 4 * c))
    e.build.ret_void()


STEP = ("kernel", "table", "items", "chunk")
"""What stands in a plan for each step: two addresses and two numbers."""

COUNTER = 64
"""Bytes between counters: a line of the cache each."""

_RUN = f"""
; Works through a plan of kernels, together with any other threads that were given the same counters (of
; each step two, taken and done, 0 at first). A thread takes one chunk of a step's items after the other, as
; long as there are any, waits until the others have done theirs, and goes on with the next step. Nobody
; waits for a thread that has not begun: one that comes late, or never, finds its work done.
define void @run(ptr %plan, i64 %steps, ptr %counters, ptr %give_way) {{
entry:
  br label %step
step:
  %index = phi i64 [0, %entry], [%next, %leave]
  %distance = mul i64 %index, {8 * len(STEP)}
  %kernel.at = getelementptr i8, ptr %plan, i64 %distance
  %table.at = getelementptr i8, ptr %kernel.at, i64 8
  %items.at = getelementptr i8, ptr %kernel.at, i64 16
  %chunk.at = getelementptr i8, ptr %kernel.at, i64 24
  %kernel = load ptr, ptr %kernel.at
  %table = load ptr, ptr %table.at
  %items = load i64, ptr %items.at
  %chunk = load i64, ptr %chunk.at
  %counter = mul i64 %index, {2 * COUNTER}
  %taken = getelementptr i8, ptr %counters, i64 %counter
  %done = getelementptr i8, ptr %taken, i64 {COUNTER}
  br label %take
take:
  %begin = atomicrmw add ptr %taken, i64 %chunk monotonic
  %any = icmp slt i64 %begin, %items
  br i1 %any, label %work, label %look
work:
  %full = add i64 %begin, %chunk
  %end = call i64 @llvm.smin.i64(i64 %full, i64 %items)
  call void %kernel(ptr %table, i64 %begin, i64 %end)
  %many = sub i64 %end, %begin
  %before = atomicrmw add ptr %done, i64 %many release
  br label %take
look:
  br label %waiting
waiting:
  %looks = phi i64 [0, %look], [%again, %on]
  %now = load atomic i64, ptr %done acquire, align 8
  %ready = icmp sge i64 %now, %items
  %next = add i64 %index, 1
  %more = icmp slt i64 %next, %steps
  br i1 %ready, label %leave, label %spin
leave:
  br i1 %more, label %step, label %out
spin:
  %again = add i64 %looks, 1
  %patient = icmp slt i64 %again, {_SPINS}
  br i1 %patient, label %on, label %yield
yield:
  call i32 %give_way()
  br label %on
on:
  br label %waiting
out:
  ret void
}}
declare i64 @llvm.smin.i64(i64, i64)
"""
