import dataclasses
import json

import pytest

from src.common.errors import UserError
from src.common.files import write_json
from src.deploy.model_set import check_digest, digest, file_of_size, find_set, parity_path


@pytest.fixture
def several(card, tmp_path):
    """The card of two files, and the report that goes with it."""
    files = {1: "net v1.5_b1.mindir", 8: "net v1.5_b8.mindir"}
    for name in files.values():
        (tmp_path / name).write_bytes(name.encode())
    path = tmp_path / "net v1.5.json"
    dataclasses.replace(card, files=files).save(path)
    entries = [{"file": f"elsewhere/{name}", "sha256": digest([tmp_path / name])} for name in files.values()]
    write_json(parity_path(path), {"files": entries})
    return path


def test_the_card_stands_for_all_files(several):
    found = find_set(several)
    assert [file.name for file in found.files] == ["net v1.5_b1.mindir", "net v1.5_b8.mindir"]
    assert found.card_file == several and list(found.card.files) == [1, 8]
    for file in found.files:
        check_digest(file)


def test_one_of_several_is_taken_alone(several):
    one = file_of_size(several.with_suffix(".mindir"), 8)
    assert find_set(one).files == (one,) and find_set(str(one)).card_file == several


def test_a_single_file_by_its_name_or_its_card(card, tmp_path):
    path = tmp_path / "net_b8.mindir"  # a name that a user may give too
    path.write_bytes(b"x")
    card.save(tmp_path / "net_b8.json")
    assert find_set(path) == find_set(tmp_path / "net_b8.json")
    assert find_set(path).files == (path,)


def test_a_file_that_the_card_does_not_name(several):
    for name in ("net v1.5.mindir", "net v1.5_b4.mindir"):
        left_over = several.with_name(name)
        left_over.write_bytes(b"of an earlier export")
        with pytest.raises(UserError, match=r"not of the export that .*net v1\.5\.json describes, which has"):
            find_set(left_over)


def test_the_name_of_a_single_file_that_is_several(several):
    with pytest.raises(UserError, match=r"no such model file; give .*net v1\.5\.json, the card of several"):
        find_set(several.with_suffix(".mindir"))


def test_a_changed_or_missing_file_of_several(several):
    _, second = find_set(several).files
    second.write_bytes(b"other")
    with pytest.raises(UserError, match=r"_b8\.mindir: damaged or replaced: .*parity\.json"):
        check_digest(second)
    second.unlink()
    with pytest.raises(UserError, match=r"_b8\.mindir: part of a model: No such file"):
        check_digest(second)


@pytest.mark.parametrize("files", [None, 3, [3], [{}], [{"file": None}]])
def test_a_strange_report_fits_no_file(several, files):
    write_json(parity_path(several), {"files": files})
    with pytest.raises(UserError, match="damaged or replaced"):
        check_digest(find_set(several).files[0])


@pytest.mark.parametrize(
    "files", [["a.mindir"], {"0": "a.mindir"}, {"x": "a.mindir"}, {"1": "../a.mindir"}, {"1": ""}, {"1": 3}]
)
def test_a_card_with_strange_files(several, files):
    values = json.loads(several.read_text())
    several.write_text(json.dumps({**values, "files": files}))
    with pytest.raises(UserError, match=r"net v1\.5\.json: model card: 'files' must give a file"):
        find_set(several)


def test_files_for_ascend_alone(card, tmp_path):
    dataclasses.replace(card, files={1: "net_b1.air"}).save(tmp_path / "net.json")
    with pytest.raises(UserError, match=r"net\.json: describes net_b1\.air, which cannot be run here"):
        find_set(tmp_path / "net.json")


def test_another_kind_of_file(tmp_path):
    with pytest.raises(UserError, match=r"x\.ckpt: not a \.mindir file"):
        find_set(tmp_path / "x.ckpt")
