# SPDX-License-Identifier: Apache-2.0
"""One checkpoint file: named arrays and a description, verified when read."""

import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np

from ..common.errors import UserError
from ..common.files import atomic_path, relative_to

AVERAGED = "ema."  # stands before a weight's name in that of its average

_SUM, _SUM_BYTES = b"crc_num", 17  # what the checksum begins with, at the end of a file, and its length


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: arrays by name, and a JSON-like description with at least `config` and `step`.

    `network` in the description names the network's own parameters, where the file holds others too.
    """

    path: Path
    arrays: dict[str, np.ndarray]
    meta: dict[str, Any]

    @property
    def network(self) -> list[str]:
        """The names of the network's own parameters; all that there are, where the file says no others."""
        return self.meta.get("network", list(self.arrays))

    @property
    def has_average(self) -> bool:
        """Whether an average of the weights was kept."""
        return bool(self.network) and all(AVERAGED + name in self.arrays for name in self.network)

    def check_classes(self, class_names: Sequence[str]) -> None:
        """Compares the classes of a data set with those that the network was trained on.

        Raises:
            UserError: they are others, or in another order.
        """
        own = self.meta["class_names"]
        if list(class_names) != own:
            pairs = zip(class_names, own, strict=False)
            first = next((k for k, (a, b) in enumerate(pairs) if a != b), min(len(own), len(class_names)))
            theirs, ours = (list(names)[first : first + 1] or ["missing"] for names in (class_names, own))
            raise UserError(
                f"data_path: the data set has {len(class_names)} classes and checkpoint {self.path} "
                f"{len(own)}; number {first} is {theirs[0]} there and {ours[0]} here; "
                "give the data that it was trained on"
            )

    def network_weights(self, *, ema: bool = True) -> dict[str, np.ndarray]:
        """The network's arrays by their own names; the averaged ones where kept, unless `ema` is false."""
        prefix = AVERAGED if ema and self.has_average else ""
        return {name: self.arrays[prefix + name] for name in self.network}


def _has_checksum(path: Path) -> bool:
    """Whether a file ends with one; without it the framework compares nothing."""
    with path.open("rb") as file:
        file.seek(-_SUM_BYTES, os.SEEK_END)
        return file.read().startswith(_SUM)


@contextmanager
def _without_framework_log() -> Iterator[None]:
    """MindSpore logs a file's faults before it raises; our one line says them better."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def write_checkpoint(path: Path, parameters: Iterable[ms.Parameter], meta: dict[str, Any]) -> None:
    """Writes a file that is whole or absent, with a checksum and the list of names inside.

    Raises:
        UserError: the folder cannot be written or the disk is full; an earlier file stays whole.
    """
    entries = [{"name": p.name, "data": p} for p in parameters]
    meta = {**meta, "names": [entry["name"] for entry in entries]}
    with atomic_path(path) as temporary, _without_framework_log():
        ms.save_checkpoint(entries, str(temporary), append_dict={"meta": json.dumps(meta)}, crc_check=True)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a file of `write_checkpoint`.

    Raises:
        UserError: there is no such file, it is damaged, or it is not a checkpoint of this project.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"checkpoint {path} does not exist{relative_to(path)}; give a .ckpt file, or the folder of a run"
        )
    try:
        has_checksum = _has_checksum(path)
        with _without_framework_log():
            loaded = ms.load_checkpoint(str(path), crc_check=True)
    except (ValueError, RuntimeError, TypeError, OSError) as error:
        raise UserError(f"checkpoint {path} is damaged or no checkpoint; choose another one") from error
    try:
        meta = json.loads(loaded.pop("meta"))
        names = set(meta.pop("names"))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"checkpoint {path} is not one of this project: it has no description inside"
        ) from error
    if not has_checksum:
        raise UserError(f"checkpoint {path} is damaged: its checksum is missing; choose another one")
    arrays = {name: parameter.asnumpy() for name, parameter in loaded.items()}
    if names != set(arrays) or not set(meta.get("network", ())) <= names:
        raise UserError(f"checkpoint {path} is damaged: arrays are missing; choose another one")
    return Checkpoint(path, arrays, meta)
