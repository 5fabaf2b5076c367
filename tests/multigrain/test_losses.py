# SPDX-License-Identifier: Apache-2.0
"""Sampling and losses against the official numbers, slow loops in float64, and degenerate batches."""

import functools

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from src.data.order import Order
from src.multigrain.losses import GatherRows, JointLoss, MarginLoss, TripletLoss, hinges
from src.multigrain.sampling import (
    PairTargets,
    choose_negatives,
    log_weights,
    noise_rows,
    squared_distances,
)
from tests.vectors.official import error, read

pytestmark = pytest.mark.usefixtures("graph_mode")
INSTANCES = np.array([4, 4, 4, 9, 9, 9, 2, 2, 7, 4], np.int32)  # one alone; one four times, not in a row
CUTOFFS = (0.5, 1.4)


@pytest.fixture(scope="module")
def official():
    return read("multigrain.npz")


def batch(*, rows=10, dim=5, seed=0):
    rng = np.random.default_rng(seed)
    embeddings = np.abs(rng.normal(size=(rows, dim)))
    return embeddings.astype(np.float32), rng.gumbel(size=(rows, rows)).astype(np.float32)


def unit(rows):
    rows = rows.astype(np.float64)
    return rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-6)


def density(distance, dim):
    distance = np.maximum(distance, CUTOFFS[0])
    return distance ** (dim - 2.0) * np.maximum(1 - distance**2 / 4, 1e-8) ** ((dim - 3) / 2)


def distances(rows):
    return np.linalg.norm(rows[:, None] - rows[None], axis=2)


def shares(embeddings, instances):
    """The probability of each negative, (B, B), by `log_weights`."""
    same = instances[:, None] == instances[None]
    squared = squared_distances(ms.Tensor(embeddings.astype(np.float32)))
    weights, eligible = log_weights(squared, ms.Tensor(same), embeddings.shape[1], *CUTOFFS)
    masked = ops.where(eligible, weights, ops.full_like(weights, -1e30))
    return ops.softmax(masked, axis=1).asnumpy(), eligible.asnumpy()


def test_official_sampling_weights(official):
    found, _ = shares(official.sample_embedding, official.instance)
    assert error(found, official.sample_weights) < 1e-5


def test_sampling_weights_are_one_over_the_density():
    rows = unit(batch()[0])
    found, eligible = shares(rows, INSTANCES)
    distance, other = distances(rows), INSTANCES[:, None] != INSTANCES[None]
    near = other & (distance < CUTOFFS[1])
    assert (eligible == near).all() and near.any(axis=1).all()
    expected = near / density(distance, 5)
    assert error(found, expected / expected.sum(axis=1, keepdims=True)) < 1e-5


def test_where_all_negatives_are_far_they_weigh_the_same():
    rows = np.repeat(np.eye(5), 2, axis=0)  # sqrt(2) apart
    found, _ = shares(rows, np.repeat(np.arange(5), 2))
    np.testing.assert_allclose(found, np.kron(1 - np.eye(5), np.ones((2, 2))) / 8, atol=1e-7)


