"""Writing image files into MindRecord shards that `mindrecord` reads: resumable, and read back at the end."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from ...common.errors import UserError
from ...common.files import write_json
from ...common.lock import FOLDER_LOCK, locked
from ..binary import Split
from ..damage import without_faults
from ..manifest import faults_of
from ..mindrecord import (
    INDEX_NAME,
    MAX_SHARDS,
    SPLIT_NAMES,
    MindRecordImages,
    index_path,
    open_shards,
    read_places,
    select,
    shard_paths,
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
        output_path: the folder for the shards; those that are in place are kept.
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
    faults = faults_of([file for split in splits.values() for file in split.files], root=data_path)
    splits = without_faults(splits, faults, root=data_path, skip=skip)
    with locked(output_path / FOLDER_LOCK):
        write_mindrecord(splits, output_path, root=data_path, shards=shards)
    train, test = splits.values()
    print(
        f"{output_path}: written and read back: {len(train):,} training and {len(test):,} test images of "
        f"{len(train.class_names)} classes; use it with --data_path {output_path}"
    )


def write_mindrecord(splits: dict[Split, ImageFiles], folder: Path, *, root: Path, shards: int) -> None:
    """Writes image files as they are into shards; those that are complete already are kept.

    A shard is written to a folder of its own and renamed, its index last: it must keep its name, which
    MindSpore looks up in it. In the end every image is read back and its length compared, and so are the
    counts of each class; mindrecord.json is the last to be written.

    Args:
        splits: what to write; none is empty.
        folder: exists, and is locked.
        root: what the names of the images are relative to.
        shards: of each split, at most; there are no empty ones.

    Raises:
        UserError: an image or a shard cannot be read or written, or what is read back differs.
    """
    (folder / INDEX_NAME).unlink(missing_ok=True)
    described = {}
    for split, source in splits.items():
        paths = shard_paths(folder, SPLIT_NAMES[split], min(shards, len(source)))
        known = {*paths, *map(index_path, paths)}
        for stray in set(folder.glob(f"{SPLIT_NAMES[split]}.mindrecord[0-9]*")) - known:
            stray.unlink()
        rows = [
            (os.fsencode(os.path.relpath(file, root)).decode(errors="replace"), label, file)
            for file, label in zip(source.files, source.labels.tolist(), strict=True)
        ]
        for number, path in enumerate(tqdm(paths, desc=f"writing {folder}", disable=None)):
            if not _holds(path, rows[number :: len(paths)]):
                _write_shard(path, rows[number :: len(paths)])
        counts = np.bincount(source.labels, minlength=len(source.class_names)).tolist()
        _compare(open_shards(paths, source.class_names, counts), source.files)
        described[SPLIT_NAMES[split]] = {"shards": len(paths), "images_per_class": counts}
    write_json(folder / INDEX_NAME, {"class_names": list(source.class_names), "splits": described})


def _holds(path: Path, rows: list[Row]) -> bool:
    """Whether the shard is complete and of these images; it is read back later."""
    try:
        read_places(path)
        return select(path, "file_name_0, label_0") == [(name, label) for name, label, _ in rows]
    except UserError:
        return False


def _write_shard(path: Path, rows: list[Row]) -> None:
    from mindspore.mindrecord import FileWriter  # takes a second

    unfinished = path.parent / ".unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir()
        writer = FileWriter(str(unfinished / path.name))
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
        index_path(path).unlink(missing_ok=True)
        for target in (path, index_path(path)):
            written = unfinished / target.name
            with written.open("rb") as file:
                os.fsync(file.fileno())
            written.chmod(0o644)
            written.replace(target)
    except (OSError, RuntimeError) as error:  # MindSpore's message has many lines
        lines = str(error).splitlines()
        reason = next((line for line in lines if line.startswith("[ERROR]")), lines[0])
        raise UserError(f"cannot write {path}: {reason.removeprefix('[ERROR] ')}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _compare(images: MindRecordImages, files: Sequence[str]) -> None:
    shown = tqdm(files, desc=f"reading {images.shards.paths[0].parent} back", disable=None)
    for index, file in enumerate(shown):
        if len(images.read_bytes(index)) != os.path.getsize(file):
            path = images.shards.paths[images.places[index, 0]]
            raise UserError(f"{path} holds {file} as it was before; remove this shard and run this again")
