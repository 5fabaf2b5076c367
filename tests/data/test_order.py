# SPDX-License-Identifier: Apache-2.0
"""Who is in a batch: every image once, the ranks' shares, small sets, and repeated augmentation."""

import numpy as np
import pytest

from src.common.errors import UserError
from src.data.order import Order, Stream, repeated_order


def order(count=12, **settings):
    return Order(count, **{"batch_size": 4, "seed": 5, **settings})


def epoch(made, number=0):
    """(batches, rows)"""
    return np.stack([made.step(number, index).images for index in range(len(made))])


def test_an_epoch_has_every_image_once_in_an_order_of_its_own():
    orders = [epoch(order(), number).ravel().tolist() for number in range(4)]
    assert all(sorted(one) == list(range(12)) for one in orders)
    assert len(set(map(tuple, orders))) == 4
    assert not np.array_equal(epoch(order(seed=6)), epoch(order()))
    assert len(order(15)) == 3


@pytest.mark.parametrize("repetitions", [1, 3])
@pytest.mark.parametrize("size", [2, 3])
def test_ranks_share_the_global_batch_of_one_rank(size, repetitions):
    """Old behaviour: with repetitions, which images a step has depended on the number of ranks."""
    how = {"repetitions": repetitions, "epoch_length": 2.0}
    whole = order(40, batch_size=4 * size, **how)
    parts = [order(40, rank=rank, size=size, **how) for rank in range(size)]
    assert all(len(part) == len(whole) == 80 // (4 * size) for part in parts)
    for number in range(2):
        joined = np.concatenate([epoch(part, number) for part in parts], axis=1)
        np.testing.assert_array_equal(joined, epoch(whole, number))


def test_ranks_share_what_is_drawn_for_one_rank():
    def drawn(made):
        step = made.step(1, 2)
        rows = [step.row_rng(3, row).random() for row in range(made.batch_size)]
        shares = step.draw(3, lambda rng, count, low: low + rng.random((2, count)), 10)
        return np.concatenate([[rows], shares]), step.rng(3).random()

    whole, of_all = drawn(order(batch_size=4))
    parts, of_each = zip(*(drawn(order(batch_size=2, rank=rank, size=2)) for rank in range(2)))
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
    assert whole[1:].min() >= 10 and set(of_each) == {of_all} and len(np.unique(whole)) == 12


@pytest.mark.parametrize(("count", "batch_size", "size"), [(12, 13, 1), (5, 8, 2), (1, 3, 1), (4, 4, 3)])
def test_a_small_set_fills_one_batch_an_epoch_evenly(count, batch_size, size, caplog):
    with caplog.at_level("WARNING", logger="quartet"):
        parts = [order(count, batch_size=batch_size, rank=rank, size=size) for rank in range(size)]
    assert [f"{count} images" in line for line in caplog.messages] == [True] * size
    assert all(len(part) == 1 for part in parts)
    orders, total = set(), batch_size * size
    for number in range(6):
        one = np.concatenate([part.step(number, 0).images for part in parts]).tolist()
        assert set(np.bincount(one, minlength=count)) <= {total // count, -(-total // count)}
        for start in range(0, total, count):  # each round is a permutation, the last one a part of it
            shown = one[start : start + count]
            assert len(set(shown)) == len(shown)
        orders.add(tuple(one))
    assert len(orders) > 1 or count == 1


def test_a_full_batch_is_not_announced_and_what_is_not_there_is_refused(caplog):
    assert len(order(batch_size=12)) == 1 and not caplog.messages
    with pytest.raises(UserError, match="no images"):
        order(0)
    with pytest.raises(IndexError):
        order().step(0, 3)


def test_the_official_sampler():
    """dataset_len=7 batch_size=4 repetitions=3 len_factor=2.0 shuffle=False; its last batch is a part."""
    official = np.load("tests/vectors/multigrain.npz")["ra_batches"]
    samples = repeated_order(lambda: np.arange(7), 14, 3)
    assert [samples[start : start + 4].tolist() for start in range(0, 14, 4)] == [eval(b) for b in official]


@pytest.mark.parametrize("repetitions", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_repetitions_of_an_image_stay_on_one_rank(size, repetitions):
    """With a batch size that is a multiple of N."""
    how = {"batch_size": 2 * repetitions, "repetitions": repetitions, "size": size}
    shares = [epoch(order(100, rank=rank, **how)).ravel() for rank in range(size)]
    images = [set(share.tolist()) for share in shares]
    assert sum(map(len, images)) == len(set.union(*images)), "no image on two ranks"
    for share in shares:
        _, counts = np.unique(share, return_counts=True)
        assert set(counts) == {repetitions}
        assert np.count_nonzero(np.diff(share)) == len(counts) - 1, "they come in a row"


def test_a_used_up_set_is_shuffled_again():
    drawn = iter([np.array([2, 0, 1]), np.array([1, 2, 0]), np.array([0, 1, 2])])
    samples = repeated_order(lambda: next(drawn), 15, 2)
    assert samples.tolist() == [2, 2, 0, 0, 1, 1, 1, 1, 2, 2, 0, 0, 0, 0, 1]


def test_the_length_of_an_epoch():
    assert [len(order(40, batch_size=6, epoch_length=length)) for length in (0.1, 1.0, 2.0, 3.5)] == [
        1, 6, 13, 23,
    ]  # fmt: skip


def test_the_batches_of_the_recipes_for_cifar10():
    """DAWNBench 512 and 768; airbench94 1,024, Hiverge 1,536, airbench94_muon 2,000. The rest is dropped."""
    steps = {512: 97, 768: 65, 1024: 48, 1536: 32, 2000: 25}
    for batch_size, expected in steps.items():
        made = Order(50_000, batch_size=batch_size, seed=0)
        assert len(made) == expected
        images = np.concatenate([made.step(1, index).images for index in range(expected)])
        assert len(np.unique(images)) == expected * batch_size


def test_no_two_purposes_draw_the_same_numbers():
    assert len(Stream) == len(Stream.__members__)  # of two names for one number, one would be an alias
