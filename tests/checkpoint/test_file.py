# SPDX-License-Identifier: Apache-2.0
"""A checkpoint reads back to the bit, or is refused in one line that names the file."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from src.checkpoint import file as checkpoint_file
from src.checkpoint.file import Checkpoint, read_checkpoint, write_checkpoint
from src.common.errors import UserError
from tests.helpers.mutations import mutated

RNG = np.random.default_rng(0)
ARRAYS = {
    "layer.weight": RNG.normal(size=(3, 2, 2, 2)).astype(np.float32),
    "layer.half": RNG.normal(size=(5,)).astype(np.float16),
    "ema.layer.weight": RNG.normal(size=(3, 2, 2, 2)).astype(np.float32),
    "optim.velocity.layer.weight": np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45], np.float32),
    "train.updates": np.array(7, np.int32),
    "loss_scale.value": np.array(65536, np.float32),
    "train.done": np.array(True),
    "mask": np.array([True, False]),
    "labels": np.array([[1, -(2**31)]], np.int32),
}
META = {
    "config": {"lr": 0.1, "widths": [1, 2], "run_name": "é", "none": None},
    "step": 12,
    "network": ["layer.weight"],
}


def _parameters(arrays=ARRAYS) -> list[ms.Parameter]:
    return [ms.Parameter(ms.Tensor(value), name=name) for name, value in arrays.items()]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "step_00000012.ckpt"
    write_checkpoint(path, _parameters(), META)
    return path


def _names(folder) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_everything_reads_back_to_the_bit(path):
    checkpoint = read_checkpoint(str(path))
    assert checkpoint.path == path
    assert checkpoint.meta == META
    assert list(checkpoint.arrays) == list(ARRAYS)
    for name, expected in ARRAYS.items():
        array = checkpoint.arrays[name]
        assert (array.dtype, array.shape) == (expected.dtype, expected.shape), name
        assert array.tobytes() == expected.tobytes(), name
    assert _names(path.parent) == [path.name]


def test_the_description_that_is_handed_in_stays(path):
    assert "names" not in META


def test_writing_again_replaces_the_file(path):
    write_checkpoint(path, _parameters({"b": np.zeros(2, np.float32)}), {"config": {}, "step": 13})
    checkpoint = read_checkpoint(path)
    assert list(checkpoint.arrays) == ["b"] and checkpoint.meta["step"] == 13
    assert _names(path.parent) == [path.name]


def test_the_network_weights_are_the_averaged_ones_where_kept(path):
    checkpoint = read_checkpoint(path)
    (averaged,) = checkpoint.network_weights().items()
    assert averaged[0] == "layer.weight" and (averaged[1] == ARRAYS["ema.layer.weight"]).all()
    raw = checkpoint.network_weights(ema=False)
    assert list(raw) == ["layer.weight"] and (raw["layer.weight"] == ARRAYS["layer.weight"]).all()


def test_without_an_average_the_network_weights_are_the_raw_ones(tmp_path):
    arrays = {"w": np.zeros(1), "optim.velocity.w": np.ones(1), "loss_scale.value": np.ones(())}
    assert list(Checkpoint(tmp_path, arrays, {"network": ["w"]}).network_weights()) == ["w"]


def test_what_is_of_the_network_is_said_by_the_file_and_not_by_names(tmp_path):
    """A network may call a layer `loss` or `optim`, and training may keep state of any name."""
    arrays = {"optim.weight": np.zeros(1), "new_state.x": np.ones(1), "ema.optim.weight": np.ones(1)}
    checkpoint = Checkpoint(tmp_path, arrays, {"network": ["optim.weight"]})
    assert checkpoint.network_weights() == {"optim.weight": np.ones(1)}
    assert checkpoint.network_weights(ema=False) == {"optim.weight": np.zeros(1)}
    assert Checkpoint(tmp_path, arrays, {}).network_weights() == arrays


def test_a_file_that_names_parameters_it_does_not_hold_is_damaged(tmp_path):
    path = tmp_path / "a.ckpt"
    write_checkpoint(path, _parameters(), META | {"network": ["layer.weight", "gone"]})
    with pytest.raises(UserError, match=r"a\.ckpt is damaged: arrays are missing"):
        read_checkpoint(path)


# --- damage


def _refused(path) -> str:
    with pytest.raises(UserError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert str(path) in message and len(message.splitlines()) == 1
    return message


def _is_whole_or_refused(path, content) -> bool:
    """Whether `content` is refused; what is read instead must be all that was written."""
    path.write_bytes(content)
    try:
        checkpoint = read_checkpoint(path)
    except UserError as error:
        assert str(path) in str(error)
        return False
    assert checkpoint.meta == META
    assert {name: array.tobytes() for name, array in checkpoint.arrays.items()} == {
        name: array.tobytes() for name, array in ARRAYS.items()
    }
    return True


def _field_ends(content) -> list[int]:
    """Where the entries of the file end: each is a tag, its length as a varint, and so many bytes."""
    ends, position = [], 0
    while content[position] == 0x0A:
        length, shift, position = 0, 0, position + 1
        while True:
            byte = content[position]
            length |= (byte & 0x7F) << shift
            position, shift = position + 1, shift + 7
            if byte < 0x80:
                break
        position += length
        ends.append(position)
    return ends


def test_a_file_that_was_cut_off(path, tmp_path):
    whole = path.read_bytes()
    assert len(_field_ends(whole)) == len(ARRAYS) + 1
    cut = tmp_path / "cut.ckpt"
    assert not any(_is_whole_or_refused(cut, whole[:n]) for n in range(len(whole)))


def test_a_file_without_its_checksum_is_refused(path):
    """MindSpore compares nothing then: a flipped bit in an array was read without a word."""
    whole = path.read_bytes()
    content = bytearray(whole[: _field_ends(whole)[-1]])
    content[content.index(ARRAYS["layer.weight"].tobytes())] ^= 1
    path.write_bytes(content)
    assert "is damaged: its checksum is missing" in _refused(path)
    for number in range(60):  # of such, every fourth was accepted
        path.write_bytes(mutated(bytes(content), number, other=whole)[1])
        _refused(path)


def test_a_file_that_was_cut_off_between_two_arrays(path, tmp_path):
    whole = path.read_bytes()
    cut = tmp_path / "cut.ckpt"
    for end in _field_ends(whole)[:-1]:
        cut.write_bytes(whole[:end])
        assert "it has no description inside" in _refused(cut)


def test_a_flipped_byte_anywhere(path, tmp_path):
    whole = path.read_bytes()
    flipped = tmp_path / "flipped.ckpt"
    for position in range(len(whole)):
        content = bytearray(whole)
        content[position] ^= 1 << position % 8
        assert not _is_whole_or_refused(flipped, bytes(content)), position


@pytest.mark.parametrize("content", [b"", b"a text\n" * 40, b"\0" * 500, bytes(range(256)) * 4])
def test_what_is_no_checkpoint(tmp_path, content):
    path = tmp_path / "other.ckpt"
    path.write_bytes(content)
    assert "is damaged or no checkpoint; choose another one" in _refused(path)


@pytest.mark.parametrize("name", ["none.ckpt", "folder.ckpt"])
def test_a_file_that_is_not_there(tmp_path, name):
    (tmp_path / "folder.ckpt").mkdir()
    assert "does not exist; give a .ckpt file" in _refused(tmp_path / name)


@pytest.mark.parametrize("crc_check", [True, False])
@pytest.mark.parametrize(
    "description", [None, "a text", "[1, 2]", "5", '{"step": 1}', '{"names": 3}', 17], ids=str
)
def test_a_checkpoint_of_another_project(tmp_path, description, crc_check):
    path = tmp_path / "foreign.ckpt"
    inside = None if description is None else {"meta": description}
    ms.save_checkpoint(
        [{"name": "w", "data": ms.Tensor([1.0])}], str(path), append_dict=inside, crc_check=crc_check
    )
    assert "is not one of this project: it has no description inside" in _refused(path)


@pytest.mark.parametrize("names", [["w", "b"], [], ["v"]])
def test_arrays_that_differ_from_the_list_of_names(tmp_path, names):
    path = tmp_path / "a.ckpt"
    meta = json.dumps({**META, "names": names})
    ms.save_checkpoint(
        [{"name": "w", "data": ms.Tensor([1.0])}], str(path), append_dict={"meta": meta}, crc_check=True
    )
    assert "is damaged: arrays are missing" in _refused(path)


QUIET = """
import errno, sys
from pathlib import Path
import mindspore as ms
from src.checkpoint.file import read_checkpoint, write_checkpoint
from src.common.errors import UserError