def test_in_2048_dimensions_nothing_overflows():
    rows = np.random.default_rng(0).normal(size=(12, 2048))
    rows[1] = -rows[0]  # as far apart as can be
    found, _ = shares(unit(rows), np.arange(12) // 3)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)


def chosen_for(instances, eligible, weights, noise):
    positives = (instances[:, None] == instances[None]) & ~np.eye(len(instances), dtype=bool)
    tensors = (weights.astype(np.float32), eligible, positives, noise.astype(np.float32))
    return choose_negatives(*map(ms.Tensor, tensors)).asnumpy(), positives


def test_negatives_are_drawn_by_their_weights_without_replacement():
    """In 50 blocks of six images each, whose negatives are of their own block."""
    rng, blocks, block = np.random.default_rng(0), 50, np.array([0, 0, 0, 1, 2, 3])
    instances = (block + 4 * np.arange(blocks)[:, None]).ravel()
    eligible = np.kron(np.eye(blocks, dtype=bool), block[:, None] != block[None])
    weights = np.tile(np.log([1, 1, 1, 6, 3, 1.0]), (6 * blocks, blocks))
    firsts = np.zeros(6)
    for _ in range(30):
        chosen, positives = chosen_for(instances, eligible, weights, rng.gumbel(size=eligible.shape))
        for anchor in np.flatnonzero(positives.any(1)):
            negatives = chosen[anchor][positives[anchor]] - anchor // 6 * 6
            assert len(set(negatives)) == 2 and set(negatives) <= {3, 4, 5}
            firsts[negatives[0]] += 1
    np.testing.assert_allclose(firsts / firsts.sum(), [0, 0, 0, 0.6, 0.3, 0.1], atol=0.02)


def test_fewer_negatives_than_positives_take_turns():
    instances = np.array([0, 0, 0, 0, 1, 2])
    other = instances[:, None] != instances[None]
    chosen, positives = chosen_for(instances, other, np.zeros((6, 6)), np.tile(np.arange(6.0), (6, 1)))
    assert chosen[0][positives[0]].tolist() == [5, 4, 5]


def pair_targets(where, rank=0, *, rows=6, size=2, at=(1, 2)):
    order = Order(400, batch_size=rows, seed=0, rank=rank, size=size, repetitions=3)
    return PairTargets(where == "global")(order.step(*at)), order.step(*at).images


def test_noise_is_that_of_all_ranks_or_of_each():
    for where, rows in (("global", 12), ("card", 6)):
        (instances, *noise), images = pair_targets(where)
        assert instances.dtype == noise[1].dtype == np.int32 and noise[0].dtype == np.float32
        np.testing.assert_array_equal(instances, images)
        matrix = noise_rows(*map(ms.Tensor, noise)).asnumpy()
        assert matrix.shape == (rows, rows)
        expected = [noise[0][start : start + rows] for start in noise[1]]
        np.testing.assert_array_equal(matrix, expected)
        for other in (pair_targets(where)[0], pair_targets("global", 1)[0]):
            assert all(map(np.array_equal, noise, other[1:])) or where == "card"
        assert not np.array_equal(noise[0], pair_targets(where, at=(1, 3))[0][1])
    assert not np.array_equal(pair_targets("card")[0][1], pair_targets("card", 1)[0][1])
    assert all(map(np.array_equal, pair_targets("card")[0], pair_targets("card")[0]))


def test_noise_takes_numbers_by_the_row_and_they_are_gumbels():
    """Old behaviour: a number for each pair of rows, 16.8 million for 4,096 rows."""
    (_, numbers, starts), _ = pair_targets("global", rows=4096, size=1, at=(0, 0))
    assert numbers.size == 4 * 4096 and starts.size == 4096
    assert starts.min() >= 0 and starts.max() + 4096 <= numbers.size
    assert len(np.unique(starts)) > 3000 and len(np.unique(numbers)) > 16000
    assert abs(numbers.mean() - np.euler_gamma) < 0.05 and abs(numbers.std() - np.pi / 6**0.5) < 0.05


def test_official_margin_loss_and_gradients(official):
    anchor, positive, negative = (getattr(official, n) for n in ("anchor", "positive", "negative"))
    ones = ms.Tensor(np.ones(len(anchor), np.float32))
    pairs = [tuple(map(ms.Tensor, (anchor, other))) for other in (positive, negative)]

    def forward(embeddings, beta):
        distance = ops.sqrt(squared_distances(embeddings) + 1e-8)
        return hinges(distance[pairs[0]], distance[pairs[1]], beta, float(official.margin), ones)

    given = ms.Tensor(official.sample_embedding.astype(np.float32)), ms.Tensor(np.float32(official.beta))
    loss, gradients = ms.value_and_grad(forward, (0, 1))(*given)
    assert loss.asnumpy() == pytest.approx(official.margin_loss, rel=1e-6)
    assert error(gradients[0].asnumpy(), official.margin_grad) < 1e-5
    assert gradients[1].asnumpy() == pytest.approx(official.beta_grad, rel=1e-6)


def margin_loss_by_loops(embeddings, instances, noise, *, margin=0.2, beta=1.2):
    rows, count = unit(embeddings), len(instances)
    distance, total, active = distances(rows), 0.0, 0
    for a in range(count):
        others = [n for n in range(count) if instances[n] != instances[a]]
        near = [n for n in others if distance[a, n] < CUTOFFS[1]]
        score = {n: noise[a, n] - (np.log(density(distance[a, n], rows.shape[1])) if near else 0)
                 for n in near or others}  # fmt: skip
        order = sorted(score, key=score.get, reverse=True)
        positives = [p for p in range(count) if p != a and instances[p] == instances[a]]
        for turn, p in enumerate(positives if order else []):
            d_ap, d_an = (np.sqrt(distance[a, b] ** 2 + 1e-8) for b in (p, order[turn % len(order)]))
            pull, push = max(0, d_ap - beta + margin), max(0, beta - d_an + margin)
            total, active = total + pull + push, active + (pull > 0 or push > 0)
    return total / max(active, 1)


def triplet_loss_by_loops(embeddings, instances, noise, *, margin=0.1):
    squared, losses = distances(unit(embeddings)) ** 2, []
    for a, p in np.argwhere((instances[:, None] == instances[None]) & ~np.eye(len(instances), dtype=bool)):
        others = squared[a][instances != instances[a]]
        if len(others):
            losses.append(max(0, squared[a, p] - others.min() + margin))
    return np.mean(losses) if losses else 0.0


METRICS = {MarginLoss: margin_loss_by_loops, TripletLoss: triplet_loss_by_loops}


@functools.cache  # what is compiled once serves all batches of a shape
def gradients(metric, **given):
    """(embeddings, instances, noise) -> the loss, its gradient by embeddings, and those by weights."""
    cell = metric(**given)
    weights = ms.ParameterTuple(cell.trainable_params())
    forward = ms.value_and_grad(cell, 0, weights=weights if len(weights) else None)

    def call(*tensors):
        loss, found = forward(*tensors)
        return (loss, *found) if len(weights) else (loss, found, ())

    return call


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("seed", range(4))
def test_losses_and_gradients_against_loops(metric, seed):
    embeddings, noise = batch(seed=seed)
    given = {"beta": 0.5, "margin": 0.15} if metric is MarginLoss else {"margin": 0.3}
    oracle, tensors = METRICS[metric], (ms.Tensor(INSTANCES), ms.Tensor(noise))
    loss, gradient, _ = gradients(metric, **given)(ms.Tensor(embeddings), *tensors)
    assert loss.asnumpy() == pytest.approx(oracle(embeddings, INSTANCES, noise, **given), rel=1e-5)
    assert loss.asnumpy() > 0
    numeric = np.zeros(embeddings.shape)
    for at in np.ndindex(embeddings.shape):
        for sign in (1, -1):
            moved = embeddings.astype(np.float64)
            moved[at] += sign * 1e-6
            numeric[at] += sign * oracle(moved, INSTANCES, noise, **given) / 2e-6
    assert error(gradient.asnumpy(), numeric) < 1e-3


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(
    "case",
    [
        "no pair", "one instance", "identical", "zeros", "one row of zeros", "one tiny row", "two rows",
        "one row", "opposite", "huge",
    ],
)  # fmt: skip
def test_degenerate_batches_are_finite(metric, dtype, case):
    rows = {"two rows": 2, "one row": 1}.get(case, 6)
    embeddings, noise = batch(rows=rows)
    instances = np.arange(rows) // 2
    if case == "no pair":
        instances = np.arange(rows)
    elif case in ("one instance", "two rows"):
        instances = np.zeros(rows)
    elif case == "identical":
        embeddings[:] = embeddings[0]
    elif case == "zeros":
        embeddings[:] = 0
    elif case == "one row of zeros":
        embeddings[0] = 0
    elif case == "one tiny row":
        embeddings[0] *= 1e-6
    elif case == "opposite":
        embeddings[::2] = -embeddings[1::2]
    elif case == "huge":
        embeddings *= 10_000
    tensors = ms.Tensor(instances.astype(np.int32)), ms.Tensor(noise)
    loss, gradient, weights = gradients(metric)(ms.Tensor(embeddings.astype(dtype)), *tensors)
    assert loss.dtype == ms.float32 and np.isfinite(loss.asnumpy())
    assert np.isfinite(gradient.asnumpy()).all()
    assert len(weights) == (metric is MarginLoss) and all(np.isfinite(w.asnumpy()) for w in weights)
    if case in ("no pair", "one instance", "two rows", "one row"):
        assert loss.asnumpy() == 0 and not gradient.asnumpy().any()


class Forbidden(nn.Cell):
    """Stands for what must not be computed."""

    def construct(self, *inputs):
        raise RuntimeError("a loss with the weight 0 was computed")


def test_the_joint_loss():
    embeddings, noise = batch()
    logits = np.random.default_rng(3).normal(size=(len(INSTANCES), 4)).astype(np.float32)
    classes = np.eye(4, dtype=np.float32)[INSTANCES % 4]
    outputs = tuple(map(ms.Tensor, (embeddings, logits)))
    starts = np.arange(len(noise), dtype=np.int32) * len(noise)  # of the rows of a matrix
    targets = tuple(map(ms.Tensor, (classes, INSTANCES, noise.ravel(), starts)))
    log_softmax = logits - np.log(np.exp(logits.astype(np.float64)).sum(axis=1, keepdims=True))
    parts = -(classes * log_softmax).sum(axis=1).mean(), margin_loss_by_loops(embeddings, INSTANCES, noise)
    for weight in (0.0, 0.3, 0.5):
        joint = JointLoss(weight=weight, metric=MarginLoss())
        if weight == 0:
            joint.classification = Forbidden()
        loss, *found = (float(value.asnumpy()) for value in joint(outputs, targets))
        assert loss == pytest.approx(weight * parts[0] + (1 - weight) * parts[1], rel=1e-5)
        expected = {"cross_entropy": parts[0], "margin": parts[1], "beta": 1.2}
        if weight == 0:
            del expected["cross_entropy"]
        assert dict(zip(joint.parts, found, strict=True)) == pytest.approx(expected, rel=1e-5)
    joint = JointLoss(weight=0.5, metric=TripletLoss())
    triplet = triplet_loss_by_loops(embeddings, INSTANCES, noise)
    loss, *found = (float(value.asnumpy()) for value in joint(outputs, targets))
    assert joint.parts == ("cross_entropy", "triplet")
    assert (loss, found) == (pytest.approx((parts[0] + triplet) / 2), pytest.approx([parts[0], triplet]))
    joint = JointLoss(weight=0.1, metric=MarginLoss())
    joint.classification = Forbidden()
    with pytest.raises(RuntimeError, match="weight 0"):
        joint(outputs, targets)


@pytest.mark.parametrize("rank", [0, 30, 62])
def test_gathered_rows_are_the_same_bits_on_every_card(graph_mode, monkeypatch, rank):
    """This card's own rows too, though they carry its gradient, 63 times as large for the mean over cards."""
    cards = 63
    monkeypatch.setattr("src.multigrain.losses.ops.AllGather", lambda: Repeat(cards))
    gather = GatherRows(rank=rank, cards=cards)
    rows = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    instances = ms.Tensor(np.arange(40, dtype=np.int32))

    def total(rows):
        gathered, _ = gather(rows, instances)
        return gathered.sum(), gathered

    (_, gathered), gradient = ms.value_and_grad(total, 0, has_aux=True)(ms.Tensor(rows))
    np.testing.assert_array_equal(gathered.asnumpy(), np.tile(rows, (cards, 1)))
    np.testing.assert_array_equal(gradient.asnumpy(), np.full(rows.shape, cards))


class Repeat(nn.Cell):
    """Stands for the gathering of cards that all have the same rows."""

    def __init__(self, cards):
        super().__init__()
        self.cards = cards

    def construct(self, x):
        return ops.concat([x] * self.cards)
