# SPDX-License-Identifier: Apache-2.0
"""Real processes train as one does: the step, the overflow, exact sums, uneven evaluation, and whole runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from src.checkpoint.file import read_checkpoint
from src.checkpoint.weights import load_weights
from src.evaluation.evaluate import evaluate_network
from src.training import session
from src.training.records import read_metrics
from tests.helpers.cut_runs import assert_same_arrays, last_of, records_of
from tests.helpers.tiny import TinyRecipe
from tests.system import pairs_of_ranks, several_ranks, thor_of_ranks

ROOT = Path(__file__).parents[2]
TIMEOUT = 400  # seconds; idle machines need 30
RANKS = 3
COUNT = 1_009  # a prime: no number of ranks has equal shares

pytestmark = [pytest.mark.distributed, pytest.mark.usefixtures("graph_mode")]


def in_processes(count, log_dir, *words):
    """Runs several_ranks.py in so many processes; fails with their logs if they do not end well in time."""
    launch = ["-m", "src.tools.launch", "--workers", count, "--device_target", "CPU", "--log_dir", log_dir]
    try:
        ended = subprocess.run(
            [sys.executable, *map(str, [*launch, "--", several_ranks.__file__, *words])],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=TIMEOUT,
            capture_output=True, text=True,
        )  # fmt: skip
        code, output = ended.returncode, ended.stdout + ended.stderr
    except subprocess.TimeoutExpired:
        code, output = f"none after {TIMEOUT} s", ""
    logs = {path.name: path.read_text(errors="replace") for path in log_dir.glob("*.log")}
    told = "\n".join(f"--- {name}\n{text[-3000:]}" for name, text in logs.items())
    assert code == 0, f"exit code {code}\n{output[-3000:]}\n{told}"
    assert not [name for name, text in logs.items() if "Traceback" in text], told


@pytest.fixture(scope="module")
def many_images(data_path, tmp_path_factory):
    """The small drawn data set with more test images, of which a network without training mistakes some."""
    folder = tmp_path_factory.mktemp("many")
    for name in ("data_batch_1.bin", "batches.meta.txt"):
        (folder / name).write_bytes((data_path / name).read_bytes())
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, (COUNT, 1)).astype(np.uint8)
    images = rng.integers(0, 256, (COUNT, 3 * 32 * 32)).astype(np.uint8)
    (folder / "test_batch.bin").write_bytes(np.concatenate([labels, images], axis=1).tobytes())
    (folder / "sizes.json").write_text(json.dumps({"data_batch_1.bin": 200, "test_batch.bin": COUNT}))
    return folder


@pytest.fixture(scope="module")
def folder(data_path, many_images, tmp_path_factory):
    """Where the processes of one start, which does all that is asserted here, left their files."""
    folder = tmp_path_factory.mktemp("ranks")
    in_processes(RANKS, folder / "log", "everything", folder, data_path, many_images)
    return folder


def arrays_of(folder, name):
    """What each rank saved under that name."""
    loaded = []
    for rank in range(RANKS):
        with np.load(folder / f"{name}_{rank}.npz") as arrays:
            loaded.append(dict(arrays))
    return loaded


@pytest.fixture(scope="module")
def ranks(folder):
    return arrays_of(folder, "rank")


def assert_near(run_dir, straight):
    found, expected = last_of(run_dir).arrays, last_of(straight).arrays
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


def test_all_ranks_hold_the_same_bits(ranks):
    for other in ranks[1:]:
        for name in ranks[0].keys() - {"graphs"}:
            np.testing.assert_array_equal(ranks[0][name], other[name], err_msg=name)


def test_parts_of_a_batch_train_like_the_whole_on_one_card(ranks):
    step = several_ranks.build(cards=1)
    rows = several_ranks.train_steps(step, rank=0, size=1)
    np.testing.assert_allclose(ranks[0]["rows"], rows, rtol=1e-5, atol=1e-6)
    for parameter in step.get_parameters():
        np.testing.assert_allclose(
            ranks[0][parameter.name], parameter.asnumpy(), rtol=1e-6, atol=1e-6, err_msg=parameter.name
        )
    assert (rows[:, 3] > 0.05).sum() >= 3, "the case must clip"


def test_synchronised_batch_normalisation_trains_like_the_whole_batch_on_one_card(ranks):
    step = several_ranks.build(cards=1, normalised=True)
    rows = several_ranks.train_steps(step, rank=0, size=1)
    np.testing.assert_allclose(ranks[0]["bn.rows"], rows, rtol=1e-5, atol=1e-6)
    for parameter in step.get_parameters():
        for arrays in ranks:
            np.testing.assert_allclose(
                arrays[f"bn.{parameter.name}"], parameter.asnumpy(), rtol=2e-6, atol=2e-6,
                err_msg=parameter.name,
            )  # fmt: skip


def test_a_parameter_that_differs_is_named_on_every_rank(ranks):
    for arrays in ranks:
        equal, different, name = arrays["said"]
        assert equal == "equal"
        assert name == "runs/0 \u00e9"
        assert "linear.weight differs between rank 0 and rank 1 after step 7 (1 of " in different


def assert_thor_is_that_of_one_card(folder, size):
    """Factors are means over the cards, and every card inverts a share of the blocks."""
    expected = thor_of_ranks.train(rank=0, size=1)
    for rank in range(size):
        with np.load(folder / f"thor_of_{size}_{rank}.npz") as found:
            assert set(found) == expected.keys()
            for name, value in expected.items():
                np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


def test_thor_of_three_ranks_is_that_of_one(folder):
    assert_thor_is_that_of_one_card(folder, RANKS)


def test_an_overflow_on_one_rank_is_skipped_by_all(ranks):
    for arrays in ranks:
        overflows = arrays["rows"][:, 2]
        np.testing.assert_array_equal(overflows, np.arange(several_ranks.STEPS) == several_ranks.BAD_STEP)
        assert arrays["train.updates"] == several_ranks.STEPS
        assert arrays["train.applied"] == several_ranks.STEPS - 1
        np.testing.assert_array_equal(arrays["rows"][:, 1], [256, 256, 512, 256, 256])
        assert np.isfinite(arrays["conv.weight"]).all()


def test_sums_over_ranks_are_exact(ranks):
    integers, reals = map(sum, zip(*map(several_ranks.vectors_of, range(RANKS))))
    for arrays in ranks:
        assert (arrays["integers"].dtype, arrays["reals"].dtype) == (np.int64, np.float64)
        np.testing.assert_array_equal(arrays["integers"], integers)
        np.testing.assert_allclose(arrays["reals"], reals, rtol=1e-14)


def test_sums_between_steps_compile_nothing_again(ranks):
    assert [int(arrays["graphs"]) for arrays in ranks] == [1] * RANKS


def test_pairs_of_all_cards_train_as_on_one(folder):
    alone = pairs_of_ranks.train(rank=0, size=1)
    assert abs(alone["loss.beta"] - 0.8) > 1e-3 and np.abs(np.diff(alone["losses"])).min() > 1e-3
    for arrays in arrays_of(folder, "pairs"):
        for name, expected in alone.items():
            np.testing.assert_allclose(arrays[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)


def test_uneven_shares_count_every_image_once(folder, many_images):
    alone = several_ranks.evaluate(many_images)
    assert alone.metrics["count"] == COUNT and 0 < alone.metrics["top1"] < 100
    for arrays in arrays_of(folder, "evaluation"):
        assert {name: float(arrays[name]) for name in alone.metrics} == pytest.approx(alone.metrics, rel=1e-6)
        np.testing.assert_array_equal(arrays["confusion"], alone.totals.confusion)


def test_a_run_equals_one_process_with_all_the_batches(folder, data_path, tmp_path, plain_logger):
    """With 5 batches an epoch in updates of 2: an epoch's end lies inside an accumulation."""
    config = several_ranks.config_of(data_path, batch_size=12 * RANKS)
    session.start(config, TinyRecipe, run_dir=tmp_path / "alone")
    assert last_of(folder / "straight").arrays["train.updates"] == 5
    assert_near(tmp_path / "alone", folder / "straight")


