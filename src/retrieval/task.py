# SPDX-License-Identifier: Apache-2.0
"""What a retrieval task is: a database, queries, and which images are right for each query."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..common.errors import UserError
from ..data.decode import Plan, decode, decode_resized
from ..data.folders import LeftOut, number_of


@dataclass(frozen=True)
class Picture:
    """An image file and what is done to it before it is resized.

    Attributes:
        file: its path.
        box: left, top, right, bottom in pixels, of what is cut out; None for all.
        turns: quarter turns counter-clockwise, after the orientation in EXIF is applied.
    """

    file: str
    box: tuple[float, float, float, float] | None = None
    turns: int = 0

    def read(self, plan: Plan | None = None) -> np.ndarray:
        """(H, W, 3) uint8 RGB, C-contiguous, resized by `plan` if there is one (see `decode_resized`).

        Raises:
            UnreadableImage: the file cannot be decoded.
            UserError: the box is outside of the picture.
        """
        if plan and self.box is None and not self.turns:
            return decode_resized(self.file, plan)
        image = decode(self.file)
        if self.box is not None:
            left, top, right, bottom = (max(0, round(edge)) for edge in self.box)
            image = image[top:bottom, left:right]
            if not image.size:
                raise UserError(f"{self.file}: the query's box {self.box} is outside; this is another image")
        image = np.ascontiguousarray(np.rot90(image, self.turns))
        return plan(*image.shape[:2])(image) if plan else image


@dataclass(frozen=True)
class Truth:
    """What is right for each query, as indices into the database.

    Junk is neither right nor wrong, and is taken out of the ranking; an image in both is junk.
    """

    positives: tuple[np.ndarray, ...]
    junk: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class RetrievalSet:
    """A retrieval task.

    Attributes:
        protocol: see `sets`.
        database: what is ranked, each picture once.
        queries: pictures, of the database or not.
        truths: by difficulty; the only one is called "".
        kinds: of each query, what was done to it; empty where nothing was.
        notes: what else is to be known of the folder.
        left_out: what was passed over.
    """

    protocol: str
    database: tuple[Picture, ...]
    queries: tuple[Picture, ...]
    truths: Mapping[str, Truth]
    kinds: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: LeftOut = field(default_factory=LeftOut)

    def in_words(self) -> tuple[str, str]:
        """What there is, and what was left out: a line each."""
        parts = (
            f"{self.protocol}: {number_of(len(self.queries), 'query')}",
            f"{number_of(len(self.database), 'picture')} to find",
            *self.notes,
        )
        return ", ".join(parts), self.left_out.in_words()

    def without(self, left_out: Collection[Picture]) -> "RetrievalSet":
        """The same task without some pictures."""
        kept = [number for number, picture in enumerate(self.database) if picture not in left_out]
        new = np.full(len(self.database), -1)
        new[kept] = np.arange(len(kept))
        asked = [number for number, picture in enumerate(self.queries) if picture not in left_out]

        def renumbered(of_queries: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
            numbers = (new[of_queries[query]] for query in asked)
            return tuple(some[some >= 0] for some in numbers)

        return replace(
            self,
            database=tuple(self.database[number] for number in kept),
            queries=tuple(self.queries[number] for number in asked),
            truths={
                name: Truth(renumbered(truth.positives), renumbered(truth.junk))
                for name, truth in self.truths.items()
            },
            kinds=tuple(self.kinds[number] for number in asked) if self.kinds else (),
        )


def arrays(lists: Iterable[Iterable[int]]) -> tuple[np.ndarray, ...]:
    """As a `Truth` has them."""
    return tuple(np.array([*numbers], np.int64) for numbers in lists)
