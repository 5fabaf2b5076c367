"""MindSpore's backend: exported files and networks agree, and damaged files are one line."""

import shutil

import mindspore as ms
import numpy as np
import pytest

from src.common.errors import UserError
from src.deploy.backends import open_predictor
from src.deploy.card import ModelCard, card_path
from src.deploy.export import export_model
from src.deploy.mindir import network_predictor
from src.deploy.model_set import parity_path


def opened(path):
    return open_predictor(path, backend="mindspore", device_target="CPU")


@pytest.fixture(scope="module")
def original(make_network, card, tmp_path_factory):
    path = tmp_path_factory.mktemp("original") / "net.mindir"
    export_model(make_network(), path, card=card, batch_sizes=[3])
    return path


@pytest.fixture
def exported(original, tmp_path):
    """A copy of an exported model with its card and report, to be damaged at will."""
    shutil.copytree(original.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / original.name


@pytest.mark.parametrize("count", [0, 1, 3, 7])
def test_file_and_network_agree_for_any_number(exported, make_network, card, images, count):
    from_file = opened(exported)
    from_network = network_predictor(make_network(), card, batch_size=2)
    assert (from_file.batch_size, from_file.card) == (3, card)
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

    def test_missing(self, tmp_path):
        self.check(tmp_path / "gone.mindir", r"gone\.mindir: no such model file")

    def test_folder(self, tmp_path):
        (tmp_path / "x.mindir").mkdir()
        self.check(tmp_path / "x.mindir", "no such model file")

    def test_another_suffix(self, tmp_path):
        self.check(tmp_path / "last.ckpt", r"last\.ckpt given, allowed: a \.mindir")

    @pytest.mark.parametrize("with_report", [True, False])
    @pytest.mark.parametrize("part", [0, 0.001, 0.1, 0.5, 0.9, 0.999])
    def test_truncated(self, exported, part, with_report):
        if not with_report:
            parity_path(exported).unlink()
        content = exported.read_bytes()
        exported.write_bytes(content[: int(part * len(content))])
        self.check(exported, r"net\.mindir: .*damaged")

    @pytest.mark.parametrize("content", [b"PK\x03\x04" * 300, b"hello " * 100, bytes(1000), b"\x08\x01"])
    def test_wrong_magic(self, exported, content):
        parity_path(exported).unlink()
        exported.write_bytes(content)
        self.check(exported, r"net\.mindir: not a MINDIR file")

    def test_one_changed_bit_of_a_weight(self, exported, make_network):
        weight = make_network().head.weight.asnumpy().tobytes()
        content = bytearray(exported.read_bytes())
        content[content.index(weight) + 1] ^= 1
        exported.write_bytes(content)
        self.check(
            exported, r"net\.mindir: damaged or replaced: not the file that net\.parity\.json describes"
        )

    def test_whole_file_without_report_is_accepted(self, exported, images):
        parity_path(exported).unlink()
        assert opened(exported).logits(images).shape == (7, 4)

    def test_missing_card(self, exported):
        card_path(exported).unlink()
        self.check(exported, r"net\.json: no such model card")

    @pytest.mark.parametrize(("size", "names"), [(32, "abcd"), (16, "abc")])
    def test_card_of_another_model(self, exported, size, names):
        ModelCard("other", list(names), size, [0, 0, 0], [1, 1, 1]).save(card_path(exported))
        self.check(
            exported, r"net\.json: describes .* but .*net\.mindir takes float32 \(3, 16, 16\) and gives 4"
        )

    def test_not_a_classifier(self, exported, make_network, tmp_path):
        parity_path(exported).unlink()
        free = ms.Tensor(shape=[None, 3, 16, 16], dtype=ms.float32)
        network = make_network()
        network.set_train(False)
        exported.unlink()
        ms.export(network, free, file_name=str(exported), file_format="MINDIR")
        self.check(exported, "not an image classifier of fixed batch size")