def test_a_signal_to_one_rank_stops_all_and_another_number_of_cards_goes_on(folder, data_path, plain_logger):
    stops = [(folder / f"stopped_of_rank_{rank}.txt").read_text() for rank in range(RANKS)]
    assert len(set(stops)) == 1
    assert stops[0].startswith("stopped after batch 4 of 10, state saved")
    stopped, straight = folder / "stopped", folder / "straight"
    found = last_of(stopped)
    assert found.meta["progress"]["step"] == 4
    assert_same_arrays(found, read_checkpoint(straight / "checkpoints" / "step_00000004.ckpt"))

    # One card with as many images a batch makes the same updates.
    config = several_ranks.config_of(data_path, batch_size=12 * RANKS)
    session.resume(config, TinyRecipe, run_dir=stopped)
    assert last_of(stopped).meta["course"] == last_of(straight).meta["course"]
    assert_near(stopped, straight)


def test_a_run_killed_inside_an_accumulation_goes_on_to_the_same_bits(folder):
    assert "after batch 4 of 10" in (folder / "killed" / "train.log").read_text()
    killed, straight = folder / "killed", folder / "straight"
    assert_same_arrays(last_of(killed), last_of(straight))
    assert last_of(killed).meta["progress"]["best"] == last_of(straight).meta["progress"]["best"]
    assert records_of(killed) == records_of(straight)


