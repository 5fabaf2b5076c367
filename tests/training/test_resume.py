"""A run that was cut goes on as if nothing had been: to the bit, in its records, and from damaged files."""

import math
import os
import shutil
import signal

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from src.checkpoint.file import read_checkpoint
from src.common.errors import UserError
from src.layers.conv import conv2d, dense
from src.layers.init import initialise, torch_default
from src.optim.groups import ParamRule
from src.training import evaluator, session, trainer
from src.training.records import read_metrics
from src.training.signals import Interrupted
from tests.helpers.errors import fails
from tests.training.conftest import TinyRecipe

pytestmark = pytest.mark.usefixtures("graph_mode")

CASES = {
    "plain": {"log_every": 1},
    "all": {
        "ema_decay": 0.9, "accumulate_steps": 3, "loss_scale": "dynamic", "loss_scale_window": 2,
        "optimizer": "adamw", "lr": 0.01, "clip_norm": 1.0, "mixup_alpha": 0.2, "cutout": 8,
        "epochs": 3.0, "log_every": 1,
    },
}  # fmt: skip


def stop_at(step, number=signal.SIGTERM):
    """Sends this process a signal while the step is in hand."""

    def watch(current, *_):
        if current == step:
            os.kill(os.getpid(), number)

    return watch


def last_of(run_dir):
    return read_checkpoint(run_dir / "checkpoints" / "last.ckpt")


def records_of(run_dir):
    """The records without what depends on time."""
    return [
        {key: value for key, value in record.items() if key != "images_per_second"}
        for record in read_metrics(run_dir / "metrics.jsonl")
    ]


def assert_same(run_dir, straight):
    """Same weights, state, best figure and records."""
    found, expected = last_of(run_dir), last_of(straight)
    assert found.arrays.keys() == expected.arrays.keys()
    for name, value in expected.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], value, err_msg=name)
    found, expected = ({**c.meta["progress"], "seconds": 0} for c in (found, expected))
    assert found == expected
    best, expected_best = (read_checkpoint(run / "checkpoints" / "best.ckpt") for run in (run_dir, straight))
    assert best.meta["step"] == expected_best.meta["step"]
    for name, value in expected_best.arrays.items():
        np.testing.assert_array_equal(best.arrays[name], value, err_msg=name)
    assert records_of(run_dir) == records_of(straight)


@pytest.fixture(scope="module")
def straight_runs(tmp_path_factory):
    """The folders of uncut runs by case, made when first asked for."""
    return tmp_path_factory.mktemp("straight"), {}


@pytest.fixture
def straight(straight_runs, start):
    folder, made = straight_runs

    def run(case):
        if case not in made:
            start(folder / case, **CASES[case])
            made[case] = folder / case
        return made[case]

    return run


@pytest.mark.parametrize(
    ("case", "asked", "step"),
    [("plain", 3, 3), ("plain", 5, 5), ("all", 8, 9)],
    ids=["within an epoch", "where an evaluation is due", "within an accumulation"],
)
def test_stop_and_resume_change_no_bit(start, resume, straight, tmp_path, case, asked, step):
    run_dir = tmp_path / "run"
    with pytest.raises(Interrupted, match=f"after batch {step} of .*--resume {run_dir}"):
        start(run_dir, watch=stop_at(asked), **CASES[case])
    stopped = last_of(run_dir)
    assert stopped.meta["step"] == step
    assert not (run_dir / "summary.json").exists()
    assert not [name for name in stopped.arrays if name.startswith("accumulated.")]
    resume(run_dir)
    assert_same(run_dir, straight(case))
    assert (run_dir / "summary.json").exists()


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
    (run_dir / "checkpoints" / ".step_00000009.x.ckpt").write_bytes(b"half")
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


def put_nan(*steps):
    """Spoils a pixel and a target of the batches of these steps; of a pixel alone ReLU would make a 0.

    Only smoothed targets are numbers with a point.
    """

    def watch(step, images, targets):
        if step in steps:
            images[0, 0, 0, 0] = targets[0, 0] = math.nan

    return watch


