# SPDX-License-Identifier: Apache-2.0
"""The pictures are PNG files of the right size that show what they were given."""

import copy
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text

from src.evaluation.curves import learning_curves
from src.evaluation.evaluate import Evaluation, Example
from src.evaluation.metrics import CONFUSION_CLASSES, Totals
from src.evaluation.pictures import confusion_matrix, recall_by_class, worst_mistakes, write_pictures
from tests.evaluation.drawn import pixels_of, texts_of

pytestmark = pytest.mark.usefixtures("no_warnings")

RECORDS = [{"images": 8, "epoch": 1.0, "loss": 2.0, "lr": 0.1, "eval_loss": 2.0, "eval_top1": 50.0}]
OF = "step 12, epoch 3, averaged weights"


def _mistake(image, *, label=0, prediction=1, probability=0.998):
    return Example(
        index=0, image=image, label=label, prediction=prediction, probability=probability, loss=6.0
    )


def test_confusion_says_accuracy_and_counts(tmp_path, figures):
    confusion_matrix(
        [[8, 2, 0], [1, 1234, 0], [0, 3, 5]], ["cat", "dog", "$x_{1$"], tmp_path / "confusion.png", of=OF
    )
    texts = texts_of(figures[0])
    assert "accuracy 99.52 %: 1,247 of 1,253 images" in texts
    assert {"8", "2", "1", "1,234", "3", "5", "cat", "dog", "$x_{1$"} <= set(texts)
    assert texts.count("cat") == 2
    assert {"true class", "predicted class", "share of the true class"} <= set(texts)
    height, width, _ = pixels_of(tmp_path / "confusion.png").shape
    assert 500 < height < 1000
    assert 500 < width < 1000


def test_confusion_colours_are_shares_of_the_true_class(tmp_path):
    rng = np.random.default_rng(0)
    names = [f"class {k}" for k in range(25)]
    confusion = rng.integers(0, 9, size=(25, 25)) + 20 * np.eye(25, dtype=int)
    confusion_matrix(confusion, names, tmp_path / "a.png", of=OF)
    confusion_matrix(confusion * np.arange(1, 26)[:, None], names, tmp_path / "b.png", of=OF)
    confusion_matrix(confusion.T, names, tmp_path / "c.png", of=OF)
    below_the_title = np.s_[100:]
    first, scaled, other = (pixels_of(tmp_path / f"{name}.png")[below_the_title] for name in "abc")
    np.testing.assert_array_equal(first, scaled)
    assert (first != other).any()


def test_confusion_rows_are_true_classes(tmp_path):
    confusion_matrix([[0, 9], [0, 9]], ["a", "b"], tmp_path / "confusion.png", of=OF)
    pixels = pixels_of(tmp_path / "confusion.png")
    dark = (pixels.sum(axis=2) < 250) & (pixels[..., 2] > 80)
    columns = dark.sum(axis=0)
    tall = np.flatnonzero(columns > 0.9 * columns.max())
    assert tall.min() > pixels.shape[1] * 0.4


@pytest.mark.parametrize(("classes", "named", "counted"), [(1, 1, True), (20, 20, True), (21, 21, False)])
def test_up_to_twenty_classes_have_their_counts_written(tmp_path, figures, classes, named, counted):
    confusion_matrix(777 * np.eye(classes, dtype=int), ["x"] * classes, tmp_path / "confusion.png", of=OF)
    texts = texts_of(figures[0])
    assert texts.count("777") == (classes if counted else 0)
    assert texts.count("x") == 2 * named


@pytest.mark.parametrize("classes", [100, 200])
def test_many_classes_fit_on_the_page(tmp_path, figures, classes):
    names = [f"n{k:08d} a name far too long for an axis" for k in range(classes)]
    confusion_matrix(np.eye(classes, dtype=int), names, tmp_path / "confusion.png", of=OF)
    height, width, _ = pixels_of(tmp_path / "confusion.png").shape
    assert 1000 < height < 1600
    assert 1000 < width < 1600
    labels = [text for text in texts_of(figures[0]) if text.startswith("n0")]
    assert len(labels) == 2 * classes // 5
    assert all(len(label) <= 20 for label in labels)
    figure = figures[0]
    for text in figure.findobj(Text):
        if text.get_text().startswith("n0"):
            box = text.get_window_extent()
            assert box.x0 >= 0
            assert box.y0 >= 0


