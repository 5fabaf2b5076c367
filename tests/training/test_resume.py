# SPDX-License-Identifier: Apache-2.0
"""A run that was cut goes on as if nothing had been: to the bit, in its records, and from damaged files."""

import shutil
import signal

import numpy as np
import pytest
from mindspore import nn, ops

from src.common.errors import UserError
from src.common.files import MARKER, read_json
from src.layers.conv import conv2d, dense
from src.layers.init import initialise, torch_default
from src.optim.groups import ParamRule
from src.training import session
from src.training.signals import Interrupted
from tests.helpers.cut_runs import CASES, assert_same, last_of, records_of, stop_at
from tests.helpers.errors import fails
from tests.training.conftest import TinyRecipe

pytestmark = pytest.mark.usefixtures("graph_mode")


@pytest.mark.parametrize(
    ("case", "asked", "step"),
    [("plain", 3, 3), ("plain", 5, 5), ("all", 8, 9), ("thor", 5, 5)],
    ids=["within an epoch", "where an evaluation is due", "within an accumulation", "between two inverses"],
)
def test_stop_and_resume_change_no_bit(start, resume, straight, tmp_path, case, asked, step):
    run_dir = tmp_path / "run"
    with pytest.raises(Interrupted, match=f"after batch {step} of .*--resume {run_dir}"):
        start(run_dir, watch=stop_at(asked), **CASES[case])
    stopped = last_of(run_dir)
    assert stopped.meta["step"] == step
    assert not (run_dir / "summary.json").exists()
    assert not [name for name in stopped.arrays if name.startswith("accumulated.")]
    resume(run_dir, workers=1 + asked % 3)
    assert_same(run_dir, straight(case))
    assert (run_dir / "summary.json").exists()
    assert [start["step"] for start in read_json(run_dir / "starts.json")] == [0, step]


def test_a_run_can_be_stopped_again_and_again(start, resume, straight, tmp_path):
    run_dir = tmp_path / "run"
    with pytest.raises(Interrupted):
        start(run_dir, watch=stop_at(1, signal.SIGINT), **CASES["plain"])
    with pytest.raises(Interrupted):
        resume(run_dir, watch=stop_at(7))
    resume(run_dir)
    assert_same(run_dir, straight("plain"))


def test_a_signal_at_the_last_step_leaves_the_evaluation_to_the_resume(start, resume, straight, tmp_path):
    run_dir = tmp_path / "run"
    with pytest.raises(Interrupted, match="after batch 10 of 10, state saved"):
        start(run_dir, watch=stop_at(10), **CASES["plain"])
    assert resume(run_dir)["batches"] == 10
    assert_same(run_dir, straight("plain"))


def test_resuming_a_finished_run_changes_nothing_but_the_report(start, resume, straight, tmp_path):
    run_dir = tmp_path / "run"
    first = start(run_dir, **CASES["plain"])
    files = [path for path in run_dir.rglob("*") if path.suffix in (".ckpt", ".jsonl", ".yaml")]
    before = {path: path.read_bytes() for path in files}
    (run_dir / "summary.json").unlink()
    again = resume(run_dir)
    assert {path: path.read_bytes() for path in files} == before
    for key in ("final", "best", "recall_by_class", "images", "batches", "updates"):
        assert again[key] == first[key]
    assert (run_dir / "summary.json").exists()


def test_a_damaged_last_checkpoint_costs_the_steps_since_the_one_before(
    start, resume, straight, tmp_path, quartet_log
):
    run_dir = tmp_path / "run"
    with pytest.raises(Interrupted):
        start(run_dir, watch=stop_at(8), **CASES["plain"])
    last = run_dir / "checkpoints" / "last.ckpt"
    with last.open("r+b") as file:  # in place: step_00000008.ckpt is the same file
        file.seek(200)
        byte = file.read(1)
        file.seek(200)
        file.write(bytes([byte[0] ^ 16]))
    leftover = run_dir / "checkpoints" / ".quartet-tmp-step_00000009.ckpt-x"  # of a process that was killed
    leftover.mkdir()
    for name in (MARKER, "step_00000009.ckpt"):
        (leftover / name).write_bytes(b"half")
    steps = []
    resume(run_dir, watch=lambda step, *_: steps.append(step))
    assert steps == list(range(6, 11))
    warnings = [record.getMessage() for record in quartet_log if record.levelname == "WARNING"]
    assert any(f"{last} is damaged" in warning for warning in warnings)
    assert_same(run_dir, straight("plain"))
    assert not list((run_dir / "checkpoints").glob(".*"))


