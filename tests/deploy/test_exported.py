# SPDX-License-Identifier: Apache-2.0
import hashlib

import pytest

from src.common.errors import UserError
from src.deploy.exported import is_export, read_export

FILES = {
    1: ["model_b1.mindir"],
    8: ["model_b8.mindir", "model_b8_variables/data_0"],
}


@pytest.fixture
def folder(card, tmp_path):
    """An export for two batch sizes, one with its weights apart."""
    folder = tmp_path / "net v1.5"
    (folder / "model_b8_variables").mkdir(parents=True)
    digests = {}
    for size, names in FILES.items():
        for name in names:
            (folder / name).write_bytes(name.encode())
        digests[size] = {name: hashlib.sha256(name.encode()).hexdigest() for name in names}
    card.model_copy(update={"files": digests}).save(folder / "card.json")
    return folder


def test_the_folder_stands_for_all_files(folder):
    found = read_export(folder)
    assert is_export(folder) and found.folder == folder and list(found.card.files) == [1, 8]
    assert [file.name for file in found.files] == ["model_b1.mindir", "model_b8.mindir"]


def test_one_of_several_is_taken_alone(folder):
    (folder / "model_b1.mindir").unlink()
    assert read_export(str(folder / "model_b8.mindir")).files == (folder / "model_b8.mindir",)


@pytest.mark.parametrize("name", ["model_b8.mindir", "model_b8_variables/data_0"])
def test_a_changed_or_missing_file(folder, name):
    (folder / name).write_bytes(b"other")
    with pytest.raises(UserError, match=rf"model_b8\.mindir: damaged or replaced: {name} is not the file"):
        read_export(folder)
    (folder / name).unlink()
    with pytest.raises(UserError, match=rf"{name}: part of a model: No such file"):
        read_export(folder)


def test_a_file_that_the_card_does_not_name(folder):
    (folder / "model.mindir").write_bytes(b"of an earlier export")
    with pytest.raises(
        UserError, match=r"model\.mindir: not of the export .* has model_b1\.mindir, model_b8"
    ):
        read_export(folder / "model.mindir")


def test_paths_that_are_no_export(folder, tmp_path):
    with pytest.raises(UserError, match=r"model_path: .*gone\.mindir does not exist; give an export"):
        read_export(folder / "gone.mindir")
    (folder / "card.json").unlink()
    with pytest.raises(UserError, match=r"card\.json: no such model card; keep model_b1\.mindir in the"):
        read_export(folder / "model_b1.mindir")
    (tmp_path / "x.txt").touch()
    (tmp_path / "device.onnx").symlink_to("/dev/null")  # as a pipe, which is waited for
    for path in (tmp_path, tmp_path / "x.txt", tmp_path / "device.onnx", folder / "model_b8_variables"):
        with pytest.raises(
            UserError, match=r"given, allowed: the folder of an export, a \.mindir, .* file in it"
        ):
            read_export(path)


def test_a_card_without_files(card, tmp_path):
    card.save(tmp_path / "card.json")
    with pytest.raises(UserError, match="has no model that can be run here"):
        read_export(tmp_path)
