# SPDX-License-Identifier: Apache-2.0
"""Batches reach the train step alike, one by one and through a card's queue (a stand-in of it here)."""

import mindspore as ms
import numpy as np
import pytest

from src.common.errors import UserError
from src.training.feed import run_steps


class Batches:
    """Batch number n holds n's; targets are one array or several, and mixing may come after them."""

    def __init__(self, *, several):
        self.several = several

    def batches(self, start, stop):
        for n in range(start, stop):
            images = np.full((2, 3, 4, 4), n, np.uint8)
            label, noise = np.full(2, 10 * n, np.int32), np.full((2, 2), n + 0.5, np.float32)
            yield (images, (label, noise)) if self.several else (images, label, noise)


def queue(function, dataset, sink_size):
    """What `mindspore.data_sink` does on a card: each call takes the next row, and rows come round again."""
    assert sink_size == 1

    def rows():
        while True:
            yield from dataset.create_tuple_iterator(num_epochs=1)

    source = rows()
    return lambda: function(*next(source))


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("sink", [False, True])
def test_every_batch_comes_once_in_order_with_its_parts(monkeypatch, sink, several):
    monkeypatch.setattr(ms, "data_sink", queue)
    seen = []

    def step(images, targets, *rest):
        if several:
            assert not rest
            label, noise = targets
        else:
            label, (noise,) = targets, rest
        assert (images.dtype, label.dtype, noise.dtype) == (ms.uint8, ms.int32, ms.float32)
        seen.append([float(value.asnumpy().flat[0]) for value in (images, label, noise)])
        return (len(seen),)

    outputs = list(run_steps(step, Batches(several=several), 3, 7, sink=sink))
    assert seen == [[n, 10 * n, n + 0.5] for n in range(3, 7)]
    assert outputs == [(1,), (2,), (3,), (4,)]


class Damaged(Batches):
    """Batches of which number 5 cannot be made."""

    def batches(self, start, stop):
        for n, batch in enumerate(super().batches(start, stop), start):
            if n == 5:
                raise UserError("image 5.png is damaged")
            yield batch


@pytest.mark.parametrize("sink", [False, True])
def test_an_error_of_the_loader_stays_one_line(monkeypatch, sink):
    """MindSpore's data set, the real one here, makes a RuntimeError with a traceback of it."""
    monkeypatch.setattr(ms, "data_sink", queue)
    steps = run_steps(lambda *_: (), Damaged(several=False), 3, 7, sink=sink)
    with pytest.raises(UserError, match=r"^image 5.png is damaged$"):
        list(steps)


def test_an_error_of_the_step_is_not_laid_to_the_loader(monkeypatch):
    monkeypatch.setattr(ms, "data_sink", queue)

    def step(*_):
        raise RuntimeError("of the device")

    with pytest.raises(RuntimeError, match=r"^of the device$"):
        list(run_steps(step, Batches(several=False), 3, 7, sink=True))


def test_no_step_is_left_to_do():
    assert list(run_steps(None, Batches(several=False), 5, 5, sink=False)) == []
