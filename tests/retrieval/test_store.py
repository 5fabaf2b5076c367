# SPDX-License-Identifier: Apache-2.0
"""An index is whole whenever a build is killed and while one runs, and damage to it is one line."""

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from src.common.errors import UserError
from src.retrieval.index import PictureIndex
from src.retrieval.store import Store
from tests.helpers.indexes import IDENTITY, Counted, build, contents, counts, draw, embed_pixels, same


def test_broken_off_builds_go_on_where_they_were(photos, tmp_path):
    index = tmp_path / "index"
    with pytest.raises(KeyboardInterrupt):
        build(index, photos, embed=Counted(stop_before="3.png"))  # after 0, 2, 4, 6 and 1
    assert len(contents(index)) == 5
    rest = Counted()
    assert counts(build(index, photos, embed=rest)) == [7, 2, 0, 0, 5, 0, 0]
    assert rest.files == ["3.png", "5.png"]


def test_the_old_index_stands_until_a_rebuild_is_complete(photos, tmp_path):
    index, other = tmp_path / "index", {**IDENTITY, "image_size": 16}
    build(index, photos)
    standing = (index / "index.sqlite").read_bytes()
    for stop_before in ("2.png", "3.png"):  # the second goes on where the first was broken off
        with pytest.raises(KeyboardInterrupt):
            build(index, photos, embed=Counted(stop_before), identity=other, rebuild=True)
        assert (index / "index.sqlite").read_bytes() == standing
        assert PictureIndex.open(index).identity == IDENTITY
    rest = Counted()
    assert counts(build(index, photos, embed=rest, identity=other, rebuild=True))[:2] == [7, 2]
    assert rest.files == ["3.png", "5.png"]
    assert PictureIndex.open(index).identity == other
    assert [path.name for path in index.iterdir()] == ["index.sqlite"]


def test_a_rebuild_that_was_given_up_leaves_nothing(photos, tmp_path):
    index, other = tmp_path / "index", {**IDENTITY, "image_size": 16}
    build(index, photos)
    with pytest.raises(KeyboardInterrupt):
        build(index, photos, embed=Counted("2.png"), identity=other, rebuild=True)
    third = {**IDENTITY, "image_size": 32}  # what was begun for another identity is no use
    with pytest.raises(KeyboardInterrupt):
        build(index, photos, embed=Counted("2.png"), identity=third, rebuild=True)
    assert Store(index / "rebuilt.sqlite").state()[0] == third
    build(index, photos)
    assert [path.name for path in index.iterdir()] == ["index.sqlite"]


KILLED = """
import os, signal, sys
from src.retrieval import index, store
from tests.helpers.indexes import IDENTITY, build, embed_pixels
point, rebuild, folder, *roots = sys.argv[1:]

def die(*given, **named):
    os.kill(os.getpid(), signal.SIGKILL)

def dying(pictures, *, skip):
    for count, found in enumerate(embed_pixels(pictures, skip=skip)):
        yield found if count < 2 else die()

if point == "commit":  # in a transaction, with part of it on the disk
    store._state = lambda *given, make=store._state: die() if given[2] > 4 else make(*given)
elif point == "_put_in_place":
    index._put_in_place = die
build(folder, *roots, embed=dying if point == "embed" else embed_pixels, save_every=2,
      rebuild=bool(rebuild), identity={**IDENTITY, "image_size": 16 if rebuild else 8})
"""


@pytest.mark.parametrize(
    ("point", "rebuild", "lost"),
    [("embed", "", 1), ("commit", "", 3), ("embed", "yes", 5), ("_put_in_place", "yes", 0)],
)
def test_killed_builds_leave_a_whole_index(photos, tmp_path, point, rebuild, lost):
    index = tmp_path / "index"
    build(index, photos / "a")
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, point, rebuild, str(index), str(photos)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    # A rebuild leaves the old index, another build what was saved of it too.
    assert len(contents(index)) == (4 if rebuild or point == "commit" else 6)
    rest, identity = Counted(), {**IDENTITY, "image_size": 16 if rebuild else 8}
    facts = build(index, photos, embed=rest, identity=identity, rebuild=bool(rebuild))
    assert (facts["files"], len(rest.files)) == (7, lost)
    assert [path.name for path in index.iterdir()] == ["index.sqlite"]
    build(tmp_path / "fresh", photos)
    assert same(index, tmp_path / "fresh")


def test_searches_see_a_whole_index_while_a_build_runs(photos, tmp_path):
    index = tmp_path / "index"
    build(index, photos / "a")
    seen = []

    def watched(pictures, *, skip):
        for file, vector in embed_pixels(pictures, skip=skip):
            seen.append(len(contents(index)))
            yield file, vector

    draw(photos / "a/0.png", 90)
    build(index, photos, embed=watched, save_every=2)
    assert seen == [4, 4, 5, 5]  # the changed one and three new ones, two at a time
    with Store(index / "index.sqlite") as writer, writer.transaction("IMMEDIATE"):
        assert len(contents(index)) == 7
    opened = PictureIndex.open(index)
    build(index, photos, identity={**IDENTITY, "image_size": 16}, rebuild=True)
    assert len(opened.search(np.float32(opened.vectors[:1]), 7)[0]) == 7


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM pictures WHERE rowid = 3",
        "UPDATE pictures SET vector = (SELECT vector FROM pictures WHERE rowid = 1)",
        "UPDATE pictures SET path = (SELECT path FROM pictures WHERE rowid = 1) WHERE rowid = 2",
        "INSERT INTO pictures SELECT * FROM pictures WHERE rowid = 1",
        "UPDATE pictures SET vector = 5 WHERE rowid = 2",
        "UPDATE state SET pictures = 6",
        "UPDATE state SET reopen = '{}'",
        "UPDATE state SET identity = 'x'",
        "DELETE FROM state",
        "DROP TABLE pictures",
        "DELETE FROM pictures WHERE rowid = 1; INSERT INTO pictures SELECT * FROM pictures WHERE rowid = 2",
    ],
)
def test_what_was_not_written_by_a_build_is_damage(photos, tmp_path, change):
    index = tmp_path / "index"
    build(index, photos)
    database = sqlite3.connect(index / "index.sqlite")
    database.executescript(change)
    database.close()
    message = r"index\.sqlite is damaged; build the index with --rebuild"
    with pytest.raises(UserError, match=message):
        PictureIndex.open(index)
    with pytest.raises(UserError, match=message):
        build(index, photos)
    assert counts(build(index, photos, rebuild=True))[:2] == [7, 7]
