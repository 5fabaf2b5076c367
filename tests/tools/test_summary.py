# SPDX-License-Identifier: Apache-2.0
"""The summary's arithmetic, its two outputs, and what it says to bad input."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from src.analysis.cost import measure
from src.analysis.summary import COUNTS, USABLE, _blocks
from src.common.errors import UserError
from src.model_utils.config import load_config, parse_overrides
from src.tools import summary
from src.zoo import config_class_of, create_network, create_recipe, list_models

ROOT = Path(__file__).parents[2]
NARROW = ["resnet9", "--widths", "[2, 3, 4, 5]"]
TRAINED = 2 * 27 + 4 + 3 * 18 + 6 + 2 * (27 * 3 + 6) + 4 * 27 + 8 + 5 * 36 + 10 + 2 * (45 * 5 + 10) + 10 * 5
STATISTICS = 2 * (2 + 3 * 3 + 4 + 3 * 5)
BIT = ["bit_r50x1", "--block_units", "[1, 1, 1, 1]", "--width_factor", "0.5", "--image_size", "32"]
pytestmark = pytest.mark.usefixtures("plain_logger")

BIREAL = ["birealnet18", "--block_units", "[1, 1, 1, 1]", "--widths", "[8, 16, 32, 64]", "--image_size", "32"]


@pytest.fixture
def facts_of(capsys):
    """The JSON object that the words of a command line lead to."""

    def call(*words):
        summary.main([*words, "--json"])
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return call


def test_the_parts_that_are_known_exactly(facts_of):
    facts = facts_of(*NARROW, "--batch_size", "8")
    assert facts["parameters"] == TRAINED
    assert facts["memory"] == {
        "weights": 4 * (TRAINED + STATISTICS),
        "gradients": 4 * TRAINED,
        "factors": 0,
        "inverting": 0,
        "optimizer": 4 * TRAINED,
        "ema": 0,
        "accumulation": 0,
        "activations": facts["memory"]["activations"],
        "patches": 0,
        "input": 4 * 8 * (3 * 32 * 32 + 10),
        "total": sum(value for name, value in facts["memory"].items() if name != "total"),
    }


@pytest.mark.parametrize(("name", "tensors", "scalars"), [("sgd", 1, 0), ("rmsprop", 2, 0), ("adamw", 2, 1)])
def test_the_state_of_the_optimizer(facts_of, name, tensors, scalars):
    assert facts_of(*NARROW, "--optimizer", name)["memory"]["optimizer"] == 4 * (tensors * TRAINED + scalars)


def test_average_and_accumulation(facts_of):
    words = ["--ema_decay", "0.99", "--accumulate_steps", "3", "--batch_size", "40"]
    facts = facts_of(*NARROW, *words)
    assert facts["memory"]["ema"] == 4 * (TRAINED + STATISTICS)
    assert facts["memory"]["accumulation"] == 4 * TRAINED
    assert (facts["ema_decay"], facts["accumulate_steps"], facts["images_per_update"]) == (0.99, 3, 120)
    plain = facts_of(*NARROW, "--batch_size", "40")
    assert facts["memory"]["activations"] == plain["memory"]["activations"]


def test_factors_and_inverses_of_thor(facts_of):
    """Of eight convolutions and the classifier, which has no bias; in blocks of 18 rows and less."""
    plain = facts_of(*NARROW, "--batch_size", "1")["memory"]
    words = ["--optimizer", "thor", "--thor_block", "18", "--accumulate_steps", "2", "--batch_size", "1"]
    memory = facts_of(*NARROW, *words)["memory"]
    # Inputs of 27 rows are in blocks of 18, those of 18 in one, of 36 in two, of 45 in three; outputs in one.
    inputs = 18**2 * (2 + 1 + 2 * 2 + 2 + 2 + 2 * 3) + 5**2
    outputs = 2**2 + 3 * 3**2 + 4**2 + 3 * 5**2 + 10**2
    assert memory["factors"] == 4 * (inputs + outputs)
    assert memory["optimizer"] == plain["optimizer"] + memory["factors"] + 4 * 2
    assert memory["accumulation"] == memory["gradients"] + memory["factors"]
    # 18 blocks of inputs and 9 of outputs, each as large as the largest.
    assert memory["inverting"] == 5 * 4 * 18**2 * (18 + 9)
    assert memory["activations"] == plain["activations"]
    # The first convolution has 27 inputs at 32x32 places, for one image.
    assert memory["patches"] == 2 * 4 * 27 * 32 * 32


def test_activations_grow_with_the_batch_and_shrink_with_float16(facts_of):
    one, two, four = (facts_of(*NARROW, "--batch_size", n)["memory"]["activations"] for n in ("1", "2", "4"))
    assert four - two == 2 * (two - one) > 0
    half = facts_of(*NARROW, "--batch_size", "4", "--amp_level", "O2")
    assert half["amp_level"] == "O2" and half["memory"]["activations"] < four


def test_a_cards_operators_count_unless_the_device_is_a_cpu(facts_of):
    """Pooling keeps its input, and on a CPU places of 8 bytes, on a card its output of 4."""
    card, cpu = (
        facts_of(*NARROW, "--batch_size", "1", *words)["memory"]["activations"]
        for words in ([], ["--device_target", "CPU"])
    )
    pooled = 3 * 16 * 16 + 4 * 8 * 8 + 5 * 4 * 4 + 5
    assert cpu - card == (8 - 4) * pooled


def test_recomputation(facts_of):
    plain, less = facts_of(*BIT), facts_of(*BIT, "--recompute", "true")
    assert (plain["recompute"], less["recompute"]) == (False, True)
    assert (plain["blocks"], plain["parameters"]) == (less["blocks"], less["parameters"])
    assert less["memory"]["activations"] < plain["memory"]["activations"]
    assert less["largest_batch"] > plain["largest_batch"]
    same = [name for name in plain["memory"] if name not in ("activations", "total")]
    assert [plain["memory"][name] for name in same] == [less["memory"][name] for name in same]


def test_the_largest_batch_is_the_last_one_that_fits(facts_of):
    words = [*NARROW, "--card_memory", "0.01"]
    largest = facts_of(*words)["largest_batch"]
    usable = USABLE * 0.01 * 2**30
    for batch, fits in ((largest, True), (largest + 1, False)):
        facts = facts_of(*words, "--batch_size", str(batch))
        assert facts["fits"] is fits is (facts["memory"]["total"] <= usable)
        assert facts["largest_batch"] == largest
    power = facts["largest_power_of_two"]
    assert power <= largest < 2 * power and power.bit_count() == 1


def test_not_even_one_image_fits(facts_of):
    facts = facts_of(*NARROW, "--card_memory", "0.00001", "--batch_size", "1")
    assert (facts["fits"], facts["largest_batch"], facts["largest_power_of_two"]) == (False, 0, 0)


@pytest.mark.parametrize("words", [NARROW, BIT, BIREAL], ids=["resnet9", "bit", "bireal"])
def test_the_rows_add_up(facts_of, words):
    facts = facts_of(*words, "--depth", "1")
    assert facts["parameters"] > 0 and facts["multiply_adds"] > 0
    assert all("." not in row["name"] for row in facts["blocks"])
    config = load_config(parse_overrides(words[1:]) | {"model": words[0]}, config_class_of=config_class_of)
    network = create_recipe(config).network(num_classes=10)
    cells = measure(network, image_size=32).cells
    for depth in (0, 1, 2, 3, 9):
        rows = _blocks(cells, depth)
        assert all(row["name"].count(".") < (depth or 9) for row in rows)
        for name in COUNTS:
            assert sum(row[name] for row in rows) == facts[name]


def test_a_row_for_each_stage(facts_of):
    rows = facts_of(*NARROW)["blocks"]
    assert [row["name"] for row in rows] == [
        "prep", "layer1", "layer1_res1", "layer1_res2", "layer2", "layer3", "layer3_res1", "layer3_res2",
        "pool", "linear",
    ]  # fmt: skip
    assert (rows[0]["output"], rows[-1]["output"]) == ([2, 32, 32], [10])
    stages = [f"body.block{number}" for number in (1, 2, 3, 4)]
    names = [row["name"] for row in facts_of(*BIT)["blocks"]]
    assert names == ["root.conv", "root.pool", *stages, "head.gn", "head.conv"]


def test_a_block_of_two_outputs_is_one_row_and_what_does_nothing_is_none(facts_of):
    rows = {row["name"]: row["output"] for row in facts_of("birealnet50", *BIREAL[1:])["blocks"]}
    assert list(rows) == ["conv1", "bn1", "maxpool", *(f"layers.{stage}" for stage in range(4)), "fc"]
    assert rows["layers.1"] == [64, 4, 4]


def test_the_table(capsys):
    summary.main([*NARROW, "--num_classes", "7", "--batch_size", "16", "--accumulate_steps", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["resnet9", "output", "parameters", "multiply-adds"]
    assert lines[1].split() == ["prep", "2x32x32", str(2 * 27 + 4), "55,296"]
    total = next(line.split() for line in lines if line.startswith("total"))
    assert total[1] == f"{TRAINED - 3 * 5:,}"
    assert "batch_size 16, accumulate_steps 2" in lines[-2] and "images_per_update 32" in lines[-2]
    assert lines[-1].startswith("batch_size 16 fits into 90% of 32 GiB; largest ")


def test_the_compute_of_a_run(facts_of, capsys, tmp_path):
    """With a number of images alone; the numbers are those of tests/analysis/test_compute.py."""
    assert "compute" not in facts_of(*NARROW)
    words = ["--images", "100", "--test_images", "10", "--batch_size", "20", "--epochs", "2", "--tta", "flip"]
    facts = facts_of(*NARROW, *words)
    forward = 2 * facts["multiply_adds"]
    run = facts["compute"]
    assert (run["updates"], run["epochs"], run["training_images"], run["test_views"]) == (10, 2, 200, 20)
    assert run["training_image_flop"] == 3 * forward
    parts = run["training_pflop"], run["test_pflop"]
    assert parts == pytest.approx((600 * forward / 1e15, 20 * forward / 1e15))
    assert run["pflop"] == pytest.approx(sum(parts))
    summary.main([*NARROW, *words, "--train_steps", "1000000"])
    lines = {line[:16].strip(): line.split() for line in capsys.readouterr().out.splitlines()}
    pflop = 1e6 * 20 * 3 * forward / 1e15
    assert lines["training"][1:4] == [f"{pflop:.4f}", "1,000,000", "updates,"]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: resnet9\nwidths: [2, 3, 4, 5]\ntrain_steps: 1000000\n")
    assert facts_of("--config_path", str(recipe), *words)["compute"] == run
    with pytest.raises(UserError, match=r"^images: -1 given, allowed: a whole number >= 0$"):
        summary.main([*NARROW, "--images", "-1"])


def test_a_plain_network_has_nothing_of_1_bit(facts_of):
    facts = facts_of(*NARROW)
    assert (facts["parameters_1bit"], facts["multiply_adds_1bit"]) == (0, 0)
    assert facts["model_bytes_float"] == facts["model_bytes_bits"] == 4 * (TRAINED + STATISTICS)


def test_birealnet18_counted_by_hand(capsys):
    """Sixteen binary 3x3 convolutions; stem, three 1x1 shortcuts and classifier are real-valued."""
    sides, inputs, widths = (56, 28, 14, 7), (64, 64, 128, 256), (64, 128, 256, 512)
    weights = [9 * width * (before + 3 * width) for before, width in zip(inputs, widths, strict=True)]
    shortcuts = [before * width for before, width in zip(inputs[1:], widths[1:], strict=True)]
    stem, classifier = 64 * 3 * 7 * 7, 512 * 1000
    normalised = 64 + 4 * sum(widths) + sum(widths[1:])
    floats = stem + sum(shortcuts) + classifier + 1000 + 2 * normalised
    products = sum(side**2 * number for side, number in zip(sides, weights, strict=True))
    real = 112**2 * stem + sum(s**2 * n for s, n in zip(sides[1:], shortcuts, strict=True)) + classifier
    assert (sum(weights), floats) == (10_985_472, 704_040)

    summary.main(["birealnet18", "--image_size", "224", "--num_classes", "1000", "--json"])
    *lines, last = capsys.readouterr().out.splitlines()
    facts = json.loads(last)
    assert (facts["parameters"], facts["parameters_1bit"]) == (11_689_512, sum(weights))
    assert (facts["multiply_adds"], facts["multiply_adds_1bit"]) == (products + real, products)
    assert facts["model_bytes_float"] == 4 * (11_689_512 + 2 * normalised)
    assert facts["model_bytes_bits"] == sum(weights) // 8 + 4 * (floats + 2 * normalised)

    kinds = ["1-bit parameters", "32-bit parameters", "1-bit multiply-adds", "32-bit multiply-adds"]
    assert re.split(r" {2,}", lines[0]) == ["birealnet18", "output", *kinds]
    total = next(number for number, line in enumerate(lines) if line.startswith("total"))
    assert lines[total].split()[1:] == [f"{n:,}" for n in (sum(weights), floats, products, real)]
    assert lines[total + 1].startswith(f"FLOPs {real + products / 64:.4g} (")
    assert "46,796,448 bytes as float (44.63 MiB), 4,227,744 as bits (4.03 MiB" in lines[total + 2]


def test_the_config_may_come_from_a_file(facts_of, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("model: resnet9\nwidths: [2, 3, 4, 5]\noptimizer: adam\nbatch_size: 3\n")
    by_file = facts_of("--config_path", str(path), "--batch_size", "5")
    assert by_file == facts_of(*NARROW, "--optimizer", "adam", "--batch_size", "5")
    assert facts_of("resnet9", "--config_path", str(path))["batch_size"] == 3


def test_no_flag_of_its_own_hides_a_key():
    own = set(re.findall(r'add_argument\(\s*"--(\w+)"', Path(summary.__file__).read_text()))
    keys = set().union(*(config_class_of(name).model_fields for name in list_models()))
    assert {"images", "depth"} < own and not own & keys


def test_the_summary_describes_the_network_that_is_trained(facts_of):
    network = create_network("resnet9", num_classes=10, widths=(2, 3, 4, 5))
    assert sum(p.size for p in network.trainable_params()) == facts_of(*NARROW)["parameters"]
    config = load_config({"model": "resnet9"}, config_class_of=config_class_of)
    assert facts_of(*NARROW)["batch_size"] == config.batch_size


def test_as_a_command():
    ended = subprocess.run(
        [sys.executable, "-m", "src.tools.summary", "resnet9", "--json"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    facts = json.loads(ended.stdout.splitlines()[-1])
    assert (facts["parameters"], facts["multiply_adds"]) == (6_573_120, 379_261_952)
