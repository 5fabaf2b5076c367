# SPDX-License-Identifier: Apache-2.0
"""A square matrix over the inputs or outputs of a layer, by the blocks on its diagonal: (count, side, side).

THOR keeps these blocks of a large factor and takes the rest for zero (Chen et al., "THOR, Trace-based
Hardware-driven layer-ORiented Natural Gradient Descent", AAAI 2021): time and memory grow with the rows, no
more with their cube and square. What a last block has beyond the matrix is zero.
"""

import math

from mindspore import ops


def blocks_of(size: int, *, most: int, unit: int = 1) -> tuple[int, int]:
    """How many blocks of how many rows, at most `most`, a matrix of `size` rows has; they are alike.

    Args:
        unit: rows that stay together where `most` allows it, as those of a channel under a kernel's window.
    """
    if size <= most:
        return 1, size
    unit = unit if unit <= most else 1
    units = math.ceil(size / unit)
    count = math.ceil(units / (most // unit))
    side = min(size, math.ceil(units / count) * unit)
    return math.ceil(size / side), side


def split(rows, count: int, side: int):
    """(size, columns) -> (count, side, columns), zeros behind the last row."""
    more = count * side - rows.shape[0]
    if more > 0:
        rows = ops.concat((rows, ops.zeros((more, rows.shape[1]), rows.dtype)))
    return rows.reshape(count, side, -1)


def join(parts, size: int):
    """(count, side, columns) -> (size, columns), what `split` had."""
    rows = parts.reshape(parts.shape[0] * parts.shape[1], -1)
    return rows if rows.shape[0] == size else rows[:size]


def multiply(blocks, rows):
    """The matrix of these blocks, (count, side, side), times rows (size, columns)."""
    return join(ops.bmm(blocks, split(rows, blocks.shape[0], blocks.shape[1])), rows.shape[0])
