"""The loop: batches in, checkpoints, metrics and a summary out."""

import contextlib
import logging
import math
import sys
import time
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from tqdm import tqdm

from ..checkpoint.file import Checkpoint
from ..checkpoint.folder import CheckpointFolder
from ..common import heartbeat
from ..common.errors import UserError
from ..evaluation.evaluate import Evaluation, evaluate_network
from ..evaluation.metrics import check_metric, in_words, is_better, warning_of
from ..model_utils.device_adapter import Device
from ..parallel.collective import broadcast_from_first, check_equal_over_ranks, sum_over_ranks
from .build import TrainRecipe, build_train_step
from .feed import run_steps
from .precise_bn import batch_norms, reestimate_bn
from .profiling import traced
from .records import MetricsLog
from .report import write_report
from .signals import Interrupted, StopRequest

log = logging.getLogger("quartet")


class Trainer:
    """One run: trains from where `checkpoint` stopped, or from the start.

    Args:
        recipe: what the config means.
        device: where this process runs; rank 0 alone writes.
        run_dir: the run's folder; it exists.
        checkpoint: what to continue from.

    Raises:
        UserError: the data does not fit the config, or the checkpoint does not fit the network.
    """

    def __init__(
        self, recipe: TrainRecipe, *, device: Device, run_dir: Path, checkpoint: Checkpoint | None = None
    ):
        self.recipe, self.device, self.run_dir = recipe, device, run_dir
        self.config = c = recipe.config
        self.train_batches = recipe.train_batches(rank=device.rank, size=device.size)
        self.eval_batches = recipe.eval_batches(rank=device.rank, size=device.size)
        self.class_names = self.train_batches.class_names
        check_metric(c.best_metric, len(self.class_names))
        self.steps_per_epoch = len(self.train_batches)
        self.steps = c.train_steps * c.accumulate_steps or max(1, round(c.epochs * self.steps_per_epoch))
        self.network = recipe.network(num_classes=len(self.class_names))
        if checkpoint is None:
            recipe.load_pretrained(self.network)
        self.train_step = build_train_step(
            recipe,
            self.network,
            steps=self.steps,
            steps_per_epoch=self.steps_per_epoch,
            cards=device.size,
            rank=device.rank,
        )
        if c.bn_reestimation_batches:
            batch_norms(self.network)  # without any, it says so before the training
        self.monitor = recipe.monitor(self.network, self.train_step.inputs)
        self.state = self.train_step.state
        if self.monitor is not None:
            self.state += self.monitor.parameters
        self.eval_interval = self._interval(c.eval_every)
        self.save_interval = self._interval(c.save_every)
        self.checkpoints = CheckpointFolder(run_dir / "checkpoints", keep=c.keep_checkpoints)
        self.step = 0
        self.images = 0
        self.best: dict[str, Any] | None = None
        self.evaluated_step = 0
        self.bn_reestimated = False
        self.seconds_before = 0.0
        self.saved_step = -1
        self.nonfinite = 0
        self.pending: list[tuple] = []
        if checkpoint is not None:
            self._restore(checkpoint)
        broadcast_from_first(self.train_step.state, size=device.size)

    def run(self) -> dict[str, Any]:
        """Trains to the end and writes the report; the summary is returned.

        Raises:
            UserError: the loss was not finite for too long, or a file cannot be written.
            Interrupted: SIGTERM or Ctrl-C came; the state is saved.
        """
        writes = self.device.rank == 0
        self.started = time.monotonic()
        evaluation = None
        with contextlib.ExitStack() as stack:
            stop = stack.enter_context(StopRequest())
            metrics = MetricsLog(self.run_dir, resume_images=self.images or None) if writes else None
            self.metrics = stack.enter_context(metrics or contextlib.nullcontext())
            self.bar = stack.enter_context(self._progress_bar(writes))
            sink = self.config.dataset_sink and self.device.target != "CPU"
            steps = run_steps(self.train_step, self.train_batches, self.step, self.steps, sink=sink)
            if self.config.profile and writes:
                steps = traced(steps, folder=self.run_dir / "profile", count=self.config.profile_steps)
            steps = stack.enter_context(contextlib.closing(steps))
            log.info(
                "training %d parameters on batches of %d images: steps %d to %d, %d an epoch",
                sum(p.size for p in self.network.trainable_params()), self.config.batch_size,
                self.step + 1, self.steps, self.steps_per_epoch,
            )  # fmt: skip
            self._start_interval()
            if self._evaluation_due() and self.step < self.steps:
                self._evaluate()  # the stop that ended the run's last process put it off
            for outputs in steps:
                self._note(outputs)
                last = self.step == self.steps
                # A checkpoint has no partial sums: a run stops between updates.
                between_updates = self.step % self.config.accumulate_steps == 0
                stopping = between_updates and not last and self._agree_to_stop(stop)
                saving = last or self.step % self.save_interval == 0 or stopping
                if last or self.step % self.config.log_every == 0 or stopping:
                    self._flush()
                if saving:
                    check_equal_over_ranks(self.train_step.state, step=self.step, size=self.device.size)
                if last or (self._evaluation_due() and not stopping):
                    evaluation = self._evaluate(worst=25 if last else 0)
                if saving:
                    self._save()
                if stopping:
                    # Launchers end all processes when the first one leaves: not before rank 0 has saved.
                    sum_over_ranks(np.zeros(1), size=self.device.size)
                    raise Interrupted(self.step, self.steps, self.run_dir)
            evaluation = evaluation or self._evaluate(worst=25)
            if self.config.bn_reestimation_batches and not self.bn_reestimated:
                evaluation = self._reestimate_bn(evaluation)
        summary = write_report(self, evaluation)
        # A process that leaves while another still works makes MindSpore crash at that one's end.
        sum_over_ranks(np.zeros(1), size=self.device.size)
        return summary

    def _agree_to_stop(self, stop: StopRequest) -> bool:
        """Whether all ranks stop after this step: one alone would leave the others waiting in the next one.

        Several ranks ask each other only where they log, as the answer waits for the device.
        """
        if self.device.size > 1 and self.step % self.config.log_every:
            return False
        return sum_over_ranks(np.array([float(stop.came)]), size=self.device.size)[0] > 0

    @property
    def seconds(self) -> float:
        """Wall time of the run so far, over all its processes, in seconds."""
        return self.seconds_before + time.monotonic() - self.started

    def _progress_bar(self, writes: bool) -> tqdm:
        hidden = not (writes and sys.stderr.isatty())
        return tqdm(total=self.steps, initial=self.step, unit="batch", disable=hidden, dynamic_ncols=True)

    def _interval(self, epochs: float) -> int:
        """Epochs as a number of batches that make whole updates."""
        size = self.config.accumulate_steps
        return size * max(1, round(epochs * self.steps_per_epoch / size))

    def _note(self, outputs: tuple[ms.Tensor, ...]) -> None:
        self.step += 1
        self.images += self.config.batch_size * self.device.size
        self.pending.append((self.step, outputs))
        self.bar.update()
        heartbeat.progress()

    def _start_interval(self) -> None:
        """The next record's images/s counts from here, without evaluation, saving and writing."""
        self.interval_start, self.interval_step = time.monotonic(), self.step

    def _flush(self) -> None:
        """Reads the losses since the last time: one wait for the device, one record, one check."""
        if not self.pending:
            return
        rows = [(step, *(float(value.asnumpy()) for value in outputs)) for step, outputs in self.pending]
        self.pending = []
        now = time.monotonic()
        seconds_a_batch = (now - self.interval_start) / (self.step - self.interval_step)
        speed = self.config.batch_size * self.device.size / seconds_a_batch
        for step, loss, *_ in rows:
            self.nonfinite = 0 if math.isfinite(loss) else self.nonfinite + 1
            if self.nonfinite >= self.config.max_nonfinite_steps:
                self._stop_at_nonfinite(step, loss)
        update = (self.step - 1) // self.config.accumulate_steps
        rates = self.train_step.rates
        record = {
            **self._place(),
            "loss": float(np.mean([row[1] for row in rows])),
            **{
                f"loss_{part}": float(np.mean([row[number] for row in rows]))
                for number, part in enumerate(self.train_step.parts, 5)
            },
            "lr": float(rates[min(update, len(rates) - 1)]),
            "images_per_second": speed,
            "loss_scale": rows[-1][2],
            "overflow": int(sum(row[3] for row in rows)),
            "grad_norm": rows[-1][4],
        }
        self._write(record)
        self._start_interval()
        self.bar.set_postfix_str(f"loss {record['loss']:.3f}, lr {record['lr']:.4g}, {speed:.0f} images/s")
        if self.bar.disable:
            log.info(
                "step %d/%d  epoch %.2f  loss %.4f  lr %.4g  %.0f images/s  %s left",
                self.step, self.steps, record["epoch"], record["loss"], record["lr"], speed,
                tqdm.format_interval((self.steps - self.step) * seconds_a_batch),
            )  # fmt: skip

    def _stop_at_nonfinite(self, step: int, loss: float) -> None:
        kept = self.run_dir / "checkpoints" / "last.ckpt"
        raise UserError(
            f"the loss is {loss} at step {step}, {self.nonfinite} batches in a row (max_nonfinite_steps); "
            + (f"the last good checkpoint is {kept}" if kept.exists() else "there is no checkpoint yet")
            + "; lower lr, or use loss_scale dynamic with float16"
        )

    def _evaluate(self, *, worst: int = 0) -> Evaluation:
        self._flush()
        with self._evaluated_weights():
            evaluation = evaluate_network(
                self.train_step.network,
                self.train_step.inputs,
                self.eval_batches,
                num_classes=len(self.class_names),
                flip_tta=self.config.flip_tta,
                size=self.device.size,
                worst=worst,
            )
        metrics = evaluation.metrics
        shares = {}
        if self.evaluated_step != self.step:  # a finished run that is resumed has the record already
            self.evaluated_step = self.step
            shares = self._measure()
            self._write(
                {
                    **self._place(),
                    **{f"eval_{name}": value for name, value in metrics.items()},
                    **{f"monitor_{name}": share for name, share in shares.items()},
                }
            )
        self.train_step.set_train(True)
        log.info(
            "epoch %.2f  %s%s", self.step / self.steps_per_epoch, in_words(metrics),
            "".join(f"  {name.replace('_', ' ')} {share:.2f} %" for name, share in shares.items()),
        )  # fmt: skip
        if self.best is None and (warning := warning_of(metrics["count"])):
            log.warning(warning)
        if self._is_best(metrics):
            self.best = {"step": self.step, **metrics}
            self._save(best=True)
        self._start_interval()
        return evaluation

    def _evaluated_weights(self) -> contextlib.AbstractContextManager:
        """Within it, the network holds what is evaluated: the average, where one is kept."""
        return self.train_step.ema.applied() if self.train_step.ema else contextlib.nullcontext()

    def _measure(self) -> dict[str, float]:
        first = next(iter(self.eval_batches), None) if self.monitor is not None else None
        if first is None or self.bn_reestimated:  # no weight has changed since the last measurement
            return {}
        images, _, valid = first
        return self.monitor.measure(images[:valid])

    def _reestimate_bn(self, before: Evaluation) -> Evaluation:
        """Computes the running statistics of what is evaluated anew; evaluates and saves it once more."""
        count = self.config.bn_reestimation_batches
        following = contextlib.closing(self.train_batches.batches(self.steps, self.steps + count))
        with self._evaluated_weights(), following as batches:
            reestimate_bn(self.network, self.train_step.inputs, batches, size=self.device.size)
            if self.train_step.ema:
                self.train_step.ema.keep_changes()
        self.bn_reestimated = True
        self.evaluated_step = self.saved_step = -1
        after = self._evaluate(worst=25)
        log.info(
            "batch normalisation anew over %d batches: top-1 %.2f %%, before %.2f %%",
            count, after.metrics["top1"], before.metrics["top1"],
        )  # fmt: skip
        self._save()
        return after

    def _evaluation_due(self) -> bool:
        return self.step % self.eval_interval == 0 and self.evaluated_step != self.step

    def _is_best(self, metrics: dict[str, float]) -> bool:
        if self.nonfinite or not math.isfinite(metrics["loss"]):
            return False
        return self.best is None or is_better(self.config.best_metric, metrics, self.best)

    def _place(self) -> dict[str, Any]:
        """Where the run is. `images` alone grows whatever the batch size and the number of cards."""
        return {"images": self.images, "step": self.step, "epoch": self.step / self.steps_per_epoch}

    def _write(self, record: dict[str, Any]) -> None:
        if self.metrics is not None:
            self.metrics.write(record)

    def _save(self, *, best: bool = False) -> None:
        self._flush()
        if self.device.rank != 0 or self.nonfinite or (self.saved_step == self.step and not best):
            return
        epoch, batch = divmod(self.step, self.steps_per_epoch)
        meta = {
            "cards": self.device.size,
            "images": self.images,
            "steps": self.steps,
            "config": self.config.model_dump(mode="json"),
            "class_names": list(self.class_names),
            "best": self.best,
            "evaluated_step": self.evaluated_step,
            "bn_reestimated": self.bn_reestimated,
            "seconds": self.seconds,
            # Every batch is a function of these three, so they are the data's whole random state.
            "random_state": {"seed": self.config.seed, "epoch": epoch, "batch": batch},
            "network": [p.name for p in self.network.get_parameters()],
        }
        self.checkpoints.save(self.state, step=self.step, meta=meta, best=best)
        self.saved_step = self.step
        self._start_interval()

    def _restore(self, checkpoint: Checkpoint) -> None:
        checkpoint.check_classes(self.class_names)
        parameters = {p.name: p for p in self.state}
        shapes = {name: tuple(p.shape) for name, p in parameters.items()}
        if shapes != {name: value.shape for name, value in checkpoint.arrays.items()}:
            raise UserError(
                f"checkpoint {checkpoint.path} does not fit the run's config; resume it unchanged"
            )
        for name, parameter in parameters.items():
            parameter.set_data(ms.Tensor(checkpoint.arrays[name]))
        meta = checkpoint.meta
        self.step, self.images = meta["step"], meta["images"]
        self.best = meta["best"]
        self.evaluated_step = meta["evaluated_step"]
        self.bn_reestimated = meta.get("bn_reestimated", False)
        self.seconds_before = meta["seconds"]
        images = self.config.batch_size * self.device.size
        images_before = meta["config"]["batch_size"] * meta.get("cards", self.device.size)
        if images != images_before:
            self._change_batch(meta, images, images_before)
        self.saved_step = self.step
        log.info("continuing from %s after step %d of %d", checkpoint.path, self.step, self.steps)

    def _change_batch(self, meta: dict[str, Any], images: int, images_before: int) -> None:
        """Goes on at the same part of the run with batches of another number of images, over all cards."""
        evaluated = self.evaluated_step == self.step
        self.step = round(self.step * self.steps / meta["steps"])
        self.step -= self.step % self.config.accumulate_steps  # gradients so far belong to other batches
        self.evaluated_step = self.step if evaluated else 0
        self.train_step.start_at(self.step // self.config.accumulate_steps)
        log.warning(
            "%d cards of %d images now, a batch of %d and not %d as before: step %d of %d becomes %d of %d, "
            "and the rates follow lr_scale_rule %s",
            self.device.size, self.config.batch_size, images, images_before, meta["step"], meta["steps"],
            self.step, self.steps, self.config.lr_scale_rule,
        )  # fmt: skip
