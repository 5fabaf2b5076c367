# SPDX-License-Identifier: Apache-2.0
"""Gradients of all cards averaged by few, large messages."""

import math
from collections.abc import Sequence

from mindspore import nn, ops


class AverageOverCards(nn.Cell):
    """Tensors -> their means over all cards, exchanged in buckets; of one card, the tensors as they are.

    A bucket is flattened tensors in a row, so that a network of hundreds of small ones needs a handful of
    messages. Buckets are filled from the last tensor to the first: in the order in which the backward pass
    has gradients ready, so that a device which overlaps the two can send the first bucket while it computes
    the rest (Li et al., "PyTorch Distributed", arXiv 2006.15704). A tensor larger than a bucket has its own.

    Args:
        shapes: of the float32 tensors, in the order in which they are given.
        bucket_bytes: most bytes of a bucket.
        cards: number of cards.

    Attributes:
        bucket_sizes: bytes of each bucket, in the order of sending; none with one card.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], *, bucket_bytes: int, cards: int):
        super().__init__(auto_prefix=False)
        self.cards = cards
        self.map = ops.HyperMap()
        self.split = ops.auto_generate.SplitWithSize()
        self.reduce = ops.AllReduce(ops.ReduceOp.SUM) if cards > 1 else None
        sizes = [math.prod(shape) for shape in shapes]
        self.buckets = plan_buckets(sizes, bucket_bytes // 4) if cards > 1 else ()
        self.lengths = tuple(tuple(sizes[i] for i in reversed(bucket)) for bucket in self.buckets)
        self.bucket_sizes = tuple(4 * sum(lengths) for lengths in self.lengths)

    def construct(self, tensors):
        if self.reduce is None:
            return tensors
        means = ()
        for bucket, lengths in zip(self.buckets, self.lengths):
            means = self._mean(tensors[bucket[-1] : bucket[0] + 1], lengths) + means
        return means

    def _mean(self, tensors, lengths):
        flat = self.reduce(ops.concat(self.map(_flat, tensors))) / self.cards
        return self.map(_like, self.split(flat, lengths, 0), tensors)


def _flat(tensor):
    return tensor.reshape(-1)


def _like(part, tensor):
    return part.reshape(tensor.shape)


def plan_buckets(sizes: Sequence[int], most: int) -> tuple[tuple[int, ...], ...]:
    """Which tensors each bucket of at most `most` numbers has, from the last tensor to the first."""
    buckets: list[list[int]] = []
    room = 0
    for i in reversed(range(len(sizes))):
        if sizes[i] > room or not buckets:
            buckets.append([])
            room = most
        buckets[-1].append(i)
        room -= sizes[i]
    return tuple(map(tuple, buckets))
