# SPDX-License-Identifier: Apache-2.0
"""Where a run with other batches, cards or data goes on, and how long it is."""

from types import SimpleNamespace

import numpy as np
import pytest

from src.checkpoint.file import Checkpoint
from src.data.sources import facts_of
from src.training.progress import Course, Progress, check_same_data
from tests.helpers.errors import fails


def course(images, *, batch_size, cards=1, accumulate=1, before=None, epochs=4.0, train_steps=0):
    config = SimpleNamespace(
        batch_size=batch_size, accumulate_steps=accumulate, epochs=epochs, train_steps=train_steps
    )
    return Course.of(config, epoch=images // (batch_size * cards), cards=cards, before=before)


@pytest.mark.parametrize("epochs", [0.5, 1.0, 4.0])
def test_eight_cards_become_one_that_accumulates(epochs):
    """The same images an update, so the same updates (E-B10)."""
    eight = course(5120, batch_size=64, cards=8, epochs=epochs)
    one = course(5120, batch_size=64, accumulate=8, epochs=epochs, before=eight)
    assert one.updates == eight.updates
    for update in range(eight.updates + 1):
        assert one.place_of(update, eight) == 8 * update
        assert eight.place_of(8 * update, one) == update


def test_without_a_change_every_step_stays():
    for images in (5000, 4999, 97):
        same = course(images, batch_size=8, accumulate=3)
        assert all(same.place_of(step, same) == step for step in range(0, same.steps + 1, 3))


def test_another_batch_goes_on_after_as_many_epochs_and_a_finished_run_stays_finished():
    for images in (1000, 1003, 999):
        for size, accumulate in ((10, 1), (7, 2), (50, 3)):
            before = course(images, batch_size=20, accumulate=2)
            after = course(images, batch_size=size, accumulate=accumulate, before=before)
            assert after.place_of(before.steps, before) == after.steps
            assert after.place_of(0, before) == 0
            for step in range(0, before.steps, 2):
                place = after.place_of(step, before)
                assert place % accumulate == 0
                assert abs(place / after.epoch - step / before.epoch) <= accumulate / after.epoch / 2 + 1e-9


def test_a_finished_run_with_more_epochs_goes_on():
    short, long = (course(1000, batch_size=20, epochs=epochs) for epochs in (2.0, 4.0))
    assert long.place_of(short.steps, short) == short.steps < long.steps


def test_a_length_in_updates_keeps_its_images():
    eight = course(5120, batch_size=64, cards=8, train_steps=30)
    assert (eight.steps, eight.updates) == (30, 30)
    one = course(5120, batch_size=64, accumulate=8, train_steps=30, before=eight)
    assert (one.steps, one.updates) == (240, 30)
    small = course(5120, batch_size=64, train_steps=30, before=one)
    assert (small.steps, small.updates) == (240, 240)


def test_batches_that_make_no_update_are_left_out_and_a_run_of_them_alone_is_refused():
    assert course(100, batch_size=10, accumulate=3, epochs=1.0).steps == 9
    assert "accumulate_steps: 50 given, and the run has 10 batches: no update" in fails(
        course, 100, batch_size=10, accumulate=50, epochs=1.0
    )


def test_a_place_counts_images_over_all_courses():
    place = Progress(step=6, images=400).place(course(100, batch_size=10))
    assert place == {"images": 400, "step": 6, "epoch": 0.6}


def test_changed_data_is_refused_with_both_counts_or_said(caplog):
    def facts(train, test):
        splits = {"train": train, "test": test}
        return facts_of({split: SimpleNamespace(labels=labels) for split, labels in splits.items()})

    before, after = facts([0, 0, 1, 1], [0, 1]), facts([0, 1, 1], [0, 1])
    assert (before["train"], before["test"], after["train"]) == (4, 2, 3)
    checkpoint = Checkpoint("last.ckpt", {}, {"data": before})
    config = SimpleNamespace(data_path="data", allow_changed_data=False)
    check_same_data(facts(np.array([0, 0, 1, 1], np.int64), [0, 1]), checkpoint, config)
    said = fails(check_same_data, after, checkpoint, config)
    assert said.startswith("data_path: data has 3 training and 2 held-out images, and had 4 and 2 when")
    assert "--allow_changed_data true" in said
    # As many images of other classes are other data, too.
    assert "4 training" in fails(check_same_data, facts([0, 1, 1, 1], [0, 1]), checkpoint, config)
    config.allow_changed_data = True
    with caplog.at_level("WARNING", logger="quartet"):
        check_same_data(after, checkpoint, config)
    assert "no longer the same run" in caplog.text
