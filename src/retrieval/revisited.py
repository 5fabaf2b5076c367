# SPDX-License-Identifier: Apache-2.0
"""The ground truth of Revisited Oxford and Paris (Radenovic et al., CVPR 2018): a pickle, read with care."""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..common.errors import UserError

# What an array is made of in a pickle, by numpy 1 and 2. Containers, numbers and strings need no names.
_CORE = [f"numpy.{core}.{part}" for core in ("core", "_core") for part in ("multiarray", "numeric")]
_ALLOWED = {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
_ALLOWED |= {(module, name) for module in _CORE for name in ("_reconstruct", "scalar", "_frombuffer")}

Indices = Sequence[int]


class _PlainUnpickler(pickle.Unpickler):
    """Makes containers, numbers, strings and numpy arrays, no more: a pickle may call any function."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it wants {module}.{name}")
        return super().find_class(module, name)


@dataclass(frozen=True)
class GroundTruth:
    """Names of files without their ending; for each query a box and indices into the database.

    Attributes:
        database: names.
        queries: names.
        boxes: left, top, right, bottom, in pixels.
        easy: images that show the landmark well.
        hard: images that show it, hard to recognise.
        junk: images that show too little of it to count.
    """

    database: list[str]
    queries: list[str]
    boxes: list[tuple[float, float, float, float]]
    easy: list[Indices]
    hard: list[Indices]
    junk: list[Indices]


def read_ground_truth(path: Path) -> GroundTruth:
    """Reads gnd_roxford5k.pkl or gnd_rparis6k.pkl; a pickle that would call something is refused.

    Raises:
        UserError: the file is missing, damaged, or holds something else.
    """
    try:
        with open(path, "rb") as file:
            values = _PlainUnpickler(file, encoding="latin1").load()
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; it is published with the set's revisited annotation") from error
    # Damaged pickles raise nearly anything.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} is no ground truth ({reason}); download it again") from error
    try:
        return _checked(values)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(
            f"{path} is no ground truth of imlist, qimlist and gnd with bbx, easy, hard and junk "
            f"({type(error).__name__}: {error}); download it again"
        ) from error


def _checked(values: Any) -> GroundTruth:
    database, queries = ([str(name) for name in values[key]] for key in ("imlist", "qimlist"))
    truths = values["gnd"]
    if len(truths) != len(queries):
        raise ValueError(f"{len(truths)} truths for {len(queries)} queries")
    if len(set(database)) != len(database):
        raise ValueError("an image is listed twice")
    boxes, kinds = [], {"easy": [], "hard": [], "junk": []}
    for truth in truths:
        left, top, right, bottom = (float(edge) for edge in np.ravel(truth["bbx"]))
        if not (left < right and top < bottom):
            raise ValueError(f"the box {left, top, right, bottom}")
        boxes.append((left, top, right, bottom))
        for kind, lists in kinds.items():
            indices = [int(index) for index in np.ravel(truth[kind])]
            if indices and not 0 <= min(indices) <= max(indices) < len(database):
                raise ValueError(f"{kind} images {min(indices)} to {max(indices)} of {len(database)}")
            lists.append(indices)
    return GroundTruth(database, queries, boxes, **kinds)
