# SPDX-License-Identifier: Apache-2.0
"""A checkpoint opens as the network that was trained, by the config it carries."""

import json
import logging
import shutil
from argparse import Namespace

import mindspore as ms
import numpy as np
import pytest
from PIL import Image

from src import trained
from src.checkpoint.weights import WeightsError, load_weights
from src.common.errors import UserError
from src.evaluation.door import evaluate_from_flags
from src.model_utils.config import check
from src.resnet9.config import ResNet9Config
from src.zoo import create_network
from tests.helpers.checkpoints import save_checkpoint

pytestmark = pytest.mark.usefixtures("graph_mode", "plain_logger")

CLASSES = ["red", "green", "blue", "grey"]
KEYS = {"widths": [2, 3, 4, 5], "device_target": "CPU", "activation": "celu", "celu_alpha": 0.3}


def _weights(seed) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    network = create_network("resnet9", num_classes=4, widths=(2, 3, 4, 5))
    return {p.name: rng.uniform(0.2, 1, p.shape).astype(np.float32) for p in network.get_parameters()}


RAW, AVERAGED = _weights(1), _weights(2)


def _write(path, arrays, **keys):
    keys = {"model": "resnet9", **KEYS, **keys}
    return save_checkpoint(path, keys, arrays=arrays, class_names=CLASSES, step=7)


@pytest.fixture(scope="module")
def raw_checkpoint(tmp_path_factory):
    return _write(
        tmp_path_factory.mktemp("raw") / "last.ckpt", {**RAW, "train.updates": np.array(7, np.int32)}
    )


@pytest.fixture(scope="module")
def averaged_checkpoint(tmp_path_factory):
    arrays = {**RAW, **{f"ema.{name}": value for name, value in AVERAGED.items()}}
    return _write(tmp_path_factory.mktemp("averaged") / "last.ckpt", arrays)


def _predictor(path, *words, **flags):
    """As infer.py opens it."""
    default = {"backend": "auto", "device_target": "CPU", "batch_size": None}
    none = dict.fromkeys(("config_path", "class_names", "raw_weights", "threads"))
    return trained.checkpoint_predictor(Namespace(model_path=path, **{**default, **none, **flags}), words)


def _holds(network, weights) -> bool:
    arrays = {p.name: p.asnumpy() for p in network.get_parameters()}
    return arrays.keys() == weights.keys() and all((arrays[name] == weights[name]).all() for name in arrays)


def test_what_a_checkpoint_says(raw_checkpoint):
    opened = trained.open_trained(raw_checkpoint, {})
    assert _holds(opened.network, RAW)
    assert opened.network.training is False
    assert not opened.averaged
    assert opened.checkpoint.meta["step"] == 7
    assert opened.recipe.config == check(KEYS, ResNet9Config)
    assert (opened.device.target, opened.device.rank, opened.device.size) == ("CPU", 0, 1)
    card = opened.card
    how = card.preparation
    assert (card.model, card.class_names, how.image_size) == ("resnet9", tuple(CLASSES), 32)
    assert (how.mean, how.std) == ((125.31, 122.95, 113.87), (62.99, 62.09, 66.70))


@pytest.mark.parametrize(("raw_weights", "weights"), [(False, AVERAGED), (True, RAW)])
def test_the_average_is_taken_unless_the_weights_are_asked_for(averaged_checkpoint, raw_weights, weights):
    opened = trained.open_trained(str(averaged_checkpoint), {}, raw_weights=raw_weights)
    assert _holds(opened.network, weights)
    assert opened.averaged is not raw_weights


def test_a_file_comes_before_the_checkpoint_and_overrides_before_both(raw_checkpoint, tmp_path):
    path = tmp_path / "more.yaml"
    path.write_text("eval_batch_size: 20\nsync_bn: true\n")
    config = trained.open_trained(raw_checkpoint, {"eval_batch_size": 30}, config_path=path).recipe.config
    assert (config.eval_batch_size, config.sync_bn, config.celu_alpha) == (30, True, 0.3)


def test_weights_that_do_not_fit_the_changed_config(raw_checkpoint):
    with pytest.raises(WeightsError, match=r"layer3.bn.beta has shape \(5,\), not \(6,\)"):
        trained.open_trained(raw_checkpoint, {"widths": [2, 3, 4, 6]})


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        ({"tta_shares": 0.5}, "the nearest known key is tta_share"),
        ({"device_target": "TPU"}, "device_target"),
    ],
)
def test_overrides_are_checked(raw_checkpoint, overrides, part):
    with pytest.raises(UserError, match=part):
        trained.open_trained(raw_checkpoint, overrides)


def test_a_run_opens_as_its_best_checkpoint(raw_checkpoint, averaged_checkpoint, tmp_path):
    folder = tmp_path / "r1" / "checkpoints"
    folder.mkdir(parents=True)
    shutil.copy(averaged_checkpoint, folder / "best.ckpt")
    shutil.copy(raw_checkpoint, folder / "last.ckpt")
    opened = trained.open_trained(folder.parent, {})
    assert opened.checkpoint.path == folder / "best.ckpt" and _holds(opened.network, AVERAGED)
    assert _predictor(folder.parent).card.model == "resnet9"


