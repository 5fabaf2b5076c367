# SPDX-License-Identifier: Apache-2.0
"""From small folders of images in each protocol's layout to numbers and rows of sheets."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from mindspore import nn
from PIL import Image

from src.common.errors import UserError
from src.data.decode import UnreadableImage
from src.data.preparation import Preparation
from src.retrieval.embedding import Embedder
from src.retrieval.evaluate import evaluate_retrieval, sheet_rows
from src.retrieval.sets import open_retrieval_set

pytestmark = pytest.mark.usefixtures("graph_mode")

RED, GREEN, BLUE, GREY = (200, 10, 10), (10, 200, 10), (10, 10, 200), (90, 90, 90)


class MeanColour(nn.Cell):
    """The mean colour, and how many pictures were embedded."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def embed(self, x):
        self.count += x.shape[0]
        return x.mean(axis=(2, 3))


class LeftEdge(MeanColour):
    """The mean colour of the left half: not the same when a picture is turned."""

    def embed(self, x):
        return super().embed(x[..., : x.shape[3] // 2])


def paint(file: Path, colour, *, size=(12, 8), shade=0):
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.clip(np.array(colour) + np.array([shade, 0, -shade]), 0, 255).astype(np.uint8)
    Image.fromarray(np.broadcast_to(pixels, (*size, 3)).copy()).save(file, quality=95, subsampling=0)


def evaluate(folder, *, network=None, protocol="auto", skip_damaged=False, **files):
    embedder = Embedder.of_network(
        network or MeanColour(), Preparation(8, (50.0,) * 3, (50.0,) * 3), batch_size=3
    )
    pictures = open_retrieval_set(folder, protocol=protocol, **files)
    return evaluate_retrieval(embedder, pictures, skip_damaged=skip_damaged)


@pytest.fixture
def groups(tmp_path):
    """Two groups that colours tell apart, and in the third one image like the first group's."""
    for number in range(3):
        paint(tmp_path / "set" / "red" / f"{number}.jpg", RED, shade=number)
        paint(tmp_path / "set" / "green" / f"{number}.jpg", GREEN, shade=number, size=(9, 14))
    paint(tmp_path / "set" / "mixed" / "0.png", BLUE)
    paint(tmp_path / "set" / "mixed" / "1.png", RED, shade=9)
    return tmp_path / "set"


def test_groups(groups):
    network = MeanColour()
    metrics = evaluate(groups, network=network).metrics
    # Six queries find both of theirs first; of the others, each has the other of its group after all six.
    assert network.count == 8
    assert metrics == {
        "protocol": "groups", "queries": 8, "images": 8, "damaged_images": 0,
        "mAP": pytest.approx(100 * (6 + 2 / 7) / 8), "recall@1": 75.0, "recall@5": 75.0, "recall@10": 100.0,
        "queries_without_positives": 0,
    }  # fmt: skip


def test_a_damaged_image_is_an_error_or_left_out_and_counted(groups, caplog):
    (groups / "green" / "1.jpg").write_bytes(b"no image")
    with pytest.raises(UnreadableImage, match=r"green/1\.jpg: not an image"):
        evaluate(groups)
    metrics = evaluate(groups, skip_damaged=True).metrics
    assert (metrics["queries"], metrics["images"], metrics["damaged_images"]) == (7, 7, 1)
    assert metrics["recall@1"] == pytest.approx(100 * 5 / 7)
    assert "1 of 8 images are damaged" in caplog.text and "green/1.jpg" in caplog.text
    for file in groups.rglob("*.*g"):
        file.write_bytes(b"")
    with pytest.raises(UserError, match=r"^all 8 images are damaged: .*the file is empty"):
        evaluate(groups, skip_damaged=True)


def test_the_sheet_shows_mistakes_first_then_a_sample(groups):
    rows = list(sheet_rows(evaluate(groups), count=4, columns=3))
    assert [Path(query.name).parent.name for query, _ in rows] == ["mixed", "mixed", "green", "red"]
    query, results = rows[-1]
    assert [result.right for result in results] == [True, True, False]
    assert query.similarity is None and results[0].similarity > results[2].similarity
    assert query.name not in [result.name for result in results]
    assert results[0].image.shape == (12, 8, 3)
    all_rows = list(sheet_rows(evaluate(groups), count=50))
    assert len({query.name for query, _ in all_rows}) == len(all_rows) == 8


def test_holidays_with_a_rotation(tmp_path):
    """A picture that stands wrong is found by what is on its left only once it is turned."""
    half = np.zeros((8, 8, 3), np.uint8)
    half[:, :4], half[:, 4:] = RED, GREEN
    for name, image in {
        "100000": half, "100001": np.rot90(half), "100100": half[:, ::-1], "100101": half[:, ::-1],
    }.items():  # fmt: skip
        Image.fromarray(np.ascontiguousarray(image)).save(tmp_path / f"{name}.jpg", subsampling=0, quality=95)
    (tmp_path / "rotations.txt").write_text("100001.jpg: 90\n")
    plain = evaluate(tmp_path, network=LeftEdge()).metrics
    # Upright, 100001 has both colours on its left: it is as far from its query as the other group's images.
    turned = evaluate(tmp_path, network=LeftEdge(), rotations=tmp_path / "rotations.txt").metrics
    assert turned["mAP"] == 100 and turned["queries"] == 2 and turned["images"] == 4
    wrong_way = tmp_path / "wrong.txt"
    wrong_way.write_text("100001.jpg: 270\n")
    wrong = evaluate(tmp_path, network=LeftEdge(), rotations=wrong_way).metrics
    assert wrong["mAP"] == pytest.approx(100 * (1 + 1 / 6) / 2) and wrong["mAP"] < plain["mAP"] <= 100


def test_ukb_counts_the_query_and_copies_of_it_that_are_wrong(tmp_path):
    for number in range(8):
        paint(tmp_path / f"ukbench{number:05d}.jpg", GREEN if number < 4 else RED, shade=number)
    assert evaluate(tmp_path).metrics["N-S"] == 4
    for number in (6, 7):  # the same as number 0, in the other group
        paint(tmp_path / f"ukbench{number:05d}.jpg", GREEN)
    found = evaluate(tmp_path)
    assert found.ranks[""][0].tolist() == [2, 3, 4, 5] and 2 <= found.metrics["N-S"] < 4


def test_copydays_with_distractors(tmp_path):
    for number, colour in ((200000, RED), (200100, GREEN), (200200, BLUE)):
        paint(tmp_path / "set" / "original" / f"{number}.jpg", colour)
        paint(tmp_path / "set" / "strong" / f"{number + 1}.jpg", colour, shade=5, size=(5, 20))
    metrics = evaluate(tmp_path / "set").metrics
    assert (metrics["queries"], metrics["images"], metrics["mAP"]) == (3, 3, 100)
    paint(tmp_path / "set" / "crop" / "200007.jpg", BLUE)
    found = evaluate(tmp_path / "set")
    (place,) = found.ranks[""][0]  # behind the blue original, in 0..2
    crop = 100 / (place + 1) / 2
    assert place and found.metrics["mAP_by_kind"] == {"crop": pytest.approx(crop), "strong": 100}
    assert found.metrics["mAP"] == pytest.approx((300 + crop) / 4)
    (tmp_path / "set" / "crop" / "200007.jpg").unlink()
    (tmp_path / "set" / "crop").rmdir()
    paint(tmp_path / "more" / "a.png", RED, shade=5)
    metrics = evaluate(tmp_path / "set", distractors=tmp_path / "more").metrics
    assert (metrics["images"], metrics["recall@1"]) == (4, pytest.approx(200 / 3))
    assert metrics["mAP"] == pytest.approx(100 * (1 + 1 + (0 + 1 / 2) / 2) / 3)


def test_revisited_queries_are_cut_out(tmp_path):
    """The query is grey but for its box; each difficulty has its own right images."""
    (tmp_path / "jpg").mkdir()
    for name, colour in (("a", RED), ("b", RED), ("c", GREEN), ("d", BLUE)):
        paint(tmp_path / "jpg" / f"{name}.jpg", colour, shade={"b": 6}.get(name, 0))
    query = np.full((40, 40, 3), GREY, np.uint8)
    query[8:24, 16:32] = RED
    Image.fromarray(query).save(tmp_path / "jpg" / "q.jpg", quality=95, subsampling=0)
    gnd = [{"bbx": [16, 8, 32, 24], "easy": [0], "hard": [2], "junk": [1]}]
    (tmp_path / "gnd_roxford5k.pkl").write_bytes(
        pickle.dumps({"imlist": list("abcd"), "qimlist": ["q"], "gnd": gnd})
    )
    found = evaluate(tmp_path)
    assert (found.metrics["easy_mAP"], found.metrics["easy_mP@1"]) == (100, 100)
    assert found.ranks["medium"][0][0] == 0 and found.ranks["hard"][0] == found.ranks["medium"][0][1] - 1
    ((query, results),) = sheet_rows(found)
    assert query.image.shape == (16, 16, 3)
    assert Path(results[0].name).stem == "a" and len(results) == 3
