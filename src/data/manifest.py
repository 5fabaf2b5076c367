# SPDX-License-Identifier: Apache-2.0
"""What was seen of the image files of a run, so that each is looked at once."""

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from ..common import heartbeat
from ..common.files import write_text
from .decode import fault

_THREADS = 8  # that look at files: on a network each look waits, on a disk they cost nothing
_CHUNK = 256  # files

Seen = tuple[int, int, str | None]  # size in bytes, time of change in ns, and what is wrong with the file


@dataclass
class Manifest:
    """Which image files were looked at, and what was wrong with them.

    A file whose size or time has changed since is looked at again, and so is a damaged one.

    Attributes:
        root: the folder of the data set. The file on the disk names images from there on, so that a data set
            that was moved needs no new look.
        seen: by file.
    """

    root: Path
    seen: dict[str, Seen] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, *, root: str | os.PathLike) -> "Manifest":
        """From a file of `write`; where that is missing or damaged, nothing was seen."""
        root = Path(root)
        try:
            entries = json.loads(path.read_text(encoding="utf-8")).items()
            seen = {
                os.path.join(root, name): (int(size), int(changed), None if reason is None else str(reason))
                for name, (size, changed, reason) in entries
            }
        except (OSError, ValueError, TypeError, AttributeError):
            seen = {}
        return cls(root, seen)

    def write(self, path: Path) -> None:
        """Writes a file that is whole or absent. Raises UserError where that cannot be written."""
        start = os.path.join(self.root, "")
        write_text(path, json.dumps({name.removeprefix(start): seen for name, seen in self.seen.items()}))

    def look_at(self, files: Sequence[str]) -> Iterator[None]:
        """Looks at the files that are new or changed, without decoding them (`decode.fault`).

        Whatever seems damaged is looked at twice: the system may have failed to read it. Files that are not
        among these any more are forgotten. Yields after each part of the work.
        """
        before, self.seen = self.seen, {}
        chunks = [files[start : start + _CHUNK] for start in range(0, len(files), _CHUNK)]
        with ThreadPoolExecutor(_THREADS) as pool:
            results = pool.map(
                lambda chunk: [(file, _look(file, before.get(file))) for file in chunk], chunks
            )
            for result in tqdm(results, desc=f"checking {self.root}", total=len(chunks), disable=None):
                heartbeat.progress()
                self.seen |= result
                yield
        self.seen |= {file: _look(file, None) for file in self.faults}

    @property
    def faults(self) -> dict[str, str]:
        """What is wrong with the files that are damaged."""
        return {file: reason for file, (_, _, reason) in self.seen.items() if reason}


def faults_of(files: Sequence[str], *, root: str | os.PathLike) -> dict[str, str]:
    """What is wrong with those of some files that are damaged, without a memory."""
    manifest = Manifest(Path(root))
    for _ in manifest.look_at(files):
        pass
    return manifest.faults


def _look(file: str, before: Seen | None) -> Seen:
    try:
        status = os.stat(file)
    except OSError:
        return 0, 0, fault(file)
    stamp = status.st_size, status.st_mtime_ns
    if before == (*stamp, None):  # a fault may have been mended by a key
        return before
    return *stamp, fault(file)