def test_a_loss_that_is_no_number_stops_the_run_and_the_good_checkpoint_stays(start, tmp_path):
    run_dir = tmp_path / "run"
    with pytest.raises(UserError, match=r"loss is nan at batch 9, 3 batches in a row") as error:
        start(
            run_dir, watch=put_nan(7, 8, 9, 10), label_smoothing=0.1, log_every=1, max_nonfinite_steps=3,
            save_every=0.4,
        )  # fmt: skip
    kept = run_dir / "checkpoints" / "last.ckpt"
    assert str(kept) in str(error.value)
    checkpoint = read_checkpoint(kept)
    assert checkpoint.meta["step"] == 6
    assert all(np.isfinite(value).all() for value in checkpoint.arrays.values())


def test_before_the_first_checkpoint_the_message_says_so(start, tmp_path):
    with pytest.raises(UserError, match=r"is nan at batch 2, 1 batches.*there is no checkpoint yet"):
        start(tmp_path / "run", watch=put_nan(2), label_smoothing=0.1, log_every=4)


def test_a_rate_that_is_far_too_high_stops_the_run(start, tmp_path):
    with pytest.raises(UserError, match=r"loss is (nan|inf) at batch \d+.*lower lr"):
        start(tmp_path / "run", lr=1e30, lr_schedule="constant", log_every=1)


def test_fewer_bad_batches_in_a_row_are_passed_over(start, tmp_path):
    run_dir = tmp_path / "run"
    summary = start(
        run_dir,
        watch=put_nan(2, 3, 5, 6),
        label_smoothing=0.1,
        log_every=1,
        max_nonfinite_steps=3,
        epochs=3.0,
        ema_decay=0.5,
    )
    records = [r for r in records_of(run_dir) if "loss" in r]
    assert [r["step"] for r in records if r["overflow"]] == [2, 3, 5, 6]
    assert all(math.isnan(r["loss"]) == (r["step"] in (2, 3, 5, 6)) for r in records)
    checkpoint = last_of(run_dir)
    assert checkpoint.arrays["train.applied"] == 11
    for name, value in checkpoint.arrays.items():
        assert np.isfinite(value).all(), name
    assert math.isfinite(summary["final"]["loss"])


def test_a_full_disk_is_one_line_and_earlier_checkpoints_stay_whole(start, resume, straight, tmp_path):
    run_dir = tmp_path / "run"
    sync, full = os.fsync, []

    def fill(step, *_):
        if step == 7:
            full.append(step)

    def fsync(handle):
        if full and os.readlink(f"/proc/self/fd/{handle}").endswith(".ckpt"):
            raise OSError(28, "No space left on device")
        sync(handle)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(UserError, match=r"step_00000010\.ckpt: No space left on device; free space"):
            start(run_dir, watch=fill, **CASES["plain"])
    assert last_of(run_dir).meta["step"] == 5
    assert {path.name for path in (run_dir / "checkpoints").iterdir()} == {
        "last.ckpt", "best.ckpt", "step_00000005.ckpt",
    }  # fmt: skip
    resume(run_dir)
    assert_same(run_dir, straight("plain"))


