# SPDX-License-Identifier: Apache-2.0
"""The predictor alone, with functions in the place of models."""

from pathlib import Path

import numpy as np
import pytest

from src.common.errors import UserError
from src.deploy.exported import Exported
from src.deploy.predict import Opened, Predictor


def numbered(count):
    """Images (count, 3, 16, 16) whose first four values are their number."""
    return np.arange(count, dtype=np.float32).reshape(-1, 1, 1, 1) + np.zeros((count, 3, 16, 16), np.float32)


class Recorded:
    """A model of any batch size: its logits are the image's first values; it notes the sizes of its calls."""

    def __init__(self):
        self.sizes = []

    def __call__(self, batch):
        self.sizes.append(len(batch))
        return batch[:, 0, 0, :4].astype(np.float32)


@pytest.mark.parametrize(
    ("sizes", "count", "calls"),
    [
        ([3], 0, []),
        ([3], 5, [3, 3]),
        ([1, 8, 32], 43, [32, 8, 1, 1, 1]),
        ([1, 8, 32], 7, [1] * 7),
        ([4, 8], 13, [8, 4, 4]),
        ([4, 8], 2, [4]),
    ],
)
def test_each_call_is_the_largest_that_is_full_and_order_is_kept(card, sizes, count, calls):
    run = Recorded()
    predictor = Predictor(dict.fromkeys(sizes, run), card=card)
    answer = predictor.logits(numbered(count))
    assert run.sizes == calls == [size for size, _ in predictor.calls]
    assert answer.shape == (count, 4) and answer.dtype == np.float32
    assert answer[:, 0].tolist() == list(range(count))
    assert predictor.batch_size == max(sizes)


def test_the_last_batch_is_filled_up_with_its_last_image(card):
    seen = []

    def run(batch):
        seen.append(batch[:, 0, 0, 0].tolist())
        return batch[:, 0, 0, :4]

    Predictor({3: run}, card=card).logits(numbered(4))
    assert seen == [[0, 1, 2], [3, 3, 3]]


def test_warming_up_runs_each_size_once_and_is_not_counted(card):
    run = Recorded()
    predictor = Predictor({2: run, 5: run}, card=card)
    predictor.logits(numbered(1))
    predictor.warm_up()
    assert run.sizes == [2, 2, 5] and predictor.calls == []


def test_pixels_are_given_as_they_are(card):
    pixels = card.model_copy(update={"input_type": "uint8"})
    seen = []

    def run(batch):
        seen.append((batch.shape, batch.dtype))
        return np.zeros((2, 4), np.float32)

    predictor = Predictor({2: run}, card=pixels)
    predictor.warm_up()
    predictor.logits(np.zeros((1, 16, 16, 3), np.uint8))
    assert seen == [((2, 16, 16, 3), np.uint8)] * 2
    with pytest.raises(UserError, match=r"small takes \(N, 16, 16, 3\)"):
        predictor.logits(np.zeros((1, 3, 16, 16), np.uint8))


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 3, 16, 15), (2, 16, 16, 3)])
def test_images_of_another_shape(card, shape):
    with pytest.raises(UserError, match=r"small takes \(N, 3, 16, 16\)"):
        Predictor({2: Recorded()}, card=card).logits(np.zeros(shape, np.float32))


def test_an_answer_of_another_shape(card):
    with pytest.raises(UserError, match=r"answers \(2, 5\) for 2 images and 4 class names"):
        Predictor({2: lambda batch: np.zeros((2, 5))}, card=card).logits(numbered(1))


@pytest.mark.parametrize(("runs", "size"), [({}, 32), ({-1: Recorded()}, 32), ({0: Recorded()}, 0)])
def test_no_batch(card, runs, size):
    with pytest.raises(UserError, match=r"batch_size: -?[01] is not a batch"):
        Predictor(runs, card=card, batch_size=size)


def test_a_model_of_any_batch_size_gets_no_filler(card):
    run, embed = Recorded(), Recorded()
    predictor = Predictor({0: run}, card=card, batch_size=4, embeds={0: embed})
    assert predictor.batch_size == 4
    assert predictor.logits(numbered(9))[:, 0].tolist() == list(range(9))
    assert predictor.embeddings(numbered(6))[:, 0].tolist() == list(range(6))
    assert run.sizes == [4, 4, 1] == [size for size, _ in predictor.calls] and embed.sizes == [4, 2]
    predictor.warm_up()
    assert run.sizes[3:] == [1] and predictor.calls == []
    assert predictor.logits(numbered(0)).shape == (0, 4)


def test_a_model_without_embeddings(card):
    with pytest.raises(UserError, match="small: this export gives no embeddings; export to ONNX"):
        Predictor({2: Recorded()}, card=card).embeddings(numbered(1))


class TestFromFiles:
    def make(self, card, *models, **keys):
        files = Exported(Path("net"), card, tuple(Path(f"{n}.mindir") for n in range(len(models))))
        return Predictor.from_files(files, models, backend="lite", device="CPU", **keys)

    def model(self, size=2, side=16, input_type="float32", output_shape=None):
        return Opened(Recorded(), (size, 3, side, side), input_type, output_shape)

    def test_the_sizes_up_to_the_one_that_is_asked_for(self, card):
        models = [self.model(size) for size in (1, 2, 8)]
        assert self.make(card, *models).batch_size == 8
        predictor = self.make(card, *models, batch_size=2)
        predictor.logits(numbered(5))
        assert [size for size, _ in predictor.calls] == [2, 2, 1]
        assert (predictor.backend, predictor.device) == ("lite", "CPU")
        with pytest.raises(UserError, match="batch_size: 4 given, net was exported for 1, 2, 8; export with"):
            self.make(card, *models, batch_size=4)
        assert self.make(card, self.model(0)).batch_size == 32
        assert self.make(card, self.model(0), batch_size=5).batch_size == 5

    @pytest.mark.parametrize(
        ("keys", "message"),
        [
            (
                {"side": 8},
                r"net: its card describes float32 images .*but 0\.mindir takes float32 \(3, 8, 8\)",
            ),
            ({"input_type": "uint8"}, r"takes uint8 \(3, 16, 16\)"),
            ({"output_shape": (2, 5)}, r"gives 5; export the model again"),
        ],
    )
    def test_a_card_of_another_model(self, card, keys, message):
        with pytest.raises(UserError, match=message):
            self.make(card, self.model(**keys))
