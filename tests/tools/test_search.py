# SPDX-License-Identifier: Apache-2.0
"""From folders of pictures to an index and to answers, by the command line and a small network."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from PIL import Image

from src.common.cli import run
from src.data.decode import decode
from src.tools import search
from src.trained import open_trained
from tests.helpers.checkpoints import save_checkpoint
from tests.helpers.folders import unreadable

pytestmark = pytest.mark.usefixtures("graph_mode", "plain_logger")

KEYS = {
    "model": "multigrain_resnet18", "device_target": "CPU", "block_units": [1, 1, 1, 1],
    "widths": [4, 8, 8, 16], "stem": "small", "image_size": 32,
}  # fmt: skip


def make_checkpoint(path, seed=0):
    return save_checkpoint(path, {**KEYS, "seed": seed}, class_names="ab")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("net") / "net.ckpt")


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(6):
        pixels = np.kron(rng.integers(0, 256, (4, 4 + number % 2, 3)), np.ones((8, 8, 1)))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def called(capsys, monkeypatch):
    """called(words) -> (exit code, lines of standard output, standard error)."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["search", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            run(search.main)
        out, err = capsys.readouterr()
        return end.value.code, out.splitlines(), err

    return call


@pytest.fixture
def index(called, checkpoint, photos, tmp_path):
    folder = tmp_path / "index"
    assert called("build", photos, "--checkpoint_path", checkpoint, "--index", folder)[0] == 0
    return folder


def refused(answer):
    """The message of a call that ended as expected failures do; tracebacks and other lines are none."""
    code, _, err = answer
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1, err
    return err.removeprefix("error: ").strip()


def test_build_says_what_it_did_and_does_it_once(called, checkpoint, photos, tmp_path):
    words = ["build", photos, "--checkpoint_path", checkpoint, "--index", tmp_path / "index"]
    code, out, err = called(*words)
    facts = json.loads(out[-1])
    assert (code, err.count("\n")) == (0, 1) and str(photos / "broken.png") in err
    assert facts.pop("seconds") >= 0
    assert facts == {
        "files": 6,
        "added": 6,
        "changed": 0,
        "moved": 0,
        "unchanged": 0,
        "removed": 0,
        "skipped": 1,
    }
    assert out[0] == f"7 pictures in {photos}" and out[1] == "left out: nothing"
    (photos / "0.png").unlink()
    code, out, err = called(*words, "--device_target", "CPU")  # a key that changes no embedding
    assert (code, err) == (0, "")
    assert {"files": 5, "unchanged": 5, "removed": 1}.items() <= json.loads(out[-1]).items()
    message = refused(called(*words, "--eval_image_size", "64"))
    assert "was built with eval_image_size 32, not 64" in message and "--rebuild" in message
    message = refused(called(*words, "--eval_pooling_exponent", "5"))
    assert "was built with eval_pooling_exponent 0.0, not 5" in message
    other = make_checkpoint(tmp_path / "other.ckpt", seed=1)
    words[3] = other
    assert "was built with checkpoint_sha256 " in refused(called(*words))
    code, out, _ = called(*words, "--rebuild", "--eval_image_size", "64")
    assert code == 0 and json.loads(out[-1])["added"] == 5


def test_an_index_is_compared_by_what_the_settings_mean(called, checkpoint, photos, index, tmp_path):
    """Not by how they were said: the default said once more, a key of training, a file of both."""
    (tmp_path / "more.yaml").write_text("eval_image_size: 32\nlr: 3\n")
    words = ["build", photos, "--checkpoint_path", checkpoint, "--index", index]
    for more in (
        ["--eval_image_size", "32"],
        ["--ema_decay", "0.5", "--seed", "9"],
        ["--config_path", tmp_path / "more.yaml"],
        ["--raw_weights"],  # the checkpoint has no other
    ):
        code, out, err = called(*words, *more)
        assert (code, err) == (0, "") and json.loads(out[-1])["unchanged"] == 6
        assert called("search", index, photos / "0.png")[0] == 0


