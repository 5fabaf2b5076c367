# SPDX-License-Identifier: Apache-2.0
"""What is said of the batches: their losses on the progress bar, in the log and in the records."""

import logging
import time

import mindspore as ms
import numpy as np
from tqdm import tqdm

from ..common import heartbeat
from .progress import Course, Progress
from .records import MetricsLog
from .soundness import Row, Soundness
from .train_step import TrainStep

log = logging.getLogger("quartet")


class StepLog:
    """Collects what each batch's step puts out, without a wait for the device, until `flush`.

    Args:
        train_step: says which parts its loss has, and the rates.
        course: of the run.
        soundness: sees every batch.
        metrics: takes the records; None on ranks that write none.
        bar: shows the progress; where it is hidden, the log has a line a record.
    """

    def __init__(
        self,
        train_step: TrainStep,
        course: Course,
        soundness: Soundness,
        *,
        metrics: MetricsLog | None,
        bar: tqdm,
    ):
        self._train_step, self._course, self._soundness = train_step, course, soundness
        self._metrics, self._bar = metrics, bar
        self._pending: list[tuple[int, tuple[ms.Tensor, ...]]] = []
        self._start, self._first = 0.0, 0

    def start_interval(self, step: int) -> None:
        """The next record's images/s counts from here, without evaluation, saving and writing."""
        self._start, self._first = time.monotonic(), step

    def add(self, step: int, outputs: tuple[ms.Tensor, ...]) -> None:
        """Takes what the train step put out for batch number `step`."""
        self._pending.append((step, outputs))
        self._bar.update()
        heartbeat.progress()

    def flush(self, progress: Progress) -> None:
        """Reads the losses since the last time: one wait for the device, one record, one check.

        Raises:
            UserError: training cannot go on.
        """
        if not self._pending:
            return
        rows = [Row.of(step, *(float(o.asnumpy()) for o in outputs)) for step, outputs in self._pending]
        self._pending = []
        course, step = self._course, progress.step
        seconds_a_batch = (time.monotonic() - self._start) / (step - self._first)
        speed = course.batch / seconds_a_batch
        self._soundness.check(rows)
        progress.lr = self._train_step.rate_of(step // course.accumulate)
        record = {
            **progress.place(course),
            "loss": float(np.mean([row.loss for row in rows])),
            **{
                f"loss_{part}": float(np.mean(values))
                for part, values in zip(self._train_step.parts, zip(*(row.parts for row in rows)))
            },
            "lr": progress.lr,
            "images_per_second": speed,
            "loss_scale": rows[-1].loss_scale,
            "overflow": int(sum(row.overflow for row in rows)),
            "grad_norm": rows[-1].grad_norm,
            **{name: int(p.asnumpy()) for name, p in self._train_step.optimizer.counters.items()},
        }
        if self._metrics is not None:
            self._metrics.write(record)
        self.start_interval(step)
        self._bar.set_postfix_str(f"loss {record['loss']:.3f}, lr {record['lr']:.4g}, {speed:.0f} images/s")
        if self._bar.disable:
            log.info(
                "batch %d/%d  epoch %.2f  loss %.4f  lr %.4g  %.0f images/s  %s left",
                step, course.steps, record["epoch"], record["loss"], record["lr"], speed,
                tqdm.format_interval((course.steps - step) * seconds_a_batch),
            )  # fmt: skip
