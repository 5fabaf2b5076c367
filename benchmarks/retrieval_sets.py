# SPDX-License-Identifier: Apache-2.0
"""The sets that benchmarks of retrieval measure on: distorted copies, and pairs that nobody made."""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from src.common.files import new_folder
from src.retrieval.copies import write_copies

PAIRS = {
    "aerial": ("aero1.jpg", "aero3.jpg"),
    "aloe": ("aloeL.jpg", "aloeR.jpg"),
    "basketball": ("basketball1.png", "basketball2.png"),
    "books": ("left.jpg", "right.jpg"),
    "box": ("box.png", "box_in_scene.png"),
    "chessboard": ("left01.jpg", "right05.jpg", "left08.jpg", "right13.jpg"),
    "graffiti": ("graf1.png", "graf3.png"),
    "head": ("Blender_Suzanne1.jpg", "Blender_Suzanne2.jpg"),
    "letter": ("imageTextN.png", "imageTextR.png"),
    "motorcycle": ("motorcycle_left.png", "motorcycle_right.png"),
    "notebook": ("ela_original.jpg", "ela_modified.jpg"),
    "street": ("leuvenA.jpg", "leuvenB.jpg"),
    "toys": ("rubberwhale1.png", "rubberwhale2.png"),
    "campus": ("vtest.avi#0", "vtest.avi#265", "vtest.avi#530"),
    "film": ("Megamind.avi#90", "Megamind.avi#180"),
}
"""Views of one thing: other viewpoints, stereo, other light, other moments (FILE#FRAME of a film).

The motorcycle is in scikit-image (of the Middlebury 2014 stereo benchmark); all others are in Debian's
package opencv-doc (examples/data; Apache-2.0 and BSD-3-Clause, says its copyright file).
"""


def copies_set(files: Sequence[str], folder: Path, copies: int) -> dict[str, Path]:
    """The flags of eval.py: originals and their copies of all kinds, and all other images as distractors."""
    order = np.random.default_rng(0).permutation(len(files))
    originals, others = ([files[index] for index in part] for part in np.split(order, [copies]))
    if not (folder / "copies").exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_copies(originals, folder / "copies", seed=0)
    return {"data_path": folder / "copies", "distractors": _distractors(others, folder / "distractors")}


def pairs_set(files: Sequence[str], folder: Path, sources: Sequence[Path]) -> dict[str, Path]:
    """The flags of eval.py: PAIRS, a folder each, and all images of `files` as distractors.

    Args:
        sources: folders that hold the photographs and films, at any depth.

    Raises:
        SystemExit: a file is in none of them.
    """
    if not (folder / "pairs").exists():
        found = {path.name: path for source in sources for path in sorted(source.rglob("*"))}
        names = {member.partition("#")[0] for members in PAIRS.values() for member in members}
        if missing := sorted(names - set(found)):
            sys.exit(
                f"--photographs: {missing[0]} is in none of the folders; {len(missing)} files are missing"
            )
        with new_folder(folder / "pairs") as made:
            for name, members in PAIRS.items():
                (made / name).mkdir()
                for member in members:
                    _take(member, found, made / name)
    return {"data_path": folder / "pairs", "distractors": _distractors(files, folder / "distractors")}


def _take(member: str, found: Mapping[str, Path], folder: Path) -> None:
    name, _, frame = member.partition("#")
    if not frame:
        shutil.copyfile(found[name], folder / name)
        return
    film = cv2.VideoCapture(os.fspath(found[name]))
    film.set(cv2.CAP_PROP_POS_FRAMES, int(frame))
    read, picture = film.read()
    if not read:
        sys.exit(f"{found[name]} has no frame {frame}")
    cv2.imwrite(os.fspath(folder / f"{Path(name).stem}_{frame}.png"), picture)


def _distractors(files: Sequence[str], folder: Path) -> Path:
    if not folder.exists():
        with new_folder(folder) as made:
            for file in files:
                shutil.copyfile(file, made / f"{Path(file).parent.name}_{Path(file).name}")
    return folder
