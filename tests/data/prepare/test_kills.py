# SPDX-License-Identifier: Apache-2.0
"""A preparation that is killed loses nothing, and the next call completes."""

import shutil

import numpy as np
import pytest
from PIL import Image

from src.common.errors import UserError
from src.data.binary import CIFAR10, ImageSet, write_cifar10
from src.data.prepare.commands import main as prepare
from src.data.prepare.imagenet import DEVKIT_NAME, TRAIN_NAME, VAL_NAME, Release, prepare_imagenet
from src.tools.make_copies import main as make_copies
from tests.data.prepare.tars import pack
from tests.helpers.kills import lines_until, of_source

WATCHED = of_source("common/files.py", "common/lock.py", "common/archive.py", "retrieval/copies.py",
                    "data/binary.py", "data/prepare/")  # fmt: skip
MOMENTS = 20


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def cifar10(root):
    rng = np.random.default_rng(0)
    parts = (
        ImageSet(rng.integers(0, 256, (n, 3, 32, 32), np.uint8), np.arange(n) % 10, CIFAR10.classes)
        for n in (20, 6)
    )
    (root / "in").mkdir()
    write_cifar10(root / "in", *parts)
    pack(root / "a.tar.gz", list(contents(root / "in").items()))
    arguments = ["cifar10", "--archive", str(root / "a.tar.gz"), "--md5", "skip"]
    return lambda out: prepare([*arguments, "--output_path", str(out)])


def shapes(root):
    return lambda out: prepare(
        ["shapes", "--train_images", "3", "--test_images", "2", "--output_path", str(out)]
    )


def pictures(root):
    for name in ("ant", "bee"):
        for k in range(2):
            path = root / "in" / name / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 9), (k, 9, 99)).save(path)
    return root / "in"


def folder(root):
    data = str(pictures(root))
    return lambda out: prepare(["folder", "--data_path", data, "--output_path", str(out)])


def copies(root):
    data = str(pictures(root))
    return lambda out: make_copies([data, str(out / "copies"), "--kinds", "blur", "jpeg"])


def mindrecord(root):
    data = str(pictures(root))
    arguments = ["mindrecord", "--data_path", data, "--shards", "2", "--val_fraction", "0.5"]
    return lambda out: prepare([*arguments, "--output_path", str(out / "record")])


def imagenet(root):
    names = [f"n0000000{k}" for k in range(3)]
    (root / "in").mkdir()
    inner = [(f"{n}.tar", pack(root / "t", [(f"{n}_1.JPEG", n.encode())], "w").read_bytes()) for n in names]
    pack(root / "in" / TRAIN_NAME, inner, "w")
    images = [f"ILSVRC2012_val_0000000{k}.JPEG" for k in range(3)]
    pack(root / "in" / VAL_NAME, [(image, b"x") for image in images], "w")
    labels = root / "labels.txt"
    labels.write_text("".join(f"{image} {name}\n" for image, name in zip(images, names, strict=True)))
    release = Release(dict.fromkeys((TRAIN_NAME, VAL_NAME, DEVKIT_NAME), ""), 3, 3, 1)
    return lambda out: prepare_imagenet(root / "in", out, md5="skip", val_labels=labels, release=release)


@pytest.mark.parametrize(
    "kind", [cifar10, shapes, folder, imagenet, copies, pytest.param(mindrecord, marks=pytest.mark.slow)]
)
def test_killed_at_random_lines(tmp_path, kind, capsys):
    if kind is mindrecord:
        import mindspore.mindrecord  # noqa: F401  once, before the processes are forked
    make = kind(tmp_path)
    whole = tmp_path / "whole"
    lines = lines_until(lambda: make(whole), None, WATCHED)
    expected = contents(whole)
    assert lines > 50 and expected
    rng = np.random.default_rng(0)
    # the first kills are near the end, where things are put in place
    moments = [*(lines - k for k in range(0, 40, 8)), *rng.integers(1, lines, MOMENTS - 5)]
    mine = {"mine.txt": b"1", ".photos.library/x": b"2", ".quartet-tmp-mine/x": b"3", "train.d/x": b"4"}
    killed = 0
    for moment in moments:
        out = tmp_path / "out"
        for name, data in mine.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(data)
        killed += lines_until(lambda out=out: make(out), int(moment), WATCHED) is None
        found = contents(out)
        assert found.items() >= mine.items()
        for top in {name.split("/")[0] for name in expected}:  # whole or absent
            part = {name: data for name, data in found.items() if name.startswith(f"{top}/")}
            assert (
                not part
                or part.items()
                >= {name: data for name, data in expected.items() if name.startswith(f"{top}/")}.items()
            )
        was_complete = found.items() >= expected.items()
        try:
            make(out)
        except UserError as error:
            assert was_complete and "exists already" in str(error)
        assert contents(out) == expected | mine
        shutil.rmtree(out)
    assert killed == MOMENTS
