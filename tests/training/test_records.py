# SPDX-License-Identifier: Apache-2.0
"""What a run writes can be read back after any interruption, in the file and in TensorBoard."""

import json
import math
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from src.common.errors import UserError
from src.training import records
from src.training.records import MetricsLog, read_metrics

needs_full_device = pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")


BATCH = 10


def _train(step, **more):
    record = {"images": step * BATCH, "step": step, "epoch": step / 4, "loss": 2.0 / step, "lr": 0.1}
    return {**record, "images_per_second": 99.5, **more}


def _eval(step):
    return {
        "images": step * BATCH,
        "step": step,
        "epoch": step / 4,
        "eval_top1": 50.0,
        "eval_top5": 90.0,
        "eval_loss": 1.5,
        "eval_count": 7,
    }


def _frames(path):
    """The records of a TFRecord file; the checksums are skipped."""
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        found.append(data[at + 12 : at + 12 + length])
        at += 12 + length + 4
    assert at == len(data)
    return found


def _tensorboard(folder):
    """{tag: {images: value}} as TensorBoard shows it: a session that starts at a place hides later ones."""
    shown = {}
    for path in sorted((folder / "tensorboard").iterdir()):
        events = [Event.FromString(frame) for frame in _frames(path)]
        assert events[0].file_version == "brain.Event:2"
        for event in events:
            if event.session_log.status == SessionLog.START:
                for values in shown.values():
                    for step in [step for step in values if step >= event.step]:
                        del values[step]
            for value in event.summary.value:
                shown.setdefault(value.tag, {})[event.step] = value.simple_value
    return shown


def test_records_come_back_as_they_were(tmp_path):
    written = [_train(1, loss_scale=1024, overflow=False, grad_norm=0.25), _train(2), _eval(2)]
    with MetricsLog(tmp_path / "run") as log:
        for record in written:
            log.write(record)
    path = tmp_path / "run" / "metrics.jsonl"
    assert read_metrics(path) == written
    assert [json.loads(line) for line in path.read_text().splitlines()] == written
    assert path.read_bytes().endswith(b"}\n")


def test_a_record_is_in_the_files_as_soon_as_it_is_written(tmp_path):
    log = MetricsLog(tmp_path)
    for step in (1, 2, 3):
        log.write(_train(step))
        assert read_metrics(tmp_path / "metrics.jsonl")[-1] == _train(step)
        assert max(_tensorboard(tmp_path)["train/loss"]) == step * BATCH
    log.close()
    log.close()


