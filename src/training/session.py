# SPDX-License-Identifier: Apache-2.0
"""A run from a config, or from its own folder."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

from ..checkpoint.folder import CheckpointFolder
from ..common import heartbeat
from ..common.errors import UserError
from ..common.files import write_text, writing
from ..common.lock import HeldError, locked
from ..common.log import setup_logging
from ..data.manifest import Manifest
from ..model_utils.config import dump, load_config, parse_overrides
from ..model_utils.device_adapter import Device, get_rank_id, set_up_device
from ..model_utils.keys import Keys
from ..parallel.collective import text_of_first
from ..reports.run import OF_THE_END
from ..reports.starts import add_start
from .build import TrainRecipe
from .look import NAME as MANIFEST
from .look import FirstRankLooks
from .trainer import Trainer

LENGTH = ("epochs", "train_steps")
# What may differ when a run goes on: its length, and nothing else of what it computes, but for batch_size and
# accumulate_steps, so that another number of cards can make the same updates, and data that the user says is
# changed.
CHANGEABLE = (
    "data_path", "allow_changed_data", "damaged_images", "device_target", "batch_size", "accumulate_steps",
    "eval_batch_size", "workers", "log_every", "keep_checkpoints", "dataset_sink", "profile", "profile_steps",
    *LENGTH,
)  # fmt: skip

CreateRecipe = Callable[[Keys], TrainRecipe]


def new_run_dir(config: Keys, *, recipe_name: str) -> Path:
    """The folder of a new run: output_path / run_name, by default recipe, date and time."""
    return Path(config.output_path) / (config.run_name or f"{recipe_name}-{time.strftime('%Y%m%d-%H%M%S')}")


def start(config: Keys, create_recipe: CreateRecipe, *, run_dir: Path) -> dict[str, Any]:
    """Trains a new run in `run_dir` and returns its summary.

    Without `run_name`, a folder that is there already is another run's, and a number is put behind the name.

    Raises:
        UserError: `run_name` is the folder of another run, or as `Trainer`.
    """
    if config.run_name:
        _refuse_another_run(run_dir)  # before the minutes that a start may take
    with contextlib.ExitStack() as stack:
        early = stack.enter_context(_early_lines())
        device = _set_up(config)
        look = FirstRankLooks(Manifest(Path(config.data_path)), device=device)
        recipe = _looked_at(create_recipe(config), look).settled(size=device.size)
        trainer = Trainer(recipe, device=device)
        # Only now: a config that does not fit its data leaves no folder behind.
        if device.rank == 0:
            run_dir = _take_new(run_dir, stack, named=bool(config.run_name))
            write_text(run_dir / "config.yaml", dump(recipe.config))
            write_text(run_dir / "classes.txt", "".join(f"{name}\n" for name in trainer.class_names))
            look.write(run_dir)
            _note_start(trainer, run_dir)
        run_dir = Path(text_of_first(str(run_dir), size=device.size))
        heartbeat.announce(run_dir)
        early.into(run_dir, device.rank)
        return trainer.run(run_dir)


def _refuse_another_run(run_dir: Path) -> None:
    if (run_dir / "config.yaml").exists():
        raise UserError(
            f"{run_dir} holds a run already; continue it with --resume {run_dir}, or change run_name"
        )


def _take_new(run_dir: Path, stack: contextlib.ExitStack, *, named: bool) -> Path:
    """Takes the folder of a new run, and holds it until the stack ends."""
    number = 1
    path = run_dir
    while not named:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                path.mkdir()  # of several processes one makes it
                break
        number += 1
        path = run_dir.with_name(f"{run_dir.name}-{number}")
    _hold(path, stack)
    _refuse_another_run(path)
    return path


def _hold(run_dir: Path, stack: contextlib.ExitStack) -> None:
    """Keeps other processes from training in this folder until the stack ends, or this process does."""
    try:
        stack.enter_context(locked(run_dir / ".lock", timeout=0))
    except HeldError as error:
        raise UserError(
            f"{run_dir} is being trained by process {error.pid}; wait for it, or stop it first"
        ) from error


def check_resume(run_dir: str, words: Sequence[str], *, config_path: str | None) -> None:
    """Refuses what would make a resumed run another run.

    Args:
        run_dir: as it stands on the command line.
        words: the keys that stand there.
        config_path: likewise.

    Raises:
        UserError: `run_dir` is no run's folder, there is a `config_path`, or a key is not one of CHANGEABLE.
    """
    if not run_dir or not (Path(run_dir) / "config.yaml").is_file():
        raise UserError(f"resume: {run_dir!r} is not the folder of a run, it holds no config.yaml")
    given = {} if config_path is None else {"config_path": config_path}
    for name, value in (given | parse_overrides(words)).items():
        if name not in CHANGEABLE:
            raise UserError(
                f"{name}: {value!r} given with --resume, allowed there: {', '.join(CHANGEABLE)}; "
                "a run continues as it began"
            )


def resume(config: Keys, create_recipe: CreateRecipe, *, run_dir: Path) -> dict[str, Any]:
    """Continues the run in `run_dir` exactly where its newest whole checkpoint was written.

    Where the config gives it another length, it goes on to that end, if it has ended before as well.

    A run that has no checkpoint yet starts from the beginning.

    Raises:
        UserError: another process trains it, no checkpoint is whole, or as `Trainer`.
    """
    with contextlib.ExitStack() as stack:
        early = stack.enter_context(_early_lines())
        device = _set_up(config)
        folder = CheckpointFolder(run_dir / "checkpoints", keep=config.keep_checkpoints)
        if device.rank == 0:
            _hold(run_dir, stack)
        early.into(run_dir, device.rank)
        checkpoint = folder.newest() if folder.has_any() else None
        look = FirstRankLooks(Manifest.read(run_dir / MANIFEST, root=config.data_path), device=device)
        recipe = _looked_at(create_recipe(config), look)
        trainer = Trainer(recipe, device=device, checkpoint=checkpoint)
        if device.rank == 0:
            _keep_length(config, run_dir)
            if trainer.progress.step < trainer.course.steps:
                _remove_figures(run_dir)
            look.write(run_dir)
            _note_start(trainer, run_dir)
        return trainer.run(run_dir, resumed=True)


def _note_start(trainer: Trainer, run_dir: Path) -> None:
    place = trainer.progress.place(trainer.course)
    add_start(run_dir, place=place, batch=trainer.course.batch, device=trainer.device)


def _looked_at(recipe: TrainRecipe, look: FirstRankLooks) -> TrainRecipe:
    return recipe.looked_at(look) if recipe.config.check_images else recipe


def _keep_length(config: Keys, run_dir: Path) -> None:
    """Makes the config's length the run's own, so that the next resume ends where this one does."""
    path = run_dir / "config.yaml"
    own = load_config({}, config_class_of=lambda model: type(config), config_path=path)
    longer = own.model_copy(update={name: getattr(config, name) for name in LENGTH})
    if longer != own:
        write_text(path, dump(longer))


def _remove_figures(run_dir: Path) -> None:
    """A run that goes on has not ended: what it wrote at its end before is not to stand for its new end."""
    for name in OF_THE_END:
        path = run_dir / name
        with writing(path):
            path.unlink(missing_ok=True)


class _EarlyLines(MemoryHandler):
    """What is said before the run's log file may be opened goes into it later, too."""

    def into(self, run_dir: Path, rank: int) -> None:
        log_file = run_dir / (f"train_rank_{rank}.log" if rank else "train.log")
        self.setTarget(setup_logging(log_file, rank=rank).handlers[-1])
        self.close()


@contextlib.contextmanager
def _early_lines() -> Iterator[_EarlyLines]:
    early, logger = _EarlyLines(capacity=1000), logging.getLogger("quartet")
    logger.addHandler(early)
    try:
        yield early
    finally:
        logger.removeHandler(early)


def _set_up(config: Keys) -> Device:
    setup_logging(None, rank=get_rank_id())
    return set_up_device(config.device_target, seed=config.seed)
