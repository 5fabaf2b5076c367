# SPDX-License-Identifier: Apache-2.0
"""Rank 0 looks at the image files, once in a run's life; the other ranks learn what it found."""

import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from src.data import manifest
from src.data.manifest import Manifest
from src.model_utils.device_adapter import Device
from src.training import look as module
from src.training.look import NAME, FirstRankLooks

PNG = cv2.imencode(".png", np.zeros((2, 3, 3), np.uint8))[1].tobytes()


@pytest.fixture
def files(tmp_path):
    for number in range(6):
        (tmp_path / f"{number}.png").write_bytes(PNG if number % 3 else PNG[:-12])
    return sorted(map(str, tmp_path.glob("*.png")))


@pytest.fixture
def opened(monkeypatch):
    """The files that are opened, each with the thread that waits for it."""
    seen, own = [], manifest.fault
    monkeypatch.setattr(manifest, "fault", lambda file: seen.append(file) or own(file))
    return seen


@pytest.fixture
def ranks(tmp_path, monkeypatch):
    """A function: what each rank's look gives; ranks are threads, whose sums wait for each other."""

    def run(files_of_rank):
        size = len(files_of_rank)
        barrier, parts = threading.Barrier(size, timeout=60), [None] * size
        mine = threading.local()

        def sum_over_ranks(vector, *, size):
            parts[mine.rank] = vector
            barrier.wait()
            total = sum(parts)
            barrier.wait()
            return total

        monkeypatch.setattr(module, "sum_over_ranks", sum_over_ranks)

        def look(rank):
            mine.rank = rank
            return FirstRankLooks(Manifest(tmp_path), device=Device("CPU", rank, size))(files_of_rank[rank])

        with ThreadPoolExecutor(size) as pool:
            futures = [pool.submit(look, rank) for rank in range(size)]
            return [future.exception() or future.result() for future in futures]

    return run


def test_one_rank_opens_the_files_and_all_know_the_damaged_ones(files, opened, ranks, monkeypatch):
    """Old behaviour: each of 8 cards opened each of a million files."""
    monkeypatch.setattr(module, "_PATIENCE", 0)
    monkeypatch.setattr(manifest, "_CHUNK", 1)
    first, *others = ranks([files] * 3)
    assert first == dict.fromkeys((files[0], files[3]), "cannot be decoded: it is cut short")
    assert [list(other) for other in others] == [[files[0], files[3]]] * 2
    assert sorted(opened) == sorted([*files, files[0], files[3]]), "the damaged ones twice"


def test_ranks_with_other_files_are_refused(files, ranks):
    for other in (files[1:], [*files[1:], "x.png"]):
        first, second = map(str, ranks([files, other]))
        assert "has 6 images on rank 0 and other ones on another rank" in first, "it does not wait for ever"
        assert f"has {len(other)} images on rank 1 and 6 on rank 0" in second


def test_a_run_keeps_what_was_seen(files, opened, tmp_path):
    look = FirstRankLooks(Manifest(tmp_path), device=Device("CPU"))
    faults = look(files[1:3])
    look.write(tmp_path)
    again = FirstRankLooks(Manifest.read(tmp_path / NAME, root=tmp_path), device=Device("CPU"))
    assert again(files[1:3]) == faults == {} and len(opened) == 2


def test_a_data_set_without_files_leaves_no_manifest(tmp_path):
    FirstRankLooks(Manifest(tmp_path), device=Device("CPU")).write(tmp_path)
    assert not (tmp_path / NAME).exists()
