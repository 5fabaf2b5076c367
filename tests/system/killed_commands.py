# SPDX-License-Identifier: Apache-2.0
"""Commands that are killed at their lines: killed_commands.py KIND FOLDER MOMENTS, by test_kills.py.

Each call is a forked process. This one imports MindSpore and runs nothing of it, which a fork would not
survive.
"""

import json
import os
import shutil
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import mindspore  # noqa: F401  once, not in each process
import numpy as np
from PIL import Image

from src import trained  # noqa: F401  the same
from src.checkpoint.file import read_checkpoint
from src.common.errors import UserError
from src.deploy import door, export, mindir  # noqa: F401
from src.deploy.exported import read_export
from src.multigrain import choose_p, whiten, whitening  # noqa: F401
from src.retrieval import embedding, index  # noqa: F401
from src.retrieval.index import PictureIndex
from src.tools import search
from tests.helpers.checkpoints import save_checkpoint
from tests.helpers.doors import call_door, call_main
from tests.helpers.kills import lines_until, of_source

WRITING = of_source(
    "common/files.py", "common/lock.py", "checkpoint/file.py", "deploy/card.py", "deploy/export.py",
    "retrieval/index.py", "retrieval/store.py",
)  # fmt: skip
KEYS = {
    "model": "multigrain_resnet18", "device_target": "CPU", "block_units": [1, 1, 1, 1],
    "widths": [4, 8, 8, 16], "stem": "small", "image_size": 32,
}  # fmt: skip


def prepare(folder):
    """Two checkpoints, and two folders of pictures."""
    for seed in (0, 1):
        names = ["ant", "bee", f"class {seed}"]
        save_checkpoint(folder / f"{seed}.ckpt", {**KEYS, "seed": seed}, class_names=names)
    rng = np.random.default_rng(0)
    for k in range(24):
        pixels = rng.integers(0, 256, (32, 32, 3))
        pixels[: rng.integers(1, 32)] = rng.integers(0, 256, 3)
        path = folder / "pictures" / str(k % 2) / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path)


def _whiten(inputs, out, *, number=1):
    words = {"checkpoint_path": inputs / f"{number}.ckpt", "images": inputs / "pictures"}
    return call_main(whiten.main, "--regularisation", 0.1, **words, output=out / "white.ckpt")


def _export(inputs, out, *, number=1):
    return call_door("export.py", checkpoint_path=inputs / f"{number}.ckpt", file_name=out / "net")


def _build(inputs, out, *words, number=1, pictures="pictures"):
    index.update.__kwdefaults__["save_every"] = 5
    weights = inputs / f"{number}.ckpt"
    words = ["build", inputs / pictures, "--index", out / "index", "--checkpoint_path", weights, *words]
    return call_main(search.main, *words)


# What stands afterwards, in items.


def _arrays(out):
    return {name: array.tobytes() for name, array in read_checkpoint(out / "white.ckpt").arrays.items()}


def _card(out):
    """The files are compared with the card; MindSpore writes other bytes each time."""
    card = read_export(out / "net").card.model_dump(exclude={"files"})
    return {"card": card, "passed": json.loads((out / "net" / "parity.json").read_text())["passed"]}


def _vectors(out):
    found = PictureIndex.open(out / "index")
    vectors = {name: row.tobytes() for name, row in zip(found.files, found.vectors, strict=True)}
    return {"identity": found.identity, **vectors}


# Kind: what stands before, the call, and what is read of it.
CASES = {
    "whiten": (None, _whiten, _arrays),
    "whiten again": (partial(_whiten, number=0), _whiten, _arrays),
    "export": (None, _export, _card),
    "export again": (partial(_export, number=0), _export, _card),
    "build": (None, _build, _vectors),
    "build again": (partial(_build, pictures="pictures/0"), _build, _vectors),
    "rebuild": (partial(_build, number=0), lambda *given: _build(*given, "--rebuild"), _vectors),
}


def forked(call, *given):
    """Calls in a process of its own, which must end well."""
    child = os.fork()
    if child == 0:
        ended = call(*given)
        print(getattr(ended, "stderr", ""), end="", file=sys.stderr, flush=True)
        os._exit(getattr(ended, "returncode", 0))
    assert os.waitpid(child, 0)[1] == 0


def names_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def main(kind, folder, moments):
    folder, moments = Path(folder), int(moments)
    before, call, read = CASES[kind]
    forked(prepare, folder)
    standing, out = folder / "standing", folder / "out"
    standing.mkdir()
    if before:
        forked(before, folder, standing)
    shutil.copytree(standing, out)
    old = read(out) if before else {}
    ran = [lines_until(partial(call, folder, out), None, watched) for watched in (WRITING, of_source())]
    assert all(ran)
    new, names = read(out), names_in(out)
    assert old != new
    rng = np.random.default_rng(0)
    chosen = [
        *((WRITING, int(k)) for k in rng.integers(1, ran[0], moments // 2)),
        *((of_source(), int(k)) for k in rng.integers(1, ran[1], moments - moments // 2)),
    ]
    found = Counter()
    for watched, moment in chosen:
        shutil.rmtree(out)
        shutil.copytree(standing, out)
        found["killed"] += lines_until(partial(call, folder, out), moment, watched) is None
        try:
            state = read(out)
        except UserError:
            assert not before, f"{moment}: lost"
            found["nothing yet"] += 1
        else:
            assert state == new or state.items() >= old.items(), f"{moment}: lost"
            found["the new stands" if state == new else "the old stands"] += 1
        forked(call, folder, out)
        assert read(out) == new, f"{moment}: not completed"
        assert names_in(out) == names, f"{moment}: left {set(names_in(out)) ^ set(names)}"
        found["completed"] += 1
    print(json.dumps({"lines": ran, **found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
