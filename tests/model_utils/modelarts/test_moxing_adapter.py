# SPDX-License-Identifier: Apache-2.0
"""A door's work between a fetch and an upload, in processes of its own with a stand-in for moxing."""

import json
import signal
import zipfile
from pathlib import Path
from typing import ClassVar

import pytest

from src.common.cli import parser
from src.common.errors import UserError
from src.model_utils import config, moxing_adapter
from src.model_utils.config import load_config, parse_overrides
from src.shared_config import SharedConfig
from tests.model_utils.modelarts.cloud import DATA, tree


class Inside:
    """`call` in this process, with a bucket that has everything; returns the words that the door got."""

    def __init__(self):
        self.uploads = []

    def __call__(self, words, **how):
        seen = []
        moxing_adapter.call(seen.extend, words, **how)
        return seen

    def exists(self, url):
        return True

    is_directory = exists

    def copy_parallel(self, source, target, **how):
        if source.startswith("obs:"):
            Path(target).mkdir(parents=True)
            Path(target, "a.bin").touch()
        else:
            self.uploads.append((source, target))


@pytest.fixture
def inside(tmp_path, monkeypatch):
    inside = Inside()
    monkeypatch.setattr(moxing_adapter, "_moxing_file", lambda: inside)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("JOB_ID", "MA_VJ_NAME", "RANK_ID", "MS_ROLE", "MS_NODE_ID"):
        monkeypatch.delenv(name, raising=False)
    return inside


def test_without_the_key_the_door_is_called_as_it_is_and_moxing_is_never_imported(cloud):
    code, facts, error = cloud.run(enable_modelarts="false", lr=0.1)
    assert (code, error) == (0, "")
    assert not facts["moxing"] and facts["keys"]["lr"] == 0.1
    assert cloud.calls() == [] and not any((cloud.server / "tmp").iterdir())


def test_without_the_key_the_platforms_flags_are_the_doors_to_refuse(inside):
    words = ["--rank", "3", "--seed", "1"]
    assert inside(words) == words


def test_without_moxing_it_is_one_line(cloud):
    cloud.environment["PYTHONPATH"] = ""
    code, facts, error = cloud.run(data_url="obs://bucket/data")
    assert code == 2 and facts is None
    assert error.startswith("error: enable_modelarts: true given, but the package moxing cannot be imported")
    assert len(error.splitlines()) == 1


def test_data_comes_the_door_runs_and_outputs_go(cloud):
    code, facts, error = cloud.run(
        data_url="obs://bucket/data/", train_url="obs://bucket/out", result_url="obs://bucket/results", lr=0.1
    )
    assert code == 0, error
    assert facts["seen"] == DATA and facts["moxing"]
    assert facts["keys"] == {"lr": 0.1, "data_path": str(cloud.data), "output_path": str(cloud.output)}
    log = "logs/cloud_worker-rank0.log"
    assert tree(cloud.bucket / "out") == [log, "run/checkpoints/last.ckpt", "run/metrics.jsonl"]
    assert tree(cloud.bucket / "results") == [log, "run/metrics.jsonl"]
    assert json.loads((cloud.bucket / "out" / log).read_text())["seen"] == DATA


def test_the_platforms_own_flags_and_variables_are_understood(cloud):
    platform = {"MA_VJ_NAME": "ma-job-7", "ASCEND_DEVICE_ID": "3", "RANK_ID": "11"}
    code, facts, error = cloud.run(
        "--init_method", "tcp://x:1", "--num_gpus=8", data_url="obs://bucket/data", environment=platform
    )
    assert code == 0, error
    assert set(facts["keys"]) == {"data_path", "output_path"}
    assert (cloud.output / "logs" / "cloud_worker-rank11.log").exists()
    assert [path.name for path in (cloud.server / "tmp").glob("quartet-*/*")] == ["ma-job-7"]


def test_the_scheduler_of_msrun_reads_and_uploads_nothing(cloud):
    keys = {"data_url": "obs://bucket/data", "train_url": "obs://bucket/out"}
    code, facts, error = cloud.run(**keys, environment={"MS_ROLE": "MS_SCHED"})
    assert code == 0, error
    assert facts["seen"] == DATA and not facts["works"] and not (cloud.bucket / "out").exists()
    code, facts, error = cloud.run(**keys, environment={"MS_ROLE": "MS_WORKER"})
    assert code == 0 and facts["works"]
    logs = [f"cloud_worker-{role}.log" for role in ("rank0", "scheduler")]
    assert tree(cloud.bucket / "out" / "logs") == logs


def test_a_list_of_data_sets(cloud):
    (cloud.bucket / "weights").mkdir()
    (cloud.bucket / "weights" / "w.npz").write_text("w")
    entries = [
        {"dataset_url": "obs://bucket/data", "dataset_name": "pictures"},
        {"dataset_url": "obs://bucket/weights/w.npz", "dataset_name": "weights"},
    ]
    code, facts, error = cloud.run(multi_data_url=json.dumps(entries))
    assert code == 0, error
    assert facts["keys"]["data_path"] == f"{cloud.data}/pictures" and facts["seen"] == DATA
    assert tree(cloud.data) == [*(f"pictures/{name}" for name in DATA), "weights/w.npz"]


