# SPDX-License-Identifier: Apache-2.0
"""The trainer: batches in, checkpoints, metrics and a summary out."""

import contextlib
import logging
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from tqdm import tqdm

from ..checkpoint.file import Checkpoint
from ..checkpoint.folder import CheckpointFolder
from ..common.errors import UserError
from ..data.damage import damaged_in, left_out_of
from ..data.folders import counted
from ..data.sources import SPLITS, facts_of
from ..evaluation.evaluate import Evaluation, EvaluationStopped
from ..evaluation.metrics import check_metric, in_words, is_better, of_plain_view, warning_of
from ..model_utils.device_adapter import Device
from ..parallel.collective import (
    broadcast_from_first,
    check_equal_over_ranks,
    sum_over_ranks,
    union_over_ranks,
)
from .build import TrainRecipe, build_train_step
from .evaluator import Evaluator
from .feed import run_course
from .profiling import traced
from .progress import Course, Progress, check_same_data, say_rate_from_here
from .records import MetricsLog
from .report import write_report
from .signals import AgreedStop, Interrupted, StopRequest
from .soundness import Soundness
from .step_log import StepLog

log = logging.getLogger("quartet")


class Trainer:
    """One run: trains from where `checkpoint` stopped, or from the start.

    It stops, saves, evaluates and compares the ranks between updates only, never inside an accumulation. What
    is due after a batch inside of one is done after its update.

    Args:
        recipe: what the config means.
        device: where this process runs; rank 0 alone writes.
        checkpoint: what to continue from.

    Raises:
        UserError: the data does not fit the config, or the checkpoint does not fit the network or the data.
    """

    def __init__(self, recipe: TrainRecipe, *, device: Device, checkpoint: Checkpoint | None = None):
        self.recipe, self.device = recipe, device
        self.config = c = recipe.config
        self.train_batches = recipe.train_batches(rank=device.rank, size=device.size)
        self.class_names = self.train_batches.class_names
        check_metric(c.best_metric, len(self.class_names))
        self.data = facts_of({split: recipe.source(split) for split in SPLITS})
        before = Course(**checkpoint.meta["course"]) if checkpoint else None
        self.course = Course.of(c, epoch=len(self.train_batches), cards=device.size, before=before)
        self.network = recipe.network(num_classes=len(self.class_names))
        if checkpoint is None:
            recipe.load_pretrained(self.network)
        self.train_step = build_train_step(
            recipe, self.network, steps=self.course.steps, steps_per_epoch=self.course.epoch,
            cards=device.size, rank=device.rank,
        )  # fmt: skip
        self.evaluator = Evaluator(
            recipe, self.network, self.train_step, num_classes=len(self.class_names), device=device
        )
        self.state = self.train_step.state
        if self.evaluator.monitor is not None:
            self.state += self.evaluator.monitor.parameters
        self.soundness = Soundness(
            max_nonfinite=c.max_nonfinite_steps, updates=self.course.updates, accumulate=c.accumulate_steps,
            dynamic=c.loss_scale == "dynamic",
        )  # fmt: skip
        self.progress = Progress()
        self.saved: tuple[int, Path | None] = (-1, None)  # the step of the newest checkpoint, and its file
        if checkpoint is not None:
            self._restore(checkpoint, before)
        broadcast_from_first(self.train_step.state, size=device.size)

    def run(self, run_dir: Path, *, resumed: bool = False) -> dict[str, Any]:
        """Trains to the end and writes the report; the summary is returned.

        Args:
            run_dir: the run's folder; it exists.
            resumed: it may hold records; those of what is trained again go.

        Raises:
            UserError: training cannot go on, or a file cannot be written.
            Interrupted: a signal came; the message says whether the state is saved.
        """
        self.run_dir, self.resumed = run_dir, resumed
        self.checkpoints = CheckpointFolder(run_dir / "checkpoints", keep=self.config.keep_checkpoints)
        self.seconds_before, self.started = self.progress.seconds, time.monotonic()
        self._say_what_runs()
        with contextlib.ExitStack() as stack:
            self.request = stack.enter_context(StopRequest())
            most = max(1, self.config.log_every // self.course.accumulate)
            self.stopping = AgreedStop(self.request, size=self.device.size, most=most)
            self.metrics = stack.enter_context(self._metrics())
            bar = stack.enter_context(self._progress_bar())
            self.step_log = StepLog(
                self.train_step, self.course, self.soundness, metrics=self.metrics, bar=bar
            )
            steps = stack.enter_context(contextlib.closing(self._steps()))
            self.step_log.start_interval(self.progress.step)
            evaluation = None
            if self.progress.evaluation_due and self.progress.step < self.course.steps:
                self._evaluate_and_mark()  # the process before saved and did not come to it
            while self.progress.step < self.course.steps:
                self._make_update(steps)
                evaluation = self._between_updates()
            evaluation = evaluation or self._evaluate_and_mark()
            if self.config.bn_reestimation_batches and not self.progress.bn_reestimated:
                evaluation = self._reestimate_bn(evaluation)
        summary = write_report(self, evaluation)
        # MindSpore crashes a process whose peers have left: wait for all.
        sum_over_ranks(np.zeros(1), size=self.device.size)
        return summary

    def _say_what_runs(self) -> None:
        course, data = self.course, self.data
        log.info("run folder: %s", self.run_dir)
        held_out = self.recipe.source("test")
        words = getattr(held_out, "words", ())
        for title, line in zip(("data: ", ""), words, strict=False):
            log.info("%s%s", title, line)
        untested = np.setdiff1d(np.arange(len(self.class_names)), held_out.labels)
        if len(untested) and not words:
            names = [self.class_names[label] for label in untested]
            log.warning("no held-out image of %s: no figure has it", counted(names, "class"))
        narrowed = self.config.examples_per_class or sum(
            left_out_of(self.recipe.source(split)) for split in SPLITS
        )
        if narrowed or not words:
            log.info(
                "%s: %d training and %d held-out images of %d classes from %s",
                "used" if words else "data", data["train"], data["test"], len(self.class_names),
                self.config.data_path,
            )  # fmt: skip
        if self.progress.step == course.steps:
            log.info("all %d batches are trained: evaluating", course.steps)
            return
        log.info(
            "training %d parameters: batches %d to %d of %d images, %g an epoch%s",
            sum(p.size for p in self.network.trainable_params()), self.progress.step + 1, course.steps,
            course.batch, course.epoch,
            f"; {course.updates} updates of {course.accumulate} batches" if course.accumulate > 1 else "",
        )  # fmt: skip

    def _metrics(self) -> contextlib.AbstractContextManager:
        if self.device.rank != 0:
            return contextlib.nullcontext()
        return MetricsLog(
            self.run_dir,
            resume_images=self.progress.images if self.resumed else None,
            evaluated=not self.progress.evaluation_due,
        )

    @property
    def seconds(self) -> float:
        """Wall time of the run so far, over all its processes, in seconds."""
        return self.seconds_before + time.monotonic() - self.started

    def _progress_bar(self) -> tqdm:
        hidden = self.device.rank != 0 or not sys.stderr.isatty()
        return tqdm(
            total=self.course.steps, initial=self.progress.step, unit="batch", disable=hidden,
            dynamic_ncols=True,
        )  # fmt: skip

    def _steps(self) -> Iterator[tuple[ms.Tensor, ...]]:
        """What each batch's step puts out; the step is made when it is asked for."""
        sink = self.config.dataset_sink and self.device.target != "CPU"
        steps = run_course(
            self.train_step, self.train_batches, self.progress.step, self.course.updates,
            accumulate=self.course.accumulate, sink=sink,
        )  # fmt: skip
        if self.config.profile and self.device.rank == 0:
            steps = traced(steps, folder=self.run_dir / "profile", count=self.config.profile_steps)
        return steps

    def _make_update(self, steps: Iterator[tuple[ms.Tensor, ...]]) -> None:
        for batch in range(self.course.accumulate):
            try:
                outputs = next(steps)
            except (UserError, OSError):
                if batch == 0:  # inside an accumulation there is no state to go on from
                    self._save_before_error()
                raise
            self.step_log.add(self.progress.step + batch + 1, outputs)
        self.progress.step += self.course.accumulate
        self.progress.images += self.course.accumulate * self.course.batch

    def _between_updates(self) -> Evaluation | None:
        """Does what is due after the update just made; the evaluation, if there was one."""
        c, last = self.config, self.progress.step == self.course.steps
        stopping = self.stopping()
        due = last or self._passed(c.eval_every)
        saving = due or stopping or self._passed(c.save_every)
        if saving or self._passed_batches(c.log_every):
            self._flush()
        if saving:
            self.progress.evaluation_due = due
            self._save()
        if stopping:
            self._leave()
        return self._evaluate_and_mark() if due else None

    def _passed(self, epochs: float) -> bool:
        """Whether an interval of so many epochs ended in the last update."""
        return self._passed_batches(max(1, round(epochs * self.course.epoch)))

    def _passed_batches(self, interval: int) -> bool:
        step = self.progress.step
        return step // interval > (step - self.course.accumulate) // interval

    def _leave(self) -> None:
        """Ends this process as a signal asked for. Raises Interrupted."""
        # Launchers end all processes when the first one leaves: not before rank 0 has saved.
        sum_over_ranks(np.zeros(1), size=self.device.size)
        where = f"stopped after batch {self.progress.step} of {self.course.steps}"
        go_on = f"continue with: python train.py --resume {self.run_dir}"
        if self.saved[0] == self.progress.step:
            raise Interrupted(f"{where}, state saved; {go_on}")
        kept = f"the checkpoint of batch {self.saved[0]} is kept; {go_on}"
        raise Interrupted(
            f"{where}, not saved, as the loss is not finite; "
            + (kept if self.saved[0] >= 0 else "there is no checkpoint yet")
        )

    def _flush(self) -> None:
        """Records the batches so far. Raises UserError where training cannot go on."""
        try:
            self.step_log.flush(self.progress)
        except UserError as error:
            kept = self.run_dir / "checkpoints" / "last.ckpt"
            there = f"the last good checkpoint is {kept}" if kept.exists() else "there is no checkpoint yet"
            raise type(error)(f"{error}; {there}") from error

    def _evaluate(self) -> Evaluation:
        """Evaluates, and records it if it is due. Raises Interrupted if a signal cuts it short."""
        progress = self.progress
        follows = self.config.bn_reestimation_batches and not progress.bn_reestimated
        final = progress.step == self.course.steps and not follows
        try:
            evaluation = self.evaluator.evaluate(self.request, final=final)
        except EvaluationStopped:
            self._leave()
        metrics, shares = evaluation.metrics, {}
        if progress.evaluation_due:
            progress.evaluation_due = False
            if not progress.bn_reestimated:  # which changes no weight
                shares = self.evaluator.measure()
            if self.metrics is not None:
                figures = {f"eval_{name}": value for name, value in metrics.items()}
                figures |= {f"monitor_{name}": share for name, share in shares.items()}
                self.metrics.write(progress.place(self.course) | figures)
        log.info(
            "epoch %.2f  %s%s", progress.place(self.course)["epoch"], in_words(metrics),
            "".join(f"  {name.replace('_', ' ')} {share:.2f} %" for name, share in shares.items()),
        )  # fmt: skip
        if progress.best is None and (warning := warning_of(metrics["count"])):
            log.warning(warning)
        self.step_log.start_interval(self.progress.step)
        return evaluation

    def _evaluate_and_mark(self) -> Evaluation:
        """Evaluates what is saved; its file becomes `best` where it is that."""
        evaluation = self._evaluate()
        if self._note_best(evaluation):
            self._name_best()
        return evaluation

    def _note_best(self, evaluation: Evaluation) -> bool:
        """Whether this is the best evaluation so far; it is remembered then."""
        metrics, best = evaluation.metrics, self.progress.best
        if self.soundness.nonfinite or not math.isfinite(metrics["loss"]):
            return False
        if best is not None and not is_better(
            self.config.best_metric, of_plain_view(metrics), of_plain_view(best)
        ):
            return False
        place = self.progress.place(self.course)
        self.progress.best = {"images": place["images"], "epoch": place["epoch"], **metrics}
        return True

    def _name_best(self) -> None:
        if self.device.rank == 0:
            self.checkpoints.name_best(self.saved[1])

    def _reestimate_bn(self, before: Evaluation) -> Evaluation:
        """Computes the running statistics of what is evaluated anew; evaluates and saves it once more."""
        count, start = self.config.bn_reestimation_batches, self.course.steps
        with contextlib.closing(self.train_batches.batches(start, start + count)) as batches:
            self.evaluator.reestimate_bn(batches)
        self.progress.bn_reestimated = self.progress.evaluation_due = True
        after = self._evaluate()
        log.info(
            "batch normalisation anew over %d batches: top-1 %.2f %%, before %.2f %%",
            count, of_plain_view(after.metrics)["top1"], before.metrics["top1"],
        )  # fmt: skip
        is_best = self._note_best(after)
        self._save()
        if is_best:
            self._name_best()
        return after

    def _save(self) -> None:
        """Writes a checkpoint, but never of weights whose loss is not finite."""
        if self.soundness.nonfinite:
            return
        check_equal_over_ranks(self.train_step.state, step=self.progress.step, size=self.device.size)
        met = {*self.progress.damaged, *damaged_in(self.recipe.source("train"))}
        self.progress.damaged = sorted(union_over_ranks(met, below=self.data["train"], size=self.device.size))
        self._write_checkpoint()

    def _write_checkpoint(self) -> None:
        step, path = self.progress.step, None
        self.progress.seconds = self.seconds
        if self.device.rank == 0:
            meta = {
                "steps": self.course.steps,
                "course": asdict(self.course),
                "progress": asdict(self.progress),
                "config": self.config.portable(),
                "class_names": list(self.class_names),
                "network": [p.name for p in self.network.get_parameters()],
                "data": self.data,
            }
            path = self.checkpoints.save(self.state, step=step, meta=meta)
        self.saved = (step, path)
        self.step_log.start_interval(self.progress.step)

    def _save_before_error(self) -> None:
        """Rank 0 saves what the other ranks, which wait in the next step, have as well."""
        if self.device.rank != 0 or self.progress.step in (0, self.saved[0]):
            return
        with contextlib.suppress(UserError):  # the first error is the one to tell
            self._flush()
            if not self.soundness.nonfinite:
                self._write_checkpoint()
                log.info("the state after batch %d is saved before the run ends", self.progress.step)

    def _restore(self, checkpoint: Checkpoint, before: Course) -> None:
        checkpoint.check_classes(self.class_names)
        check_same_data(self.data, checkpoint, self.config)
        parameters = {p.name: p for p in self.state}
        shapes = {name: tuple(p.shape) for name, p in parameters.items()}
        if shapes != {name: value.shape for name, value in checkpoint.arrays.items()}:
            raise UserError(
                f"checkpoint {checkpoint.path} does not fit the run's config; resume it unchanged"
            )
        for name, parameter in parameters.items():
            parameter.set_data(ms.Tensor(checkpoint.arrays[name]))
        self.progress = Progress(**checkpoint.meta["progress"])
        if self.data["labels"] != checkpoint.meta["data"]["labels"]:
            self.progress.damaged = []  # numbers of other images
        step = self.progress.step
        self.progress.step = self.course.place_of(step, before)
        updates = self.progress.step // self.course.accumulate
        self.train_step.start_at(updates)
        self.saved = (self.progress.step, checkpoint.path)
        log.info("continuing from %s after batch %d of %d", checkpoint.path, step, before.steps)
        if self.progress.step < self.course.steps:
            self.progress.bn_reestimated = False
        if not self.course.same_batches(before):
            log.warning(
                "%d images an update (%d cards, batch_size %d, accumulate_steps %d), %d before: batch %d of "
                "%d becomes %d of %d, and the rates follow lr_scale_rule %s",
                self.course.batch * self.course.accumulate, self.device.size, self.config.batch_size,
                self.course.accumulate, before.batch * before.accumulate, step, before.steps,
                self.progress.step, self.course.steps, self.config.lr_scale_rule,
            )  # fmt: skip
        if self.course != before and 0 < self.progress.step < self.course.steps:
            say_rate_from_here(
                self.train_step.rates.asnumpy(), updates, before=self.progress.lr, config=self.config
            )
