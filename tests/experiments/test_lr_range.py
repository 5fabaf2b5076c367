# SPDX-License-Identifier: Apache-2.0
"""The range test: its schedule, the smoothed loss, the rule on known curves, and a run of the tool."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.common.errors import UserError
from src.experiments.lr_range import check_rates, draw_range, keys_of_range, report, smoothed, suggest
from src.model_utils.config import load_config
from src.optim.schedules import scheduled_rates
from src.tools import find_lr
from src.zoo import config_class_of, create_recipe
from tests.helpers.doors import call_main, last_json

RATES = np.linspace(0.01, 1.0, 100)


def _config(**keys):
    return load_config({"model": "resnet9", **keys}, config_class_of=config_class_of)


@pytest.mark.parametrize("exponential", [False, True])
def test_the_rate_rises_from_one_end_to_the_other(exponential):
    recipe = {
        "lr_schedule": "cosine", "ema_decay": 0.9, "ema_every": 5, "lookahead": True, "tta": "flip",
        "cooldown_epochs": 1,
    }  # fmt: skip
    config = _config(epochs=2, **recipe)
    keys = keys_of_range(config, lr_min=0.01, lr_max=1.0, exponential=exponential, given=["eval_every"])
    assert keys["log_every"] == 1 and "eval_every" not in keys
    changed = _config(epochs=2, **{**recipe, **keys})
    rates = scheduled_rates(changed, updates=200, updates_per_epoch=100)
    expected = (np.geomspace if exponential else np.linspace)(0.01, 1.0, 201)[1:]
    np.testing.assert_allclose(rates, expected, rtol=1e-3 if exponential else 1e-12)
    assert (changed.ema_decay, changed.tta, changed.cooldown_epochs) == (0, "none", 0)


@pytest.mark.parametrize(("lr_min", "lr_max"), [(0, 1), (1, 1), (2, 1), (-1, 1), (1, np.inf), (1, np.nan)])
def test_rates_that_do_not_rise_are_refused(lr_min, lr_max):
    with pytest.raises(UserError, match=r"^lr_max: .* given with lr_min .*, allowed: rates above 0"):
        keys_of_range(_config(), lr_min=lr_min, lr_max=lr_max, exponential=False, given=[])


def test_a_length_in_updates_is_refused():
    with pytest.raises(UserError, match="train_steps: 7 given, allowed: --epochs"):
        keys_of_range(_config(train_steps=7), lr_min=0.1, lr_max=1, exponential=False, given=[])


def test_a_key_that_the_test_sets_is_refused():
    with pytest.raises(UserError, match=r"^ema_decay: given, but the range test sets it; leave it out$"):
        keys_of_range(_config(), lr_min=0.1, lr_max=1, exponential=False, given=["epochs", "ema_decay"])


def test_every_recipe_takes_the_keys_but_those_with_rates_of_their_own():
    """BiT's hyper-rule sets them from the number of training images."""
    refused = 0
    for path in sorted(Path("configs").rglob("*.yaml")):
        keys = {"epochs": 2.0, "train_steps": 0}
        config = load_config(keys, config_class_of=config_class_of, config_path=path)
        keys |= keys_of_range(config, lr_min=0.01, lr_max=1, exponential=True, given=keys)
        recipe = create_recipe(load_config(keys, config_class_of=config_class_of, config_path=path))
        own = getattr(recipe.config, "hyper_rule", False)
        recipe = recipe.changed(sources={"train": range(1000)})
        refused += own
        with pytest.raises(UserError, match="sets its own rates") if own else contextlib.nullcontext():
            check_rates(recipe)
    assert refused


def test_smoothing_is_a_weighted_mean_of_what_came():
    """Over 40 values about 2 are averaged: b = 1/2, weights 1, 1/2, 1/4 ... of the values backwards."""
    values = np.random.default_rng(0).normal(2, 1, 40)
    for place, found in enumerate(smoothed(values)):
        weights = 0.5 ** np.arange(place, -1, -1)
        assert found == pytest.approx((weights * values[: place + 1]).sum() / weights.sum())
    np.testing.assert_allclose(smoothed([3.0] * 200), 3.0)  # no pull towards 0 at the start