def test_a_checkpoint_with_numbers_that_are_not_finite_is_refused_by_name(tmp_path):
    arrays = {**RAW, "linear.weight": np.full_like(RAW["linear.weight"], np.nan)}
    path = _write(tmp_path / "bad.ckpt", arrays)
    with pytest.raises(WeightsError, match=f"checkpoint {path} holds numbers .* in linear.weight;"):
        trained.open_trained(path, {})


def test_a_damaged_checkpoint(raw_checkpoint, tmp_path):
    path = tmp_path / "half.ckpt"
    path.write_bytes(raw_checkpoint.read_bytes()[:300])
    with pytest.raises(UserError, match=str(path)):
        trained.open_trained(path, {})


def test_a_predictor_gives_the_logits_of_the_averaged_network(averaged_checkpoint):
    predictor = _predictor(averaged_checkpoint, batch_size=2)
    assert (predictor.batch_size, predictor.device) == (2, "CPU")
    network = create_network("resnet9", num_classes=4, widths=(2, 3, 4, 5), activation="celu", celu_alpha=0.3)
    load_weights(network, AVERAGED)
    network.set_train(False)
    images = np.random.default_rng(0).normal(size=(3, 3, 32, 32)).astype(np.float32)
    expected = network(ms.Tensor(images)).asnumpy()
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(predictor.logits(images), expected, rtol=1e-5)


