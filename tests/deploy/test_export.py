# SPDX-License-Identifier: Apache-2.0
import hashlib
import json
import os
import shutil
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from src.common.errors import UserError
from src.common.files import MARKER
from src.deploy import mindir
from src.deploy.backends import open_predictor
from src.deploy.card import ModelCard
from src.deploy.export import export_model
from src.deploy.predict import Predictor


def normalise(pixels, card):
    return np.stack([*map(card.preparation.normalise, pixels)])


def opened(path):
    return open_predictor(path, backend="mindspore", device_target="CPU")


def files_in(folder: Path) -> dict[str, bytes]:
    """What a folder holds, without the list of what we made."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != MARKER)
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def with_(card: ModelCard, **values) -> ModelCard:
    return card.model_copy(update=values)


def scaled(network: nn.Cell, by: float) -> nn.Cell:
    """The network with another answer, as it is loaded in the place of a file."""
    network.set_train(False)
    network.head.weight.set_data(network.head.weight * by)
    return network


def test_parity_passes_and_the_report_is_true(make_network, card, images, tmp_path):
    folder = tmp_path / "net"
    report = export_model(make_network(), folder, card=card, batch_sizes=[3], real_images=images)
    assert sorted(files_in(tmp_path)) == ["net/card.json", "net/model.mindir", "net/parity.json"]
    assert json.loads((folder / "parity.json").read_text()) == report
    model = folder / "model.mindir"
    assert ModelCard.load(folder / "card.json") == with_(card, files={3: {"model.mindir": digest(model)}})
    compared = report["file"]
    assert report == {
        "folder": str(folder), "file_format": "MINDIR", "input_type": "float32", "compute_type": "float32",
        "inputs": {"random": 8, "real": 7}, "bytes": model.stat().st_size, "passed": True, "folding": None,
        "file": compared, "embedding": None, "top1_agreement": {"images": 7, "agree": 7},
        "quantisation": None,
        "files": [
            {"path": str(model), "batch_size": 3, "file": compared, "bytes": model.stat().st_size,
             "embedding": None},
        ],
    }  # fmt: skip
    assert compared["passed"] is True and compared["limit"] == 1e-5 and compared["top1_agreement"] == 1.0
    assert compared["largest_logit"] > 0.1
    assert compared["max_difference"] <= 1e-5 * compared["largest_logit"]
    assert model.stat().st_mode & 0o777 == 0o644 and folder.stat().st_mode & 0o777 == 0o755


def test_network_left_in_training_mode_is_exported_for_evaluation(make_network, card, images, tmp_path):
    network = make_network()
    assert network.training
    export_model(network, tmp_path / "net", card=card)
    assert not network.training
    expected = network(ms.Tensor(images)).asnumpy()
    assert np.allclose(opened(tmp_path / "net").logits(images), expected, rtol=1e-5, atol=1e-6)


def test_an_earlier_export_in_training_mode_does_not_spoil_a_later_one(make_network, card, tmp_path):
    network = make_network()
    sample = ms.Tensor(np.zeros((1, 3, 16, 16), np.float32))
    ms.export(network, sample, file_name=str(tmp_path / "training"), file_format="MINDIR")
    assert export_model(network, tmp_path / "net", card=card)["passed"]


def test_exporting_again_replaces_the_folder(make_network, card, images, tmp_path):
    network, folder = make_network(), tmp_path / "net"
    export_model(network, folder, card=card, batch_sizes=[1, 4])
    network.head.weight.set_data(network.head.weight * 2)
    export_model(network, folder, card=card)
    assert sorted(files_in(tmp_path)) == ["net/card.json", "net/model.mindir", "net/parity.json"]
    expected = network(ms.Tensor(images)).asnumpy()
    assert np.allclose(opened(folder).logits(images), expected, rtol=1e-5, atol=1e-5)


def test_parameters_keep_their_names(make_network, card, tmp_path):
    network = make_network()
    names = [parameter.name for parameter in network.get_parameters()]
    export_model(network, tmp_path / "net", card=card)
    assert [parameter.name for parameter in network.get_parameters()] == names


def test_a_file_that_answers_otherwise_is_refused_and_the_old_one_stays(
    make_network, card, images, tmp_path, monkeypatch
):
    folder = tmp_path / "net"
    export_model(make_network(), folder, card=card)
    before = files_in(tmp_path)
    other = scaled(make_network(), 1.001)
    monkeypatch.setattr(mindir, "_load_graph", lambda path: other)
    with pytest.raises(UserError, match=r"net: not written: .* differs .*--accept_difference") as caught:
        export_model(make_network(), folder, card=card, real_images=images)
    assert "same class for 7 of 7 test images" in str(caught.value)
    assert files_in(tmp_path) == before
    with pytest.raises(UserError, match="not written"):
        export_model(make_network(), tmp_path / "new" / "net", card=card)
    assert files_in(tmp_path / "new") == {}
    report = export_model(make_network(), folder, card=card, accept_difference=True)
    assert report["passed"] is False and report["file"]["passed"] is False
    assert json.loads((folder / "parity.json").read_text()) == report


class Folded(nn.Cell):
    """A network whose fold is wrong by the factor `error`."""

    def __init__(self, network, error):
        super().__init__()
        self.network, self.error, self.factor = network, error, 1.0

    def fold(self):
        self.factor = self.error

    def construct(self, x):
        return self.network(x) * self.factor


def test_folding_can_be_left_out(make_network, card, tmp_path):
    """And the file is compared all the same."""
    network = Folded(make_network(), 3)
    report = export_model(network, tmp_path / "net", card=card, fold=False)
    assert report["folding"] is None and report["file"]["passed"] and network.factor == 1


@pytest.mark.parametrize(("error", "passed"), [(1 + 5e-6, True), (1 + 5e-5, False)])
@pytest.mark.parametrize("precision", [None, lambda network: network.to_float(ms.float16)])
def test_folding_is_compared_in_float32_whatever_the_file_computes_in(
    make_network, card, tmp_path, error, passed, precision
):
    more = {"card": card, "to_float16": precision}
    if not passed:
        with pytest.raises(UserError, match=r"the folded network differs .*\(limit 1e-05\)"):
            export_model(Folded(make_network(), error), tmp_path / "net", **more)
    network = Folded(make_network(), error)
    report = export_model(network, tmp_path / "net", **more, accept_difference=True)
    assert report["folding"]["passed"] is report["passed"] is passed
    assert report["folding"]["limit"] == 1e-5 and report["file"]["passed"]


class Amplifier(nn.Cell):
    """One rounding of an image moves its logits by 1e-4 of them; folding moves `gain` by one rounding."""

    def __init__(self, error):
        super().__init__()
        self.gain = ms.Parameter(ms.Tensor(np.full((1, 4), 1000, np.float32)), name="gain")
        self.error = error

    def fold(self):
        self.gain.set_data(self.gain * self.error)

    def construct(self, x):
        return ops.sin(self.gain * x[:, 0, 0, :4])


def test_a_network_that_amplifies_roundings_has_a_limit_of_its_own(card, tmp_path):
    """Its folding is worth some roundings of its input, and no more."""
    report = export_model(Amplifier(1 + 2e-7), tmp_path / "net", card=card)
    folding = report["folding"]
    assert folding["passed"] and 1e-5 < folding["relative_difference"] < folding["limit"] < 2e-3
    assert report["file"]["limit"] == 1e-5
    with pytest.raises(UserError, match="the folded network differs"):
        export_model(Amplifier(1 + 1e-5), tmp_path / "net", card=card)


def test_a_file_in_float16_has_a_limit_of_its_own(make_network, card, images, tmp_path, monkeypatch):
    half = {"to_float16": lambda network: network.to_float(ms.float16), "real_images": images, "card": card}
    report = export_model(make_network(), tmp_path / "net", **half)
    assert report["compute_type"] == "float16" and report["file"]["limit"] == 2e-2 and report["passed"]
    exact = make_network().set_train(False)(ms.Tensor(images)).asnumpy()
    difference = np.abs(opened(tmp_path / "net").logits(images) - exact).max()
    assert 1e-5 < difference / np.abs(exact).max() < 2e-2
    for by, passed in ((1.01, True), (1.05, False)):
        network = scaled(make_network(), by)
        with monkeypatch.context() as patch:
            patch.setattr(mindir, "_load_graph", lambda path, network=network: network)
            report = export_model(make_network(), tmp_path / "net", **half, accept_difference=True)
        assert report["passed"] is passed


def test_top1_agreement_is_that_of_the_file_with_the_network_in_float32(
    make_network, card, images, tmp_path, monkeypatch
):
    other = make_network(seed=1).set_train(False)
    monkeypatch.setattr(mindir, "_load_graph", lambda path: other)
    report = export_model(
        make_network(), tmp_path / "net", card=card, real_images=images, accept_difference=True
    )
    ours = make_network().set_train(False)
    agree = sum(ours(ms.Tensor(images)).asnumpy().argmax(1) == other(ms.Tensor(images)).asnumpy().argmax(1))
    assert report["top1_agreement"] == {"images": 7, "agree": agree} and agree < 7


def test_a_difference_on_real_images_alone_is_found(make_network, card, images, tmp_path, monkeypatch):
    """The changed file answers otherwise only where an input is above 50, which no random one is."""

    class OnBright(nn.Cell):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def construct(self, x):
            return self.network(x) + (x.max((1, 2, 3)) > 50).astype(ms.float32).reshape(-1, 1)

    changed = OnBright(make_network())
    changed.set_train(False)
    monkeypatch.setattr(mindir, "_load_graph", lambda path: changed)
    assert export_model(make_network(), tmp_path / "a", card=card, real_images=images)["passed"]
    images[3, 0, 0, 0] = 60
    with pytest.raises(UserError, match="not written"):
        export_model(make_network(), tmp_path / "b", card=card, real_images=images)


def test_odd_paths_work(make_network, card, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path("mit Leerzeichen ü") / "net v1.5"
    assert export_model(make_network(), folder, card=card)["folder"] == str(folder)
    assert opened(folder).logits(images).shape == (7, 4)


class TestSplit:
    """MindSpore splits models above 1 GiB; here the threshold is lowered."""

    @pytest.fixture(autouse=True)
    def small_threshold(self, monkeypatch):
        monkeypatch.setattr("mindspore.train.serialization.TOTAL_SAVE", 0.1)

    def test_replaced_and_moved(self, make_network, card, images, tmp_path):
        network, folder = make_network(), tmp_path / "a" / "big one"
        export_model(network, folder, card=card)
        network.head.weight.set_data(network.head.weight * 2)
        report = export_model(network, folder, card=card)
        data = folder / "model_variables" / "data_0"
        assert sorted(files_in(folder)) == [
            "card.json", "model.mindir", "model_variables/data_0", "parity.json"
        ]  # fmt: skip
        assert report["bytes"] == (folder / "model.mindir").stat().st_size + data.stat().st_size
        parts = ModelCard.load(folder / "card.json").files[1]
        assert list(parts.items()) == [
            ("model.mindir", digest(folder / "model.mindir")), ("model_variables/data_0", digest(data)),
        ]  # fmt: skip
        shutil.move(folder, tmp_path / "b")
        answer = opened(tmp_path / "b").logits(images)
        assert np.allclose(answer, network(ms.Tensor(images)).asnumpy(), rtol=1e-5, atol=1e-5)

    def test_several(self, make_network, card, images, tmp_path):
        network = make_network()
        export_model(network, tmp_path / "net", card=card, batch_sizes=[1, 4])
        files = sorted(files_in(tmp_path / "net"))
        assert files == sorted([*TestSeveral.NAMES, "model_b1_variables/data_0", "model_b4_variables/data_0"])
        expected = network(ms.Tensor(images)).asnumpy()
        assert np.allclose(opened(tmp_path / "net").logits(images), expected, rtol=1e-5, atol=1e-5)


class TestRefused:
    @pytest.fixture(autouse=True)
    def in_an_empty_folder(self, tmp_path, monkeypatch):
        """MindSpore leaves a folder rank_0 in the working folder when a network does not compile."""
        monkeypatch.chdir(tmp_path)

    def test_wrong_number_of_class_names(self, make_network, card):
        with pytest.raises(UserError, match="one logit a class"):
            export_model(make_network(classes=5), "net", card=card)
        assert os.listdir() == []

    def test_two_outputs(self, card):
        class Two(nn.Cell):
            def construct(self, x):
                return x, x

        with pytest.raises(UserError, match="Two: gives tuple, not one tensor"):
            export_model(Two(), "net", card=card)

    def test_weights_that_are_not_numbers(self, make_network, card):
        network = make_network()
        network.head.bias.set_data(ms.Tensor(np.full(4, np.nan, np.float32)))
        with pytest.raises(UserError, match="NaN or infinity"):
            export_model(network, "net", card=card)

    def test_a_network_that_float16_is_too_small_for(self, make_network, card):
        """Also with a difference accepted."""
        network = make_network()
        network.head.weight.set_data(network.head.weight * 1e6)
        half = {"to_float16": lambda network: network.to_float(ms.float16), "accept_difference": True}
        with pytest.raises(UserError, match=r"NaN or infinity; it needs float32: --amp_level O0"):
            export_model(network, "net", card=card, **half)
        assert os.listdir() == []

    def test_a_file_that_answers_nan(self, make_network, card, monkeypatch):
        other = scaled(make_network(), np.nan)
        monkeypatch.setattr(mindir, "_load_graph", lambda path: other)
        with pytest.raises(UserError, match=r"net/model\.mindir answers with NaN or infinity"):
            export_model(make_network(), "net", card=card, accept_difference=True)

    def test_real_images_of_another_size(self, make_network, card):
        with pytest.raises(UserError, match=r"takes \(N, 3, 16, 16\)"):
            export_model(make_network(), "net", card=card, real_images=np.zeros((2, 3, 8, 8), np.float32))

    @pytest.mark.parametrize("batch_sizes", [[0], [-1], [1, 0], []])
    def test_batch_size(self, make_network, card, batch_sizes):
        with pytest.raises(UserError, match="batch_size"):
            export_model(make_network(), "net", card=card, batch_sizes=batch_sizes)

    def test_a_file_in_place_of_the_folder(self, make_network, card):
        Path("out").touch()
        with pytest.raises(UserError, match="out exists already"):
            export_model(make_network(), "out", card=card)
        with pytest.raises(UserError, match=r"cannot write .*out/net"):
            export_model(make_network(), "out/net", card=card)

    def test_failure_inside_mindspore_restores_its_settings(self, make_network, card, monkeypatch):
        def fail(*args, **kwargs):
            ms.set_context(jit_syntax_level=ms.STRICT)
            raise RuntimeError("no such operator\nmore\nlines")

        monkeypatch.setattr(ms, "export", fail)
        level = ms.get_context("jit_syntax_level")
        with pytest.raises(UserError, match=r"MindSpore cannot export SmallNet: no such operator$"):
            export_model(make_network(), "net", card=card)
        assert os.listdir() == []
        assert ms.get_context("jit_syntax_level") == level != ms.STRICT


class TestSeveral:
    """Several batch sizes are several files with one card."""

    NAMES = ("card.json", "parity.json", "model_b1.mindir", "model_b4.mindir")

    @pytest.mark.parametrize("input_type", ["float32", "uint8"])
    def test_each_is_proven(self, make_network, card, images, tmp_path, input_type):
        typed, folder = with_(card, input_type=input_type), tmp_path / "net"
        report = export_model(make_network(), folder, card=typed, batch_sizes=[4, 1, 4], real_images=images)
        assert sorted(files_in(folder)) == sorted(self.NAMES)
        assert report["passed"] and report["inputs"] == {"random": 8, "real": 7}
        assert [(Path(one["path"]).name, one["batch_size"]) for one in report["files"]] == [
            ("model_b1.mindir", 1), ("model_b4.mindir", 4),
        ]  # fmt: skip
        assert report["bytes"] == sum(one["bytes"] for one in report["files"])
        assert report["file"]["max_difference"] == max(
            one["file"]["max_difference"] for one in report["files"]
        )
        saved = ModelCard.load(folder / "card.json")
        assert with_(saved, files={}) == typed and list(saved.files) == [1, 4]

    def test_pixels_give_what_normalised_images_give(self, make_network, card, tmp_path):
        network, folder = make_network(), tmp_path / "net"
        export_model(network, folder, card=with_(card, input_type="uint8"), batch_sizes=[2, 3])
        pixels = np.random.default_rng(2).integers(0, 256, (7, 16, 16, 3)).astype(np.uint8)
        expected = network(ms.Tensor(normalise(pixels, card))).asnumpy()
        for path in (folder, folder / "model_b2.mindir", folder / "model_b3.mindir"):
            np.testing.assert_allclose(opened(path).logits(pixels), expected, rtol=1e-5, atol=1e-5)

    def test_real_images_are_the_same_bytes_again(self, make_network, card, tmp_path, monkeypatch):
        pixels = np.random.default_rng(2).integers(0, 256, (5, 16, 16, 3)).astype(np.uint8)
        seen = []
        really = Predictor.logits
        monkeypatch.setattr(Predictor, "logits", lambda self, x: seen.append(x) or really(self, x))
        typed = with_(card, input_type="uint8")
        export_model(make_network(), tmp_path / "net", card=typed, real_images=normalise(pixels, card))
        assert np.array_equal(seen[-1][8:], pixels)

    def test_one_that_answers_otherwise_spoils_all(self, make_network, card, tmp_path, monkeypatch):
        folder = tmp_path / "net"
        export_model(make_network(), folder, card=card, batch_sizes=[1, 4])
        before = files_in(tmp_path)
        really, wrong = mindir._load_graph, make_network(seed=1).set_train(False)
        monkeypatch.setattr(mindir, "_load_graph", lambda file: wrong if "_b4" in file.name else really(file))
        with pytest.raises(UserError, match="net: not written: the file differs from the network"):
            export_model(make_network(), folder, card=card, batch_sizes=[1, 4])
        assert files_in(tmp_path) == before