def _curve(low, turn, end):
    """2.3 up to the rate `low`, straight down to 1.3 at `turn`, and on to `end` at the last rate."""
    return np.interp(RATES, [0, low, turn, 1], [2.3, 2.3, 1.3, end])


@pytest.mark.parametrize(
    ("end", "diverged", "lowest", "high", "turned"),
    [(2.0, False, 0.6, 0.3, True), (1.29, False, 1.0, 1.0, False), (1.29, True, 1.0, 0.5, True)],
)
def test_the_rule_on_a_known_curve(end, diverged, lowest, high, turned):
    found = suggest(RATES, _curve(0.2, 0.6, end), diverged=diverged)
    assert found.lowest_at == pytest.approx(lowest, abs=0.05) and found.turned is turned
    assert found.base_lr == pytest.approx(0.24, abs=0.05)  # a tenth of the way from 0.2 to 0.6, and the delay
    assert found.max_lr == pytest.approx(high, abs=0.025)


def test_a_loss_that_only_rises_has_its_base_at_its_max():
    found = suggest(RATES, np.linspace(2, 3, 100), diverged=False)
    assert found.base_lr == found.max_lr == RATES[0] / 2 and found.turned


def test_too_few_updates_are_refused():
    with pytest.raises(UserError, match="19 updates have a finite loss, 20 are needed; lower lr_max"):
        suggest(RATES[:19], RATES[:19], diverged=True)


def test_what_is_suggested_is_a_value_of_the_key(tmp_path):
    records = [{"lr": 4 * rate, "loss": loss} for rate, loss in zip(RATES, _curve(0.2, 0.6, 2.0))]
    records.insert(50, {"eval_top1": 50.0})
    facts = report(records, tmp_path, factor=4, diverged=False, exponential=False, facts={"config": "x"})
    assert facts == json.loads((tmp_path / "lr_range.json").read_text())
    assert facts["config"] == "x" and facts["updates"] == 100
    assert facts["max_lr"] == pytest.approx(0.3, abs=0.025)


def test_the_picture_has_a_panel_for_several_evaluations(tmp_path):
    losses, path = np.column_stack([RATES, _curve(0.2, 0.6, 2.0)]), tmp_path / "x.png"
    suggestion, sizes = suggest(*losses.T, diverged=False), []
    for top1 in ([(1.0, 50.0)], [(0.5, 40.0), (1.0, 50.0)]):
        draw_range(losses, np.array(top1), suggestion, path, exponential=len(sizes) == 1)
        pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
        assert (np.abs(pixels - (0x1F, 0x5A, 0x96)).sum(axis=2) < 30).sum() > 200
        sizes.append(pixels.shape[0])
    assert sizes[1] > sizes[0]


@pytest.mark.usefixtures("graph_mode")
def test_a_test_that_diverges_ends_early(tmp_path, data_path):
    recipe = tmp_path / "tiny.yaml"
    keys = {"model": "resnet9", "widths": [2, 2, 2, 2], "batch_size": 5, "lr_base_batch": 5, "lr": 1.0}
    recipe.write_text("".join(f"{key}: {value}\n" for key, value in keys.items()))
    rates = ["--lr_min", 1e-4, "--lr_max", 1e30, "--exponential"]
    where = {"data_path": data_path, "output_path": tmp_path / "out", "epochs": 2}
    facts = last_json(call_main(find_lr.main, *rates, recipe, **where))
    (run,) = (tmp_path / "out").iterdir()
    assert facts == json.loads((run / "lr_range.json").read_text())
    assert run.name.startswith("tiny-lr_range-") and (run / "lr_range.png").exists()
    assert facts["diverged"] and facts["turned"] and 20 <= facts["updates"] < 80
    assert (facts["lr_min"], facts["lr_max"], facts["exponential"]) == (1e-4, 1e30, True)
    assert 1e-4 <= facts["base_lr"] <= facts["max_lr"] < 1e30
