# SPDX-License-Identifier: Apache-2.0
"""A whitened checkpoint gives the class scores of the plain one, and white embeddings."""

import json

import mindspore as ms
import numpy as np
import pytest
from PIL import Image

from src.checkpoint.file import read_checkpoint
from src.common.errors import UserError
from src.model_utils.config import load_config
from src.multigrain import choose_p, whiten, whitening
from src.trained import open_trained
from src.zoo import config_class_of, create_recipe
from tests.helpers.checkpoints import save_checkpoint

pytestmark = pytest.mark.usefixtures("graph_mode", "plain_logger")

KEYS = {
    "model": "multigrain_resnet18", "device_target": "CPU", "block_units": [1, 1, 1, 1],
    "widths": [4, 8, 8, 16], "stem": "small", "image_size": 32, "ema_decay": 0.9,
}  # fmt: skip


def _checkpoint(path, keys):
    """Untrained weights, and others as their average."""
    config = load_config(keys, config_class_of=config_class_of)
    weights, average = (
        create_recipe(config.model_copy(update={"seed": seed})).network(num_classes=3) for seed in (0, 1)
    )
    arrays = {p.name: p.asnumpy() for p in weights.get_parameters()}
    arrays |= {f"ema.{p.name}": p.asnumpy() for p in average.get_parameters()}
    arrays["train.step"] = np.zeros(1, np.int32)
    save_checkpoint(path, keys, arrays=arrays, class_names="abc", step=7)
    return ["--checkpoint_path", str(path)]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """40 pictures of 32x32, each even in one half and noise in the other, and a file that is none."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for k in range(40):
        pixels = rng.integers(0, 256, (32, 32, 3))
        pixels[: rng.integers(1, 32)] = rng.integers(0, 256, 3)
        (folder / str(k % 3)).mkdir(exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / str(k % 3) / f"{k}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def _images(folder):
    pixels = np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob("*/*.png"))])
    return pixels.astype(np.uint8)


def test_the_scores_stay_and_the_embeddings_become_white(pictures, tmp_path, capsys):
    words, output = _checkpoint(tmp_path / "plain.ckpt", KEYS), tmp_path / "white.ckpt"
    whiten.main([*words, "--images", str(pictures), "--output", str(output), "--eval_image_size", "32"])
    out, err = capsys.readouterr()
    facts = json.loads(out.splitlines()[-1])
    assert "broken.png" in err and (facts["images"], facts["skipped"]) == (40, 1)
    assert (facts["whitening_dim"], facts["averaged_weights"]) == (17, True)
    assert 0 < facts["largest_score_change"] < 1e-4

    written = read_checkpoint(output)
    assert written.meta["class_names"] == ["a", "b", "c"] and written.meta["step"] == 7
    assert not any(name.startswith(("ema.", "train.")) for name in written.arrays)
    before, after = (open_trained(path, {}) for path in (words[1], output))
    x = before.recipe.inputs()(ms.Tensor(_images(pictures)))
    logits = before.network(x).asnumpy()
    np.testing.assert_allclose(after.network(x).asnumpy(), logits, atol=1e-4 * np.abs(logits).max())
    white = after.network.embed(x).asnumpy()
    np.testing.assert_allclose(np.cov(white, rowvar=False), np.eye(17), atol=2e-2)
    assert after.recipe.config.eval_image_size == 32

    with pytest.raises(UserError, match=r"white\.ckpt is whitened already"):
        whiten.main(["--checkpoint_path", str(output), "--images", str(pictures), "--output", str(output)])


def test_few_pictures_want_regularisation(pictures, tmp_path, capsys):
    words, output = _checkpoint(tmp_path / "plain.ckpt", KEYS), tmp_path / "white.ckpt"
    words += ["--images", str(pictures / "0"), "--output", str(output), "--raw_weights"]
    with pytest.raises(UserError, match=r"14 images vary in 13 of 17 .* or 18 different"):
        whiten.main(words)
    assert not output.exists()
    whiten.main([*words, "--regularisation", "0.01"])
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (facts["images"], facts["averaged_weights"]) == (14, False)
    x = ms.Tensor(np.random.default_rng(1).normal(size=(4, 3, 32, 32)).astype(np.float32))
    raw = open_trained(words[1], {}, raw_weights=True).network(x).asnumpy()
    new = open_trained(output, {}).network(x).asnumpy()
    np.testing.assert_allclose(new, raw, atol=1e-4 * np.abs(raw).max())


def test_scores_that_change_are_refused(pictures, tmp_path, monkeypatch):
    fold = whitening.whitened_weights

    def damaged(*given):
        arrays = fold(*given)
        return arrays | {"fc.bias": arrays["fc.bias"] + 0.01}

    monkeypatch.setattr(whitening, "whitened_weights", damaged)
    words, output = _checkpoint(tmp_path / "plain.ckpt", KEYS), tmp_path / "white.ckpt"
    with pytest.raises(UserError, match=r"the class scores change by .* nothing is written"):
        whiten.main([*words, "--images", str(pictures), "--output", str(output)])
    assert not output.exists()


def test_another_model_is_refused(pictures, tmp_path):
    other = {"model": "resnet9", "device_target": "CPU", "widths": [2, 2, 2, 2]}
    words = _checkpoint(tmp_path / "other.ckpt", other)
    with pytest.raises(UserError, match=r"other\.ckpt is of resnet9; give one of MultiGrain"):
        whiten.main([*words, "--images", str(pictures), "--output", str(tmp_path / "white.ckpt")])
    with pytest.raises(UserError, match=r"other\.ckpt is of resnet9; only MultiGrain"):
        choose_p.main(words)
