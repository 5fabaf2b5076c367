"""Exporting a network to a file that is proven to give the same answers before it takes its place."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn

from src.deploy.card import ModelCard, card_path
from src.deploy.mindir import digest, model_files, parity_path
from src.deploy.parity import compare_logits
from src.deploy.predict import Predictor
from src.model_utils.errors import UserError
from src.model_utils.files import atomic_path, write_json

RANDOM_IMAGES = 8


def export_model(
    network: nn.Cell,
    path: str | os.PathLike,
    *,
    file_format: str,
    card: ModelCard,
    batch_size: int = 1,
    real_images: np.ndarray | None = None,
) -> dict[str, Any]:
    """Exports to the named format; see `export_mindir` and `export_air`.

    Raises:
        UserError: the format is unknown or not yet available, and as the function of the format says.
    """
    name = file_format.upper()
    if name == "MINDIR":
        return export_mindir(network, path, card=card, batch_size=batch_size, real_images=real_images)
    if name == "AIR":
        return export_air(network, path, card=card, batch_size=batch_size)
    if name == "ONNX":
        raise UserError("file_format: ONNX is not yet available; MINDIR is supported")
    raise UserError(f"file_format: {file_format} is unknown; MINDIR is supported, and AIR on Ascend")


def export_mindir(
    network: nn.Cell,
    path: str | os.PathLike,
    *,
    card: ModelCard,
    batch_size: int = 1,
    real_images: np.ndarray | None = None,
) -> dict[str, Any]:
    """Exports to MINDIR, loads the file again and compares it with the network before it takes its place.

    `network` is set to evaluation mode and stays in it. If it has a method `fold`, that computes once what
    inference need not compute again; the file is compared with the network as it was before. The file takes
    batches of exactly `batch_size`: a free batch dimension can be exported, but MindSpore 2.10 then fails at
    run time on CPU for some networks.

    Beside `model.mindir` come `model.json` (the card) and `model.parity.json` (the report). The model takes
    its place in one step, except above 1 GiB: MindSpore then puts the weights into a folder `model_variables`
    beside it, which is replaced just before.

    Args:
        network: float32 (N, 3, S, S) -> logits (N, K).
        path: the file to write; `.mindir` is appended if it is not there.
        card: what is written beside it; gives S and K.
        batch_size: images a call of the exported model.
        real_images: normalised float32 (N, 3, S, S), compared in addition to random ones.

    Returns:
        The report: {"file", "sha256", "bytes", "inputs": {"random", "real"}} and `compare_logits`' keys.

    Raises:
        UserError: MindSpore cannot export the network, the answers differ by more than 1e-5 of the largest
            logit, or nothing can be written. What was at `path` before is then untouched.
    """
    path = _with_suffix(path, ".mindir")
    reference = Predictor.from_network(network, card, batch_size)
    size = card.image_size
    images = [np.random.default_rng(0).standard_normal((RANDOM_IMAGES, 3, size, size), dtype=np.float32)]
    if real_images is not None:
        images.append(real_images)
    expected = np.concatenate([reference.logits(part) for part in images])
    if not np.isfinite(expected).all():
        raise UserError(f"{path}: not written: the network answers with NaN or infinity; train it again")
    with _scratch_folder(path) as scratch:
        written = _write(network, scratch, path, (batch_size, 3, size, size), "MINDIR")
        card.save(card_path(written))
        exported = Predictor.from_mindir(written)
        report = {
            **_describe(path, model_files(written)),
            "inputs": {"random": RANDOM_IMAGES, "real": sum(map(len, images)) - RANDOM_IMAGES},
            **compare_logits(expected, np.concatenate([exported.logits(part) for part in images])),
        }
        if not report["passed"]:
            raise UserError(
                f"{path}: not written: the exported model differs from the network by "
                f"{report['max_difference']:.3g} with logits up to {report['largest_logit']:.3g} "
                f"(limit {report['limit']:g} of that); report this network"
            )
        write_json(parity_path(written), report)
        _replace_variables(scratch, path)
        _move(written, path)
        _move(card_path(written), card_path(path))
        _move(parity_path(written), parity_path(path))
    return report


def export_air(
    network: nn.Cell, path: str | os.PathLike, *, card: ModelCard, batch_size: int = 1
) -> dict[str, Any]:
    """Exports to AIR, the older format for Ascend, with the card beside it.

    MindSpore cannot load an AIR file, so there is no comparison. `.air` is appended to `path` if it is not
    there; `network` stays in evaluation mode.

    Returns:
        {"file", "sha256", "bytes", "inputs": {"random": 0, "real": 0}, "passed": None}.

    Raises:
        UserError: the current device is not an Ascend, MindSpore cannot export the network, or nothing can be
            written.
    """
    target = ms.get_context("device_target")
    if target != "Ascend":
        raise UserError(f"file_format: AIR needs an Ascend device and this is {target}; use MINDIR")
    path = _with_suffix(path, ".air")
    with _scratch_folder(path) as scratch:
        written = _write(network, scratch, path, (batch_size, 3, card.image_size, card.image_size), "AIR")
        report = {**_describe(path, [written]), "inputs": {"random": 0, "real": 0}, "passed": None}
        card.save(card_path(written))
        _move(written, path)
        _move(card_path(written), card_path(path))
    return report


class _Inference(nn.Cell):
    """A new cell around the network for each export.

    MindSpore 2.10 keeps the first graph that it compiled for exporting a cell and writes it again at every
    later export, even if the cell has changed from training to evaluation mode in between.
    """

    def __init__(self, network: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.set_train(False)

    def construct(self, images: ms.Tensor) -> ms.Tensor:
        return self.network(images)


def _write(network: nn.Cell, folder: Path, path: Path, shape: tuple[int, ...], file_format: str) -> Path:
    """Exports into `folder` under a name like that of `path`, and returns the file."""
    written = folder / (_plain_name(path) + path.suffix)
    if hasattr(network, "fold"):
        network.fold()
    for _, cell in network.cells_and_names():
        if hasattr(cell, "on_cpu"):
            cell.on_cpu = False  # the file is for other devices too: no detours that are fast on this one
    level = ms.get_context("jit_syntax_level")
    try:
        # ms.export refuses a path with a space or a letter beyond ASCII in it, but follows links.
        with tempfile.TemporaryDirectory() as plain:
            link = Path(plain) / "target"
            link.symlink_to(folder.resolve(), target_is_directory=True)
            images = ms.Tensor(np.zeros(shape, np.float32))
            ms.export(
                _Inference(network), images, file_name=str(link / written.name), file_format=file_format
            )
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another folder"
        ) from error
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: MindSpore cannot export {type(network).__name__}: {first_line}") from error
    finally:
        ms.set_context(jit_syntax_level=level)  # ms.export leaves it on STRICT when it fails
    split = folder / f"{_plain_name(path)}_graph.mindir"
    if split.exists():
        split.rename(written)
    return written


def _describe(path: Path, files: list[Path]) -> dict[str, Any]:
    return {"file": str(path), "sha256": digest(files), "bytes": sum(file.stat().st_size for file in files)}


def _with_suffix(path: str | os.PathLike, suffix: str) -> Path:
    path = Path(path)
    path = path if path.suffix == suffix else path.with_name(path.name + suffix)
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name the file to write")
    return path


def _plain_name(path: Path) -> str:
    return re.sub(r"[^0-9A-Za-z@_.-]", "_", path.stem)


@contextmanager
def _scratch_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`: on the same file system, so that renaming works."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=path.parent, prefix=".export.")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; choose another folder") from error
    with folder as name:
        yield Path(name)


def _replace_variables(scratch: Path, path: Path) -> None:
    """Moves the folder of weights, which only a split export has, to where the graph looks for it."""
    name = f"{_plain_name(path)}_variables"
    new, target = scratch / name, path.with_name(name)
    if not new.exists():
        return
    if target.exists():
        if not all(re.fullmatch(r"data_\d+", file.name) for file in target.iterdir()):
            raise UserError(
                f"{target}: holds files that no export wrote; move them or export to another name"
            )
        target.rename(scratch / "replaced")
    new.rename(target)
    target.chmod(0o755)
    for file in target.iterdir():
        file.chmod(0o644)


def _move(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        source.replace(temporary)
