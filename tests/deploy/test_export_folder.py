# SPDX-License-Identifier: Apache-2.0
"""Where an export goes, and what becomes of the folder that stands there."""

import itertools
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from src.common import files
from src.common.errors import UserError
from src.deploy import export
from src.deploy.export import export_model, output_folder
from src.deploy.exported import read_export
from src.deploy.formats import FORMATS, Format
from src.deploy.predict import Opened, Predictor
from tests.helpers.kills import killed_at


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_folder_that_holds_something_else_is_left_alone(make_network, card, tmp_path, monkeypatch):
    """And that is said before the network is compiled."""
    folder = tmp_path / "net"
    export_model(make_network(), folder, card=card)
    (folder / "thesis.txt").write_text("mine")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "card.json").write_text("{}")
    before = files_in(tmp_path)
    monkeypatch.delattr(export, "network_predictor")
    with pytest.raises(UserError, match=r"net also holds thesis\.txt, which is not replaced"):
        export_model(make_network(), folder, card=card)
    with pytest.raises(UserError, match="photos exists already"):
        export_model(make_network(), tmp_path / "photos", card=card)
    assert files_in(tmp_path) == before


@pytest.fixture
def quick(make_network, card, monkeypatch):
    """quick(folder, content): an export without MindSpore's threads, which a forked process has not."""

    def logits(images):
        return np.ones((len(images), 4), np.float32)

    def open_it(path):
        return Opened(logits, (int(path.stem[-1]), 3, 16, 16), "float32", (2, 4))

    def write(network, card, path):
        path.write_text(writes[-1])
        return [path]

    writes = []
    network = make_network()
    monkeypatch.setattr(
        export, "network_predictor", lambda network, card, size: Predictor({size: logits}, card=card)
    )

    def call(folder, content):
        writes.append(content)
        row = Format("MINE", ".mine", write=write, open=open_it)
        monkeypatch.setitem(FORMATS, "MINE", row)
        export_model(network, folder, card=card, file_format="MINE", batch_sizes=[1, 4])

    return call


def test_killed_while_it_writes_and_renames(quick, tmp_path):
    """Of a second export: one of both stands there, whole. The next completes and leaves nothing else."""
    folder = tmp_path / "net"
    quick(folder, "new")
    new = files_in(folder)
    quick(folder, "old")
    old = files_in(folder)
    seen = []
    for number in itertools.count(1):
        names = ("new_folder", "_exchange", "_discard", "atomic_path")
        if not killed_at(partial(quick, folder, "new"), number, module=files, functions=names):
            break
        seen.append(files_in(folder))
        assert seen[-1] in (old, new) and len(read_export(folder).files) == 2
        if seen[-1] == new:
            quick(folder, "old")
            assert [path.name for path in tmp_path.iterdir()] == ["net"]
    assert old in seen and new in seen


class TestOutput:
    """Where an export goes, and what its folder is called."""

    @pytest.fixture(autouse=True)
    def here(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

    def at(self, card, file_name=None, *, checkpoint="best.ckpt", **how):
        how = {"file_format": "MINDIR", "batch_sizes": (1,)} | how
        return output_folder(file_name, checkpoint=Path(checkpoint), card=card, **how)

    def test_beside_the_checkpoint_or_into_its_run(self, card, tmp_path):
        assert self.at(card, checkpoint="r1/checkpoints/best.ckpt") == tmp_path / "r1" / "small_mindir"
        assert self.at(card, checkpoint="white.ckpt") == tmp_path / "small_mindir"

    def test_what_tells_exports_apart_is_in_the_name(self, card):
        pixels = card.model_copy(update={"input_type": "uint8"})
        assert self.at(card, file_format="AIR").name == "small_air"
        assert self.at(pixels).name == "small_mindir_uint8"
        assert self.at(pixels, batch_sizes=[1, 8]).name == "small_mindir_uint8_b1_b8"
        assert self.at(card, batch_sizes=[8]).name == "small_mindir_b8"
        assert self.at(card, batch_sizes=[8], fold=False).name == "small_mindir_b8_unfolded"

    def test_a_name_is_the_folder_and_a_folder_is_written_into(self, card):
        assert self.at(card, "new") == self.at(card, "new.mindir") == Path("new")
        assert self.at(card, "net v1.5") == Path("net v1.5")
        assert self.at(card, "new/") == Path("new/small_mindir")
        Path("out").mkdir()
        assert self.at(card, "out") == self.at(card, "out/") == Path("out/small_mindir")
        Path("out/card.json").touch()  # an earlier export
        assert self.at(card, "out") == self.at(card, "out/") == Path("out")
