import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from src.common.errors import UserError
from src.deploy import mindir
from src.deploy.backends import open_predictor
from src.deploy.card import ModelCard, card_path
from src.deploy.export import export_model, output_path
from src.deploy.formats import FORMATS, Format
from src.deploy.predict import Opened, Predictor


def opened(path):
    return open_predictor(path, backend="mindspore", device_target="CPU")


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_parity_passes_and_the_report_is_true(make_network, card, images, tmp_path):
    path = tmp_path / "net.mindir"
    report = export_model(make_network(), path, card=card, batch_sizes=[3], real_images=images)
    assert sorted(files_in(tmp_path)) == ["net.json", "net.mindir", "net.parity.json"]
    assert json.loads((tmp_path / "net.parity.json").read_text()) == report
    assert ModelCard.load(card_path(path)) == card
    assert report["file"] == str(path) and report["bytes"] == path.stat().st_size
    assert report["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert report["inputs"] == {"random": 8, "real": 7}
    assert report["passed"] is True and report["limit"] == 1e-5 and report["top1_agreement"] == 1.0
    assert report["largest_logit"] > 0.1
    assert report["max_difference"] <= 1e-5 * report["largest_logit"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_network_left_in_training_mode_is_exported_for_evaluation(make_network, card, images, tmp_path):
    network = make_network()
    assert network.training
    export_model(network, tmp_path / "net.mindir", card=card)
    assert not network.training
    expected = network(ms.Tensor(images)).asnumpy()
    assert np.allclose(opened(tmp_path / "net.mindir").logits(images), expected, rtol=1e-5, atol=1e-6)


def test_an_earlier_export_in_training_mode_does_not_spoil_a_later_one(make_network, card, tmp_path):
    network = make_network()
    sample = ms.Tensor(np.zeros((1, 3, 16, 16), np.float32))
    ms.export(network, sample, file_name=str(tmp_path / "training"), file_format="MINDIR")
    assert export_model(network, tmp_path / "net.mindir", card=card)["passed"]


def test_exporting_again_takes_the_new_weights(make_network, card, images, tmp_path):
    network, path = make_network(), tmp_path / "net.mindir"
    first = export_model(network, path, card=card)
    network.head.weight.set_data(network.head.weight * 2)
    second = export_model(network, path, card=card)
    assert second["sha256"] != first["sha256"]
    assert np.allclose(
        opened(path).logits(images), network(ms.Tensor(images)).asnumpy(), rtol=1e-5, atol=1e-5
    )


def test_parameters_keep_their_names(make_network, card, tmp_path):
    network = make_network()
    names = [parameter.name for parameter in network.get_parameters()]
    export_model(network, tmp_path / "net.mindir", card=card)
    assert [parameter.name for parameter in network.get_parameters()] == names


def test_a_file_that_answers_otherwise_is_refused_and_the_old_one_stays(
    make_network, card, tmp_path, monkeypatch
):
    path = tmp_path / "net.mindir"
    export_model(make_network(), path, card=card)
    before = files_in(tmp_path)
    other = make_network()
    other.set_train(False)
    other.head.weight.set_data(other.head.weight * 1.001)
    monkeypatch.setattr(mindir, "_load_graph", lambda path: other)
    with pytest.raises(UserError, match=r"net\.mindir: not written: the exported model differs"):
        export_model(make_network(), path, card=card)
    assert files_in(tmp_path) == before
    with pytest.raises(UserError, match="not written"):
        export_model(make_network(), tmp_path / "new" / "net.mindir", card=card)
    assert files_in(tmp_path / "new") == {}


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
    assert export_model(make_network(), tmp_path / "a.mindir", card=card, real_images=images)["passed"]
    images[3, 0, 0, 0] = 60
    with pytest.raises(UserError, match="not written"):
        export_model(make_network(), tmp_path / "b.mindir", card=card, real_images=images)


def test_suffix_is_appended_and_odd_paths_work(make_network, card, images, tmp_path):
    folder = tmp_path / "mit Leerzeichen ü"
    report = export_model(make_network(), folder / "net v1.5", card=card)
    assert report["file"] == str(folder / "net v1.5.mindir")
    assert sorted(files_in(folder)) == ["net v1.5.json", "net v1.5.mindir", "net v1.5.parity.json"]
    assert opened(folder / "net v1.5.mindir").logits(images).shape == (7, 4)


def test_relative_path(make_network, card, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export_model(make_network(), "net.mindir", card=card)
    assert "net.mindir" in files_in(tmp_path)


class TestSplit:
    """MindSpore splits models above 1 GiB; here the threshold is lowered."""

    @pytest.fixture(autouse=True)
    def small_threshold(self, monkeypatch):
        monkeypatch.setattr("mindspore.train.serialization.TOTAL_SAVE", 0.1)

    def test_replaced_and_moved(self, make_network, card, images, tmp_path):
        network, path = make_network(), tmp_path / "a" / "big one.mindir"
        export_model(network, path, card=card)
        network.head.weight.set_data(network.head.weight * 2)
        report = export_model(network, path, card=card)
        names = ["big one.json", "big one.mindir", "big one.parity.json", "big_one_variables/data_0"]
        assert sorted(files_in(path.parent)) == names
        assert report["bytes"] == path.stat().st_size + (path.parent / names[3]).stat().st_size
        shutil.move(path.parent, tmp_path / "b")
        answer = opened(tmp_path / "b" / path.name).logits(images)
        assert np.allclose(answer, network(ms.Tensor(images)).asnumpy(), rtol=1e-5, atol=1e-5)

    def test_missing_or_changed_weights(self, make_network, card, tmp_path):
        path = tmp_path / "net.mindir"
        export_model(make_network(), path, card=card)
        data = tmp_path / "net_variables" / "data_0"
        content = bytearray(data.read_bytes())
        content[200] ^= 1
        data.write_bytes(content)
        with pytest.raises(UserError, match=r"net\.mindir: damaged or replaced"):
            opened(path)
        data.unlink()
        with pytest.raises(UserError, match="data_0: part of a model"):
            opened(path)

    def test_a_folder_of_someone_else_is_left_alone(self, make_network, card, tmp_path):
        (tmp_path / "net_variables").mkdir()
        (tmp_path / "net_variables" / "thesis.txt").write_text("mine")
        with pytest.raises(UserError, match="net_variables: holds files that no export wrote"):
            export_model(make_network(), tmp_path / "net.mindir", card=card)
        assert files_in(tmp_path) == {"net_variables/thesis.txt": b"mine"}


class TestRefused:
    @pytest.fixture(autouse=True)
    def in_an_empty_folder(self, tmp_path, monkeypatch):
        """MindSpore leaves a folder rank_0 in the working folder when a network does not compile."""
        monkeypatch.chdir(tmp_path)

    def test_wrong_number_of_class_names(self, make_network, card):
        with pytest.raises(UserError, match="one logit a class"):
            export_model(make_network(classes=5), "net.mindir", card=card)
        assert not os.path.exists("net.mindir")

    def test_two_outputs(self, card):
        class Two(nn.Cell):
            def construct(self, x):
                return x, x

        with pytest.raises(UserError, match="Two: gives tuple, not one tensor"):
            export_model(Two(), "net.mindir", card=card)

    def test_weights_that_are_not_numbers(self, make_network, card):
        network = make_network()
        network.head.bias.set_data(ms.Tensor(np.full(4, np.nan, np.float32)))
        with pytest.raises(UserError, match="NaN or infinity"):
            export_model(network, "net.mindir", card=card)

    def test_real_images_of_another_size(self, make_network, card):
        with pytest.raises(UserError, match=r"takes \(N, 3, 16, 16\)"):
            export_model(
                make_network(), "net.mindir", card=card, real_images=np.zeros((2, 3, 8, 8), np.float32)
            )

    @pytest.mark.parametrize("batch_sizes", [[0], [-1], [1, 0], []])
    def test_batch_size(self, make_network, card, batch_sizes):
        with pytest.raises(UserError, match="batch_size"):
            export_model(make_network(), "net.mindir", card=card, batch_sizes=batch_sizes)

    def test_folder_in_place_of_the_file(self, make_network, card):
        Path("net.mindir").mkdir()
        with pytest.raises(UserError, match=r"net\.mindir: is a folder"):
            export_model(make_network(), "net.mindir", card=card)

    def test_file_in_place_of_the_folder(self, make_network, card):
        Path("out").touch()
        with pytest.raises(UserError, match=r"cannot write out/net\.mindir"):
            export_model(make_network(), "out/net.mindir", card=card)

    def test_failure_inside_mindspore_restores_its_settings(self, make_network, card, monkeypatch):
        def fail(*args, **kwargs):
            ms.set_context(jit_syntax_level=ms.STRICT)
            raise RuntimeError("no such operator\nmore\nlines")

        monkeypatch.setattr(ms, "export", fail)
        level = ms.get_context("jit_syntax_level")
        with pytest.raises(
            UserError, match=r"net\.mindir: MindSpore cannot export SmallNet: no such operator$"
        ):
            export_model(make_network(), "net.mindir", card=card)
        assert ms.get_context("jit_syntax_level") == level != ms.STRICT


class TestFormats:
    def test_mindir_in_either_case(self, make_network, card, tmp_path):
        report = export_model(
            make_network(), tmp_path / "net", file_format="mindir", card=card, batch_sizes=[2]
        )
        assert report["passed"] and (tmp_path / "net.mindir").exists()

    @pytest.mark.parametrize(
        ("file_format", "message"),
        [
            ("AIR", "AIR needs an Ascend device and this is CPU"),
            ("ONNX", r"ONNX given, allowed: MINDIR, AIR \(on Ascend\)"),
        ],
    )
    def test_refused(self, make_network, card, tmp_path, file_format, message):
        with pytest.raises(UserError, match=message):
            export_model(make_network(), tmp_path / "net", file_format=file_format, card=card)
        assert files_in(tmp_path) == {}

    def test_a_format_is_one_row(self, make_network, card, images, tmp_path, monkeypatch):
        """Written, compared, found and run, and named in messages, by what the row says."""
        network = make_network()

        def write(cell, images, name):
            Path(name).write_bytes(b"mine")

        def open_mine(path):
            assert path.read_bytes() == b"mine"
            run = mindir._as_function(network)
            return Opened(run, (2, 3, 16, 16), "float32", (2, 4))

        monkeypatch.setitem(FORMATS, "MINE", Format("MINE", ".mine", write=write, open=open_mine))
        path = tmp_path / "net.mine"
        report = export_model(network, tmp_path / "net", file_format="mine", card=card, batch_sizes=[2])
        assert report["passed"] and report["file"] == str(path)
        expected = network(ms.Tensor(images)).asnumpy()
        for name in ("net.mine", "net.json"):
            np.testing.assert_allclose(opened(tmp_path / name).logits(images), expected, rtol=1e-6)
        with pytest.raises(UserError, match=r"zip given, allowed: MINDIR, AIR \(on Ascend\), MINE"):
            export_model(network, tmp_path / "net", file_format="zip", card=card)

    def test_air_on_ascend(self, make_network, card, tmp_path, monkeypatch):
        """With a stand-in for the device: what is written, in which mode, and under which names."""
        seen = {}

        def export(network, *inputs, file_name, file_format):
            seen.update(training=network.training, shape=inputs[0].shape, format=file_format)
            Path(file_name).write_bytes(b"air")

        real_get = ms.get_context
        monkeypatch.setattr(
            ms, "get_context", lambda key: "Ascend" if key == "device_target" else real_get(key)
        )
        monkeypatch.setattr(ms, "export", export)
        report = export_model(make_network(), tmp_path / "net", file_format="AIR", card=card, batch_sizes=[4])
        assert seen == {"training": False, "shape": (4, 3, 16, 16), "format": "AIR"}
        assert sorted(files_in(tmp_path)) == ["net.air", "net.json"]
        assert report["passed"] is None and report["bytes"] == 3


class TestSeveral:
    """Several batch sizes are several files with one card, all of them or none."""

    NAMES = ("net.json", "net.parity.json", "net_b1.mindir", "net_b4.mindir")

    @pytest.mark.parametrize("input_type", ["float32", "uint8"])
    def test_each_is_proven(self, make_network, card, images, tmp_path, input_type):
        typed, network = dataclasses.replace(card, input_type=input_type), make_network()
        path = tmp_path / "net.mindir"
        report = export_model(network, path, card=typed, batch_sizes=[4, 1, 4], real_images=images)
        assert sorted(files_in(tmp_path)) == sorted(self.NAMES)
        assert json.loads((tmp_path / "net.parity.json").read_text()) == report
        assert report["file"] == str(tmp_path / "net.json") and report["input_type"] == input_type
        assert report["passed"] and report["inputs"] == {"random": 8, "real": 7}
        assert [(Path(one["file"]).name, one["batch_size"]) for one in report["files"]] == [
            ("net_b1.mindir", 1), ("net_b4.mindir", 4),
        ]  # fmt: skip
        assert report["bytes"] == sum(one["bytes"] for one in report["files"])
        assert report["max_difference"] == max(one["max_difference"] for one in report["files"])
        saved = ModelCard.load(tmp_path / "net.json")
        assert saved == dataclasses.replace(typed, files={1: "net_b1.mindir", 4: "net_b4.mindir"})

    def test_pixels_give_what_normalised_images_give(self, make_network, card, tmp_path):
        network, typed = make_network(), dataclasses.replace(card, input_type="uint8")
        export_model(network, tmp_path / "net", card=typed, batch_sizes=[2, 3])
        pixels = np.random.default_rng(2).integers(0, 256, (7, 16, 16, 3)).astype(np.uint8)
        expected = network(ms.Tensor(np.stack([*map(card.preparation.normalise, pixels)]))).asnumpy()
        for name in ("net.json", "net_b2.mindir", "net_b3.mindir"):
            answer = opened(tmp_path / name).logits(pixels)
            np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-5)

    def test_real_images_are_the_same_bytes_again(self, make_network, card, tmp_path, monkeypatch):
        pixels = np.random.default_rng(2).integers(0, 256, (5, 16, 16, 3)).astype(np.uint8)
        seen = []
        really = Predictor.logits
        monkeypatch.setattr(Predictor, "logits", lambda self, x: seen.append(x) or really(self, x))
        typed = dataclasses.replace(card, input_type="uint8")
        normalised = np.stack([*map(card.preparation.normalise, pixels)])
        export_model(make_network(), tmp_path / "net", card=typed, real_images=normalised)
        assert np.array_equal(seen[-1][8:], pixels)

    def test_one_that_answers_otherwise_spoils_all(self, make_network, card, tmp_path, monkeypatch):
        path = tmp_path / "net.mindir"
        export_model(make_network(), path, card=card, batch_sizes=[1, 4])
        before = files_in(tmp_path)
        really = mindir._load_graph
        wrong = make_network(seed=1)
        wrong.set_train(False)
        monkeypatch.setattr(mindir, "_load_graph", lambda file: wrong if "_b4" in file.name else really(file))
        with pytest.raises(UserError, match=r"net_b4\.mindir: not written: the exported model differs"):
            export_model(make_network(), path, card=card, batch_sizes=[1, 4])
        assert files_in(tmp_path) == before

    def test_one_that_cannot_take_its_place_leaves_all_as_they_were(self, make_network, card, tmp_path):
        path = tmp_path / "net.mindir"
        (tmp_path / "net_b4.mindir").mkdir()
        with pytest.raises(UserError, match=r"net_b4\.mindir: is a folder"):
            export_model(make_network(), path, card=card, batch_sizes=[1, 4])
        assert files_in(tmp_path) == {}

    def test_split(self, make_network, card, images, tmp_path, monkeypatch):
        monkeypatch.setattr("mindspore.train.serialization.TOTAL_SAVE", 0.1)
        network = make_network()
        export_model(network, tmp_path / "net", card=card, batch_sizes=[1, 4])
        weights = ["net_b1_variables/data_0", "net_b4_variables/data_0"]
        assert sorted(files_in(tmp_path)) == sorted([*self.NAMES, *weights])
        expected = network(ms.Tensor(images)).asnumpy()
        assert np.allclose(opened(tmp_path / "net.json").logits(images), expected, rtol=1e-5, atol=1e-5)

    def test_air(self, make_network, card, tmp_path, monkeypatch):
        seen = []

        def export(network, images, *, file_name, file_format):
            seen.append((images.shape, images.dtype))
            Path(file_name).write_bytes(b"air")

        real_get = ms.get_context
        monkeypatch.setattr(
            ms, "get_context", lambda key: "Ascend" if key == "device_target" else real_get(key)
        )
        monkeypatch.setattr(ms, "export", export)
        typed = dataclasses.replace(card, input_type="uint8")
        report = export_model(
            make_network(), tmp_path / "net", file_format="air", card=typed, batch_sizes=[8, 1]
        )
        assert seen == [((1, 16, 16, 3), ms.uint8), ((8, 16, 16, 3), ms.uint8)]
        assert sorted(files_in(tmp_path)) == ["net.json", "net_b1.air", "net_b8.air"]
        assert report["passed"] is None and report["file"] == str(tmp_path / "net.json")
        assert ModelCard.load(tmp_path / "net.json").files == {1: "net_b1.air", 8: "net_b8.air"}


class TestOutput:
    """Without a name, an export goes to the run's folder; a copied checkpoint has none."""

    def test_beside_the_checkpoint_or_into_its_run(self, tmp_path):
        run_dir = tmp_path / "r1"
        name = {"file_name": None, "model": "net"}
        assert output_path(checkpoint=run_dir / "checkpoints" / "best.ckpt", **name) == run_dir / "net"
        assert output_path(checkpoint=tmp_path / "white.ckpt", **name) == tmp_path / "net"
        assert output_path(checkpoint=tmp_path / "official.npz", **name) == tmp_path / "net"

    def test_a_folder_is_written_into(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "out").mkdir()
        name = {"checkpoint": tmp_path / "best.ckpt", "model": "net"}
        assert output_path("out", **name) == output_path("out/", **name) == Path("out/net")
        assert output_path("new/", **name) == Path("new/net")
        assert output_path("new", **name) == Path("new")