def test_confusion_without_images(tmp_path, figures):
    confusion_matrix(np.zeros((3, 3), dtype=int), ["a", "b", "c"], tmp_path / "none.png", of=OF)
    assert "no evaluation yet" in texts_of(figures[0])
    confusion_matrix([[1, 0, 0], [0, 0, 0], [0, 0, 1]], ["a", "b", "c"], tmp_path / "some.png", of=OF)
    assert "accuracy 100.00 % (34 to 100 %): 2 of 2 images; grey rows: no images" in texts_of(figures[1])


@pytest.mark.parametrize("confusion", [np.zeros((2, 3)), np.zeros((3, 3)), np.zeros(2)])
def test_confusion_must_fit_the_names(tmp_path, confusion):
    with pytest.raises(ValueError, match="2 class names"):
        confusion_matrix(confusion, ["a", "b"], tmp_path / "confusion.png", of=OF)
    assert not list(tmp_path.iterdir())


def test_mistakes_show_the_pixels_as_they_were(tmp_path):
    mean, std = (125.31, 122.95, 113.87), (62.99, 62.09, 66.70)
    colours = np.array([[[10, 200, 30], [250, 3, 99]], [[77, 88, 199], [5, 66, 7]]])
    image = ((colours - mean) / std).astype(np.float32).transpose(2, 0, 1)
    worst_mistakes([_mistake(image)], ["cat", "dog"], mean, std, tmp_path / "worst.png", of=OF)
    pixels = pixels_of(tmp_path / "worst.png")
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
    path, mean, std = tmp_path / "worst.png", (100, 100, 100), (50, 50, 50)
    worst_mistakes([_mistake(image)], ["cat", "dog"], mean, std, path, of=OF)
    assert ((pixels_of(path) == (255, 0, 100)).all(axis=2)).sum() == 224 * 224


def test_grey_images(tmp_path):
    image = np.array([[[0.0, 1.0], [2.0, 3.0]]], dtype=np.float32)
    worst_mistakes([_mistake(image)], ["cat", "dog"], [40], [50], tmp_path / "worst.png", of=OF)
    pixels = pixels_of(tmp_path / "worst.png")
    for grey in (40, 90, 140, 190):
        assert (pixels == grey).all(axis=2).sum() == 112 * 112


def test_large_images_are_averaged_down(tmp_path):
    checks = np.indices((896, 896)).sum(axis=0) % 2 * 255.0
    image = np.stack([checks] * 3).astype(np.float32)
    worst_mistakes([_mistake(image)], ["cat", "dog"], [0] * 3, [1] * 3, tmp_path / "worst.png", of=OF)
    middle = pixels_of(tmp_path / "worst.png")[180:240, 100:160]
    assert middle.min() > 120
    assert middle.max() < 135


def test_mistakes_are_titled(tmp_path, figures):
    image = np.zeros((3, 4, 4), dtype=np.float32)
    mistakes = [_mistake(image), _mistake(image, label=1, prediction=2, probability=0.5)]
    names = ["cat", "dog", "an american $ pit $ bull terrier"]
    files = {0: "val/cats/" + "x" * 30 + "/7.jpg"}
    worst_mistakes(
        mistakes, names, [0] * 3, [1] * 3, tmp_path / "worst.png", of=OF, name_of=lambda i: files[i]
    )
    texts = texts_of(figures[0])
    assert {"truth: cat", "predicted: dog 99.8 %", "truth: dog", OF} <= set(texts)
    assert texts.count("…" + "x" * 23 + "/7.jpg") == 2
    assert "predicted: an american $ p… 50.0 %" in texts


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 3, 1), (9, 3, 3), (25, 5, 5), (50, 6, 9)])
def test_the_sheet_grows_with_the_mistakes(tmp_path, figures, count, columns, rows):
    image = np.zeros((3, 4, 4), dtype=np.float32)
    worst_mistakes([_mistake(image)] * count, ["cat", "dog"], [0] * 3, [1] * 3, tmp_path / "worst.png", of=OF)
    height, width, _ = pixels_of(tmp_path / "worst.png").shape
    assert width == 72 + columns * 224 + (columns - 1) * 48
    assert height == pytest.approx(144 + rows * 303.2, abs=1)
    boxes = [tuple(np.round(axes.get_window_extent().bounds)) for axes in figures[0].axes]
    assert len(set(boxes)) == count
    assert all(x >= 0 and y >= 0 and x + w <= width and y + h <= height for x, y, w, h in boxes)