def test_a_run_of_several_processes_leaves_the_files_of_one(folder, data_path):
    run_dir = folder / "straight"
    assert {path.name for path in run_dir.iterdir()} == {
        "config.yaml", "classes.txt", "metrics.jsonl", "train.log", "train_rank_1.log", "train_rank_2.log",
        "summary.json", "tensorboard", "checkpoints",
        "evaluation.json", "report.html", "starts.json",
        "learning_curves.png", "confusion_matrix.png", "recall_by_class.png", "worst_mistakes.png",
    }  # fmt: skip
    assert len(list((run_dir / "tensorboard").iterdir())) == 1
    records = read_metrics(run_dir / "metrics.jsonl")
    assert [r["step"] for r in records if "loss" in r] == [2, 4, 6, 8, 10]
    assert [(r["step"], r["eval_count"]) for r in records if "eval_top1" in r] == [(4, 70), (8, 70), (10, 70)]
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["device"] == {"target": "CPU", "cards": RANKS}
    assert summary["final"]["count"] == 70
    assert sum(value is not None for value in summary["recall_by_class"].values()) == 4
    last = last_of(run_dir)
    assert last.arrays["train.applied"] == 5

    recipe = TinyRecipe(several_ranks.config_of(data_path))
    network = recipe.network(num_classes=4)
    load_weights(network, last.network_weights())
    alone = evaluate_network(network, recipe.inputs(), recipe.eval_batches(), num_classes=4).metrics
    assert alone == pytest.approx(summary["final"], rel=1e-5), "all ranks evaluate the network that is saved"


@pytest.mark.slow
def test_four_processes_stop_and_two_go_on(folder, data_path, tmp_path):
    in_processes(4, tmp_path / "four", "stop", tmp_path, data_path)
    in_processes(2, tmp_path / "two", "go_on", tmp_path, data_path)
    assert last_of(tmp_path / "stopped").meta["course"] == last_of(folder / "straight").meta["course"]
    assert_near(tmp_path / "stopped", folder / "straight")
    for size in (4, 2):
        assert_thor_is_that_of_one_card(tmp_path, size)