def test_a_run_without_a_checkpoint_yet_starts_anew(start, resume, straight, tmp_path):
    run_dir = tmp_path / "run"

    def crash(step, *_):
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start(run_dir, watch=crash, **CASES["plain"])
    assert len(records_of(run_dir)) == 3
    resume(run_dir)
    assert_same(run_dir, straight("plain"))


def test_a_config_that_does_not_fit_the_checkpoint_is_refused(start, resume, tmp_path):
    run_dir = tmp_path / "run"
    with pytest.raises(Interrupted):
        start(run_dir, watch=stop_at(2), **CASES["plain"])
    text = (run_dir / "config.yaml").read_text()
    (run_dir / "config.yaml").write_text(text.replace("ema_decay: 0.0", "ema_decay: 0.5"))
    with pytest.raises(UserError, match=r"last\.ckpt does not fit the run's config"):
        resume(run_dir)


@pytest.mark.parametrize(
    ("words", "config_path", "named"),
    [
        (["--lr", "1"], None, "lr: 1 given with --resume, allowed there: data_path"),
        (["--batch_size", "8", "--mixup_alpha", "0.2"], None, "mixup_alpha: 0.2 given with --resume"),
        ([], "other.yaml", "config_path: 'other.yaml' given with --resume"),
    ],
)
def test_what_would_make_it_another_run_is_refused(tmp_path, words, config_path, named):
    (tmp_path / "config.yaml").touch()
    session.check_resume(str(tmp_path), ["--batch_size", "8"], config_path=None)
    with pytest.raises(UserError, match=f"^{named}"):
        session.check_resume(str(tmp_path), words, config_path=config_path)


@pytest.mark.parametrize("run_dir", ["", "nowhere"])
def test_a_folder_without_a_run_is_refused(run_dir):
    with pytest.raises(UserError, match=f"^resume: {run_dir!r} is not the folder of a run"):
        session.check_resume(run_dir, [], config_path=None)


def test_another_batch_size_goes_on_at_the_same_part_of_the_run(start, resume, tmp_path, quartet_log):
    with pytest.raises(Interrupted):
        start(tmp_path / "run", watch=stop_at(6), accumulate_steps=2, log_every=1, epochs=2.0)
    assert last_of(tmp_path / "run").meta["step"] == 6  # of 10
    resume(tmp_path / "run", batch_size=20)
    last = last_of(tmp_path / "run")
    assert (last.meta["step"], last.meta["steps"]) == (20, 20)
    # Six batches of 40 were three updates; from step 12 on, batches of 20 make four more, and 12 / 2 counts.
    assert last.arrays["train.updates"] == 10
    assert last.arrays["train.applied"] == 3 + 4
    said = (
        "40 images an update (1 cards, batch_size 20, accumulate_steps 2), 80 before: "
        "batch 6 of 10 becomes 12 of 20"
    )
    assert any(said in record.getMessage() for record in quartet_log)
    epochs = [record["epoch"] for record in records_of(tmp_path / "run")]
    assert epochs == sorted(epochs) and epochs[-1] == 2


def test_records_survive_two_resumes_with_larger_batches_and_never_turn_back(start, resume, tmp_path):
    """Steps do turn back, as each has more images (E-B3)."""
    run_dir = tmp_path / "run"
    with pytest.raises(Interrupted):
        start(run_dir, watch=stop_at(15), batch_size=20, log_every=1, eval_every=99.0)
    first = records_of(run_dir)
    with pytest.raises(Interrupted):
        resume(run_dir, watch=stop_at(9), batch_size=40)
    resume(run_dir, batch_size=40)
    records = records_of(run_dir)
    assert records[:15] == first
    assert [record["images"] for record in records] == [*range(20, 301, 20), 340, 380, 380]
    assert [record["step"] for record in records[15:]] == [9, 10, 10]


