# SPDX-License-Identifier: Apache-2.0
"""Damaged images: what is done when one cannot be read, and which are left out before a run begins."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from ..common.errors import UserError
from .binary import Split
from .decode import UnreadableImage
from .folders import counted, printable, some_of
from .resize import Plan
from .sources import ImageFiles, Images

log = logging.getLogger("quartet")

_SHOWN = 10  # damaged files that are named
_WAITS = (0.5, 1.0, 2.0)  # seconds before an image is read again that the system could not read
_MEND = "or use --damaged_images skip"


class ReadablePictures:
    """A split of pictures, which is read with patience, and has another picture in place of a damaged one.

    What the system fails to read is tried again for 3.5 s: a network mount that was lost for seconds ends no
    run. Damage, which decoding finds, is no such failure.

    With `skip`, the next picture of the same class that can be read takes the place of one that cannot.
    That depends on the files alone, so a run that goes on has the same batches. An evaluation leaves out
    what `damaged` names; there, where a class has no other picture, the place is filled by any.

    Args:
        pictures: the split.
        skip: replace what cannot be read; otherwise that is an error.
        same_class: only a picture of the class replaces another: for training.
        left_out: damaged pictures of the split that `pictures` does not have any more.

    Attributes:
        damaged: by index, what is wrong with those that could not be read so far.
        words: see `ImageFiles`, as `listed`; of other data none.
    """

    def __init__(self, pictures: Images, *, skip: bool, same_class: bool, left_out: int = 0):
        self._pictures, self._skip, self._same_class = pictures, skip, same_class
        self.labels, self.class_names = pictures.labels, pictures.class_names
        self.left_out = left_out
        self.words, self.listed = getattr(pictures, "words", ()), getattr(pictures, "listed", 0)
        self.damaged: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """The file of a picture, or where else it lies."""
        return self._pictures.name(index)

    def read(self, index: int, plan: Plan | None = None) -> np.ndarray:
        """(H, W, 3) uint8 RGB, C-contiguous, with a plan resized by it: see `decode_resized`.

        Raises:
            UserError: it cannot be read, and is not replaced.
        """
        lost = False
        for place in self._candidates(index):
            try:
                return _patiently(partial(self._pictures.read, place, plan))
            except UserError as error:
                of_system = _errno(error) is not None
                if not (of_system or isinstance(error, UnreadableImage)):
                    raise
                if not self._skip:
                    raise UserError(f"{error}, {_MEND}") from error
                if lost and of_system:  # two in a row are no damaged files: the disk is gone
                    raise
                lost = of_system
                self._note(place, error)
        kind = f"of the class {self.class_names[self.labels[index]]}" if self._same_class else "to evaluate"
        raise UserError(f"{self.name(index)}: every image {kind} is damaged; replace or remove them")

    def take(self, indices: Sequence[int] | np.ndarray) -> "ReadablePictures":
        """The pictures of `indices`, in their order."""
        return ReadablePictures(self._pictures.take(indices), skip=self._skip, same_class=self._same_class)

    def _candidates(self, index: int) -> Iterator[int]:
        """The picture itself, then what may replace it: those behind it first, and of its class."""
        yield index
        order = np.roll(np.arange(len(self)), -index)[1:]
        same = self.labels[order] == self.labels[index]
        yield from order[same].tolist()
        if not self._same_class:
            yield from order[~same].tolist()

    def _note(self, index: int, error: UserError) -> None:
        if index not in self.damaged:
            self.damaged[index] = getattr(error, "reason", str(error))
            level = logging.WARNING if len(self.damaged) <= _SHOWN else logging.INFO
            log.log(level, "damaged and skipped: %s (%s)", printable(self.name(index)), self.damaged[index])


Pictures = Images | ReadablePictures  # one split of a data set, as `sources` describes it


def damaged_in(source: object) -> Mapping[int, str]:
    """By index, what is wrong with the images of a source that could not be read so far."""
    return getattr(source, "damaged", {})


def left_out_of(source: object) -> int:
    """How many damaged images a source does not have any more."""
    return getattr(source, "left_out", 0)


def without_faults(
    splits: Mapping[Split, ImageFiles], faults: Mapping[str, str], *, root: str | os.PathLike, skip: bool
) -> dict[Split, ImageFiles]:
    """The splits without the files in `faults`, which are counted and named in the log.

    Args:
        splits: of one data set.
        faults: file -> what is wrong with it.
        root: of the data set.
        skip: leave them out; otherwise they are an error.

    Raises:
        UserError: there are damaged files without `skip`, or nothing is left of a class that is trained.
    """
    if not faults:
        return dict(splits)
    whole, counts = {}, []
    for split, pictures in splits.items():
        kept = [index for index, file in enumerate(pictures.files) if file not in faults]
        counts.append(f"{len(pictures.files) - len(kept):,} of {len(pictures.files):,} {_TITLES[split]}")
        whole[split] = pictures.take(kept)
    total = sum(len(pictures.files) for pictures in splits.values())
    be = "is" if len(faults) == 1 else "are"
    summary = f"{root}: {len(faults):,} of {total:,} images {be} damaged ({', '.join(counts)})"
    lines = [f"{printable(os.path.relpath(file, root))} ({reason})" for file, reason in faults.items()]
    first = some_of(lines, most=_SHOWN)
    if not skip:
        raise UserError(f"{summary}: {first}; replace or remove them, {_MEND}")
    log.warning("%s and left out: %s", summary, first)
    for line in lines[_SHOWN:]:
        log.info("damaged: %s", line)
    for split, pictures in whole.items():
        names = [pictures.class_names[k] for k in np.setdiff1d(splits[split].labels, pictures.labels)]
        if names and split == "train":
            raise UserError(f"{root}: every image of {counted(names, 'class')} is damaged; replace them")
        if names:
            log.warning("no held-out image is left of %s: no figure has it", counted(names, "class"))
    return whole


_TITLES = {"train": "for training", "test": "held out"}


def _patiently(read: Callable[[], np.ndarray]) -> np.ndarray:
    """Reads again where the system failed to."""
    for seconds in _WAITS:
        try:
            return read()
        except UserError as error:
            if _errno(error) is None:
                raise
            log.warning("%s; trying again in %g s", error, seconds)
            time.sleep(seconds)
    return read()


def _errno(error: UserError) -> int | None:
    """The system's number of what failed; None for damage, which decoders tell as OSError, too."""
    return getattr(error.__cause__, "errno", None)
