# SPDX-License-Identifier: Apache-2.0
"""The look at the image files of a run: rank 0 takes it, once, and tells the others."""

import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..common.errors import UserError
from ..data.manifest import Manifest
from ..model_utils.device_adapter import Device
from ..parallel.collective import sum_over_ranks

NAME = "images.json"  # in a run's folder: the manifest
_PATIENCE = 10.0  # seconds that a rank waits for another at most: libraries end a longer wait as an error


class FirstRankLooks:
    """What `Recipe.looked_at` takes. The other ranks open no image file: rank 0 tells which are damaged.

    Args:
        manifest: what was seen before; rank 0 adds to it.
        device: this process and its rank.
    """

    def __init__(self, manifest: Manifest, *, device: Device):
        self.manifest, self._rank, self._size = manifest, device.rank, device.size

    def __call__(self, files: Sequence[str]) -> dict[str, str]:
        """What is wrong with the damaged ones of `files`; only rank 0 knows what exactly.

        Raises:
            UserError: another rank has other files.
        """
        self._check_same(files)
        mask = np.zeros(len(files), np.int64)
        faults = {}
        if self._rank == 0:
            self._look(files)
            faults = self.manifest.faults
            mask[:] = [file in faults for file in files]
        else:
            while not self._first_is_done(False):
                pass
        damaged = np.flatnonzero(sum_over_ranks(mask, size=self._size))
        return {files[k]: faults.get(files[k], "rank 0 says what is wrong") for k in damaged.tolist()}

    def write(self, run_dir: Path) -> None:
        """Keeps what was seen in the folder of the run. Raises UserError where it cannot be written."""
        if self.manifest.seen:
            self.manifest.write(run_dir / NAME)

    def _look(self, files: Sequence[str]) -> None:
        waited = time.monotonic()
        for _ in self.manifest.look_at(files):
            if time.monotonic() - waited > _PATIENCE:
                self._first_is_done(False)
                waited = time.monotonic()
        self._first_is_done(True)

    def _first_is_done(self, done: bool) -> bool:
        """What rank 0 says; every rank asks at the same time, so that none waits long."""
        return bool(sum_over_ranks(np.array([done], np.int64), size=self._size)[0])

    def _check_same(self, files: Sequence[str]) -> None:
        start = len(str(self.manifest.root))
        names = "\n".join(file[start:] for file in files)
        mine = np.array([len(files), zlib.crc32(names.encode("utf-8", "surrogateescape"))], np.int64)
        first = sum_over_ranks(mine * (self._rank == 0), size=self._size)
        differs = bool((mine != first).any())
        if sum_over_ranks(np.array([differs], np.int64), size=self._size)[0]:  # no rank waits for another
            than = f"{first[0]:,} on rank 0, or others" if differs else "other ones on another rank"
            raise UserError(
                f"data_path: {self.manifest.root} has {mine[0]:,} images on rank {self._rank} and {than}; "
                "give all ranks the same data"
            )