def full_disk(*arguments, **how):
    raise OSError(errno.ENOSPC, "No space left on device")

for name in sys.argv[1:]:
    try:
        read_checkpoint(name)
    except UserError as error:
        print(error)
ms.train.serialization._write_parameter_bytes_data = full_disk
try:
    write_checkpoint(Path(sys.argv[1]), [ms.Parameter(ms.Tensor([1.0]), name="w")], {"step": 1})
except UserError as error:
    print(error)
"""


def test_the_framework_adds_nothing_to_our_line(path, tmp_path):
    """In a process of its own: the framework's log keeps the standard error that it was imported with."""
    whole = path.read_bytes()
    flipped = whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]
    contents = {"empty": b"", "text": b"hello\n", "half": whole[: len(whole) // 2], "flipped": flipped}
    contents["without_sum"] = whole[: _field_ends(whole)[2]]
    names = [tmp_path / f"{name}.ckpt" for name in contents]
    for name, content in zip(names, contents.values()):
        name.write_bytes(content)
    command = [sys.executable, "-c", QUIET, *names]
    ended = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert len(lines) == len(names) + 1
    assert all(str(name) in line for name, line in zip(names, lines))
    assert lines[-1].startswith(f"cannot write {names[0]}: No space left on device")


# --- writing that fails


def _full_disk(entries, name, **how):
    """As the framework does it: the target is removed, a .tmp file is written, and the disk is full."""
    with open(name.removesuffix(".ckpt") + ".tmp", "wb") as file:
        file.write(b"the first part")
        raise OSError(errno.ENOSPC, "No space left on device")


def _half_written(entries, name, **how):
    with open(name, "wb") as file:
        file.write(b"the first part")
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("save", [_full_disk, _half_written])
def test_a_full_disk_leaves_the_earlier_file_and_nothing_else(path, monkeypatch, save):
    whole = path.read_bytes()
    monkeypatch.setattr(checkpoint_file.ms, "save_checkpoint", save)
    with pytest.raises(UserError) as caught:
        write_checkpoint(path, _parameters(), {"config": {}, "step": 13})
    message = str(caught.value)
    assert message.startswith(f"cannot write {path}: No space left on device") and "free space" in message
    assert path.read_bytes() == whole
    assert _names(path.parent) == [path.name]


def test_a_real_write_that_fails_inside_the_framework(path, monkeypatch):
    whole = path.read_bytes()

    def fail(*arguments, **how):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mindspore.train.serialization._write_parameter_bytes_data", fail)
    monkeypatch.setattr("mindspore.train.serialization._write_parameter_data", fail)
    with pytest.raises(UserError, match="No space left on device"):
        write_checkpoint(path, _parameters(), META)
    assert path.read_bytes() == whole
    assert _names(path.parent) == [path.name]


def test_an_interrupted_write_leaves_nothing_behind(path, monkeypatch):
    whole = path.read_bytes()

    def interrupt(entries, name, **how):
        open(name.removesuffix(".ckpt") + ".tmp", "wb").close()
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint_file.ms, "save_checkpoint", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(path, _parameters(), META)
    assert path.read_bytes() == whole
    assert _names(path.parent) == [path.name]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        write_checkpoint(tmp_path / "file" / "a.ckpt", _parameters(), META)


@pytest.mark.parametrize(
    ("class_names", "message"),
    [
        (("ant", "cat"), "has 2 classes and checkpoint x.ckpt 2; number 1 is cat there and bee here"),
        (("bee", "ant"), "number 0 is bee there and ant here; give the data that it was trained on"),
        (("ant",), "has 1 classes and checkpoint x.ckpt 2; number 1 is missing there and bee here"),
        (("ant", "bee", "cat"), "has 3 classes .* number 2 is cat there and missing here"),
    ],
)
def test_classes_of_other_data(class_names, message):
    checkpoint = Checkpoint(Path("x.ckpt"), {}, {"class_names": ["ant", "bee"]})
    checkpoint.check_classes(("ant", "bee"))
    with pytest.raises(UserError, match=message):
        checkpoint.check_classes(class_names)
