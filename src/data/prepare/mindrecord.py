# SPDX-License-Identifier: Apache-2.0
"""Writing image files into MindRecord shards that `mindrecord` reads: resumable, and read back at the end."""

import hashlib
import os
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from ...common.errors import UserError
from ...common.files import LOCK, unfinished_folder
from ...common.lock import locked
from ..binary import Split
from ..damage import without_faults
from ..manifest import faults_of
from ..mindrecord import (
    INDEX_NAME,
    MAX_SHARDS,
    SPLIT_NAMES,
    index_path,
    open_mindrecord,
    read_places,
    shard_paths,
    write_index,
)
from ..sources import SPLITS, ImageFiles, open_splits

_SCHEMA = {"file_name": {"type": "string"}, "label": {"type": "int32"}, "data": {"type": "bytes"}}
_CHUNK = 64  # images that are handed to the writer at once

Row = tuple[str, int, str]  # name in the shard, label, image file


def prepare_mindrecord(
    data_path: Path,
    output_path: Path,
    *,
    shards: int = 16,
    val_fraction: float = 0.1,
    seed: int = 0,
    damaged_images: Literal["fail", "skip"] = "fail",
) -> None:
    """Writes both splits of a folder of class folders into MindRecord shards.

    Args:
        data_path: see `open_splits`; so are `val_fraction` and `seed`. Each file is looked at first.
        output_path: the folder to make; one that is complete is compared with the images.
        shards: of each split, at most.
        damaged_images: refuse a folder with damaged files, or leave them out and name them in the log.

    Raises:
        UserError: the data set is not complete, for the reason it gives.
    """
    if seed < 0 or not 0 < val_fraction < 1 or not 1 <= shards <= MAX_SHARDS:
        raise UserError(
            f"--seed must be 0 or above, --val_fraction between 0 and 1, --shards 1 to {MAX_SHARDS}"
        )
    skip = damaged_images == "skip"
    how = {"dataset": "folder", "val_fraction": val_fraction, "seed": seed, "skip_unreadable": skip}
    splits = dict(zip(SPLITS, open_splits(data_path, **how), strict=True))
    print(*splits["train"].words, sep="\n")
    faults = faults_of([file for split in splits.values() for file in split.files], root=data_path)
    splits = without_faults(splits, faults, root=data_path, skip=skip)
    target = Path(os.path.abspath(output_path))
    with locked(target.with_name(f"{LOCK}-{target.name}")):
        if (target / INDEX_NAME).exists():
            done = "already in place, checked"
            _compare(splits, target, root=data_path)
        else:
            done = "written and read back"
            write_mindrecord(splits, target, root=data_path, shards=shards)
    train, test = splits.values()
    print(
        f"{output_path}: {done}: {len(train):,} training and {len(test):,} test images of "
        f"{len(train.class_names)} classes; use it with --data_path {output_path}"
    )


def _compare(splits: dict[Split, ImageFiles], target: Path, *, root: Path) -> None:
    """Raises UserError where the shards in place are damaged or hold other images than these."""
    for split, source in splits.items():
        there = open_mindrecord(target, split)
        same = (there.class_names, there.labels.tolist()) == (source.class_names, source.labels.tolist())
        for index, file in enumerate(source.files if same else ()):
            same = same and there.read_bytes(index) == Path(file).read_bytes()
        if not same:
            raise UserError(
                f"{target} holds other images than {root}; remove it, or choose another --output_path"
            )


def write_mindrecord(splits: dict[Split, ImageFiles], target: Path, *, root: Path, shards: int) -> None:
    """Writes image files as they are into shards of the new folder `target`; a stopped call is gone on with.

    Each image is read back from its shard and compared; mindrecord.json is the last to be written.

    Args:
        splits: what to write; none is empty.
        target: to be made; an empty folder is taken.
        root: what the names of the images are relative to.
        shards: of each split, at most; there are no empty ones.

    Raises:
        UserError: an image or a shard cannot be read or written, or what is read back differs.
    """
    rows = {
        SPLIT_NAMES[split]: [
            (os.fsencode(os.path.relpath(file, root)).decode(errors="replace"), label, file)
            for file, label in zip(source.files, source.labels.tolist(), strict=True)
        ]
        for split, source in splits.items()
    }
    with unfinished_folder(target, _source_of(rows, shards)) as unfinished:
        for name, own in rows.items():
            paths = shard_paths(unfinished.folder, name, min(shards, len(own)))
            for number, path in enumerate(tqdm(paths, desc=f"writing {target}", disable=None)):
                if path.name not in unfinished.done:
                    _write_shard(path, own[number :: len(paths)])
                    unfinished.finish(path.name)
        labels = {SPLIT_NAMES[split]: source.labels for split, source in splits.items()}
        write_index(unfinished.folder, splits["train"].class_names, labels)


def _source_of(rows: dict[str, list[Row]], shards: int) -> str:
    """A line that changes with the images: their names, labels and lengths."""
    total = hashlib.sha256(str(shards).encode())
    for name, own in rows.items():
        for image, label, file in own:
            total.update(f"{name} {image} {label} {os.path.getsize(file)}\n".encode())
    return total.hexdigest()


def _write_shard(path: Path, rows: list[Row]) -> None:
    """A shard must keep the name that it is written under, which MindSpore looks up in it."""
    from mindspore.mindrecord import FileWriter  # takes a second

    for leftover in (path, index_path(path)):
        leftover.unlink(missing_ok=True)
    try:
        writer = FileWriter(str(path))
        writer.add_schema(_SCHEMA, "compressed images")
        writer.add_index(["file_name", "label"])
        for start in range(0, len(rows), _CHUNK):
            writer.write_raw_data(
                [
                    {"file_name": name, "label": label, "data": Path(file).read_bytes()}
                    for name, label, file in rows[start : start + _CHUNK]
                ]
            )
        writer.commit()
        places = read_places(path)
        with path.open("rb") as shard:
            for (label, start, length), (_, known, file) in zip(places.tolist(), rows, strict=True):
                shard.seek(start)
                if label != known or shard.read(length) != Path(file).read_bytes():
                    raise UserError(f"{path} does not give back {file}; did it change? Run this again")
        for written in (path, index_path(path)):
            written.chmod(0o644)
    except (OSError, RuntimeError) as error:  # MindSpore's message has many lines
        lines = str(error).splitlines()
        reason = next((line for line in lines if line.startswith("[ERROR]")), lines[0])
        raise UserError(f"cannot write {path}: {reason.removeprefix('[ERROR] ')}") from error