@pytest.mark.parametrize(
    "text",
    ["no json", "[]", "{}", '["x"]', '[{"dataset_url": "obs://b/x"}]',
     '[{"dataset_url": "obs://b/x", "dataset_name": "../x"}]',
     '[{"dataset_url": "obs://b", "dataset_name": "x"}, {"dataset_url": "obs://c", "dataset_name": "x"}]'],
)  # fmt: skip
def test_a_list_that_is_none(inside, text):
    with pytest.raises(UserError, match=r"multi_data_url: .* given, allowed: a JSON list of"):
        inside(["--enable_modelarts", f"--multi_data_url={text}"])


def zipped(cloud, inside):
    cloud.bucket.joinpath("zips").mkdir()
    with zipfile.ZipFile(cloud.bucket / "zips" / "flowers.zip", "w") as file:
        for name in DATA:
            file.writestr(inside + name, name)


@pytest.mark.parametrize("inside", ["", "flowers/"])
def test_a_zip_is_unpacked_and_read(cloud, inside):
    zipped(cloud, inside)
    code, facts, error = cloud.run(data_url="obs://bucket/zips", modelarts_dataset_unzip_name="flowers")
    assert code == 0, error
    assert facts["keys"]["data_path"] == f"{cloud.data}/flowers" and facts["seen"] == DATA
    assert tree(cloud.data) == [f"flowers/{name}" for name in DATA]


def test_a_zip_that_reaches_out_leaves_nothing(cloud):
    zipped(cloud, "../../")
    code, facts, error = cloud.run(
        data_url="obs://bucket/zips/flowers.zip", modelarts_dataset_unzip_name="flowers"
    )
    assert code == 2 and facts is None and "a path that leaves it" in error
    assert {path.name for path in cloud.server.iterdir()} == {"tmp", ".data.transfer.json"}


def test_a_zip_that_is_not_there(cloud):
    code, _, error = cloud.run(data_url="obs://bucket/data", modelarts_dataset_unzip_name="flowers")
    assert code == 2 and "there is no flowers.zip among the data" in error and not cloud.data.exists()


def test_checkpoint_and_pretrained_weights(cloud):
    (cloud.bucket / "best.ckpt").write_text("checkpoint")
    checkpoint, weights = cloud.server / "in" / "best.ckpt", cloud.server / "w"
    code, facts, error = cloud.run(
        ckpt_url="obs://bucket/best.ckpt", checkpoint_path=checkpoint,
        pretrained_url="obs://bucket/data", pretrained_path=weights,
    )  # fmt: skip
    assert code == 0, error
    assert checkpoint.read_text() == "checkpoint" and tree(weights) == DATA
    assert facts["keys"]["checkpoint_path"] == str(checkpoint)
    assert facts["keys"]["pretrained_path"] == str(weights)


@pytest.mark.parametrize("key", ["ckpt_url", "pretrained_url"])
def test_an_address_without_a_place_for_it(inside, key):
    with pytest.raises(UserError, match=f"{key}: 'obs://bucket/data' given, .*_path"):
        inside(["--enable_modelarts", f"--{key}=obs://bucket/data"])


def test_a_run_is_fetched_once_continued_and_goes_back_to_its_place(cloud):
    (cloud.bucket / "out" / "run7").mkdir(parents=True)
    (cloud.bucket / "out" / "run7" / "config.yaml").write_text("lr: 1\n")
    run_dir = cloud.server / "runs" / "run7"
    keys = {"ckpt_url": "obs://bucket/out/run7", "resume": run_dir, "train_url": "obs://bucket/out"}
    code, facts, error = cloud.run(**keys)
    assert code == 0, error
    assert facts["keys"]["resume"] == str(run_dir)
    assert tree(cloud.bucket / "out") == ["run7/config.yaml", "run7/logs/cloud_worker-rank0.log"]
    (run_dir / "newer").touch()
    code, _, error = cloud.run(**keys)
    assert code == 0 and "filled already" in error
    assert (cloud.bucket / "out" / "run7" / "newer").exists()


class Model(SharedConfig):
    """A model that has another default for a place."""

    DEFAULTS: ClassVar = {"output_path": "of the model"}


def settings(words):
    own, rest = config_path_flags().parse_known_args(words)
    keys = parse_overrides(rest)
    return load_config(keys, config_class_of=lambda model: Model, config_path=own.config_path)


def config_path_flags():
    flags = parser("")
    flags.add_argument("--config_path")
    return flags


def test_keys_of_a_recipe_count_and_are_undone_for_the_run(inside, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "lr: 0.1\nenable_modelarts: true\ndata_url: obs://bucket/data\ntransfer_attempts: 5\n"
        f"data_path: {tmp_path}/here\n"
    )
    for how in (None, settings):
        seen = inside(["--config_path", str(recipe), "--seed", "3"], settings=how)
        assert seen == [
            "--config_path", str(recipe), "--seed", "3", "--enable_modelarts=false", "--data_url=",
            "--transfer_attempts=3", f"--data_path={tmp_path}/here",
        ]  # fmt: skip


