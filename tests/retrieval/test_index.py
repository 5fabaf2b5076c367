"""An index follows its folders, loses little when it is killed, and refuses what does not belong to it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.common.errors import UserError
from src.data.decode import UnreadableImage
from src.retrieval.index import PictureIndex, update

IDENTITY = {"image_size": 8, "checkpoint_sha256": "ab12"}


def embed_pixels(pictures, *, skip):
    """Keeps the interface of `Embedder.embed`: the mean colour and its squares, of length 1."""
    for file, read in pictures:
        try:
            colour = read().mean((0, 1))
        except UnreadableImage as error:
            skip(file, error)
            continue
        vector = np.concatenate([colour + 1, colour**2 / 255])
        yield file, (vector / np.linalg.norm(vector)).astype(np.float32)


class Counted:
    """`embed_pixels` that knows which files it was asked for, and can stop before one."""

    def __init__(self, stop_before=None):
        self.files, self.stop_before = [], stop_before

    def __call__(self, pictures, *, skip):
        def watched():
            for file, read in pictures:
                name = os.path.basename(file)
                if name == self.stop_before:
                    raise KeyboardInterrupt
                self.files.append(name)
                yield file, read

        return embed_pixels(watched(), skip=skip)


def draw(path, seed):
    rng = np.random.default_rng(seed)
    colour = rng.integers(0, 256, 3)
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.fromarray(np.tile(colour, (6, 5, 1)).astype(np.uint8)).save(path)


@pytest.fixture
def photos(tmp_path) -> Path:
    for number in range(7):
        draw(tmp_path / "photos" / f"{'ab'[number % 2]}/{number}.png", number)
    return tmp_path / "photos"


def build(index, *roots, embed=embed_pixels, **how):
    how = {"identity": IDENTITY, "reopen": {"checkpoint": "net.ckpt"}, **how}
    return update(index, roots, embed=embed, **how)


def contents(index):
    """file -> vector, as searches see them."""
    opened = PictureIndex.open(index)
    return dict(zip(opened.files, opened.vectors._vectors, strict=True))


def counts(facts):
    return [facts[name] for name in ("files", "added", "changed", "unchanged", "removed", "skipped")]


def test_it_follows_the_folder(photos, tmp_path):
    index = tmp_path / "index"
    facts = build(index, photos)
    assert counts(facts) == [7, 7, 0, 0, 0, 0] and (facts["dimension"], facts["kind"]) == (6, "exact")
    assert sorted(path.name for path in index.iterdir()) == ["index.json", "vectors-1.npy"]
    written = (index / "index.json").stat().st_mtime_ns
    again = Counted()
    assert counts(build(index, photos, embed=again)) == [7, 0, 0, 7, 0, 0]
    assert again.files == [] and (index / "index.json").stat().st_mtime_ns == written

    draw(photos / "a/0.png", 99)
    os.utime(photos / "a/2.png", ns=(1, 1))  # same size and pixels, another time
    (photos / "b/1.png").unlink()
    draw(photos / "c/new.png", 98)
    (photos / "a/4.png").write_bytes(b"no picture")
    some = Counted()
    heard = []
    facts = build(index, photos, embed=some, damaged=lambda error: heard.append(str(error)))
    assert counts(facts) == [6, 1, 2, 3, 2, 1]
    assert sorted(some.files) == ["0.png", "2.png", "4.png", "new.png"]
    assert len(heard) == 1 and str(photos / "a/4.png") in heard[0]
    # The damaged one is not tried again until it changes.
    still = Counted()
    assert counts(build(index, photos, embed=still, damaged=pytest.fail)) == [6, 0, 0, 6, 0, 1]
    assert still.files == []
    draw(photos / "a/4.png", 4)
    assert counts(build(index, photos)) == [7, 1, 0, 6, 0, 0]
    # Whatever happened on the way, the index is the one of a single build.
    build(tmp_path / "fresh", photos)
    ours, fresh = contents(index), contents(tmp_path / "fresh")
    assert list(ours) == list(fresh) == sorted(fresh)
    for file, vector in fresh.items():
        np.testing.assert_array_equal(ours[file], vector)


def test_other_folders_stay_unless_only(photos, tmp_path):
    index = tmp_path / "index"
    build(index, photos / "a")
    assert counts(build(index, photos / "b")) == [7, 3, 0, 4, 0, 0]
    draw(photos / "ab/x.png", 5)  # a folder whose name begins like another's
    build(index, photos / "ab")
    shutil.rmtree(photos / "ab")
    assert counts(build(index, photos / "a")) == [8, 0, 0, 8, 0, 0]
    assert counts(build(index, photos / "a", only=True)) == [4, 0, 0, 4, 4, 0]


def test_search_finds_in_order_and_names_what_is_gone(photos, tmp_path):
    index = tmp_path / "index"
    shutil.copy(photos / "a/0.png", photos / "twin.png")
    build(index, photos)
    vectors = contents(index)
    query = np.float32(vectors[str(photos / "a/0.png")])
    (photos / "twin.png").unlink()
    (found,) = PictureIndex.open(index).search(query[None], 3)
    expected = sorted(vectors, key=lambda file: -np.round(np.float32(vectors[file]) @ query, 6))[:3]
    assert [neighbour.file for neighbour in found] == expected
    assert expected[:2] == [str(photos / "a/0.png"), str(photos / "twin.png")]
    assert [neighbour.missing for neighbour in found] == [False, True, False]
    assert found[0].similarity == pytest.approx(1, abs=1e-3)
    (found,) = PictureIndex.open(index).search(1.001 * query[None], 7)  # as a rounded vector can be longer
    assert found[0].similarity == found[1].similarity == 1.0


def test_cells_can_be_forced_and_are_trained_anew(photos, tmp_path):
    for number in range(20):
        draw(photos / f"more/{number}.png", 50 + number)
    index = tmp_path / "index"
    assert build(index, photos, cells=3)["kind"] == "cells"
    assert sorted(path.name for path in index.iterdir()) == ["codes-1.faiss", "index.json", "vectors-1.npy"]
    (photos / "a/0.png").unlink()
    build(index, photos, cells=3)
    opened = PictureIndex.open(index)
    assert len(opened.vectors) == len(opened.files) == 26 and opened.vectors.kind == "cells"
    nearest = opened.search(np.float32(list(contents(index).values())), 1)
    assert [found[0].file for found in nearest] == opened.files
    assert build(index, photos)["kind"] == "exact"


def test_broken_off_builds_go_on_where_they_were(photos, tmp_path):
    index = tmp_path / "index"
    with pytest.raises(KeyboardInterrupt):
        build(index, photos, embed=Counted(stop_before="3.png"))  # after 0, 2, 4, 6 and 1
    with pytest.raises(UserError, match="the index is empty"):
        PictureIndex.open(index)
    rest = Counted()
    assert counts(build(index, photos, embed=rest)) == [7, 2, 0, 5, 0, 0]
    assert rest.files == ["3.png", "5.png"]


KILLED = """
import os, signal, sys
from src.retrieval import index, index_files
from tests.retrieval.test_index import build, embed_pixels
point, folder, *roots = sys.argv[1:]

