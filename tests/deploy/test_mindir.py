# SPDX-License-Identifier: Apache-2.0
"""MindSpore's backend: exported files and networks agree, and damaged files are one line."""

import shutil

import mindspore as ms
import numpy as np
import pytest

from src.common.errors import UserError
from src.common.files import checksum
from src.data.preparation import Preparation
from src.deploy.backends import open_predictor
from src.deploy.card import ModelCard
from src.deploy.export import export_model
from src.deploy.mindir import network_predictor


def opened(path):
    return open_predictor(path, backend="mindspore", device_target="CPU")


@pytest.fixture(scope="module")
def original(make_network, card, tmp_path_factory):
    folder = tmp_path_factory.mktemp("original") / "net"
    export_model(make_network(), folder, card=card, batch_sizes=[3])
    return folder


@pytest.fixture
def exported(original, tmp_path):
    """A copy of an export, to be damaged at will."""
    return shutil.copytree(original, tmp_path / "net")


def seal(folder):
    """The card of the files as they are now: what comes behind the checksums is asked alone."""
    card = ModelCard.load(folder / "card.json")
    files = {size: {name: checksum(folder / name) for name in parts} for size, parts in card.files.items()}
    card.model_copy(update={"files": files}).save(folder / "card.json")


@pytest.mark.parametrize("count", [0, 1, 3, 7])
def test_file_and_network_agree_for_any_number(exported, make_network, card, images, count):
    from_file = opened(exported)
    from_network = network_predictor(make_network(), card, batch_size=2)
    assert from_file.batch_size == 3 and from_file.card.model_copy(update={"files": {}}) == card
    assert (from_file.backend, from_file.device) == ("mindspore", "CPU")
    answer = from_file.logits(images[:count])
    assert answer.shape == (count, 4) and answer.dtype == np.float32
    assert np.allclose(answer, from_network.logits(images[:count]), rtol=1e-5, atol=1e-6)


def test_network_is_put_into_evaluation_mode(make_network, card, images):
    network = make_network()
    predictor = network_predictor(network, card, batch_size=4)
    assert not network.training
    assert np.array_equal(predictor.logits(images), predictor.logits(images))


class TestDamagedFile:
    def check(self, path, message):
        with pytest.raises(UserError, match=message) as caught:
            opened(path)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("sealed", [True, False])
    @pytest.mark.parametrize("part", [0, 0.001, 0.1, 0.5, 0.9, 0.999])
    def test_truncated(self, exported, part, sealed):
        path = exported / "model.mindir"
        content = path.read_bytes()
        path.write_bytes(content[: int(part * len(content))])
        if sealed:
            seal(exported)
        self.check(exported, r"model\.mindir: .*damaged")

    @pytest.mark.parametrize("content", [b"PK\x03\x04" * 300, b"hello " * 100, bytes(1000), b"\x08\x01"])
    def test_wrong_magic(self, exported, content):
        (exported / "model.mindir").write_bytes(content)
        seal(exported)
        self.check(exported, r"model\.mindir: not a MINDIR file")

    def test_each_flipped_bit_is_found_before_the_file_is_parsed(self, exported):
        """Many of them end the parser with other errors than its own, or change a weight without a word."""
        path = exported / "model.mindir"
        content = path.read_bytes()
        for place in range(0, len(content), 97):
            damaged = bytearray(content)
            damaged[place] ^= 1 << place % 8
            path.write_bytes(damaged)
            self.check(exported, r"model\.mindir: damaged or replaced: model\.mindir is not the file")

    def test_a_flipped_bit_behind_the_checksum_is_one_line_at_least(self, exported):
        """Where a person has made the card anew: no traceback of the parser, in a name that is no UTF-8."""
        path = exported / "model.mindir"
        content = bytearray(path.read_bytes())
        content[content.index(b"MindSpore") + 2] = 0xFF
        path.write_bytes(content)
        seal(exported)
        self.check(exported, r"model\.mindir: not a MINDIR file, or a damaged one")

    @pytest.mark.parametrize(("size", "names"), [(32, "abcd"), (16, "abc")])
    def test_card_of_another_model(self, exported, size, names):
        how = Preparation(size, (0, 0, 0), (1, 1, 1))
        files = ModelCard.load(exported / "card.json").files
        card = ModelCard(model="other", class_names=tuple(names), preparation=how, files=files)
        card.save(exported / "card.json")
        self.check(
            exported, r"its card describes .* but model\.mindir takes float32 \(3, 16, 16\) and gives 4"
        )

    def test_not_a_classifier(self, exported, make_network):
        free = ms.Tensor(shape=[None, 3, 16, 16], dtype=ms.float32)
        path = exported / "model.mindir"
        path.unlink()
        ms.export(make_network().set_train(False), free, file_name=str(path), file_format="MINDIR")
        seal(exported)
        self.check(exported, "not an image classifier of fixed batch size")
