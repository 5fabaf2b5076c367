# SPDX-License-Identifier: Apache-2.0
"""What infer.py says of folders: what they hold besides, and what could not be read."""

import argparse
import json
from types import SimpleNamespace

import pytest

from src.common.errors import UserError
from src.deploy import door
from src.deploy.classify import Classified
from tests.helpers.folders import save, unreadable

PREDICTOR = SimpleNamespace(card=SimpleNamespace(class_names=("a", "b")))


@pytest.fixture(autouse=True)
def classified(monkeypatch):
    """Nothing is read."""
    seen = []

    def classify(predictor, pictures, *, top, workers):
        seen.extend(picture.file for picture in pictures)
        return Classified([], [], {}, None)

    monkeypatch.setattr(door, "classify", classify)
    return seen


def run(*images, **flags):
    given = {
        "images": [str(image) for image in images],
        "labels": None,
        "top": 5,
        "workers": 0,
        "json": True,
        "summary": False,
        "max_image_pixels": None,
        "output": None,
    }
    door.classify_from_flags(PREDICTOR, argparse.Namespace(**given | flags))


def test_what_a_folder_holds_besides_is_said(tmp_path, capsys, classified):
    """Old: passed over unsaid."""
    for name in ("a.jpg", "b.jp2", "c.HEIC", "@eaDir/d.jpg"):
        save(tmp_path / name)
    run(tmp_path)
    said = capsys.readouterr()
    first, second = said.err.splitlines()
    assert first == f"2 pictures in {tmp_path}" and len(classified) == 2 and said.out.count("\n") == 1
    assert "1 .heic (convert .heic to JPEG or PNG)" in second and "@eaDir" in second


def test_of_files_nothing_is_said(tmp_path, capsys):
    save(tmp_path / "a.jpg")
    run(tmp_path / "a.jpg")
    assert capsys.readouterr().err == ""


def test_a_folder_that_cannot_be_read_is_passed_over_and_told_at_the_end(tmp_path, capsys, monkeypatch):
    save(tmp_path / "a" / "1.jpg")
    save(tmp_path / "b" / "2.jpg")
    unreadable(monkeypatch, tmp_path / "b")
    with pytest.raises(UserError, match=r"cannot read 1 folder .*b \(Permission denied"):
        run(tmp_path)
    assert capsys.readouterr().out.startswith("{")


def test_larger_images_are_admitted_on_request(tmp_path, monkeypatch):
    """An exported model has no config with this key."""
    save(tmp_path / "a.jpg")
    admitted = []
    monkeypatch.setattr(door, "admit", admitted.append)
    run(tmp_path)
    run(tmp_path, max_image_pixels=10**9)
    assert admitted == [10**9]
    with pytest.raises(UserError, match="max_image_pixels: 0 given, allowed: a whole number >= 1"):
        run(tmp_path, max_image_pixels=0)


def test_the_answers_are_written_too(tmp_path, capsys, classified):
    """The same object, whatever is printed, and what is printed names the file."""
    save(tmp_path / "a.jpg")
    out = tmp_path / "new" / "answers.json"
    run(tmp_path / "a.jpg", output=out)
    said = capsys.readouterr()
    assert out.read_text() == said.out and json.loads(said.out)["results"] == []
    assert said.err == f"answers      {out}\n"
    out.write_text("older")
    run(tmp_path / "a.jpg", output=out, json=False, summary=True)
    assert out.read_text() == said.out
    assert capsys.readouterr().out.splitlines()[-1] == f"answers      {out}"


def test_a_file_that_cannot_be_written_is_said_before_an_image_is_read(tmp_path, monkeypatch, classified):
    save(tmp_path / "a.jpg")
    for path, message in ((tmp_path, "is a folder; name a file"), (tmp_path / "a.jpg" / "b", "cannot write")):
        with pytest.raises(UserError, match=message):
            run(tmp_path / "a.jpg", output=path)
    monkeypatch.setattr(door.os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match=f"output: {tmp_path} is read-only"):
        run(tmp_path / "a.jpg", output=tmp_path / "answers.json")
    assert classified == []
