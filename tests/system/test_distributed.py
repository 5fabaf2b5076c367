"""Two real processes train as one does: the step, the overflow, the exact sums, and a whole run."""

import importlib.util
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
from src.model_utils.config import load_config
from src.training import session
from src.training.records import read_metrics
from src.zoo import config_class_of, create_recipe

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("two_ranks.py")
TIMEOUT = 240  # seconds; idle machines need 15

pytestmark = pytest.mark.distributed


def in_two_processes(log_dir, *words):
    """Runs a Python script in two processes; fails with their logs if they do not end well in time."""
    launch = ["-m", "src.tools.launch", "--workers", "2", "--device_target", "CPU", "--log_dir", log_dir]
    try:
        ended = subprocess.run(
            [sys.executable, *map(str, [*launch, "--", *words])],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=TIMEOUT,
            capture_output=True, text=True,
        )  # fmt: skip
        code, output = ended.returncode, ended.stdout + ended.stderr
    except subprocess.TimeoutExpired:
        code, output = f"none after {TIMEOUT} s", ""
    logs = "\n".join(
        f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in log_dir.glob("*.log")
    )
    assert code == 0, f"exit code {code}\n{output[-3000:]}\n{logs}"


@pytest.fixture(scope="module")
def script():
    """two_ranks.py as a module, where MindSpore's compiler finds it."""
    spec = importlib.util.spec_from_file_location("quartet_two_ranks", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What the two processes saved."""
    folder = tmp_path_factory.mktemp("ranks")
    in_two_processes(folder / "log", SCRIPT, "step", folder)
    loaded = []
    for rank in range(2):
        with np.load(folder / f"rank_{rank}.npz") as arrays:
            loaded.append(dict(arrays))
    return loaded


def test_both_ranks_hold_the_same_bits(ranks):
    for name in ranks[0].keys() - {"graphs"}:
        np.testing.assert_array_equal(ranks[0][name], ranks[1][name], err_msg=name)


def test_two_halves_of_a_batch_train_like_the_whole_on_one_card(ranks, script, graph_mode):
    step = script.build(cards=1)
    rows = script.train(step, rank=0, size=1)
    np.testing.assert_allclose(ranks[0]["rows"], rows, rtol=1e-5, atol=1e-6)
    for parameter in step.get_parameters():
        np.testing.assert_allclose(
            ranks[0][parameter.name], parameter.asnumpy(), rtol=1e-6, atol=1e-6, err_msg=parameter.name
        )
    assert (rows[:, 3] > 0.05).sum() >= 3, "the case must clip"


def test_synchronised_batch_normalisation_trains_like_the_whole_batch_on_one_card(ranks, script, graph_mode):
    step = script.build(cards=1, normalised=True)
    rows = script.train(step, rank=0, size=1)
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


def test_an_overflow_on_one_rank_is_skipped_by_both(ranks, script):
    for arrays in ranks:
        overflows = arrays["rows"][:, 2]
        np.testing.assert_array_equal(overflows, np.arange(script.STEPS) == script.BAD_STEP)
        assert arrays["train.updates"] == script.STEPS
        assert arrays["train.applied"] == script.STEPS - 1
        np.testing.assert_array_equal(arrays["rows"][:, 1], [256, 256, 512, 256, 256])
        assert np.isfinite(arrays["conv.weight"]).all()


def test_sums_over_ranks_are_exact(ranks, script):
    (integers, reals), (others, other_reals) = script.vectors_of(0), script.vectors_of(1)
    for arrays in ranks:
        assert (arrays["integers"].dtype, arrays["reals"].dtype) == (np.int64, np.float64)
        np.testing.assert_array_equal(arrays["integers"], integers + others)
        np.testing.assert_allclose(arrays["reals"], reals + other_reals, rtol=1e-14)


def test_sums_between_steps_compile_nothing_again(ranks):
    assert [int(arrays["graphs"]) for arrays in ranks] == [1, 1]


def test_a_signal_to_one_rank_stops_all_and_another_number_of_cards_goes_on(
    data_path, tmp_path, graph_mode, plain_logger
):
    in_two_processes(tmp_path / "log", SCRIPT, "stop", tmp_path, data_path)
    # 5 batches an epoch in updates of 2: its end lies inside an accumulation. Asked while batch 4 is in hand,
    # stopped after its update; the evaluation that is due there is made by the resume.
    stops = [(tmp_path / f"stopped_of_rank_{rank}.txt").read_text() for rank in range(2)]
    assert stops[0] == stops[1]
    assert stops[0].startswith("stopped after batch 4 of 10, state saved")
    straight, stopped = (
        read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("straight", "stopped")
    )
    assert stopped.meta["step"] == straight.meta["step"] == 10
    assert stopped.meta["progress"]["best"] == straight.meta["progress"]["best"]
    assert stopped.arrays.keys() == straight.arrays.keys()
    for name, value in straight.arrays.items():
        np.testing.assert_array_equal(stopped.arrays[name], value, err_msg=name)
    records = read_metrics(tmp_path / "stopped" / "metrics.jsonl")
    assert [(r["step"], r["eval_count"]) for r in records if "eval_top1" in r] == [(4, 70), (8, 70), (10, 70)]

    # One card with as many images a batch makes the same updates; with as many as each had, twice as many.
    config = load_config(
        {"batch_size": 40}, config_class_of=config_class_of, config_path=tmp_path / "moved" / "config.yaml"
    )
    session.resume(config, create_recipe, run_dir=tmp_path / "moved")
    moved = read_checkpoint(tmp_path / "moved" / "checkpoints" / "last.ckpt")
    assert moved.meta["step"] == 10 and moved.meta["course"] == straight.meta["course"]
    for name, value in straight.arrays.items():
        np.testing.assert_allclose(moved.arrays[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


def test_a_run_of_two_processes_leaves_the_files_of_one(data_path, tmp_path, graph_mode):
    in_two_processes(
        tmp_path / "log", "train.py", "--data_path", data_path, "--output_path", tmp_path / "runs",
        "--run_name", "two", "--model", "resnet9", "--device_target", "CPU", "--widths", "[4,4,8,8]",
        "--batch_size", "20", "--eval_batch_size", "20", "--epochs", "2", "--warmup_epochs", "0.4",
        "--lr", "0.1", "--lr_base_batch", "40", "--ema_decay", "0.5", "--log_every", "1",
    )  # fmt: skip
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["two"]
    run_dir = tmp_path / "runs" / "two"
    assert {path.name for path in run_dir.iterdir()} == {
        "config.yaml", "classes.txt", "metrics.jsonl", "train.log", "train_rank_1.log", "summary.json",
        "tensorboard", "checkpoints",
        "learning_curves.png", "confusion_matrix.png", "recall_by_class.png", "worst_mistakes.png",
    }  # fmt: skip
    assert len(list((run_dir / "tensorboard").iterdir())) == 1
    records = read_metrics(run_dir / "metrics.jsonl")
    assert [r["step"] for r in records if "loss" in r] == list(range(1, 11))
    assert [(r["step"], r["eval_count"]) for r in records if "eval_top1" in r] == [(5, 70), (10, 70)]
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["device"] == {"target": "CPU", "cards": 2}
    assert summary["final"]["count"] == 70
    assert sum(value is not None for value in summary["recall_by_class"].values()) == 4
    last = read_checkpoint(run_dir / "checkpoints" / "last.ckpt")
    assert last.meta["step"] == 10
    assert last.arrays["train.applied"] == 10
    assert not [path for path in (tmp_path / "log").glob("*.log") if "Traceback" in path.read_text()]

    config = load_config({}, config_class_of=config_class_of, config_path=run_dir / "config.yaml")
    recipe = create_recipe(config)
    network = recipe.network(num_classes=4)
    load_weights(network, last.network_weights())
    alone = evaluate_network(network, recipe.inputs(), recipe.eval_batches(), num_classes=4).metrics
    assert alone == pytest.approx(summary["final"], rel=1e-5), "both ranks evaluate the network that is saved"


def test_pairs_of_all_cards_train_as_on_one(tmp_path, graph_mode):
    from tests.system import pairs_of_two_ranks

    in_two_processes(tmp_path / "log", pairs_of_two_ranks.__file__, tmp_path)
    alone = pairs_of_two_ranks.train(rank=0, size=1)
    assert abs(alone["loss.beta"] - 0.8) > 1e-3 and np.abs(np.diff(alone["losses"][:, 0])).min() > 1e-3
    for rank in range(2):
        with np.load(tmp_path / f"rank_{rank}.npz") as arrays:
            for name, expected in alone.items():
                np.testing.assert_allclose(arrays[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)
