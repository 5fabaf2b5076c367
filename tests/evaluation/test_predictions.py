# SPDX-License-Identifier: Apache-2.0
"""The CSV file has a line for each image, once, with what the softmax says."""

import csv

import numpy as np
import pytest

from src.common.errors import UserError
from src.evaluation.evaluate import evaluate
from src.evaluation.predictions import predictions_file

CLASSES = [f"class, {k}" for k in range(7)]


def _write(path, logits, labels, *, size=4, classes=CLASSES):
    """Through the loop, in batches that are filled up; the image is the number of its row."""

    def batches():
        for start in range(0, len(labels), size):
            rows = np.arange(start, start + size)
            valid = min(size, len(labels) - start)
            rows[valid:] = 0
            yield rows.astype(np.float32)[:, None], labels[rows], valid

    def predict(images):
        return logits[images[:, 0].astype(int)]

    with predictions_file(path, class_names=classes, name_of="{}.jpg".format) as each:
        evaluate(predict, batches(), num_classes=len(classes), each=each)
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("count", [1, 4, 10])
def test_every_image_has_its_likeliest_classes(tmp_path, count):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(count, 7)), rng.integers(7, size=count)
    lines = _write(tmp_path / "new" / "out.csv", logits, labels)
    assert [line["image"] for line in lines] == [f"{k}.jpg" for k in range(count)]
    for line, row, label in zip(lines, logits, labels, strict=True):
        shares = np.exp(row) / np.exp(row).sum()
        order = sorted(range(7), key=lambda k: -row[k])
        assert line["label"] == CLASSES[label] and line["predicted"] == CLASSES[order[0]]
        assert float(line["probability"]) == pytest.approx(shares[order[0]], rel=1e-5)
        for place in range(2, 6):
            assert line[f"class_{place}"] == CLASSES[order[place - 1]]
            assert float(line[f"probability_{place}"]) == pytest.approx(shares[order[place - 1]], rel=1e-5)
        assert "class_6" not in line


def test_few_classes_and_an_answer_that_is_none(tmp_path):
    logits = np.array([[0.0, 0.0], [np.nan, 1.0], [-np.inf, 2.0]])
    lines = _write(tmp_path / "a.csv", logits, np.array([1, 0, 0]), classes=["a", "b"])
    assert list(lines[0]) == ["image", "label", "predicted", "probability", "class_2", "probability_2"]
    assert [line["predicted"] for line in lines] == ["a", "", "b"]
    assert [line["probability_2"] for line in lines] == ["0.5", "", "0"]


def test_the_file_is_whole_or_absent(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("old")
    with pytest.raises(KeyError), predictions_file(path, class_names=CLASSES, name_of=str):
        raise KeyError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with (
        pytest.raises(UserError, match="cannot write"),
        predictions_file(path / "b.csv", class_names=CLASSES, name_of=str),
    ):
        pass


def test_a_file_name_need_not_be_valid_utf8(tmp_path):
    with predictions_file(tmp_path / "a.csv", class_names=["a"], name_of=lambda _: "\udcff.jpg") as each:
        evaluate(lambda x: x, [(np.zeros((1, 1), np.float32), np.zeros(1, int), 1)], num_classes=1, each=each)
    assert b"\xff.jpg,a,a,1" in (tmp_path / "a.csv").read_bytes()