def test_numbers_that_json_lacks_are_strings_in_the_file_and_floats_again_when_read(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(_train(1, loss=math.nan, grad_norm=math.inf, x=-math.inf, note="图"))

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    (line,) = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    raw = json.loads(line, parse_constant=refuse)
    assert "图" in line
    assert (raw["loss"], raw["grad_norm"], raw["x"], raw["note"]) == ("NaN", "Infinity", "-Infinity", "图")
    (record,) = read_metrics(tmp_path / "metrics.jsonl")
    assert math.isnan(record["loss"])
    assert (record["grad_norm"], record["x"], record["note"]) == (math.inf, -math.inf, "图")
    shown = _tensorboard(tmp_path)
    assert math.isnan(shown["train/loss"][BATCH])
    assert shown["train/grad_norm"] == {BATCH: math.inf}
    assert "train/note" not in shown


def test_numpy_numbers_are_plain_numbers_in_the_file(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(
            {
                "images": np.int64(30),
                "step": np.int64(3),
                "epoch": np.float64(0.5),
                "loss": np.float32(0.5),
                "lr": np.array(0.25),
                "overflow": np.bool_(True),
                "grad_norm": np.float32("nan"),
            }
        )
    line = (tmp_path / "metrics.jsonl").read_text()
    assert line == (
        '{"images": 30, "step": 3, "epoch": 0.5, "loss": 0.5, "lr": 0.25, "overflow": true, '
        '"grad_norm": "NaN"}\n'
    )
    assert _tensorboard(tmp_path)["train/overflow"] == {30: 1.0}


def test_tensorboard_tags(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(_train(4, overflow=True, loss_scale=2.0**15))
        log.write(_eval(4) | {"monitor_bit_flips": 1.5})
    assert _tensorboard(tmp_path) == {
        "train/loss": {40: 0.5},
        "train/lr": {40: pytest.approx(0.1)},
        "train/images_per_second": {40: 99.5},
        "train/overflow": {40: 1.0},
        "train/loss_scale": {40: 32768.0},
        "eval/top1": {40: 50.0},
        "monitor/bit_flips": {40: 1.5},
        "eval/top5": {40: 90.0},
        "eval/loss": {40: 1.5},
        "eval/count": {40: 7.0},
    }


def test_resume_drops_later_records_and_keeps_the_bytes_of_earlier_ones(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(tmp_path) as log:
        for step in range(1, 7):
            log.write(_train(step))
        log.write(_eval(4) | {"monitor_bit_flips": 1.5})
    # A person's own spacing and keys are kept.
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = b'{"images":20 , "step":2 ,  "epoch": 0.50, "note": "\xe5\x9b\xbe"}\n'
    path.write_bytes(b'{"kind": "header"}\n' + b"".join(lines))
    with MetricsLog(tmp_path, resume_images=4 * BATCH) as log:
        assert path.read_bytes() == b'{"kind": "header"}\n' + b"".join([*lines[:4], lines[6]])
        log.write(_train(5, loss=123.0))
    assert [record.get("step") for record in read_metrics(path)] == [None, 1, 2, 3, 4, 4, 5]
    shown = _tensorboard(tmp_path)
    assert shown["train/loss"] == {10: 2.0, 20: 1.0, 30: pytest.approx(2 / 3), 40: 0.5, 50: 123.0}
    assert shown["train/lr"].keys() == {10, 20, 30, 40, 50}
    assert shown["eval/top1"] == {40: 50.0}


def test_after_a_resume_with_another_batch_size_nothing_of_the_first_part_is_lost(tmp_path):
    """Its steps have smaller numbers than those before, as each has more images (E-B3)."""
    with MetricsLog(tmp_path) as log:
        for step in range(1, 9):
            log.write(_train(step))
    for _ in range(2):  # stopped again at once
        with MetricsLog(tmp_path, resume_images=8 * BATCH) as log:
            log.write(_train(5, images=10 * BATCH))
    images = [record["images"] for record in read_metrics(tmp_path / "metrics.jsonl")]
    assert images == [10, 20, 30, 40, 50, 60, 70, 80, 100]
    assert list(_tensorboard(tmp_path)["train/loss"]) == images


def test_each_session_has_its_own_event_file(tmp_path):
    for session in range(12):
        with MetricsLog(tmp_path, resume_images=session * BATCH) as log:
            log.write(_train(session + 1))
    assert len(list((tmp_path / "tensorboard").iterdir())) == 12
    assert _tensorboard(tmp_path)["train/loss"].keys() == set(range(10, 130, 10))


def test_a_run_that_starts_anew_keeps_nothing_of_its_own(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(_train(1))
    others = [tmp_path / "tensorboard" / name for name in ("events.out.tfevents.1.host", "notes.0000")]
    for path in others:
        path.write_bytes(b"")
    MetricsLog(tmp_path, resume_images=0).close()
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1 + len(others)
    assert all(path.exists() for path in others)


def test_an_evaluation_that_is_made_again_is_dropped_and_the_step_before_it_stays(tmp_path):
    records = [_train(1), _eval(1), _train(2), _eval(2), _train(3)]
    with MetricsLog(tmp_path) as log:
        for record in records:
            log.write(record)
    MetricsLog(tmp_path, resume_images=2 * BATCH, evaluated=False).close()
    assert read_metrics(tmp_path / "metrics.jsonl") == records[:3]


def test_resume_without_a_file_starts_one(tmp_path):
    with MetricsLog(tmp_path / "run", resume_images=9 * BATCH) as log:
        log.write(_train(10))
    assert read_metrics(tmp_path / "run" / "metrics.jsonl") == [_train(10)]


def test_a_new_run_does_not_append_to_an_old_one(tmp_path):
    with MetricsLog(tmp_path):
        pass
    with MetricsLog(tmp_path) as log:
        log.write(_train(1))
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"metrics\.jsonl holds the records of a run"):
        MetricsLog(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_a_process_killed_at_any_byte_loses_only_the_line_it_was_writing(tmp_path):
    with MetricsLog(tmp_path / "whole") as log:
        for step in (1, 2, 3):
            log.write({"images": step, "epoch": 0.5, "loss": math.nan, "note": "图}"})
    data = (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    ends = [match.start() for match in re.finditer(b"\n", data)]  # complete without the line end too
    path = tmp_path / "cut" / "metrics.jsonl"
    path.parent.mkdir()
    for size in range(len(data) + 1):
        path.write_bytes(data[:size])
        complete = sum(end <= size for end in ends)
        assert [record["images"] for record in read_metrics(path)] == [1, 2, 3][:complete]
        records._drop_after(path, 99)
        assert path.read_bytes() == data[: ends[complete - 1] + 1 if complete else 0]


@pytest.mark.parametrize("tail", [b"\0\0\0\0", b'{"images": 2, "lo', b"\xff\xfe\n", b"3\n", b"\n", b'"x"'])
def test_a_broken_last_line_is_skipped_and_dropped_on_resume(tmp_path, tail):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"images": 1}\n' + tail)
    assert read_metrics(path) == [{"images": 1}]
    with MetricsLog(tmp_path, resume_images=1) as log:
        log.write({"images": 2})
    assert path.read_bytes() == b'{"images": 1}\n{"images": 2}\n'


@pytest.mark.parametrize("line", [b'{"images": 2, "lo', b"", b"[1]", b"\xff"])
def test_a_broken_line_in_the_middle_is_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    before = b'{"images": 1}\n' + line + b'\n{"images": 3}\n'
    path.write_bytes(before)
    for read in (lambda: read_metrics(path), lambda: MetricsLog(tmp_path, resume_images=3)):
        with pytest.raises(UserError, match=r"metrics\.jsonl: line 2 ") as caught:
            read()
        assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_reading_what_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*metrics\.jsonl"):
        read_metrics(tmp_path / "metrics.jsonl")
    (tmp_path / "metrics.jsonl").write_bytes(b"")
    assert read_metrics(tmp_path / "metrics.jsonl") == []


@needs_full_device
def test_a_full_disk_is_one_line_that_names_the_file(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    log = MetricsLog(tmp_path)
    for write in (lambda: log.write(_train(1)), log.close):
        with pytest.raises(UserError, match=r"cannot write .*metrics\.jsonl: No space left") as caught:
            write()
        assert "\n" not in str(caught.value)


@needs_full_device
def test_a_disk_that_fills_under_tensorboard_is_an_error_too_and_stops_nothing(tmp_path):
    log = MetricsLog(tmp_path)
    log.write(_train(1))
    file = log._events._writer._py_recordio_writer
    file.close()
    file._writer = open("/dev/full", "wb")  # noqa: SIM115
    for step in range(2, 40):
        with pytest.raises(UserError, match=r"cannot write .*tensorboard: No space left"):
            log.write(_train(step))
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 39
    with pytest.raises(UserError, match="No space left"):
        log.close()


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "run").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write .*run"):
        MetricsLog(tmp_path / "run")
