# SPDX-License-Identifier: Apache-2.0
"""Learning curves show the records of a run, whatever is missing in them."""

import numpy as np
import pytest

from src.common.errors import UserError
from src.evaluation.curves import learning_curves
from tests.evaluation.drawn import pixels_of, texts_of

pytestmark = pytest.mark.usefixtures("no_warnings")


def _records(epochs=4, per_epoch=5):
    records = []
    for step in range(1, epochs * per_epoch + 1):
        epoch = step / per_epoch
        records.append(
            {"images": step * 8, "epoch": epoch, "loss": 2.3 / epoch, "lr": 0.1 * epoch, "overflow": False}
        )
        if step % per_epoch == 0:
            records.append(
                {"images": step * 8, "epoch": epoch, "eval_top1": 20 * epoch, "eval_loss": 2 / epoch}
            )
    return records


def _lines(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def test_curves_show_the_records(tmp_path, figures):
    path = tmp_path / "new" / "curves.png"
    learning_curves(_records(), path)
    pixels = pixels_of(path)
    assert pixels.shape == (1080, 960, 3)
    assert (pixels[[0, -1]] == 255).all()
    assert (pixels[:, [0, -1]] == 255).all()
    losses, accuracies, rates = figures[0].axes
    np.testing.assert_allclose(_lines(losses)["training"].get_xdata(), np.arange(1, 21) / 5)
    np.testing.assert_allclose(_lines(losses)["training"].get_ydata(), 2.3 / (np.arange(1, 21) / 5))
    np.testing.assert_allclose(_lines(losses)["evaluation"].get_ydata(), [2, 1, 2 / 3, 0.5])
    np.testing.assert_allclose(
        _lines(accuracies)["evaluation"].get_xydata(), [[e, 20 * e] for e in range(1, 5)]
    )
    np.testing.assert_allclose(_lines(rates)["learning rate"].get_ydata(), 0.1 * np.arange(1, 21) / 5)
    texts = texts_of(figures[0])
    for label in ("loss (nats)", "top-1 (%)", "learning rate", "epoch"):
        assert label in texts
    assert "best top-1 80.00 % at epoch 4 (ringed), last 80.00 % at epoch 4" in texts


def test_the_plain_view_of_the_last_evaluation_is_drawn(tmp_path, figures):
    *records, last = _records()
    views = {"eval_top1": 91.0, "eval_top1_plain": last["eval_top1"]}
    views |= {"eval_loss": 0.1, "eval_loss_plain": last["eval_loss"]}
    for some in ([*records, last], [*records, last | views]):
        learning_curves(some, tmp_path / "curves.png")
    drawn = [
        [_lines(axes)["evaluation"].get_ydata().tolist() for axes in figure.axes[:2]] for figure in figures
    ]
    assert drawn[0] == drawn[1]
    assert any(text.endswith(", with test-time augmentation 91.00 %") for text in texts_of(figures[1]))


def test_curves_never_turn_back_after_a_resume_with_another_batch_size(tmp_path, figures):
    """It may start a little before the epoch that the last record before it has."""
    before = [{"images": 60 * i, "epoch": i * 0.6, "loss": 1.0, "lr": 0.1} for i in (1, 2)]
    after = [{"images": 120 + 50 * i, "epoch": 0.5 + i / 2, "loss": 1.0, "lr": 0.1} for i in (1, 2, 3)]
    learning_curves(before + after, tmp_path / "curves.png")
    losses = figures[0].axes[0]
    epochs = _lines(losses)["training"].get_xdata()
    np.testing.assert_allclose(epochs, np.array([60, 120, 170, 220, 270]) / 135)
    assert losses.get_xlim() == (0, 2)


def test_what_a_monitor_says_has_a_panel_of_its_own(tmp_path, figures):
    records = _records()
    evaluations = [record for record in records if "eval_top1" in record]
    for record, flips in zip(evaluations, [8.0, 2.0, np.nan, 1.0], strict=True):
        record |= {"monitor_bit_flips": flips, "monitor_dead": np.nan}
    learning_curves(records, tmp_path / "curves.png")
    assert pixels_of(tmp_path / "curves.png").shape == (1428, 960, 3)
    *_, accuracies, shares, rates = figures[0].axes
    assert [axes.get_ylabel() for axes in (accuracies, shares, rates)] == [
        "top-1 (%)", "share (%)", "learning rate",
    ]  # fmt: skip
    lines = _lines(shares)
    assert list(lines) == ["bit flips", "dead"]
    np.testing.assert_array_equal(lines["bit flips"].get_xydata(), [[1, 8], [2, 2], [3, np.nan], [4, 1]])
    assert lines["bit flips"].get_color() != lines["dead"].get_color()
    assert shares.get_ylim()[0] == 0 and 8 < shares.get_ylim()[1] < 10
    assert {"bit flips", "dead"} <= set(texts_of(figures[0]))


def test_the_parts_of_a_loss_have_a_panel_of_their_own(tmp_path, figures):
    records = _records()
    for record in records:
        if "loss" in record:
            record |= {"loss_scale": 1024.0, "loss_cross_entropy": record["loss"] + 1, "loss_beta": 1.2}
    records[1]["loss_beta"] = np.nan
    learning_curves(records, tmp_path / "curves.png")
    assert pixels_of(tmp_path / "curves.png").shape == (1428, 960, 3)
    losses, _, parts, _ = figures[0].axes
    assert parts.get_ylabel() == "parts of the loss"
    lines = _lines(parts)
    assert list(lines) == ["cross entropy", "beta"]
    np.testing.assert_allclose(lines["cross entropy"].get_ydata(), _lines(losses)["training"].get_ydata() + 1)
    assert np.isnan(lines["beta"].get_ydata()).tolist() == [False, True] + 18 * [False]


def test_curves_of_other_records_are_another_picture(tmp_path):
    records = _records()
    learning_curves(records, tmp_path / "a.png")
    learning_curves(records, tmp_path / "b.png")
    records[0]["lr"] = 0.3
    learning_curves(records, tmp_path / "c.png")
    first, again, other = (pixels_of(tmp_path / f"{name}.png") for name in "abc")
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_many_training_records_are_smoothed_by_a_moving_median(tmp_path, figures):
    rng = np.random.default_rng(0)
    losses = rng.normal(size=400) + 5
    losses[[7, 8, 9, 300]] = np.nan, np.inf, -np.inf, 400
    losses[100:115] = np.nan
    records = [{"images": i, "epoch": i / 10, "loss": loss, "lr": 0.1} for i, loss in enumerate(losses, 1)]
    learning_curves(records, tmp_path / "curves.png")
    label = "training (median of 9 records; pale: each drawn, 18 not finite)"
    smooth = _lines(figures[0].axes[0])[label].get_ydata()
    for i, value in enumerate(losses):
        near = [x for x in losses[max(0, i - 4) : i + 5] if np.isfinite(x)]
        expected = np.median(near) if np.isfinite(value) else np.nan
        np.testing.assert_allclose(smooth[i], expected, err_msg=str(i))


@pytest.mark.parametrize(
    ("losses", "scale"),
    [([2.0, 0.5], "linear"), ([200.0, 0.5], "log"), ([200.0, 0.0], "linear"), ([-1.0, 1.0], "linear")],
)
def test_a_wide_range_of_losses_is_drawn_on_a_logarithmic_scale(tmp_path, figures, losses, scale):
    records = [{"images": i, "epoch": i, "loss": loss, "lr": 0.1} for i, loss in enumerate(losses)]
    learning_curves(records, tmp_path / "curves.png")
    axes = figures[0].axes[0]
    assert axes.get_yscale() == scale
    low, high = axes.get_ylim()
    assert low <= min(losses)
    assert high >= max(losses)


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([], ["no losses yet", "no evaluation yet", "no learning rates yet"]),
        ([{"images": 1, "epoch": 0.1, "loss": 2.0, "lr": 0.0}], ["no evaluation yet"]),
        ([{"images": 1, "epoch": 0.1, "loss": np.nan, "lr": 0.1}], ["no losses yet", "no evaluation yet"]),
        ([{"images": 0, "epoch": 0, "eval_top1": 10.0, "eval_loss": np.nan}], ["no losses yet"]),
        ([{"images": 0, "epoch": 0, "eval_top1": np.nan, "eval_loss": 1.0}], ["no evaluation yet"]),
        ([{"images": 0, "epoch": 0, "eval_top1": 0.0, "eval_loss": 0.0}], []),
    ],
)
def test_what_is_missing_is_said(tmp_path, figures, records, said):
    learning_curves(records, tmp_path / "curves.png")
    assert pixels_of(tmp_path / "curves.png").shape == (1080, 960, 3)
    sayings = {text for text in texts_of(figures[0]) if text.startswith("no ")}
    assert sayings == set(said) | (
        {"no learning rates yet"} if not any("lr" in r for r in records) else set()
    )


def test_a_picture_that_cannot_be_written_is_an_error_of_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write .*curves\.png") as caught:
        learning_curves([], tmp_path / "file" / "curves.png")
    assert "\n" not in str(caught.value)