class NoNorm(nn.Cell):
    """(N, 3, 32, 32) -> (N, 4) without batch normalisation, which would see the size of the batch."""

    def __init__(self, *, num_classes):
        super().__init__()
        self.conv = conv2d(in_channels=3, out_channels=4, kernel_size=3, stride=2, bias=True)
        self.linear = dense(in_channels=4, out_channels=num_classes, bias=False)
        initialise(self, seed=0, weight=torch_default)

    def construct(self, x):
        return self.linear(ops.relu(self.conv(x)).mean((2, 3)))


@pytest.fixture
def without_norm(monkeypatch):
    """From here on, the runs of this test train NoNorm."""
    rules = [ParamRule("all", ".*", 5e-4)]
    monkeypatch.setattr(TinyRecipe, "network", lambda self, *, num_classes: NoNorm(num_classes=num_classes))
    monkeypatch.setattr(TinyRecipe, "param_rules", lambda self: rules)


def test_as_many_images_an_update_make_the_same_run(start, resume, tmp_path, without_norm):
    """Batches of 40, then two of 20 an update, then one of 40 again (E-B10).

    Of the same images: what is drawn for each depends on the batch that it is in.
    """
    keys = {
        "flip": "none",
        "crop_pad": 0,
        "cutout": 0,
        "epochs": 3.0,
        "ema_decay": 0.9,
        "log_every": 1,
        "eval_every": 3.0,
    }
    start(tmp_path / "straight", **keys)
    run_dir = tmp_path / "run"
    with pytest.raises(Interrupted, match="after batch 4 of 15"):
        start(run_dir, watch=stop_at(4), **keys)
    with pytest.raises(Interrupted, match="after batch 18 of 30"):
        resume(run_dir, watch=stop_at(17), batch_size=20, accumulate_steps=2)
    resume(run_dir)
    last, expected = last_of(run_dir), last_of(tmp_path / "straight")
    assert last.meta["step"] == expected.meta["step"] == 15
    assert last.arrays.keys() == expected.arrays.keys()
    for name, value in expected.arrays.items():
        np.testing.assert_allclose(last.arrays[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    records, straight = records_of(run_dir), records_of(tmp_path / "straight")
    assert [r["images"] for r in records] == [r["images"] for r in straight]
    for found, wanted in zip(records, straight):
        assert found.get("lr") == wanted.get("lr")


def test_lookahead_goes_by_the_share_of_the_run_where_updates_become_larger(
    start, resume, tmp_path, without_norm
):
    """The last of 25 updates is the tenth of ten: by their number, averages would fly away (to 80)."""
    keys = {"ema_decay": 0.95, "lookahead": True, "lr_schedule": "constant", "lr_scale_rule": "none"}
    keys |= {"lr": 0.3, "flip": "none", "crop_pad": 0, "cutout": 0, "eval_every": 99.0}
    run_dir = tmp_path / "run"
    with pytest.raises(Interrupted, match="after batch 20 of 40"):
        start(run_dir, watch=stop_at(20), batch_size=10, **keys)
    before = last_of(run_dir).arrays
    resume(run_dir, batch_size=40)
    after = last_of(run_dir).arrays
    for name, value in before.items():
        if name.startswith("ema."):
            assert 0 < np.abs(after[name] - value).max() < 1


def test_images_that_were_removed_make_no_other_run_silently(start, resume, tmp_path, data_path):
    run_dir, fewer = tmp_path / "run", tmp_path / "fewer"
    shutil.copytree(data_path, fewer)
    with (fewer / "data_batch_1.bin").open("r+b") as file:
        file.truncate(160 * 3073)
    (fewer / "sizes.json").write_text('{"data_batch_1.bin": 160, "test_batch.bin": 70}')
    with pytest.raises(Interrupted):
        start(run_dir, watch=stop_at(5), log_every=1)
    said = fails(resume, run_dir, data_path=str(fewer))
    assert "has 160 training and 70 held-out images, and had 200 and 70 when" in said
    summary = resume(run_dir, data_path=str(fewer), allow_changed_data=True)
    assert (summary["batches"], summary["epochs"]) == (8, 2.0)  # one epoch of 5 batches, one of 4
    assert [r["images"] for r in records_of(run_dir) if "loss" in r] == [*range(40, 361, 40)]
