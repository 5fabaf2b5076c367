# SPDX-License-Identifier: Apache-2.0
"""The ground truth of Revisited Oxford and Paris: ways of pickling, damage, and pickles that run code."""

import os
import pickle

import numpy as np
import pytest

from src.common.errors import UserError
from src.retrieval.revisited import read_ground_truth


def values(**changed):
    truth = {"bbx": [1, 2, 3, 4], "easy": [0], "hard": np.array([1], np.int32), "junk": []}
    whole = {"imlist": ["a", "b"], "qimlist": ["q"], "gnd": [truth | changed.pop("gnd", {})]}
    return {**whole, **changed}


def write(tmp_path, content, protocol=None):
    path = tmp_path / "gnd.pkl"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "box", [[1, 2.5, 3, 4], np.array([[1, 2.5, 3, 4]]), np.array([1, 2.5, 3, 4], np.float32)]
)
def test_any_protocol_and_lists_or_arrays(tmp_path, protocol, box):
    found = read_ground_truth(write(tmp_path, values(gnd={"bbx": box}), protocol))
    assert (found.database, found.queries, found.boxes) == (["a", "b"], ["q"], [(1.0, 2.5, 3.0, 4.0)])
    assert (found.easy, found.hard, found.junk) == ([[0]], [[1]], [[]])


class Call:
    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize(("function", "argument"), [
    (os.system, "touch {}"), (eval, "open({!r}, 'w')"), (np.save, "{}"), (os.mkdir, "{}"),
])  # fmt: skip
def test_a_pickle_that_calls_something_is_refused_before_it_does(tmp_path, function, argument):
    mark = tmp_path / "mark"
    evil = Call(function, argument.format(str(mark)))
    with pytest.raises(UserError, match=r"gnd\.pkl is no ground truth \(it wants "):
        read_ground_truth(write(tmp_path, values(imlist=["a", evil])))
    assert not mark.exists()


@pytest.mark.parametrize(("content", "message"), [
    (b"", "no ground truth"), (b"\x80\x04\x95", "no ground truth"),
    (pickle.dumps(values())[:-9], "no ground truth"), ([1, 2], "no ground truth of imlist"),
    ({"imlist": []}, "qimlist"), (values(qimlist=["q", "r"]), "1 truths for 2"),
    (values(imlist=["a", "a"]), "listed twice"), (values(gnd={"easy": [2]}), "easy images 2 to 2 of 2"),
    (values(gnd={"junk": [-1]}), "junk images -1"), (values(gnd={"bbx": [1, 2, 3]}), "not enough values"),
    (values(gnd={"bbx": [3, 2, 1, 4]}), "the box"),
])  # fmt: skip
def test_damage_is_one_error(tmp_path, content, message):
    with pytest.raises(UserError, match=message) as error:
        read_ground_truth(write(tmp_path, content))
    assert "\n" not in str(error.value) and "gnd.pkl" in str(error.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"none\.pkl is missing"):
        read_ground_truth(tmp_path / "none.pkl")