def test_no_mistakes(tmp_path, figures):
    worst_mistakes([], ["cat", "dog"], [0] * 3, [1] * 3, tmp_path / "worst.png", of=OF)
    assert pixels_of(tmp_path / "worst.png").shape[1] == 840
    assert "no mistakes" in texts_of(figures[0])


def test_drawing_leaves_matplotlib_as_it_was(tmp_path):
    # The backend is left out: looking it up is what chooses one.
    keys = [key for key in matplotlib.rcParams if key != "backend"]
    before = [copy.deepcopy(matplotlib.rcParams[key]) for key in keys]
    learning_curves(RECORDS, tmp_path / "curves.png")
    confusion_matrix(np.eye(3, dtype=int), "abc", tmp_path / "confusion.png", of=OF)
    worst_mistakes([], "abc", [0], [1], tmp_path / "worst.png", of=OF)
    assert [matplotlib.rcParams[key] for key in keys] == before
    command = "import sys, src.evaluation.pictures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0


def _evaluation(classes, images_a_class=20):
    totals = Totals(classes)
    labels = np.repeat(np.arange(classes), images_a_class)
    logits = np.eye(classes)[labels]
    logits[labels == 3, 0] = 2  # the fourth class is never right
    totals.update(logits, labels)
    return Evaluation(totals.result(), totals, [_mistake(np.zeros((4, 4, 3), np.uint8))])


@pytest.mark.parametrize("classes", [5, CONFUSION_CLASSES + 1])
def test_the_pictures_of_an_evaluation(tmp_path, figures, caplog, classes):
    """All say of which weights they are; of very many classes there is no matrix, which is said."""
    names = [f"class {k}" for k in range(classes)]
    how = {"class_names": names, "mean": [0] * 3, "std": [1] * 3, "of": OF}
    paths = write_pictures(_evaluation(classes), tmp_path / "new", **how, name_of="{}.jpg".format)
    expected = ["recall_by_class.png", "worst_mistakes.png"]
    assert [path.name for path in paths] == [*(["confusion_matrix.png"] if classes == 5 else []), *expected]
    assert ("confusion_matrix.png is not drawn" in caplog.text) == (classes > 5)
    assert all(path.is_file() for path in paths) and len(list((tmp_path / "new").iterdir())) == len(paths)
    assert all(OF in texts_of(figure) for figure in figures)
    assert "0.jpg" in texts_of(figures[-1])
    bars = texts_of(figures[-2])
    assert "0.0 %  (0 of 20)" in bars and "class 3" in bars
    assert ("the 40 lowest of 201 classes" if classes > 40 else "lowest first") in bars


def test_a_small_test_set_has_its_interval_on_the_picture(tmp_path, figures):
    for count in (25, 1000):
        confusion_matrix(np.array([[count, 0], [0, 0]]), "ab", tmp_path / "a.png", of=OF)
    small, large = (next(t for t in texts_of(figure) if t.startswith("accuracy")) for figure in figures)
    assert small == "accuracy 100.00 % (87 to 100 %): 25 of 25 images; grey rows: no images"
    assert large == "accuracy 100.00 %: 1,000 of 1,000 images; grey rows: no images"


def test_recall_without_images(tmp_path, figures):
    recall_by_class(Totals(3), "abc", tmp_path / "a.png", of=OF)
    assert "lowest first; 3 without images" in texts_of(figures[0])
