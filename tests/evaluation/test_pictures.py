"""The pictures are PNG files of the right size that show what they were given."""

import copy
import subprocess
import sys
import warnings

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from src.common.errors import UserError
from src.evaluation import pictures
from src.evaluation.evaluate import Mistake
from src.evaluation.pictures import confusion_matrix, learning_curves, worst_mistakes


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def figures(monkeypatch):
    """The figures drawn, as objects, besides their files."""
    drawn = []
    save = pictures._save

    def keep(figure, path):
        drawn.append(figure)
        save(figure, path)

    monkeypatch.setattr(pictures, "_save", keep)
    return drawn


def _pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        image.load()
        return np.asarray(image.convert("RGB")).astype(int)


def _texts(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_visible() and text.get_text()]


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


def _mistake(image, *, label=0, prediction=1, probability=0.998):
    return Mistake(
        index=0, image=image, label=label, prediction=prediction, probability=probability, loss=6.0
    )


def _lines(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def test_curves_show_the_records(tmp_path, figures):
    path = tmp_path / "new" / "curves.png"
    learning_curves(_records(), path)
    pixels = _pixels(path)
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
    texts = _texts(figures[0])
    for label in ("loss (nats)", "top-1 (%)", "learning rate", "epoch"):
        assert label in texts
    assert "best top-1 80.00 % at epoch 4 (ringed), last 80.00 % at epoch 4" in texts


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
    assert _pixels(tmp_path / "curves.png").shape == (1428, 960, 3)
    *_, accuracies, shares, rates = figures[0].axes
    assert [axes.get_ylabel() for axes in (accuracies, shares, rates)] == [
        "top-1 (%)", "share (%)", "learning rate",
    ]  # fmt: skip
    lines = _lines(shares)
    assert list(lines) == ["bit flips", "dead"]
    np.testing.assert_array_equal(lines["bit flips"].get_xydata(), [[1, 8], [2, 2], [3, np.nan], [4, 1]])
    assert lines["bit flips"].get_color() != lines["dead"].get_color()
    assert shares.get_ylim()[0] == 0 and 8 < shares.get_ylim()[1] < 10
    assert {"bit flips", "dead"} <= set(_texts(figures[0]))


def test_the_parts_of_a_loss_have_a_panel_of_their_own(tmp_path, figures):
    records = _records()
    for record in records:
        if "loss" in record:
            record |= {"loss_scale": 1024.0, "loss_cross_entropy": record["loss"] + 1, "loss_beta": 1.2}
    records[1]["loss_beta"] = np.nan
    learning_curves(records, tmp_path / "curves.png")
    assert _pixels(tmp_path / "curves.png").shape == (1428, 960, 3)
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
    first, again, other = (_pixels(tmp_path / f"{name}.png") for name in "abc")
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_many_training_records_are_smoothed_by_a_moving_median(tmp_path, figures):
    rng = np.random.default_rng(0)
    losses = rng.normal(size=400) + 5
    losses[[7, 8, 9, 300]] = np.nan, np.inf, -np.inf, 400
    losses[100:115] = np.nan
    records = [{"images": i, "epoch": i / 10, "loss": loss, "lr": 0.1} for i, loss in enumerate(losses, 1)]
    learning_curves(records, tmp_path / "curves.png")
    label = "training (median of 9 records; pale: each, 18 not finite)"
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
    assert _pixels(tmp_path / "curves.png").shape == (1080, 960, 3)
    sayings = {text for text in _texts(figures[0]) if text.startswith("no ")}
    assert sayings == set(said) | (
        {"no learning rates yet"} if not any("lr" in r for r in records) else set()
    )


def test_confusion_says_accuracy_and_counts(tmp_path, figures):
    confusion_matrix(
        [[8, 2, 0], [1, 1234, 0], [0, 3, 5]], ["cat", "dog", "$x_{1$"], tmp_path / "confusion.png"
    )
    texts = _texts(figures[0])
    assert "accuracy 99.52 %: 1,247 of 1,253 images" in texts
    assert {"8", "2", "1", "1,234", "3", "5", "cat", "dog", "$x_{1$"} <= set(texts)
    assert texts.count("cat") == 2
    assert {"true class", "predicted class", "share of the true class"} <= set(texts)
    height, width, _ = _pixels(tmp_path / "confusion.png").shape
    assert 500 < height < 1000
    assert 500 < width < 1000


def test_confusion_colours_are_shares_of_the_true_class(tmp_path):
    rng = np.random.default_rng(0)
    names = [f"class {k}" for k in range(25)]
    confusion = rng.integers(0, 9, size=(25, 25)) + 20 * np.eye(25, dtype=int)
    confusion_matrix(confusion, names, tmp_path / "a.png")
    confusion_matrix(confusion * np.arange(1, 26)[:, None], names, tmp_path / "b.png")
    confusion_matrix(confusion.T, names, tmp_path / "c.png")
    below_the_title = np.s_[100:]
    first, scaled, other = (_pixels(tmp_path / f"{name}.png")[below_the_title] for name in "abc")
    np.testing.assert_array_equal(first, scaled)
    assert (first != other).any()


def test_confusion_rows_are_true_classes(tmp_path):
    confusion_matrix([[0, 9], [0, 9]], ["a", "b"], tmp_path / "confusion.png")
    pixels = _pixels(tmp_path / "confusion.png")
    dark = (pixels.sum(axis=2) < 250) & (pixels[..., 2] > 80)
    columns = dark.sum(axis=0)
    tall = np.flatnonzero(columns > 0.9 * columns.max())
    assert tall.min() > pixels.shape[1] * 0.4


@pytest.mark.parametrize(("classes", "named", "counted"), [(1, 1, True), (20, 20, True), (21, 21, False)])
def test_up_to_twenty_classes_have_their_counts_written(tmp_path, figures, classes, named, counted):
    confusion_matrix(777 * np.eye(classes, dtype=int), ["x"] * classes, tmp_path / "confusion.png")
    texts = _texts(figures[0])
    assert texts.count("777") == (classes if counted else 0)
    assert texts.count("x") == 2 * named


@pytest.mark.parametrize("classes", [100, 200])
def test_many_classes_fit_on_the_page(tmp_path, figures, classes):
    names = [f"n{k:08d} a name far too long for an axis" for k in range(classes)]
    confusion_matrix(np.eye(classes, dtype=int), names, tmp_path / "confusion.png")
    height, width, _ = _pixels(tmp_path / "confusion.png").shape
    assert 1000 < height < 1600
    assert 1000 < width < 1600
    labels = [text for text in _texts(figures[0]) if text.startswith("n0")]
    assert len(labels) == 2 * classes // 5
    assert all(len(label) <= 20 for label in labels)
    figure = figures[0]
    for text in figure.findobj(Text):
        if text.get_text().startswith("n0"):
            box = text.get_window_extent()
            assert box.x0 >= 0
            assert box.y0 >= 0


def test_confusion_without_images(tmp_path, figures):
    confusion_matrix(np.zeros((3, 3), dtype=int), ["a", "b", "c"], tmp_path / "none.png")
    assert "no evaluation yet" in _texts(figures[0])
    confusion_matrix([[1, 0, 0], [0, 0, 0], [0, 0, 1]], ["a", "b", "c"], tmp_path / "some.png")
    assert "accuracy 100.00 %: 2 of 2 images; grey rows: no images" in _texts(figures[1])


@pytest.mark.parametrize("confusion", [np.zeros((2, 3)), np.zeros((3, 3)), np.zeros(2)])
def test_confusion_must_fit_the_names(tmp_path, confusion):
    with pytest.raises(ValueError, match="2 class names"):
        confusion_matrix(confusion, ["a", "b"], tmp_path / "confusion.png")
    assert not list(tmp_path.iterdir())


def test_mistakes_show_the_pixels_as_they_were(tmp_path):
    mean, std = (125.31, 122.95, 113.87), (62.99, 62.09, 66.70)
    colours = np.array([[[10, 200, 30], [250, 3, 99]], [[77, 88, 199], [5, 66, 7]]])
    image = ((colours - mean) / std).astype(np.float32).transpose(2, 0, 1)
    worst_mistakes([_mistake(image)], ["cat", "dog"], mean, std, tmp_path / "worst.png")
    pixels = _pixels(tmp_path / "worst.png")
    corners = {}
    for row, column in np.ndindex(2, 2):
        at = np.argwhere((pixels == colours[row, column]).all(axis=2))
        assert len(at) == 112 * 112
        corners[row, column] = at.min(axis=0)
        np.testing.assert_array_equal(np.ptp(at, axis=0), [111, 111])
    np.testing.assert_array_equal(corners[1, 1] - corners[0, 0], [112, 112])
    np.testing.assert_array_equal(corners[0, 1] - corners[0, 0], [0, 112])


def test_mistakes_beyond_the_range_are_clipped(tmp_path):
    image = np.stack([np.full((2, 2), value, dtype=np.float32) for value in (99.0, -99.0, 0.0)])
    worst_mistakes([_mistake(image)], ["cat", "dog"], (100, 100, 100), (50, 50, 50), tmp_path / "worst.png")
    assert ((_pixels(tmp_path / "worst.png") == (255, 0, 100)).all(axis=2)).sum() == 224 * 224


def test_grey_images(tmp_path):
    image = np.array([[[0.0, 1.0], [2.0, 3.0]]], dtype=np.float32)
    worst_mistakes([_mistake(image)], ["cat", "dog"], [40], [50], tmp_path / "worst.png")
    pixels = _pixels(tmp_path / "worst.png")
    for grey in (40, 90, 140, 190):
        assert (pixels == grey).all(axis=2).sum() == 112 * 112


def test_large_images_are_averaged_down(tmp_path):
    checks = np.indices((896, 896)).sum(axis=0) % 2 * 255.0
    image = np.stack([checks] * 3).astype(np.float32)
    worst_mistakes([_mistake(image)], ["cat", "dog"], [0] * 3, [1] * 3, tmp_path / "worst.png")
    middle = _pixels(tmp_path / "worst.png")[180:240, 100:160]
    assert middle.min() > 120
    assert middle.max() < 135


def test_mistakes_are_titled(tmp_path, figures):
    image = np.zeros((3, 4, 4), dtype=np.float32)
    mistakes = [_mistake(image), _mistake(image, label=1, prediction=2, probability=0.5)]
    names = ["cat", "dog", "an american $ pit $ bull terrier"]
    worst_mistakes(mistakes, names, [0] * 3, [1] * 3, tmp_path / "worst.png")
    texts = _texts(figures[0])
    assert {"truth: cat", "predicted: dog 99.8 %", "truth: dog"} <= set(texts)
    assert "predicted: an american $ p… 50.0 %" in texts


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 3, 1), (9, 3, 3), (25, 5, 5), (50, 6, 9)])
def test_the_sheet_grows_with_the_mistakes(tmp_path, figures, count, columns, rows):
    image = np.zeros((3, 4, 4), dtype=np.float32)
    worst_mistakes([_mistake(image)] * count, ["cat", "dog"], [0] * 3, [1] * 3, tmp_path / "worst.png")
    height, width, _ = _pixels(tmp_path / "worst.png").shape
    assert width == 72 + columns * 224 + (columns - 1) * 48
    assert height == pytest.approx(120 + rows * 284, abs=1)
    boxes = [tuple(np.round(axes.get_window_extent().bounds)) for axes in figures[0].axes]
    assert len(set(boxes)) == count
    assert all(x >= 0 and y >= 0 and x + w <= width and y + h <= height for x, y, w, h in boxes)


def test_no_mistakes(tmp_path, figures):
    worst_mistakes([], ["cat", "dog"], [0] * 3, [1] * 3, tmp_path / "worst.png")
    assert _pixels(tmp_path / "worst.png").shape[1] == 840
    assert "no mistakes" in _texts(figures[0])


def test_drawing_leaves_matplotlib_as_it_was(tmp_path):
    # The backend is left out: looking it up is what chooses one.
    keys = [key for key in matplotlib.rcParams if key != "backend"]
    before = [copy.deepcopy(matplotlib.rcParams[key]) for key in keys]
    learning_curves(_records(), tmp_path / "curves.png")
    confusion_matrix(np.eye(3, dtype=int), "abc", tmp_path / "confusion.png")
    worst_mistakes([], "abc", [0], [1], tmp_path / "worst.png")
    assert [matplotlib.rcParams[key] for key in keys] == before
    command = "import sys, src.evaluation.pictures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0


def test_a_picture_that_cannot_be_written_is_an_error_of_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write .*curves\.png") as caught:
        learning_curves([], tmp_path / "file" / "curves.png")
    assert "\n" not in str(caught.value)
