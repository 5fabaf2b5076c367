# SPDX-License-Identifier: Apache-2.0
"""The checkpoints folder of a run: `last`, `best` and the newest N."""

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import mindspore as ms

from ..common.errors import UserError
from ..common.files import atomic_path
from .file import Checkpoint, read_checkpoint, write_checkpoint

log = logging.getLogger("quartet")


class CheckpointFolder:
    """step_<n>.ckpt for the newest `keep` saves; last.ckpt and best.ckpt are further names of such files.

    Every name changes by a rename, so a killed process leaves whole files only.
    """

    def __init__(self, folder: Path, *, keep: int):
        self.folder = folder
        self.keep = keep

    def save(self, parameters: Iterable[ms.Parameter], *, step: int, meta: dict[str, Any]) -> Path:
        """Writes the checkpoint of `step`, names it `last`, and removes those too old.

        Later ones are removed too: a run that fell back to an earlier checkpoint found them damaged.

        Raises:
            UserError: as `write_checkpoint`.
        """
        path = self.folder / f"step_{step:08d}.ckpt"
        write_checkpoint(path, parameters, {**meta, "step": step})
        _name_also(path, self.folder / "last.ckpt")
        steps = self._steps()
        newest = [other for other in steps if other.name <= path.name][: self.keep]
        for other in set(steps) - set(newest):
            other.unlink()
        return path

    def name_best(self, path: Path) -> None:
        """Makes `best` another name of a checkpoint in this folder. Raises UserError as `save`."""
        _name_also(path, self.folder / "best.ckpt")

    def _steps(self) -> list[Path]:
        return sorted(self.folder.glob("step_*.ckpt"), reverse=True)

    def has_any(self) -> bool:
        """Whether a checkpoint, whole or not, is there."""
        return any(self.folder.glob("[!.]*.ckpt"))

    def newest(self) -> Checkpoint:
        """The newest checkpoint that is whole; damaged ones before it are named in warnings.

        Raises:
            UserError: none is whole.
        """
        names = [self.folder / "last.ckpt", *self._steps(), self.folder / "best.ckpt"]
        for path in [p for p in names if p.exists()]:
            try:
                return read_checkpoint(path)
            except UserError as error:
                log.warning("%s; trying the one before", error)
        raise UserError(f"{self.folder} holds no whole checkpoint; start the run anew")


def _name_also(path: Path, name: Path) -> None:
    """Makes `name` another name of the file `path`; a copy where the file system has no hard links."""
    with atomic_path(name) as temporary:
        try:
            os.link(path, temporary)
        except OSError:
            temporary.write_bytes(path.read_bytes())