def test_an_empty_path_is_the_folder_where_it_runs(tmp_path, monkeypatch):
    """Old: a traceback, as where a shell's variable is not set."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"is a folder without checkpoints"):
        _predictor("")


def test_a_checkpoint_does_not_run_on_lite_nor_on_threads(averaged_checkpoint):
    with pytest.raises(UserError, match=r"backend: lite given, weights run on mindspore; export them"):
        _predictor(averaged_checkpoint, backend="lite")
    with pytest.raises(UserError, match="threads: 2 given, and MindSpore has settings of its own"):
        _predictor(averaged_checkpoint, threads=2)


@pytest.mark.parametrize(("count", "given"), [(5, 5), (100, 70)])
def test_some_images_are_the_first_of_the_test_data(raw_checkpoint, data_path, count, given):
    opened = trained.open_trained(raw_checkpoint, {"data_path": str(data_path)})
    images, recipe = trained.some_images(opened, count=count), opened.recipe
    assert images.shape == (given, 3, 32, 32) and images.dtype == np.float32
    stored = np.fromfile(data_path / "test_batch.bin", np.uint8)[1:3073].reshape(3, 32, 32)
    mean, std = (
        np.array(values)[:, None, None] for values in (recipe.config.image_mean, recipe.config.image_std)
    )
    np.testing.assert_allclose(images[0], (stored - mean) / std, rtol=0, atol=1e-5)


def test_data_that_is_named_is_the_runs_own_or_other_data(raw_checkpoint, averaged_checkpoint, tmp_path):
    """Of other class folders all images are evaluated; a share that is asked for is held out anywhere."""
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    shutil.copy(raw_checkpoint, run / "checkpoints" / "best.ckpt")
    (run / "config.yaml").write_text(f"model: resnet9\ndata_path: {tmp_path / 'own'}\n")
    (tmp_path / "own").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "own")

    def is_other(path=run, **keys):
        return trained.open_trained(path, {name: str(value) for name, value in keys.items()}).other_data

    assert (
        not is_other()
        and not is_other(data_path=tmp_path / "own")
        and not is_other(data_path=tmp_path / "link")
    )
    assert is_other(data_path=tmp_path / "own" / "test") and is_other(data_path="elsewhere")
    assert is_other(averaged_checkpoint, data_path=tmp_path / "own"), "a checkpoint alone says of no folder"
    assert not is_other(averaged_checkpoint)
    assert not trained.open_trained(run, {"data_path": "elsewhere", "val_fraction": 0.2}).other_data


def test_no_images_without_the_data_set(raw_checkpoint, tmp_path, caplog):
    opened = trained.open_trained(raw_checkpoint, {"data_path": str(tmp_path / "none")})
    logging.getLogger("quartet").propagate = True
    assert trained.some_images(opened) is None
    (record,) = caplog.records
    assert record.levelname == "WARNING" and str(tmp_path / "none") in record.getMessage()


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("model: resnet9\nwidths: [2, 3, 4, 5]\n")
    return path


@pytest.fixture
def official(tmp_path):
    path = tmp_path / "official.npz"
    np.savez(path, **RAW)
    return path


def test_weights_of_others_take_their_config_from_a_recipe(official, recipe):
    keys = {"device_target": "CPU"}
    opened = trained.open_trained(official, keys, config_path=recipe)
    assert _holds(opened.network, RAW) and not opened.averaged
    assert opened.checkpoint.meta["class_names"] == list("0123")
    by_name = trained.open_trained(official, {"model": "resnet9", "widths": [2, 3, 4, 5], **keys})
    assert _holds(by_name.network, RAW)
    with pytest.raises(UserError, match=r"official\.npz carries no config; give its recipe as --config_path"):
        trained.open_trained(official, keys)


def test_weights_of_others_need_no_data_set(official, recipe, tmp_path, monkeypatch):
    """Old behaviour: infer.py refused them, and export.py asked for the data of all classes."""
    monkeypatch.chdir(tmp_path)
    assert _predictor(official, config_path=recipe).card.class_names == tuple("0123")
    names = tmp_path / "names.txt"
    names.write_text("ant\nbee\ncat\ndog\n")
    card = _predictor(official, "--image_std", "[1,2,3]", config_path=recipe, class_names=names).card
    assert (card.class_names, card.preparation.std) == (("ant", "bee", "cat", "dog"), (1, 2, 3))
    names.write_text(json.dumps({str(k): [f"n0000000{k}", name] for k, name in enumerate("abcd")}))
    card = _predictor(official, config_path=recipe, class_names=names).card
    assert card.class_names == ("n00000000 a", "n00000001 b", "n00000002 c", "n00000003 d")


def test_weights_of_others_and_the_data_set_that_is_named(official, recipe, data_path):
    keys = {"data_path": str(data_path), "device_target": "CPU"}
    opened = trained.open_trained(official, keys, config_path=recipe)
    assert opened.card.class_names == tuple(CLASSES)
    recipe.write_text(f"{recipe.read_text()}data_path: {data_path}\n")
    opened = trained.open_trained(official, {"device_target": "CPU"}, config_path=recipe, with_data=True)
    assert opened.card.class_names == tuple(CLASSES)
    opened.checkpoint.check_classes(CLASSES)
    np.savez(official, **RAW | {"linear.weight": np.zeros((7, 5), np.float32)})
    message = (
        "has a head for 7 classes, the network one for 4: .*; name its classes .* or data .*, or train a"
    )
    with pytest.raises(WeightsError, match=message):
        trained.open_trained(official, keys, config_path=recipe)


def test_official_weights_on_validation_images_of_some_of_their_classes(official, recipe, tmp_path):
    """Case 14: the classes are the weights' own, and there is no folder train."""
    (tmp_path / "I" / "val" / "n02").mkdir(parents=True)
    for number in range(5):
        Image.new("RGB", (40, 40), (9, 9, 9)).save(tmp_path / "I" / "val" / "n02" / f"{number}.jpg")
    names = tmp_path / "names.txt"
    names.write_text("".join(f"n{number:02d}\n" for number in range(4)))
    keys = {"device_target": "CPU", "data_path": str(tmp_path / "I"), "train_crop": "resize", "cutout": 0}
    opened = trained.open_trained(official, keys, config_path=recipe, class_names=names)
    text, figures = evaluate_from_flags(opened, Namespace(predictions=None, pictures=None))
    assert (figures["count"], figures["classes"]) == (5, 1) and "1 of the network's 4 classes" in text
    assert len(trained.some_images(opened)) == 5  # old: an export had no real images to compare with
    with pytest.raises(UserError, match=r"or name the classes of the weights: --class_names FILE"):
        trained.open_trained(official, keys, config_path=recipe)


def test_names_of_another_count_or_for_our_own_checkpoint(official, recipe, averaged_checkpoint, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("ant\nbee\ncat\n")
    with pytest.raises(WeightsError, match="has a head for 4 classes, the network one for 3: "):
        _predictor(official, config_path=recipe, class_names=names)
    with pytest.raises(UserError, match=r"class_names: .* given, but .*last\.ckpt has names of its own"):
        _predictor(averaged_checkpoint, class_names=names)


def test_the_data_is_that_of_the_run_around_the_checkpoint(tmp_path, averaged_checkpoint, data_path):
    """What a checkpoint holds is the same on any machine; its run's config.yaml names the data."""
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    shutil.copy(averaged_checkpoint, run / "checkpoints" / "best.ckpt")
    (run / "config.yaml").write_text(f"data_path: {data_path}\ndevice_target: Ascend\nlr: 3.0\n")
    inside = trained.open_trained(run / "checkpoints" / "best.ckpt", {}).recipe.config
    assert inside.data_path == str(data_path)
    assert (inside.device_target, inside.lr) == ("CPU", check(KEYS, ResNet9Config).lr), "of the checkpoint"
    assert trained.open_trained(run, {"data_path": "/other"}).recipe.config.data_path == "/other"
    moved = shutil.copy(averaged_checkpoint, tmp_path / "best.ckpt")
    assert trained.open_trained(moved, {}).recipe.config.data_path == check(KEYS, ResNet9Config).data_path
