"""Repeated augmentation against the official sampler, its shards, and batches for losses of pairs."""

import numpy as np
import pytest

from src.data.binary import ImageSet
from src.data.loader import TrainBatches
from src.data.order import repeated_order


def identity(count):
    return lambda: np.arange(count)


def batches(count=40, **settings):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 3, 32, 32)).astype(np.uint8)
    labels = (np.arange(count) % 4).astype(np.int32)
    settings = {"batch_size": 6, "seed": 0, "repetitions": 3, "cutout": 0} | settings
    return TrainBatches(ImageSet(images, labels, tuple("abcd")), mean=(0, 0, 0), std=(1, 1, 1), **settings)


def epoch(made, number=0):
    return [made.batch(number, index) for index in range(len(made))]


def test_the_official_sampler():
    """dataset_len=7 batch_size=4 repetitions=3 len_factor=2.0 shuffle=False; its last batch is a part."""
    official = np.load("tests/vectors/multigrain.npz")["ra_batches"]
    order = repeated_order(identity(7), samples=14, repetitions=3)
    assert [order[start : start + 4].tolist() for start in range(0, 14, 4)] == [eval(b) for b in official]


@pytest.mark.parametrize("repetitions", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_repetitions_of_an_image_stay_on_one_rank(size, repetitions):
    shares = [
        repeated_order(identity(100), samples=20, repetitions=repetitions, rank=rank, size=size)
        for rank in range(size)
    ]
    images = [set(share.tolist()) for share in shares]
    assert sum(map(len, images)) == len(set.union(*images)), "no image on two ranks"
    for share in shares:
        assert len(share) == 20
        _, counts = np.unique(share, return_counts=True)
        assert sorted(counts)[1:] == [repetitions] * (len(counts) - 1)
        assert np.count_nonzero(np.diff(share)) == len(counts) - 1, "they come in a row"


def test_a_used_up_set_is_shuffled_again():
    drawn = iter([np.array([2, 0, 1]), np.array([1, 2, 0]), np.array([0, 1, 2])])
    order = repeated_order(lambda: next(drawn), samples=15, repetitions=2)
    assert order.tolist() == [2, 2, 0, 0, 1, 1, 1, 1, 2, 2, 0, 0, 0, 0, 1]


def test_the_ranks_together_see_the_images_of_one_rank_with_their_batches():
    """With a batch size that is a multiple of N."""
    whole = [sorted(b[1][1]) for b in epoch(batches(batch_size=12, instances="card"))]
    parts = [epoch(batches(rank=rank, size=2, instances="card")) for rank in range(2)]
    together = [sorted(np.concatenate([a[1][1], b[1][1]])) for a, b in zip(*parts, strict=True)]
    assert np.array_equal(whole, together)


def test_epoch_length_and_order():
    assert [len(batches(epoch_length=length)) for length in (0.1, 1.0, 2.0, 3.5)] == [1, 6, 13, 23]
    made = batches(instances="card")
    orders = [np.concatenate([b[1][1] for b in epoch(made, number)]) for number in range(2)]
    assert not np.array_equal(*orders)
    again = batches(instances="card")
    assert np.array_equal(again.batch(1, 3)[1][1], orders[1][18:24]), "a pure function of the step"
    assert all(np.unique(order, return_counts=True)[1].tolist() == [3] * 12 for order in orders)


def test_repetitions_are_augmented_differently():
    images, (labels, instances, _) = batches(instances="card").batch(0, 0)
    assert (labels == instances % 4).all() and (instances[:3] == instances[0]).all()
    assert not np.array_equal(images[0], images[1]) and not np.array_equal(images[1], images[2])


def test_noise_is_that_of_all_ranks_or_of_each():
    noise = {
        where: [batches(rank=rank, size=2, instances=where).batch(1, 2)[1][2] for rank in range(2)]
        for where in ("card", "global")
    }
    assert noise["card"][0].shape == (6, 6) and not np.array_equal(*noise["card"])
    assert noise["global"][0].shape == (12, 12) and np.array_equal(*noise["global"])
    assert noise["global"][0].dtype == np.float32
    many = np.concatenate([b[1][2].ravel() for b in epoch(batches(400, instances="card"))])
    assert abs(many.mean() - np.euler_gamma) < 0.1 and abs(many.std() - np.pi / 6**0.5) < 0.1, "Gumbel's"


def test_one_repetition_changes_nothing():
    plain = TrainBatches.batch(batches(repetitions=1), 1, 2)
    targets = batches(repetitions=1, instances="card").batch(1, 2)
    assert np.array_equal(plain[0], targets[0]) and np.array_equal(plain[1], targets[1][0])


def test_mixtures_are_no_instances():
    with pytest.raises(ValueError, match="no instance"):
        batches(instances="card", mixup_alpha=0.2)
