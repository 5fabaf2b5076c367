# SPDX-License-Identifier: Apache-2.0
"""What ranks tell each other outside the graph: exact sums, weights to start from, whether all are equal."""

import functools
import zlib
from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from ..common.errors import UserError
from .buckets import plan_buckets

CHUNK = 1 << 20  # numbers of a long message's parts: one shape, so that one graph is compiled
# An integer travels as 4 numbers of 12 bits: their float32 sums are exact on up to 2^(24 - 12) ranks.
_DIGITS, _BITS = 4, 12


class _Gather(nn.Cell):
    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.gather = ops.AllGather()

    def construct(self, x):
        return self.gather(x)


class _Sum(nn.Cell):
    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.reduce = ops.AllReduce(ops.ReduceOp.SUM)

    def construct(self, x):
        return self.reduce(x)


class _FromFirst(nn.Cell):
    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.broadcast = ops.Broadcast(0)

    def construct(self, x):
        return self.broadcast((x,))[0]


@functools.cache
def _cell(kind: type[nn.Cell]) -> nn.Cell:
    """One cell of a kind for the whole process, as each new one is compiled."""
    return kind()


def sum_over_ranks(vector: np.ndarray, *, size: int) -> np.ndarray:
    """The sum of a vector (n,) over `size` ranks, on each of them: of int64 exact, of float64 to 48 bits.

    Integers are reduced, so memory does not grow with the ranks. float32 is all that every device can reduce,
    so an integer travels as its digits. Real numbers are gathered as two float32 each, the rounded number and
    what rounding left, and added on the host: each rank then holds those of all, so there should be few.

    Raises:
        ValueError: an integer of 2^48 or more, or more than 4,096 ranks.
    """
    if size == 1:
        return vector
    if vector.dtype.kind == "i":
        return _sum_of_integers(vector.astype(np.int64), size)
    high = vector.astype(np.float32)
    low = (vector - high).astype(np.float32)
    gathered = _cell(_Gather)(ms.Tensor(np.stack([high, low])[None])).asnumpy()
    return gathered.astype(np.float64).sum(axis=(0, 1))


def union_over_ranks(numbers: set[int], *, below: int, size: int) -> set[int]:
    """All numbers, 0 to `below` - 1, that some rank gives; where none gives any, little is sent."""
    if size == 1 or not sum_over_ranks(np.array([len(numbers)], np.int64), size=size)[0]:
        return numbers
    given = np.zeros(below, np.int64)
    given[list(numbers)] = 1
    return set(np.flatnonzero(sum_over_ranks(given, size=size)).tolist())


def _sum_of_integers(vector: np.ndarray, size: int) -> np.ndarray:
    if size > 1 << (24 - _BITS) or np.abs(vector).max(initial=0) >= 1 << (_DIGITS * _BITS):
        raise ValueError(f"integers up to {np.abs(vector).max(initial=0)} on {size} ranks have no exact sum")
    total = np.zeros_like(vector)
    for digit in range(_DIGITS):
        rest = vector >> (_BITS * digit)
        part = rest if digit == _DIGITS - 1 else rest & ((1 << _BITS) - 1)  # the last one has the sign
        total += _in_chunks(_Sum, part.astype(np.float32)).astype(np.int64) << (_BITS * digit)
    return total


def _in_chunks(kind: type[nn.Cell], numbers: np.ndarray) -> np.ndarray:
    """What a collective operation makes of numbers (n,), perhaps in place; many go in equal parts."""
    if len(numbers) <= CHUNK:
        return _cell(kind)(ms.Tensor(numbers)).asnumpy()
    for start in range(0, len(numbers), CHUNK):
        part = numbers[start : start + CHUNK]
        padded = np.zeros(CHUNK, numbers.dtype)
        padded[: len(part)] = part
        part[:] = _cell(kind)(ms.Tensor(padded)).asnumpy()[: len(part)]
    return numbers


def text_of_first(text: str, *, size: int) -> str:
    """What rank 0 gave, at most 4,096 bytes in UTF-8."""
    if size == 1:
        return text
    mine = np.zeros(4096, np.int32)
    letters = np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8)
    mine[: len(letters)] = letters
    first = _cell(_FromFirst)(ms.Tensor(mine)).asnumpy()
    return first[first > 0].astype(np.uint8).tobytes().decode("utf-8", "surrogateescape")


def broadcast_from_first(parameters: Sequence[ms.Parameter], *, size: int) -> None:
    """Sets parameters of 4 bytes a number (float32, int32) to the bits that rank 0 has.

    Small ones share a message. The host holds a copy of one message's parameters at a time.
    """
    if size == 1:
        return
    for bucket in plan_buckets([parameter.size for parameter in parameters], CHUNK):
        some = [parameters[i] for i in bucket]
        bits = np.zeros(max(CHUNK, sum(parameter.size for parameter in some)), np.int32)
        parts = np.split(bits, np.cumsum([parameter.size for parameter in some]))
        for parameter, part in zip(some, parts):
            part[:] = np.ascontiguousarray(parameter.asnumpy()).ravel().view(np.int32)
        bits[:] = _in_chunks(_FromFirst, bits)
        for parameter, part in zip(some, parts):
            new = part.view(parameter.asnumpy().dtype).reshape(parameter.shape)
            parameter.set_data(ms.Tensor(new))


def check_equal_over_ranks(parameters: Sequence[ms.Parameter], *, step: int, size: int) -> None:
    """Compares the CRC-32 of every parameter over the ranks.

    Raises:
        UserError: on every rank, where one differs; the first that does is named.
    """
    if size == 1:
        return
    mine = np.array([zlib.crc32(parameter.asnumpy().tobytes()) for parameter in parameters], np.uint32)
    every = _cell(_Gather)(ms.Tensor(mine.view(np.int32)[None])).asnumpy()
    ranks, columns = np.nonzero(every != every[0])
    if len(columns):
        first = columns.min()
        name, rank = parameters[first].name, ranks[columns == first][0]
        raise UserError(
            f"parameter {name} differs between rank 0 and rank {rank} after step {step} "
            f"({len(set(columns))} of {len(parameters)} parameters do): the cards no longer train one "
            "network; check them for memory errors, then resume from the last checkpoint"
        )