def test_answers_come_in_the_order_of_the_queries(called, photos, index, tmp_path):
    (tmp_path / "more").mkdir()
    for name in ("y.png", "x.png"):
        shutil.copy(photos / "3.png", tmp_path / "more" / name)
    queries = [photos / "4.png", photos / "1.png", tmp_path / "more", photos / "0.png", photos / "1.png"]
    code, out, _ = called("search", index, *queries, "--json")
    expected = [queries[0], queries[1], tmp_path / "more/x.png", tmp_path / "more/y.png", queries[3]]
    answers = json.loads(out[-1])["results"]
    assert code == 0 and [answer["query"] for answer in answers] == [str(query) for query in expected]
    first = [answer["found"][0]["file"] for answer in answers]
    assert first == [str(photos / f"{number}.png") for number in (4, 1, 3, 3, 0)]


def test_a_folder_that_is_gone_does_not_empty_the_index(called, checkpoint, photos, index):
    words = ["build", photos, "--checkpoint_path", checkpoint, "--index", index]
    moved = photos.with_name("elsewhere")
    photos.rename(moved)
    assert "6 of the 6 pictures that the index has from there are gone" in refused(called(*words))
    photos.mkdir()
    assert refused(called(*words)).endswith("drop them with --prune")
    code, out, err = called("search", index, moved / "0.png", "--json")
    assert (code, json.loads(out[-1])["results"][0]["found"]) == (0, [])
    assert "passed over, since they are not there: 6 pictures of the index, such as " in err
    words[1] = moved
    facts = json.loads(called(*words)[1][-1])
    assert (facts["moved"], facts["added"]) == (6, 0)
    moved.rename(photos.with_name("again"))
    assert called(*words, "--prune")[1][0] == f"{moved} is no folder any more"


def test_search_ranks_by_the_cosine_of_embeddings(called, checkpoint, photos, index):
    trained = open_trained(checkpoint, {})
    embeddings = {}
    for file in sorted(photos.glob("?.png")):
        pixels = (
            decode(file).astype(np.float32) - trained.card.preparation.mean
        ) / trained.card.preparation.std
        if pixels.shape[1] == 32:  # others are resized first
            batch = ms.Tensor(pixels.transpose(2, 0, 1)[None].astype(np.float32))
            embeddings[str(file)] = trained.network.embed(batch).asnumpy()[0].astype(np.float64)
    query = str(photos / "2.png")
    code, out, _ = called("search", index, query, "--json", "--top", 6)
    assert code == 0
    (result,) = json.loads(out[-1])["results"]
    assert result["query"] == query and result["found"][0]["file"] == query
    found = {one["file"]: one["similarity"] for one in result["found"]}
    assert len(found) == 6 and list(found.values()) == sorted(found.values(), reverse=True)
    one = embeddings[query]
    for file, other in embeddings.items():
        cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        assert found[file] == pytest.approx(cosine, abs=2e-3)  # kept as float16


def test_search_in_a_process_of_its_own_with_a_sheet(photos, index, tmp_path):
    (photos / "3.png").unlink()
    ended = subprocess.run(
        [
            sys.executable, "-m", "src.tools.search", "search", index, photos / "0.png", photos / "1.png",
            "--top", "6", "--sheet", tmp_path / "sheet.png",
        ],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr.count("\n")) == (0, 1) and "3.png" in ended.stderr
    lines = ended.stdout.splitlines()
    assert len(lines) == 12 and lines[0] == str(photos / "0.png") and lines[6] == str(photos / "1.png")
    assert lines[1].split() == ["1.0000", str(photos / "0.png")]
    assert not any("3.png" in line for line in lines)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > sheet.height > 200


def test_the_checkpoint_may_move_but_not_change(called, photos, checkpoint, tmp_path):
    moved, index = tmp_path / "b.ckpt", tmp_path / "index"
    shutil.copy(checkpoint, tmp_path / "a.ckpt")
    called("build", photos, "--checkpoint_path", tmp_path / "a.ckpt", "--index", index)
    (tmp_path / "a.ckpt").rename(moved)
    words = ["search", index, photos / "0.png"]
    assert refused(called(*words)).endswith("a.ckpt is not there; say where it is now by --checkpoint_path")
    assert called(*words, "--checkpoint_path", moved)[0] == 0
    other = make_checkpoint(tmp_path / "other.ckpt", seed=1)
    message = refused(called(*words, "--checkpoint_path", other))
    assert "is not the one that" in message and "--rebuild" in message


