"""All files of an export take their place, or none."""

from pathlib import Path

import pytest

from src.common.errors import UserError
from src.deploy.placing import place, scratch_folder


@pytest.fixture
def scene(tmp_path):
    """New files in a scratch folder, old ones where they go, and the moves."""
    scratch = tmp_path / "scratch"
    for name in ("m_variables/data_0", "m", "m.json"):
        for folder, content in ((scratch, "new"), (tmp_path, "old")):
            path = folder / name
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_text(content)
    return scratch, {scratch / name: tmp_path / name for name in ("m_variables", "m", "m.json")}


def contents(moves):
    return [(target / "data_0" if target.is_dir() else target).read_text() for target in moves.values()]


def test_everything_is_replaced(scene):
    scratch, moves = scene
    place(moves, scratch=scratch)
    assert contents(moves) == ["new"] * 3
    assert all(target.stat().st_mode & 0o777 in (0o644, 0o755) for target in moves.values())


def test_what_was_not_there_is_added(scene):
    scratch, moves = scene
    for target in moves.values():
        (target / "data_0" if target.is_dir() else target).unlink()
    (scratch.parent / "m_variables").rmdir()
    place(moves, scratch=scratch)
    assert contents(moves) == ["new"] * 3


@pytest.mark.parametrize("failing", ["m_variables", "m", "m.json"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_in_between_brings_back_what_was_there(scene, monkeypatch, failing, error):
    scratch, moves = scene
    really = Path.replace

    def replace(self, target):
        if self == scratch / failing:
            raise error
        return really(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(UserError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        place(moves, scratch=scratch)
    assert contents(moves) == ["old"] * 3
    if isinstance(error, OSError):
        assert str(caught.value).startswith(f"cannot write {moves[scratch / failing]}: No space left")


def test_what_was_not_there_is_taken_away_again(scene, monkeypatch):
    scratch, moves = scene
    moves[scratch / "m"].unlink()
    (scratch / "m.json").unlink()
    with pytest.raises(UserError, match="cannot write"):
        place(moves, scratch=scratch)
    assert not moves[scratch / "m"].exists() and (scratch / "m").read_text() == "new"


def test_without_links_the_old_file_is_copied(scene, monkeypatch):
    scratch, moves = scene

    def refuse(self, target):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    (scratch / "m.json").unlink()
    with pytest.raises(UserError):
        place(moves, scratch=scratch)
    assert contents(moves) == ["old"] * 3


def test_a_folder_in_place_of_a_file_is_found_before_anything_moves(scene):
    scratch, moves = scene
    moves[scratch / "m.json"].unlink()
    moves[scratch / "m.json"].mkdir()
    with pytest.raises(UserError, match=r"m\.json: is a folder"):
        place(moves, scratch=scratch)
    assert (scratch / "m").exists() and moves[scratch / "m"].read_text() == "old"


def test_the_scratch_folder_ends_with_its_block(tmp_path):
    with scratch_folder(tmp_path / "deep" / "m") as scratch:
        assert scratch.parent == tmp_path / "deep"
    assert not scratch.exists()