def test_a_folder_that_cannot_be_written_is_one_line(start, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write") as error:
        start(tmp_path / "file" / "run")
    assert str(tmp_path / "file" / "run") in str(error.value)
    assert "\n" not in str(error.value)


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


def test_a_stop_in_an_evaluation_loses_nothing(start, resume, straight, tmp_path, monkeypatch):
    """What is evaluated is saved; the resume makes the evaluation (cases 67, 88)."""
    run_dir, batches = tmp_path / "run", TinyRecipe.eval_batches

    class Signal:
        """Evaluation batches, before the second of which a signal comes."""

        def __init__(self, batches):
            self._batches = batches

        def __getattr__(self, name):
            return getattr(self._batches, name)

        def __iter__(self):
            for number, batch in enumerate(self._batches):
                if number == 1:
                    os.kill(os.getpid(), signal.SIGUSR1)
                assert number < 2, "it went on after the signal"
                yield batch

    with monkeypatch.context() as patch:
        patch.setattr(TinyRecipe, "eval_batches", lambda self, **where: Signal(batches(self, **where)))
        with pytest.raises(Interrupted, match="after batch 5 of 10, state saved"):
            start(run_dir, eval_batch_size=10, **CASES["plain"])
    assert last_of(run_dir).meta["step"] == 5
    assert not any("eval_top1" in record for record in records_of(run_dir))
    resume(run_dir)
    assert_same(run_dir, straight("plain"))


def test_an_image_that_cannot_be_evaluated_costs_no_step(start, resume, straight, tmp_path, monkeypatch):
    def damaged(*_, **__):
        raise UserError("val/a/1.jpg: cannot be decoded")

    with monkeypatch.context() as patch:
        patch.setattr(evaluator, "evaluate_network", damaged)
        with pytest.raises(UserError, match="cannot be decoded"):
            start(tmp_path / "run", **CASES["plain"])
    assert last_of(tmp_path / "run").meta["step"] == 5
    resume(tmp_path / "run")
    assert_same(tmp_path / "run", straight("plain"))


@pytest.mark.parametrize(("case", "step", "kept"), [("plain", 4, 3), ("all", 4, 3), ("all", 8, None)])
def test_a_run_that_ends_by_an_error_saves_first(start, resume, straight, tmp_path, case, step, kept):
    """A file that is gone for a while (case 83); inside an accumulation there is nothing to go on from."""
    run_dir = tmp_path / "run"

    def gone(current, *_):
        if current == step:
            raise UserError("train/a/1.jpg: No such file or directory")

    with pytest.raises(UserError, match=r"1\.jpg: No such file"):
        start(run_dir, watch=gone, save_every=9.0, eval_every=9.0, **CASES[case])
    if kept is None:
        assert not (run_dir / "checkpoints").exists()
        return
    assert last_of(run_dir).meta["step"] == kept
    with pytest.raises(UserError, match=r"1\.jpg: No such file"):
        resume(run_dir, watch=gone)  # which saves nothing twice
    assert last_of(run_dir).meta["step"] == kept
    resume(run_dir)
    assert last_of(run_dir).meta["step"] == last_of(straight(case)).meta["step"]
    for name, value in last_of(straight(case)).arrays.items():
        np.testing.assert_array_equal(last_of(run_dir).arrays[name], value, err_msg=name)


def test_what_is_not_saved_is_not_said_to_be(start, tmp_path):
    """A stop while the loss is no number (case 65)."""

    def watch(step, images, targets):
        put_nan(2, 3)(step, images, targets)
        stop_at(3)(step)

    with pytest.raises(Interrupted) as stop:
        start(tmp_path / "run", watch=watch, max_nonfinite_steps=100, log_every=1, label_smoothing=0.1)
    said = "after batch 3 of 10, not saved, as the loss is not finite; there is no checkpoint yet"
    assert said in str(stop.value)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_updates_that_are_skipped_without_end_stop_the_run(start, tmp_path, monkeypatch):
    """With a loss that stays finite (case 63)."""

    def skipped(step, batches, first, last, *, sink):
        outputs = tuple(ms.Tensor(value, ms.float32) for value in (2.0, 1.0, 1.0, math.inf))
        return (outputs for _ in range(first, last))

    monkeypatch.setattr(trainer, "run_steps", skipped)
    said = fails(start, tmp_path / "run", epochs=3.0, log_every=1)
    assert "7 updates in a row were skipped, up to batch 7" in said
    assert f"the last good checkpoint is {tmp_path / 'run' / 'checkpoints' / 'last.ckpt'}" in said