def die(*given, **named):
    os.kill(os.getpid(), signal.SIGKILL)

def dying(pictures, *, skip):
    for count, found in enumerate(embed_pixels(pictures, skip=skip)):
        yield found if count < 2 else die()

if point == "vectors":
    index_files.VectorIndex.build = die
elif point in ("_write_state", "_clean"):
    index_files._new_array = lambda *given, make=index_files._new_array: (
        setattr(index_files, point, die), make(*given)
    )[1]
elif point == "atomic":  # a temporary file is left over
    index_files.np.savez = die
build(folder, *roots, embed=dying if point == "embed" else embed_pixels, save_every=2)
"""


@pytest.mark.parametrize("point", ["embed", "atomic", "vectors", "_write_state", "_clean"])
def test_killed_builds_leave_a_whole_index(photos, tmp_path, point):
    index = tmp_path / "index"
    build(index, photos / "a")
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, point, str(index), str(photos)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert len(contents(index)) == (7 if point == "_clean" else 4)  # the new index or the old one
    rest = Counted()
    facts = build(index, photos, embed=rest)
    lost = {"embed": 1, "atomic": 3}.get(point, 0)
    assert (facts["files"], len(rest.files)) == (7, lost)
    left = sorted(path.name for path in index.iterdir())
    state = json.loads((index / "index.json").read_text())
    assert left == ["index.json", f"vectors-{state['generation']}.npy"]
    build(tmp_path / "fresh", photos)
    ours, fresh = contents(index), contents(tmp_path / "fresh")
    assert list(ours) == list(fresh) and all((ours[file] == fresh[file]).all() for file in fresh)


@pytest.mark.parametrize(
    ("name", "other"), [("image_size", 16), ("checkpoint_sha256", "cd34")], ids=["size", "checkpoint"]
)
def test_an_index_of_another_identity_is_refused(photos, tmp_path, name, other):
    index = tmp_path / "index"
    build(index, photos)
    before = (index / "index.json").read_bytes()
    message = f"was built with {name} {IDENTITY[name]}, not {other}; choose another --index, or .* --rebuild"
    with pytest.raises(UserError, match=message):
        build(index, photos, identity={**IDENTITY, name: other})
    assert (index / "index.json").read_bytes() == before
    facts = build(index, photos, identity={**IDENTITY, name: other}, rebuild=True)
    assert counts(facts) == [7, 7, 0, 0, 0, 0]


def test_another_dimension_is_refused(photos, tmp_path):
    index = tmp_path / "index"
    build(index, photos)
    draw(photos / "new.png", 77)

    def shorter(pictures, *, skip):
        return ((file, vector[:4]) for file, vector in embed_pixels(pictures, skip=skip))

    with pytest.raises(UserError, match=r"embeddings of . and of . numbers; choose another --index"):
        build(index, photos, embed=shorter)
    assert len(contents(index)) == 7
    assert counts(build(index, photos, rebuild=True)) == [8, 8, 0, 0, 0, 0]


def test_folders_that_are_no_index_are_left_alone(photos, tmp_path):
    with pytest.raises(UserError, match=r"holds other files \(0.png\) and no index; choose another --index"):
        build(photos / "a", photos, rebuild=True)
    assert len(list((photos / "a").iterdir())) == 4
    for wrong in (photos, photos / "a/0.png", tmp_path / "nowhere"):
        with pytest.raises(UserError, match="holds no index"):
            PictureIndex.open(wrong)
    (tmp_path / "bare").mkdir()
    with pytest.raises(UserError, match="no picture is there"):
        build(tmp_path / "index", tmp_path / "bare")


def test_damage_is_one_line_with_a_mend(photos, tmp_path):
    index = tmp_path / "index"
    build(index, photos)
    whole = {path: path.read_bytes() for path in index.iterdir()}
    for path, content in whole.items():
        for broken in (content[: len(content) // 2], b""):
            path.write_bytes(broken)
            with pytest.raises(UserError, match=f"{path.name} .*--rebuild"):
                PictureIndex.open(index)
        path.write_bytes(content)
    state = json.loads(whole[index / "index.json"])
    for broken in (
        *(
            {name: value for name, value in state.items() if name != gone}
            for gone in state.keys() - {"format"}
        ),
        state | {"files": [[], []]},
        state | {"files": [["a"], [], []]},
        state | {"damaged": []},
    ):
        (index / "index.json").write_text(json.dumps(broken))
        with pytest.raises(UserError, match=r"index.json is damaged; build the index with --rebuild"):
            PictureIndex.open(index)
    (index / "index.json").write_text('{"format": 99}')
    with pytest.raises(UserError, match="is of format 99, not 1; build the index with --rebuild"):
        build(index, photos)
    assert counts(build(index, photos, rebuild=True))[:2] == [7, 7]
    (index / "part-000001.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"part-000001.npz is damaged; remove it and build again"):
        build(index, photos)


def test_what_the_system_could_not_read_is_tried_again(photos, tmp_path):
    index = tmp_path / "index"

    def unplugged(pictures, *, skip):
        for file, read in pictures:
            if file.endswith("5.png"):
                os.rename(file, f"{file}~")
            yield from embed_pixels([(file, read)], skip=skip)

    assert counts(build(index, photos, embed=unplugged)) == [6, 6, 0, 0, 0, 1]
    os.rename(photos / "b/5.png~", photos / "b/5.png")
    assert counts(build(index, photos)) == [7, 1, 0, 6, 0, 0]


def test_names_that_are_no_utf8(tmp_path):
    folder = os.fsencode(tmp_path / "photos")
    draw(tmp_path / "photos/plain.png", 0)
    try:
        shutil.copy(tmp_path / "photos/plain.png", os.path.join(folder, b"caf\xe9.png"))
    except OSError:
        pytest.skip("this file system takes no such names")
    assert build(tmp_path / "index", tmp_path / "photos")["files"] == 2
    again = Counted()
    assert build(tmp_path / "index", tmp_path / "photos", embed=again)["unchanged"] == 2
    assert not any(
        found.missing for found in PictureIndex.open(tmp_path / "index").search(np.eye(6)[:1], 2)[0]
    )
