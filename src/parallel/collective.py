"""What ranks tell each other outside the graph: exact sums, weights to start from, whether all are equal."""

import functools
import zlib
from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from ..common.errors import UserError

CHUNK = 1 << 20  # numbers of a message that carries weights: one shape, so that one graph is compiled


class _Gather(nn.Cell):
    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.gather = ops.AllGather()

    def construct(self, x):
        return self.gather(x)


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
    """The sum of a float64 vector (n,) over `size` ranks, on each of them; exact for integers below 2^48.

    Cards exchange float32, so every number travels as two, the rounded one and what rounding left, and the
    sum is made in float64 on the host.
    """
    if size == 1:
        return vector
    high = vector.astype(np.float32)
    low = (vector - high).astype(np.float32)
    gathered = _cell(_Gather)(ms.Tensor(np.stack([high, low])[None])).asnumpy()
    return gathered.astype(np.float64).sum(axis=(0, 1))


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
    """Sets parameters of 4 bytes a number (float32, int32) to the bits that rank 0 has."""
    if size == 1:
        return
    values = [parameter.asnumpy() for parameter in parameters]
    bits = np.concatenate([np.ascontiguousarray(value).ravel().view(np.int32) for value in values])
    padded = np.zeros(-(-len(bits) // CHUNK) * CHUNK, np.int32)
    padded[: len(bits)] = bits
    for chunk in padded.reshape(-1, CHUNK):
        chunk[:] = _cell(_FromFirst)(ms.Tensor(chunk)).asnumpy()
    start = 0
    for parameter, value in zip(parameters, values):
        new = padded[start : start + value.size].view(value.dtype).reshape(value.shape)
        parameter.set_data(ms.Tensor(new))
        start += value.size


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
