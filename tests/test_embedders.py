# SPDX-License-Identifier: Apache-2.0
"""Retrieval and search with an exported model: the same as with its checkpoint, and what is refused."""

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.common.errors import UserError
from src.data.decode import decode_resized
from src.deploy.export import export_model
from src.deploy.onnx.metadata import write_onnx
from src.deploy.onnx.translate import to_onnx
from src.embedders import open_embedder
from src.layers.device import use_plain_operators
from src.tools import search
from src.trained import open_trained
from tests.helpers.checkpoints import save_checkpoint
from tests.helpers.doors import ROOT, call_door, call_main
from tests.helpers.pictures import photo

pytestmark = pytest.mark.usefixtures("graph_mode", "plain_logger")

KEYS = {
    "model": "multigrain_resnet18", "device_target": "CPU", "block_units": [1, 1, 1, 1],
    "widths": [4, 8, 8, 16], "stem": "small", "image_size": 32, "crop_percentage": 1.0,
}  # fmt: skip


def export(checkpoint, folder, **how):
    trained = open_trained(checkpoint, {}, float32=True)
    export_model(trained.network, folder, card=trained.card, **how)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """(a checkpoint, its ONNX file in the folder of the export, a lone one that takes pixels)."""
    folder = tmp_path_factory.mktemp("net")
    checkpoint = save_checkpoint(folder / "net.ckpt", KEYS, class_names="ab")
    floats = export(checkpoint, folder / "onnx", file_format="ONNX") / "model.onnx"
    trained = open_trained(checkpoint, {}, float32=True)
    use_plain_operators(trained.network)
    card = trained.card.model_copy(update={"input_type": "uint8"})
    (pixels,) = write_onnx(to_onnx(trained.network, card), card, folder / "pixels.onnx")
    return checkpoint, floats, pixels


@pytest.fixture
def groups(tmp_path):
    """Three groups of three square pictures that look alike."""
    for number in range(9):
        of_group = tmp_path / "set" / "abc"[number // 3]
        of_group.mkdir(parents=True, exist_ok=True)
        image = photo(32, 32, number // 3).astype(int) + 12 * (number % 3)
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(of_group / f"{number}.png")
    return tmp_path / "set"


def last_line(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def refused(done):
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    return done.stderr


def test_embeddings_are_those_of_the_checkpoint(models, groups):
    files = sorted(groups.rglob("*.png"))
    vectors = [
        np.stack([
            vector
            for _, vector in open_embedder(model, {}).embedder.embed(
                (file, partial(decode_resized, file)) for file in files
            )
        ])
        for model in models
    ]  # fmt: skip
    assert vectors[0].shape == (9, 16) and not np.allclose(vectors[0][0], vectors[0][8], atol=1e-3)
    for other in vectors[1:]:
        np.testing.assert_allclose(other, vectors[0], atol=1e-4)


def test_scores_are_those_of_the_checkpoint(models, groups):
    scores = []
    for model in (models[0], models[1], models[1].parent):
        done = call_door("eval.py", checkpoint_path=model, task="retrieval", data_path=groups)
        scores.append(last_line(done))
    known, lone, folder = scores
    assert lone.pop("backend") == "onnxruntime" and lone["checkpoint"] == str(models[1])
    assert lone.pop("made_square") == 0
    figures = {name for name, value in known.items() if isinstance(value, float)}
    assert figures and all(lone[name] == pytest.approx(known[name], abs=1e-4) for name in figures)
    assert folder.items() >= lone.items()


def test_pictures_that_are_made_square_are_counted(models, groups):
    Image.fromarray(photo(40, 32)).save(groups / "a" / "wide.png")
    Image.fromarray(photo(30, 90)).save(groups / "b" / "tall.jpg")
    done = call_door("eval.py", checkpoint_path=models[1], task="retrieval", data_path=groups, workers=2)
    assert last_line(done)["made_square"] == 2 and "made_square" in done.stdout.splitlines()[-2]
    done = call_door("eval.py", checkpoint_path=models[0], task="retrieval", data_path=groups)
    assert "made_square" not in last_line(done)


def test_an_index_remembers_its_file(models, groups, tmp_path):
    model, index = tmp_path / "my.onnx", tmp_path / "index"
    shutil.copy(models[1], model)
    build = partial(call_main, search.main, "build", groups, index=index)
    facts = last_line(build(checkpoint_path=model))
    assert (facts["files"], facts["made_square"]) == (9, 0)
    assert last_line(build(checkpoint_path=model))["unchanged"] == 9
    query = groups / "b" / "3.png"
    asked = partial(call_main, search.main, "search", index, query, "--json", "--top", 3)
    (answer,) = last_line(asked())["results"]
    assert {Path(one["file"]).parent.name for one in answer["found"]} == {"b"}
    assert answer["found"][0] == {"file": str(query), "similarity": pytest.approx(1, abs=1e-3)}
    model.rename(tmp_path / "moved.onnx")
    assert "say where it is now by --checkpoint_path" in refused(asked())
    assert last_line(asked(checkpoint_path=tmp_path / "moved.onnx"))["results"] == [answer]
    for other in (models[0], models[2]):
        assert "is not the one that" in refused(asked(checkpoint_path=other))
        assert "--rebuild" in refused(build(checkpoint_path=other))


def test_mindspore_is_not_needed(models, groups, tmp_path):
    code = (
        "import sys, runpy; sys.modules['mindspore'] = None\n"
        f"for words in ({['eval.py', '--task', 'retrieval', '--data_path', str(groups)]!r},\n"
        f"    {['src.tools.search', 'build', str(groups), '--index', str(tmp_path / 'index')]!r}):\n"
        f"  sys.argv = [*words, '--checkpoint_path', {str(models[1])!r}]\n"
        "  call = runpy.run_path if words[0] == 'eval.py' else runpy.run_module\n"
        "  try: call(words[0], run_name='__main__')\n"
        "  except SystemExit as end: assert not end.code, end\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["files"] == 9


def test_a_file_without_embeddings(models, tmp_path):
    folder = export(models[0], tmp_path / "mindir")
    for path in (folder, folder / "model.mindir"):
        with pytest.raises(UserError, match=r"model.mindir gives no embeddings; export it to ONNX: --file_f"):
            open_embedder(path, {})


@pytest.mark.parametrize(
    ("keys", "how", "message"),
    [
        ({"eval_image_size": 64}, {}, "eval_image_size: given, and .* is an exported model, whose card has"),
        ({}, {"raw_weights": True}, "raw_weights: given, and"),
        ({}, {"config_path": "recipe.yaml"}, "config_path: given, and"),
        ({"workers": -1}, {}, "workers: -1 given, allowed"),
        ({"device_target": "Ascend"}, {}, "device_target: Ascend given, --backend onnxruntime runs on auto"),
    ],
)
def test_what_the_card_says_already(models, keys, how, message):
    with pytest.raises(UserError, match=message):
        open_embedder(models[1], keys, **how)


def test_files_that_are_not_there_or_damaged(models, tmp_path):
    with pytest.raises(UserError, match=r"checkpoint_path: .*none.onnx does not exist"):
        open_embedder(tmp_path / "none.onnx", {})
    (tmp_path / "cut.onnx").write_bytes(models[1].read_bytes()[:-100])
    with pytest.raises(UserError, match=r"cut.onnx: damaged"):
        open_embedder(tmp_path / "cut.onnx", {})


def test_an_exported_classifier_is_for_infer(models):
    message = refused(call_door("eval.py", checkpoint_path=models[1]))
    assert f"python infer.py --model_path {models[1]} DATA --labels folders" in message
