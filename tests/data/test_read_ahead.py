# SPDX-License-Identifier: Apache-2.0
"""Reading ahead: order, equal shapes, damage, items taken as they are needed, threads that end."""

import threading

import numpy as np
import pytest

from src.data.decode import UnreadableImage
from src.data.read_ahead import in_parts, pictures_ahead, read_ahead
from tests.helpers.batches import pool_threads
from tests.helpers.pictures import Pictures, noise

SHAPES = [(4, 2), (4, 2), (2, 4), (4, 4), (4, 4), (4, 4), (1, 4), (4, 2)]


def drawn():
    return Pictures([noise(*shape, seed) for seed, shape in enumerate(SHAPES)])


def test_neighbours_of_equal_shape_come_together_in_order():
    source = drawn()
    made = list(pictures_ahead(range(8), source.read, batch_size=2, workers=3))
    assert [items for items, _ in made] == [[0, 1], [2], [3, 4], [5], [6], [7]]
    for items, images in made:
        assert images.flags.c_contiguous
        np.testing.assert_array_equal(images, np.stack([source.pictures[item] for item in items]))
    assert [len(items) for items, _ in pictures_ahead(range(8), source.read, batch_size=5)] == [2, 1, 3, 1, 1]
    assert list(pictures_ahead([], source.read, batch_size=4)) == [] and pool_threads() == []


def test_a_damaged_picture_is_an_error_or_is_skipped_in_its_place():
    source, skipped = drawn(), []
    source.damaged = {1, 4}
    with pytest.raises(UnreadableImage, match=r"^picture 1: damaged"):
        list(pictures_ahead(range(8), source.read, batch_size=3))

    def skip(item, error):
        skipped.append((item, error.reason))

    made = pictures_ahead(range(8), source.read, batch_size=3, skip=skip)
    assert [items for items, _ in made] == [[0], [2], [3, 5], [6], [7]]
    assert skipped == [(1, "damaged"), (4, "damaged")] and pool_threads() == []


def test_a_full_batch_comes_before_the_error_of_the_next_picture():
    source = drawn()
    source.damaged = {2}
    made = pictures_ahead(range(8), source.read, batch_size=2)
    assert next(made)[0] == [0, 1]
    with pytest.raises(UnreadableImage):
        next(made)
    assert pool_threads() == []


def test_items_are_taken_as_they_are_needed():
    taken = []

    def endless():
        while True:
            taken.append(len(taken))
            yield len(taken)

    made = pictures_ahead(endless(), lambda item: noise(8, 8), batch_size=4)
    for _ in range(5):
        next(made)
    assert len(taken) <= (5 + 1) * 4
    made.close()
    assert pool_threads() == []


def test_the_next_step_and_no_more_is_begun_meanwhile():
    begun = []

    def begin(pool, step):
        begun.append(step)
        return pool.submit(lambda: step * step).result

    steps = read_ahead(begin, range(100), workers=2)
    assert begun == [] and pool_threads() == []
    assert (next(steps), begun) == (0, [0, 1])
    assert (next(steps), begun) == (1, [0, 1, 2])
    steps.close()
    assert pool_threads() == []


def test_several_workers_work_at_once_and_on_every_row_once():
    together, seen = threading.Barrier(3), []

    def work(rows):
        together.wait(timeout=10)
        seen.extend(rows.tolist())

    (done,) = read_ahead(lambda pool, _: in_parts(pool, work, 12, workers=3), [0], workers=3)
    assert done is None and sorted(seen) == list(range(12))


@pytest.mark.parametrize(("count", "workers", "least", "parts"), [
    (100, 2, 1, 8), (5, 2, 1, 5), (512, 1, 128, 4), (200, 8, 128, 1), (3, 8, 128, 1),
])  # fmt: skip
def test_a_batch_has_a_few_parts_for_each_worker(count, workers, least, parts):
    sizes = []
    list(
        read_ahead(
            lambda pool, _: in_parts(
                pool, lambda rows: sizes.append(len(rows)), count, workers=workers, least=least
            ),
            [0],
            workers=workers,
        )
    )
    assert len(sizes) == parts and sum(sizes) == count and max(sizes) - min(sizes) <= 1


def test_workers_follow_the_usable_cores(monkeypatch):
    for cores, workers in ((1, 1), (3, 3), (200, 8)):
        monkeypatch.setattr("src.model_utils.cpu.usable_cores", lambda cores=cores: cores)
        (size,) = read_ahead(lambda pool, _: lambda: pool._max_workers, [0])
        assert size == workers