def test_what_is_wrong_with_a_query_is_one_line(called, photos, index, tmp_path):
    message = refused(called("search", index, photos / "broken.png"))
    assert message == f"{photos / 'broken.png'}: not an image in a known format; choose another picture"
    answer = called("search", index, photos, "--top", 1)
    assert len(answer[1]) == 12 and str(photos / "broken.png") in refused(answer)  # the others are answered
    (tmp_path / "bare").mkdir()
    for words, message in (
        ([index, tmp_path / "none.png"], "no such image file or folder"),
        ([index, tmp_path / "bare"], "no image in this folder"),
        ([photos, photos / "0.png"], "holds no index"),
        ([index, photos / "0.png", "--top", "0"], "top: 0 given, allowed: a whole number >= 1"),
        ([index, photos / "0.png", "--sheet", "x.jpg"], "--sheet: x.jpg given, allowed: a name that ends in"),
        ([index, photos / "0.png", "--tops", "3"], "unrecognized arguments: --tops 3; see --help"),
        ([index], "the following arguments are required: QUERY"),
    ):
        assert message in refused(called("search", *words))


def test_a_folder_that_cannot_be_read_is_told_at_the_end(called, checkpoint, photos, index, monkeypatch):
    (photos / "closed").mkdir()
    shutil.copy(photos / "0.png", photos / "closed")
    words = ["build", photos, "--checkpoint_path", checkpoint, "--index", index]
    assert json.loads(called(*words)[1][-1])["files"] == 7
    unreadable(monkeypatch, photos / "closed")
    code, out, err = called(*words)
    assert (code, json.loads(out[-1])["files"]) == (2, 7) and "cannot read 1 folder" in err
    (photos / "broken.png").unlink()
    code, out, err = called("search", index, photos, "--top", "1")
    assert (code, len(out)) == (2, 12) and "cannot read 1 folder" in err


def test_a_pipe_with_the_name_of_a_picture_is_not_waited_for(called, checkpoint, photos, tmp_path):
    os.mkfifo(photos / "pipe.jpg")
    (photos / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    code, out, err = called("build", photos, "--checkpoint_path", checkpoint, "--index", tmp_path / "index")
    assert (code, json.loads(out[-1])["files"], json.loads(out[-1])["skipped"]) == (0, 6, 2)
    assert "gone.jpg" in err and "pipe.jpg" not in err


def test_a_damaged_index_is_one_line(called, index, photos, checkpoint):
    data = bytearray((index / "index.sqlite").read_bytes())
    data[data.index(b"checkpoint_sha256") + 25] ^= 1
    (index / "index.sqlite").write_bytes(data)
    message = f"{index / 'index.sqlite'} is damaged; build the index with --rebuild"
    assert refused(called("search", index, photos / "0.png")) == message
    words = ["build", photos, "--checkpoint_path", checkpoint, "--index", index]
    assert refused(called(*words)) == message
    assert called(*words, "--rebuild")[0] == 0


def test_builds_that_cannot_be(called, photos, checkpoint, tmp_path):
    words = ["--checkpoint_path", checkpoint, "--index", tmp_path / "index"]
    (tmp_path / "bare").mkdir()
    (tmp_path / "damaged").mkdir()
    shutil.copy(photos / "broken.png", tmp_path / "damaged")
    for folder, more, message in (
        (tmp_path / "none", [], "none: no such folder"),
        (photos / "0.png", [], "0.png: no such folder"),
        (tmp_path / "bare", [], "no picture is there"),
        (photos, ["--eval_image_size", "-1"], "eval_image_size: -1 given, allowed: a whole number >= 0"),
        (photos, ["--index", photos / "0.png"], "0.png: File exists; free space or choose another folder"),
        (photos, ["--colour", "3"], "there is no such key"),
        (photos, ["--index", photos], "holds other files (0.png) and no index; choose another --index"),
    ):
        assert message in refused(called("build", folder, *words, *more))
    assert "the following arguments are required: command" in refused(called())
    assert called("build", tmp_path / "damaged", *words)[0] == 0
    message = refused(called("search", tmp_path / "index", photos / "0.png"))
    assert message.endswith("the index is empty; build it with readable pictures")
