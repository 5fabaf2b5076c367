import json
import math
import shutil

import mindspore as ms
import numpy as np
import pytest
from PIL import Image

from src.deploy.card import ModelCard, card_path
from src.deploy.export import export_mindir
from src.deploy.images import load_image, preprocess
from src.deploy.mindir import parity_path
from src.deploy.predict import Predictor, classify, render_json, render_text
from src.model_utils.errors import UserError


@pytest.fixture(scope="module")
def original(make_network, card, tmp_path_factory):
    path = tmp_path_factory.mktemp("original") / "net.mindir"
    export_mindir(make_network(), path, card=card, batch_size=3)
    return path


@pytest.fixture
def exported(original, tmp_path):
    """A copy of an exported model with its card and report, to be damaged at will."""
    shutil.copytree(original.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / original.name


@pytest.fixture
def pictures(tmp_path):
    """Seven files of different sizes and kinds."""
    rng = np.random.default_rng(5)
    paths = []
    for i, (width, height) in enumerate([(16, 16), (40, 20), (9, 30), (64, 64), (1, 5), (200, 17), (32, 32)]):
        paths.append(tmp_path / f"picture{i}.{'jpg' if i % 2 else 'png'}")
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(paths[-1])
    return paths


class TestBackends:
    @pytest.mark.parametrize("count", [0, 1, 3, 7])
    def test_mindir_and_network_agree_for_any_number(self, exported, make_network, card, images, count):
        from_file = Predictor.from_mindir(exported)
        from_network = Predictor.from_network(make_network(), card, batch_size=2)
        assert (from_file.batch_size, from_file.card) == (3, card)
        answer = from_file.logits(images[:count])
        assert answer.shape == (count, 4) and answer.dtype == np.float32
        assert np.allclose(answer, from_network.logits(images[:count]), rtol=1e-5, atol=1e-6)

    def test_network_is_put_into_evaluation_mode(self, make_network, card, images):
        network = make_network()
        predictor = Predictor.from_network(network, card, batch_size=4)
        assert not network.training
        assert np.array_equal(predictor.logits(images), predictor.logits(images))

    def test_every_call_has_the_whole_batch_and_order_is_kept(self, card):
        shapes = []

        def run(batch):
            shapes.append(batch.shape)
            return batch[:, 0, 0, :4]

        images = np.arange(5, dtype=np.float64).reshape(5, 1, 1, 1) + np.zeros((5, 3, 16, 16))
        answer = Predictor(run, card=card, batch_size=3).logits(images)
        assert shapes == [(3, 3, 16, 16)] * 2
        assert answer[:, 0].tolist() == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize("shape", [(3, 16, 16), (1, 3, 16, 15), (2, 16, 16, 3)])
    def test_images_of_another_shape(self, make_network, card, shape):
        predictor = Predictor.from_network(make_network(), card, batch_size=2)
        with pytest.raises(UserError, match=r"small takes \(N, 3, 16, 16\)"):
            predictor.logits(np.zeros(shape, np.float32))


class TestDamagedFile:
    def check(self, path, message):
        with pytest.raises(UserError, match=message) as caught:
            Predictor.from_mindir(path)
        assert "\n" not in str(caught.value)

    def test_missing(self, tmp_path):
        self.check(tmp_path / "gone.mindir", r"gone\.mindir: no such model file")

    def test_folder(self, tmp_path):
        (tmp_path / "x.mindir").mkdir()
        self.check(tmp_path / "x.mindir", "Is a directory")

    def test_another_suffix(self, tmp_path):
        self.check(tmp_path / "last.ckpt", r"last\.ckpt: not a \.mindir file")

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
        assert Predictor.from_mindir(exported).logits(images).shape == (7, 4)

    def test_missing_card(self, exported):
        card_path(exported).unlink()
        self.check(exported, r"net\.json: no such model card")

    @pytest.mark.parametrize(("size", "names"), [(32, "abcd"), (16, "abc")])
    def test_card_of_another_model(self, exported, size, names):
        ModelCard("other", list(names), size, [0, 0, 0], [1, 1, 1]).save(card_path(exported))
        self.check(
            exported, r"net\.json: describes images of .* but .*net\.mindir takes \(3, 16, 16\) and gives 4"
        )

    def test_not_a_classifier(self, exported, make_network, tmp_path):
        parity_path(exported).unlink()
        free = ms.Tensor(shape=[None, 3, 16, 16], dtype=ms.float32)
        network = make_network()
        network.set_train(False)
        exported.unlink()
        ms.export(network, free, file_name=str(exported), file_format="MINDIR")
        self.check(exported, "not an image classifier of fixed batch size")


class TestClassify:
    def test_equals_the_plain_way_for_batches_that_do_not_divide(
        self, exported, make_network, card, pictures
    ):
        results, skipped = classify(Predictor.from_mindir(exported), card, pictures, top=2)
        assert skipped == [] and [result["file"] for result in results] == [str(path) for path in pictures]
        network = make_network()
        network.set_train(False)
        for path, result in zip(pictures, results, strict=True):
            image = preprocess(load_image(path), card)[None]
            logits = network(ms.Tensor(image)).asnumpy()[0].astype(np.float64).tolist()
            total = sum(math.exp(value) for value in logits)
            expected = sorted(
                ((math.exp(v) / total, n) for v, n in zip(logits, card.class_names, strict=True))
            )
            names = [found["class"] for found in result["predictions"]]
            assert names == [name for _, name in expected[:1:-1]]
            values = [found["probability"] for found in result["predictions"]]
            assert values == pytest.approx([value for value, _ in expected[:1:-1]], rel=1e-4)

    def test_probabilities_sum_to_1_and_top_is_at_most_the_classes(self, exported, card, pictures):
        results, _ = classify(Predictor.from_mindir(exported), card, pictures)
        for result in results:
            values = [found["probability"] for found in result["predictions"]]
            assert len(values) == 4 and values == sorted(values, reverse=True)
            assert math.isclose(sum(values), 1, rel_tol=1e-12)

    def test_huge_logits_do_not_overflow(self, card, pictures):
        predictor = Predictor(
            lambda batch: np.tile(np.float32([1e4, -1e4, 0, 1e4]), (len(batch), 1)), card=card, batch_size=2
        )
        results, _ = classify(predictor, card, pictures[:1], top=3)
        assert results[0]["predictions"] == [
            {"class": "ant", "probability": 0.5},
            {"class": "dog", "probability": 0.5},
            {"class": "cat", "probability": 0.0},
        ]

    def test_unreadable_files_are_skipped_with_their_reason(self, exported, card, pictures, tmp_path):
        bad = {"empty.png": b"", "text.jpg": b"hello", "cut.png": pictures[0].read_bytes()[:200]}
        for name, content in bad.items():
            (tmp_path / name).write_bytes(content)
        cut, empty, text = (tmp_path / name for name in sorted(bad))
        paths = [empty, *pictures[:4], cut, *pictures[4:], text]
        results, skipped = classify(Predictor.from_mindir(exported), card, paths)
        assert [result["file"] for result in results] == [str(path) for path in pictures]
        assert [file["file"] for file in skipped] == [str(path) for path in (empty, cut, text)]
        assert skipped[0]["reason"] == "the file is empty"
        assert skipped[1]["reason"].startswith("cannot be decoded: ")
        assert skipped[2]["reason"] == "not an image in a known format"

    def test_nothing_readable(self, exported, card, tmp_path):
        results, skipped = classify(Predictor.from_mindir(exported), card, [tmp_path / "gone.png"])
        assert results == [] and len(skipped) == 1

    def test_only_one_batch_is_in_memory(self, card, pictures):
        """The model is called as soon as a batch is full, before further files are read."""
        asked = []

        def listed():
            for path in pictures:
                asked.append(path)
                yield path

        seen = []

        def run(batch):
            seen.append(len(asked))
            return np.zeros((len(batch), 4), np.float32)

        classify(Predictor(run, card=card, batch_size=2), card, listed())
        assert seen == [2, 4, 6, 7]

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_answer_that_is_not_a_number(self, card, pictures, value):
        predictor = Predictor(lambda batch: np.full((len(batch), 4), value), card=card, batch_size=1)
        with pytest.raises(UserError, match=r"picture0\.png: small answers with NaN"):
            classify(predictor, card, pictures)

    def test_top_below_one(self, exported, card, pictures):
        with pytest.raises(UserError, match="top: 0"):
            classify(Predictor.from_mindir(exported), card, pictures, top=0)


RESULTS = [
    {"file": "a.png", "predictions": [{"class": "bee", "probability": 0.98765}]},
    {"file": "b\udcff.png", "predictions": [{"class": "Bär", "probability": 0.5}]},
]
SKIPPED = [{"file": "c.png", "reason": "the file is empty"}]


class TestRender:
    def test_text(self):
        lines = render_text(RESULTS, SKIPPED).splitlines()
        assert lines == [
            "a.png",
            "   98.77 %  bee",
            "b?.png",
            "   50.00 %  Bär",
            "skipped c.png: the file is empty",
        ]

    def test_json_is_one_line(self):
        text = render_json(RESULTS, SKIPPED)
        assert "\n" not in text
        assert json.loads(text) == {"results": RESULTS, "skipped": SKIPPED}
