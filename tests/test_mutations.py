# SPDX-License-Identifier: Apache-2.0
"""A file that is damaged is refused in one line, or says what it said before, whatever it is a file of."""

from functools import partial

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from src.common.errors import UserError
from src.data.binary import CIFAR10, ImageSet, read_set, write_cifar10
from src.data.mindrecord import open_mindrecord
from src.data.preparation import Preparation
from src.data.prepare.commands import prepare_mindrecord
from src.deploy.backends import open_predictor
from src.deploy.card import ModelCard
from src.deploy.export import export_model
from src.retrieval.index import PictureIndex
from src.trained import open_trained
from src.zoo import create_network
from tests.bit.test_weights import _as_official
from tests.checkpoint.weights_cases import arrays_of, other_weights, torch_named
from tests.helpers.checkpoints import save_checkpoint
from tests.helpers.indexes import build, draw
from tests.helpers.mutations import outcomes

pytestmark = pytest.mark.usefixtures("graph_mode", "plain_logger")


def plain(answer):
    """Arrays as bytes, to be compared, NaN and all."""
    if isinstance(answer, dict):
        return {name: plain(value) for name, value in answer.items()}
    if isinstance(answer, list | tuple):
        return [plain(value) for value in answer]
    return (answer.dtype, answer.shape, answer.tobytes()) if isinstance(answer, np.ndarray) else answer


def opened(path, **keys):
    """As all doors open weights."""
    trained = open_trained(path, keys)
    return plain([trained.checkpoint.meta, trained.checkpoint.arrays, arrays_of(trained.network)])


def checkpoint(folder):
    keys = {"model": "resnet9", "device_target": "CPU", "widths": [2, 2, 2, 2]}
    path = save_checkpoint(folder / "last.ckpt", keys, class_names="abc")
    return [path], partial(opened, path), {}


def npz(folder):
    keys = {"model": "bit_r50x1", "block_units": [1, 1, 1, 1], "width_factor": 0.5}
    network = create_network("bit_r50x1", num_classes=3, block_units=(1, 1, 1, 1), width_factor=0.5)
    path = folder / "BiT.npz"
    np.savez(path, **_as_official(other_weights(network)))
    return [path], partial(opened, path, device_target="CPU", **keys), {}


def safetensors(folder):
    """The format has no checksum: other numbers, if they are finite, are taken as they are."""
    network = create_network("resnet9", num_classes=3, widths=(2, 2, 2, 2))
    path = folder / "weights.safetensors"
    save_file(torch_named(other_weights(network)), path)
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    keys = {"model": "resnet9", "device_target": "CPU", "widths": [2, 2, 2, 2]}
    return (
        [path],
        partial(opened, path, **keys),
        {"accepts": lambda _, data: data[:header] == whole[:header] and len(data) == len(whole)},
    )


def export(folder):
    card = ModelCard(
        model="resnet9", class_names=tuple("abc"), preparation=Preparation(32, (125,) * 3, (60,) * 3)
    )
    network = create_network("resnet9", num_classes=3, widths=(2, 2, 2, 2))
    export_model(network, folder / "net", card=card)
    images = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)

    def answer():
        predictor = open_predictor(folder / "net", device_target="CPU")
        return plain([predictor.card.model_dump(), predictor.logits(images)])

    return [folder / "net" / name for name in ("model.mindir", "card.json", "parity.json")], answer, {}


def index(folder):
    for number in range(9):
        draw(folder / "photos" / f"{number}.png", number)
    build(folder / "index", folder / "photos")

    def answer():
        try:
            found = PictureIndex.open(folder / "index")
        except UserError:
            with pytest.raises(UserError):  # a build reads all of it, too
                build(folder / "index", folder / "photos")
            raise
        finally:
            for left in (folder / "index").glob("*.sqlite-*"):  # as a header says it that is damaged
                left.unlink()
        return plain([found.identity, found.reopen, found.files, found.vectors,
                      found.search(np.float32(found.vectors[:2]), 5)])  # fmt: skip

    return [folder / "index" / "index.sqlite"], answer, {}


def cifar(folder):
    rng = np.random.default_rng(0)
    train, test = (
        ImageSet(rng.integers(0, 256, (n, 3, 32, 32), np.uint8), np.arange(n) % 4, tuple("abcd"))
        for n in (7, 3)
    )
    write_cifar10(folder, train, test)

    def answer():
        sets = [read_set(CIFAR10, folder, split) for split in ("train", "test")]
        return plain([[one.images, one.labels, one.class_names] for one in sets])

    return sorted(folder.iterdir()), answer, {}


def mindrecord(folder):
    """All that says where images are and what they show; of the images themselves there is no checksum."""
    rng = np.random.default_rng(0)
    for number in range(12):
        split = "val" if number % 4 == 3 else "train"
        path = folder / "pictures" / split / "abc"[number // 4] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(path)
    prepare_mindrecord(folder / "pictures", folder / "record", shards=2)

    def answer():
        splits = [open_mindrecord(folder / "record", split) for split in ("train", "test")]
        return plain([
            [one.class_names, one.labels, [[one.name(k), one.read_bytes(k)] for k in range(len(one))]]
            for one in splits
        ])  # fmt: skip

    def accepts(path, data):
        whole = shards.get(path, b"")
        header = 8 + int.from_bytes(whole[:8], "little")
        return bool(whole) and data[:header] == whole[:header] and len(data) == len(whole)

    files = sorted((folder / "record").iterdir())
    shards = {path: path.read_bytes() for path in files if path.suffix not in (".db", ".json")}
    return files, answer, {"accepts": accepts}


@pytest.mark.parametrize("kind", [checkpoint, npz, safetensors, export, index, cifar, mindrecord])
def test_damage_is_a_line_or_changes_nothing(tmp_path, kind, more_if_slow):
    files, read, how = kind(tmp_path)
    count = more_if_slow(60, 300)
    assert outcomes(files, read, count=count, **how)["refused"] > count / 3
