"""A run from a config, or from its own folder."""

import logging
import time
from collections.abc import Callable, Sequence
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

from ..checkpoint.folder import CheckpointFolder
from ..common import heartbeat
from ..common.errors import UserError
from ..common.files import write_text
from ..common.log import setup_logging
from ..model_utils.config import dump, parse_overrides
from ..model_utils.device_adapter import Device, get_rank_id, set_up_device
from ..model_utils.keys import Keys
from ..parallel.collective import text_of_first
from .build import TrainRecipe
from .loop import Trainer

# What may differ when a run goes on: nothing of what it computes, but for batch_size, so that another number
# of cards can make the same batches together.
CHANGEABLE = (
    "data_path", "device_target", "batch_size", "eval_batch_size", "log_every", "keep_checkpoints",
    "dataset_sink", "profile", "profile_steps",
)  # fmt: skip

CreateRecipe = Callable[[Keys], TrainRecipe]


def new_run_dir(config: Keys, *, recipe_name: str) -> Path:
    """The folder of a new run: output_path / run_name, by default recipe, date and time."""
    return Path(config.output_path) / (config.run_name or f"{recipe_name}-{time.strftime('%Y%m%d-%H%M%S')}")


def start(config: Keys, create_recipe: CreateRecipe, *, run_dir: Path) -> dict[str, Any]:
    """Trains a new run in `run_dir` and returns its summary.

    Raises:
        UserError: `run_dir` holds a run already, or as `Trainer`.
    """
    if (run_dir / "config.yaml").exists():
        raise UserError(
            f"{run_dir} holds a run already; continue it with --resume {run_dir}, or change run_name"
        )
    early = MemoryHandler(capacity=1000)
    logging.getLogger("quartet").addHandler(early)
    try:
        device = _set_up(config, None)
        run_dir = Path(text_of_first(str(run_dir), size=device.size))  # its name has the time, of rank 0 then
        heartbeat.announce(run_dir)
        recipe = create_recipe(config).settled(size=device.size)
        trainer = Trainer(recipe, device=device, run_dir=run_dir)
        # Only now: a config that does not fit its data leaves no folder behind.
        if device.rank == 0:
            write_text(run_dir / "config.yaml", dump(recipe.config))
            write_text(run_dir / "classes.txt", "".join(f"{name}\n" for name in trainer.class_names))
        early.setTarget(setup_logging(_log_file(run_dir, device.rank), rank=device.rank).handlers[-1])
    finally:
        early.close()  # what was said before the folder was there goes into train.log too
        logging.getLogger("quartet").removeHandler(early)
    return trainer.run()


def check_changes(words: Sequence[str], *, run_dir: Path) -> None:
    """Refuses keys on the command line that would make a resumed run another run.

    Raises:
        UserError: `run_dir` is no run's folder, or a key is not one of CHANGEABLE.
    """
    for name, value in parse_overrides(words).items():
        if name not in CHANGEABLE:
            raise UserError(
                f"{name}: {value!r} given with --resume, allowed there: {', '.join(CHANGEABLE)}; "
                "a run continues as it began"
            )
    if not (run_dir / "config.yaml").is_file():
        raise UserError(f"resume: {str(run_dir)!r} is not the folder of a run, it holds no config.yaml")


def resume(config: Keys, create_recipe: CreateRecipe, *, run_dir: Path) -> dict[str, Any]:
    """Continues the run in `run_dir` exactly where its newest whole checkpoint was written.

    A run that has no checkpoint yet starts from the beginning.

    Raises:
        UserError: no checkpoint is whole, or as `Trainer`.
    """
    device = _set_up(config, run_dir)
    folder = CheckpointFolder(run_dir / "checkpoints", keep=config.keep_checkpoints)
    if device.rank == 0:
        folder.remove_leftovers()
    checkpoint = folder.newest() if folder.has_any() else None
    if checkpoint is None and device.rank == 0:
        (run_dir / "metrics.jsonl").unlink(missing_ok=True)
    return Trainer(create_recipe(config), device=device, run_dir=run_dir, checkpoint=checkpoint).run()


def _log_file(run_dir: Path, rank: int) -> Path:
    return run_dir / (f"train_rank_{rank}.log" if rank else "train.log")


def _set_up(config: Keys, run_dir: Path | None) -> Device:
    rank = get_rank_id()
    setup_logging(run_dir and _log_file(run_dir, rank), rank=rank)
    return set_up_device(config.device_target, seed=config.seed)
