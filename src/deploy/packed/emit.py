# SPDX-License-Identifier: Apache-2.0
"""Writing functions for LLVM: the few instructions that the kernels need, on vectors of 16 lanes.

Addresses and distances are counted in bytes. Whole numbers have 64 bits where nothing else is said.
"""

import contextlib
from collections.abc import Iterator, Sequence

from llvmlite import ir

LANES = 16
VECTOR = 4 * LANES
"""Bytes of a vector."""

_I8, I16, I32, I64, F32 = (*map(ir.IntType, (8, 16, 32, 64)), ir.FloatType())
WORDS, FLOATS, BYTES = ir.VectorType(I32, LANES), ir.VectorType(F32, LANES), ir.VectorType(_I8, VECTOR)
POINTER = ir.PointerType()
SIGNATURE = ir.FunctionType(ir.VoidType(), [POINTER, I64, I64])
"""Of every kernel: its table, and the first item of its work and the one behind the last."""

_SUFFIXES = {WORDS: "v16i32", FLOATS: "v16f32", BYTES: "v64i8"}


class Emitter:
    """One kernel in the making.

    Its table is an array of 64-bit numbers, one for each of `names`; `emitter.NAME` is what stands there.

    Args:
        module: where the kernel is added.
        name: its name.
        names: of the entries of its table.
    """

    def __init__(self, module: ir.Module, name: str, names: Sequence[str]):
        self.module = module
        self.function = ir.Function(module, SIGNATURE, name)
        self.build = ir.IRBuilder(self.function.append_basic_block())
        table, self.begin, self.end = self.function.args
        self.entries = {entry: self.load(table, 8 * i, I64) for i, entry in enumerate(names)}

    def __getattr__(self, name: str) -> ir.Value:
        try:
            return self.__dict__["entries"][name]
        except KeyError:
            raise AttributeError(name) from None

    def sum(self, first: ir.Value, *others: ir.Value | int) -> ir.Value:
        for other in others:
            first = self.build.add(first, _constant(other))
        return first

    def times(self, first: ir.Value, second: ir.Value | int) -> ir.Value:
        return self.build.mul(first, _constant(second))

    def divide(self, first: ir.Value, second: ir.Value | int) -> tuple[ir.Value, ir.Value]:
        """Quotient and remainder."""
        second = _constant(second)
        return self.build.sdiv(first, second), self.build.srem(first, second)

    def least(self, first: ir.Value, second: ir.Value | int) -> ir.Value:
        second = _constant(second)
        return self.build.select(self.build.icmp_signed("<", first, second), first, second)

    def greatest(self, first: ir.Value, second: ir.Value | int) -> ir.Value:
        second = _constant(second)
        return self.build.select(self.build.icmp_signed(">", first, second), first, second)

    def pointer(self, base: ir.Value, offset: ir.Value | int = 0) -> ir.Value:
        """To what stands `offset` bytes behind an address or another pointer."""
        if base.type == I64:
            base = self.build.inttoptr(base, POINTER)
        return self.build.gep(base, [_constant(offset)], source_etype=_I8)

    def load(self, base: ir.Value, offset: ir.Value | int, kind: ir.Type) -> ir.Value:
        return self.build.load(self.pointer(base, offset), typ=kind, align=_alignment(kind))

    def store(self, value: ir.Value, base: ir.Value, offset: ir.Value | int = 0) -> None:
        self.build.store(value, self.pointer(base, offset), align=_alignment(value.type))

    def spread(self, value: ir.Value) -> ir.Value:
        """A vector with a number in every lane."""
        kind = ir.VectorType(value.type, LANES)
        undefined = ir.Constant(kind, ir.Undefined)
        first = self.build.insert_element(undefined, value, I32(0))
        return self.build.shuffle_vector(first, undefined, ir.Constant(WORDS, None))

    def call(self, intrinsic: str, *values: ir.Value) -> ir.Value:
        """One of LLVM's functions from vectors of one type to a vector of this type."""
        kind = values[0].type
        name = f"llvm.{intrinsic}.{_SUFFIXES[kind]}"
        function = self.module.globals.get(name) or ir.Function(
            self.module, ir.FunctionType(kind, [kind] * len(values)), name
        )
        return self.build.call(function, values, fastmath=("nsz",) if kind == FLOATS else ())

    @contextlib.contextmanager
    def loop(self, end: ir.Value, *, begin: ir.Value | int = 0, step: int = 1) -> Iterator[ir.Value]:
        """Its body runs for begin, begin + step and so on, below `end`."""
        index = self.variable(_constant(begin))
        test, body, after = (self.function.append_basic_block() for _ in range(3))
        self.build.branch(test)
        self.build.position_at_end(test)
        value = index.get()
        self.build.cbranch(self.build.icmp_signed("<", value, end), body, after)
        self.build.position_at_end(body)
        yield value
        index.set(self.sum(value, step))
        self.build.branch(test)
        self.build.position_at_end(after)

    def when(self, condition: ir.Value) -> contextlib.AbstractContextManager:
        """Its body runs where a number is not 0."""
        return self.build.if_then(self.build.icmp_signed("!=", condition, I64(0)))

    def variable(self, value: ir.Value) -> "Variable":
        return Variable(self, value)


class Variable:
    """A value that changes: a place on the stack, which LLVM turns into a register."""

    def __init__(self, emitter: Emitter, value: ir.Value):
        self._emitter, self._kind = emitter, value.type
        with emitter.build.goto_entry_block():
            self._place = emitter.build.alloca(value.type)
        self.set(value)

    def get(self) -> ir.Value:
        return self._emitter.build.load(self._place, typ=self._kind)

    def set(self, value: ir.Value) -> None:
        self._emitter.build.store(value, self._place)


def _constant(value: ir.Value | int) -> ir.Value:
    return I64(value) if isinstance(value, int) else value


def _alignment(kind: ir.Type) -> int:
    return kind.width // 8 if isinstance(kind, ir.IntType) else 4