@pytest.mark.parametrize(("how", "folder"), [(None, "runs"), (settings, "of the model")])
def test_the_keys_are_those_of_the_door(inside, tmp_path, monkeypatch, how, folder):
    """default_config.yaml has a say, and a model's own defaults have."""
    defaults = tmp_path / "default_config.yaml"
    defaults.write_text("output_path: runs\nenable_modelarts: true\ntrain_url: obs://bucket/out\n")
    monkeypatch.setattr(config, "DEFAULTS", defaults)
    inside([], settings=how)
    assert inside.uploads == [(folder, "obs://bucket/out")]
    inside.uploads.clear()
    defaults.write_text("output_path: edited\nenable_modelarts: true\ntrain_url: obs://bucket/out\n")
    inside([], settings=how)
    assert inside.uploads == [("edited", "obs://bucket/out")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data_url", "obs://b"], "data_url: 'obs://b' given, allowed: only with enable_modelarts true"),
        (["--modelarts_dataset_unzip_name=x"], "modelarts_dataset_unzip_name: 'x' given, allowed: only with"),
        (["--enable_modelarts", "--data_url=x", "--multi_data_url=[]"], "allowed: without data_url"),
        (["--enable_modelarts", "--modelarts_dataset_unzip_name=x"], "with data_url or multi_data_url"),
        (["--enable_modelarts", "--data_url=x", "--modelarts_dataset_unzip_name=../x"], "a plain name"),
        (["--enable_modelarts", "maybe"], "enable_modelarts: 'maybe' given, allowed: true or false"),
        (["--enable_modelarts", "--transfer_attempts=0"], "transfer_attempts: 0 given, allowed: a whole"),
        (["--enable_modelarts", "--data_url"], "expected one argument"),
    ],
)  # fmt: skip
def test_keys_that_do_not_fit(words, message):
    with pytest.raises(UserError) as caught:
        moxing_adapter.call(lambda arguments: pytest.fail("the door was called"), words)
    assert message in str(caught.value)


def test_another_run_fetches_anew_but_a_job_that_is_started_again_does_not(cloud):
    keys = {"data_url": "obs://bucket/data"}
    assert cloud.run(**keys)[0] == 0
    (cloud.bucket / "data" / "new.bin").touch()
    code, facts, error = cloud.run(**keys)
    assert code == 0 and facts["seen"] == [*DATA, "new.bin"] and "filled" not in error
    job = {"JOB_ID": "job-1"}
    assert cloud.run(**keys, environment=job)[0] == 0
    calls = len(cloud.calls())
    code, _, error = cloud.run(**keys, environment=job)
    assert code == 0 and len(cloud.calls()) == calls and f"{cloud.data} is filled already" in error
    assert cloud.run(data_url="obs://bucket/data/deep", environment=job)[1]["seen"] == ["c.bin"]


def test_what_others_put_there_is_not_replaced(cloud):
    cloud.data.mkdir()
    (cloud.data / "mine").touch()
    code, facts, error = cloud.run(data_url="obs://bucket/data")
    assert code == 2 and facts is None and f"{cloud.data} exists already" in error
    assert tree(cloud.data) == ["mine"]


@pytest.mark.parametrize(
    ("ending", "code", "line"),
    [("user error", 2, "error: the data is of"), ("crash", 1, "RuntimeError: a bug"), (143, 143, "")],
)  # fmt: skip
def test_a_failed_run_is_uploaded_and_ends_as_it_did(cloud, ending, code, line):
    ended, _, error = cloud.run(ending=ending, train_url="obs://bucket/out")
    assert ended == code and line in error
    log = cloud.bucket / "out" / "logs" / "cloud_worker-rank0.log"
    assert tree(cloud.bucket / "out" / "run") == ["checkpoints/last.ckpt", "metrics.jsonl"]
    assert line in log.read_text()


def test_a_failed_upload_is_a_line_more_after_a_failed_run_and_the_error_after_a_good_one(cloud):
    keys = {"train_url": "obs://bucket/out", "transfer_attempts": 1}
    cloud.steer("fail", 1)
    code, _, error = cloud.run(ending="crash", **keys)
    assert code == 1 and "RuntimeError: a bug" in error
    assert "error: upload to obs://bucket/out failed 1 times (OSError: connection reset" in error
    assert f"the outputs are in {cloud.output}" in error
    cloud.steer("fail", 1)
    code, facts, error = cloud.run(**keys)
    assert code == 2 and facts and error.startswith("error: upload to obs://bucket/out failed 1 times")


def test_a_run_that_is_stopped_in_the_fetch_leaves_no_data_and_is_uploaded(cloud):
    cloud.output.mkdir()
    (cloud.output / "earlier").touch()
    cloud.steer("pause")
    process = cloud.begin(data_url="obs://bucket/data", train_url="obs://bucket/out")
    cloud.wait_for("paused")
    process.send_signal(signal.SIGTERM)
    code, facts, _ = cloud.end(process)
    assert code == 143 and facts is None
    assert tree(cloud.bucket / "out") == ["earlier"] and not cloud.data.exists()
