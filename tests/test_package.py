# SPDX-License-Identifier: Apache-2.0
"""The wheel holds the code of src as the package quartet, and works away from the repository."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from src.deploy.packed import PackedModel
from src.deploy.packed.file import write_packed
from tests.helpers.packed import random_program

ROOT = Path(__file__).parents[1]
USE = """
import mindspore as ms
import numpy as np
import quartet.tools.search, quartet.trained
from quartet.zoo import create_network, list_models
assert "bit_r50x1" in list_models()
network = create_network("resnet9", num_classes=3, widths=[2, 2, 2, 2]).set_train(False)
print(quartet.__file__, network(ms.Tensor(np.zeros((1, 3, 32, 32), np.float32))).shape)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder of installed packages that holds the wheel."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    # A build leaves folders beside what it builds.
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    flags = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *flags, str(source)], check=True)
    (wheel,) = folder.glob("quartet-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def called(site: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    ended = subprocess.run(
        [sys.executable, *words], cwd=site, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_it_holds_every_module_and_names_its_requirements(site):
    for suffix in ("py", "html"):
        files = {path.relative_to(ROOT / "src") for path in (ROOT / "src").rglob(f"*.{suffix}")}
        there = {path.relative_to(site / "quartet") for path in (site / "quartet").rglob(f"*.{suffix}")}
        assert files and there == files
    assert not (site / "src").exists()
    (metadata,) = site.glob("quartet-*.dist-info/METADATA")
    pinned = (line.partition("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines())
    lines = metadata.read_text().splitlines()
    assert [line for line in lines if line.startswith("Requires-Dist")] == [
        f"Requires-Dist: {requirement}" for requirement in pinned if requirement
    ]
    assert "Classifier: License :: OSI Approved :: Apache Software License" in lines


def test_a_network_from_another_folder(site):
    file, shape = called(site, "-c", USE).strip().split(" ", 1)
    assert Path(file).parent == site / "quartet" and shape == "(1, 3)"


def test_a_tool_says_how_it_is_called_there(site):
    said = called(site, "-m", "quartet.tools.summary", "--help")
    assert "usage: python -m quartet.tools.summary [MODEL]" in said
    assert "src." not in said


ALONE = """
import sys, numpy as np
from quartet.deploy.packed import PackedModel
model = PackedModel(sys.argv[1])
np.save(sys.argv[2], model.logits(np.load(sys.argv[2])))
print(PackedModel.__module__, *model.class_names)
"""
PACKED_NEEDS = ("numpy", "llvmlite")


@pytest.mark.slow
def test_a_packed_model_in_an_environment_of_two_packages(site, tmp_path):
    """Installed by pip, as a user would; skipped where it has no packages to install."""
    pinned = [line.partition("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    needed = [line for line in pinned if line.partition("==")[0] in PACKED_NEEDS]
    assert len(needed) == len(PACKED_NEEDS)
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"]
    ended = subprocess.run([*install, *needed], capture_output=True, text=True)
    if ended.returncode:
        pytest.skip(f"pip cannot install {', '.join(needed)} here: {ended.stderr.strip().splitlines()[-1]}")
    preparation = {"image_size": 16, "mean": [125.0, 123.0, 114.0], "std": [63.0, 62.0, 66.5]}
    card = {"class_names": ["ant", "bee", "cat", "dog", "elk"], "preparation": preparation}
    write_packed(tmp_path / "model.packed", random_program(), card)
    images = np.random.default_rng(0).normal(size=(3, 3, 16, 16)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    words = ["-c", ALONE, str(tmp_path / "model.packed"), str(tmp_path / "images.npy")]
    environment = {**os.environ, "PYTHONPATH": str(site), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    said = subprocess.run([python, *words], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert said.stdout.split() == ["quartet.deploy.packed.model", "ant", "bee", "cat", "dog", "elk"]
    expected = PackedModel(tmp_path / "model.packed").logits(images)
    np.testing.assert_array_equal(np.load(tmp_path / "images.npy"), expected)
