"""Exporting a network to files that are proven to give the same answers before they take their place."""

import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn

from ..common.errors import UserError
from ..common.files import write_json
from ..layers.device import use_plain_operators
from ..layers.pixels import Pixels
from .card import ModelCard
from .formats import Format, find_format
from .mindir import network_predictor
from .model_set import ModelSet, digest, file_of_size, parity_path
from .parity import compare_logits
from .placing import place, scratch_folder
from .predict import Predictor

RANDOM_IMAGES = 8


def export_model(
    network: nn.Cell,
    path: str | os.PathLike,
    *,
    file_format: str = "MINDIR",
    card: ModelCard,
    batch_sizes: Sequence[int] = (1,),
    real_images: np.ndarray | None = None,
) -> dict[str, Any]:
    """Exports, opens each file again and compares it with the network before it takes its place.

    `network` is set to evaluation mode and stays in it. If it has a method `fold`, that computes once what
    inference need not compute again; the file is compared with the network as it was before. A file takes
    batches of exactly one size: a free batch dimension can be exported, but MindSpore 2.10 then fails at run
    time on CPU for some networks. So several sizes are several files, `model_b1.mindir`, `model_b8.mindir`;
    a single one is `model.mindir`.

    Beside them come `model.json` (the card) and `model.parity.json` (the report), and all of these take their
    place or none. Above 1 GiB MindSpore puts the weights of a file into a folder `model_variables` beside it.
    A format that cannot be opened here, as AIR, is not compared and has no report.

    Args:
        network: float32 (N, 3, S, S) -> logits (N, K).
        path: the file to write; the format's suffix is appended if it is not there.
        file_format: one of formats.FORMATS, in upper or lower case.
        card: what is written beside it; gives S and K. With its `input_type` uint8, the file takes pixels and
            holds transposition and normalisation; it is compared with the network on normalised images.
        batch_sizes: images a call, one file each.
        real_images: normalised float32 (N, 3, S, S), compared in addition to random ones.

    Returns:
        The report: {"file", "batch_size", "sha256", "bytes", "input_type", "inputs": {"random", "real"}} and
        `compare_logits`' keys, of which "passed" alone, None, is there without a comparison. Of several
        files, "file" is the card, the comparison that of the worst, and "files" a list with that of each.

    Raises:
        UserError: the format is unknown or not for this device, MindSpore cannot export the network, the
            answers differ by more than 1e-5 of the largest logit, or nothing can be written. What was at
            `path` before is then untouched.
    """
    kind = find_format(file_format)
    device = ms.get_context("device_target")
    if kind.device not in (None, device):
        raise UserError(
            f"file_format: {kind.name} needs an {kind.device} device and this is {device}; use MINDIR"
        )
    path, sizes = _with_suffix(path, kind.suffix), _checked(batch_sizes)
    images = None
    checks: dict[str, Any] = {"inputs": {"random": 0, "real": 0}}
    if kind.open:
        images, expected = _answers(network, card, min(sizes), real_images, path)
        checks = {"inputs": {"random": RANDOM_IMAGES, "real": len(images) - RANDOM_IMAGES}}
    _prepare(network)
    with scratch_folder(path) as scratch:
        moves: dict[Path, Path] = {}
        reports = []
        for size, target in _targets(path, sizes).items():
            written = _write(network, card, scratch, target, size, kind)
            report = {**_describe(target, size, kind.parts(written)), "passed": None}
            if images is not None:
                alone = ModelSet(card, path.with_suffix(".json"), (written,))
                exported = Predictor.from_files(alone, [kind.open(written)], backend="mindspore", device="")
                report |= compare_logits(expected, exported.logits(images))
                _check_parity(report)
            reports.append(report)
            moves |= _moves(written, target)
        report = _summary(reports, path, card, checks)
        _place_all(moves, path, _named(card, path, sizes), report, scratch, with_parity=bool(kind.open))
    return report


def output_path(file_name: str | None, *, checkpoint: Path, model: str) -> Path:
    """Where an export goes: the file that is named, or `model` in the folder that is named.

    Without a name it is the folder of the checkpoint's run, or of the checkpoint where that lies in none.
    """
    if file_name is None:
        folder = checkpoint.resolve().parent
        return (folder.parent if folder.name == "checkpoints" else folder) / model
    path = Path(file_name)
    return path / model if file_name.endswith("/") or path.is_dir() else path


def _check_parity(report: dict[str, Any]) -> None:
    if not report["passed"]:
        raise UserError(
            f"{report['file']}: not written: the exported model differs from the network by "
            f"{report['max_difference']:.3g} with logits up to {report['largest_logit']:.3g} "
            f"(limit {report['limit']:g} of that); report this network"
        )


class _Inference(nn.Cell):
    """A new cell around the network for each export.

    MindSpore 2.10 keeps the first graph that it compiled for exporting a cell and writes it again at every
    later export, even if the cell has changed from training to evaluation mode in between.
    """

    def __init__(self, network: nn.Cell, card: ModelCard) -> None:
        super().__init__(auto_prefix=False)
        self.inputs = Pixels(card.mean, card.std)  # leaves float32 as it is
        self.network = network
        self.set_train(False)

    def construct(self, images: ms.Tensor) -> ms.Tensor:
        return self.network(self.inputs(images))


def _checked(batch_sizes: Sequence[int]) -> list[int]:
    sizes = sorted({*batch_sizes})
    if not sizes or sizes[0] < 1:
        raise UserError(f"export_batch_size: {sizes[0] if sizes else 0} is not a batch; give 1 or more")
    return sizes


def _targets(path: Path, sizes: list[int]) -> dict[int, Path]:
    return {sizes[0]: path} if len(sizes) == 1 else {size: file_of_size(path, size) for size in sizes}


def _named(card: ModelCard, path: Path, sizes: list[int]) -> ModelCard:
    """The card with the names of several files."""
    files = {size: file.name for size, file in _targets(path, sizes).items()} if len(sizes) > 1 else {}
    return replace(card, files=files)


def _normalised(pixels: np.ndarray, card: ModelCard) -> np.ndarray:
    """(N, S, S, 3) uint8 -> (N, 3, S, S) float32."""
    return np.stack([card.preparation.normalise(picture) for picture in pixels])


def _answers(
    network: nn.Cell, card: ModelCard, batch_size: int, real_images: np.ndarray | None, path: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Random and real images as the file takes them, and the network's logits (N, K) for them."""
    rng, square = np.random.default_rng(0), (card.image_size, card.image_size)
    reference = network_predictor(network, replace(card, input_type="float32"), batch_size)
    if card.input_type == "uint8":
        parts = [rng.integers(0, 256, (RANDOM_IMAGES, *square, 3)).astype(np.uint8)]
        if real_images is not None:  # what was bytes before it was normalised is bytes again
            pixels = np.rint(np.moveaxis(real_images, 1, -1) * np.float32(card.std) + np.float32(card.mean))
            parts.append(pixels.clip(0, 255).astype(np.uint8))
        expected = np.concatenate([reference.logits(_normalised(part, card)) for part in parts])
    else:
        parts = [rng.standard_normal((RANDOM_IMAGES, 3, *square), dtype=np.float32)]
        parts += [] if real_images is None else [real_images]
        expected = np.concatenate([reference.logits(part) for part in parts])
    if not np.isfinite(expected).all():
        raise UserError(f"{path}: not written: the network answers with NaN or infinity; train it again")
    return np.concatenate(parts), expected


def _prepare(network: nn.Cell) -> None:
    """For all files that follow, after the network was asked for its answers."""
    if hasattr(network, "fold"):
        network.fold()
    use_plain_operators(network)  # the file is for other devices too


def _write(
    network: nn.Cell, card: ModelCard, folder: Path, target: Path, batch_size: int, kind: Format
) -> Path:
    """Exports into `folder` under a name like that of `target`, and returns the file."""
    written = folder / (_plain_name(target) + target.suffix)
    level = ms.get_context("jit_syntax_level")
    try:
        # ms.export refuses a path with a space or a letter beyond ASCII in it, but follows links.
        with tempfile.TemporaryDirectory() as plain:
            link = Path(plain) / "target"
            link.symlink_to(folder.resolve(), target_is_directory=True)
            images = ms.Tensor(np.zeros((batch_size, *card.image_shape), card.image_dtype))
            name = str(link / written.name)
            if kind.write:
                kind.write(_Inference(network, card), images, name)
            else:
                ms.export(_Inference(network, card), images, file_name=name, file_format=kind.name)
    except OSError as error:
        raise UserError(
            f"cannot write {target}: {error.strerror or error}; free space or choose another folder"
        ) from error
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{target}: MindSpore cannot export {type(network).__name__}: {reason}") from error
    finally:
        ms.set_context(jit_syntax_level=level)  # ms.export leaves it on STRICT when it fails
    split = folder / f"{_plain_name(target)}_graph.mindir"
    if split.exists():
        split.rename(written)
    return written


def _moves(written: Path, target: Path) -> dict[Path, Path]:
    """Where a file goes; before it the folder of its weights, which only a split export has."""
    name = f"{written.stem}_variables"
    weights = {written.with_name(name): target.with_name(name)} if written.with_name(name).exists() else {}
    return {**weights, written: target}


def _place_all(
    moves: dict[Path, Path],
    path: Path,
    card: ModelCard,
    report: dict[str, Any],
    scratch: Path,
    *,
    with_parity: bool,
) -> None:
    """The models, then the card and the report of the comparison."""
    notes = {scratch / "card.json": path.with_suffix(".json")}
    card.save(scratch / "card.json")
    if with_parity:
        notes[scratch / "parity.json"] = parity_path(path)
        write_json(scratch / "parity.json", report)
    place({**moves, **notes}, scratch=scratch)


def _describe(target: Path, batch_size: int, files: list[Path]) -> dict[str, Any]:
    """`files` are still where they were written: the model, and the files that hold its weights."""
    described = {
        "file": str(target),
        "batch_size": batch_size,
        "sha256": digest(files),
        "bytes": sum(file.stat().st_size for file in files),
    }
    weights = [str(file.relative_to(files[0].parent)) for file in files[1:]]
    return {**described, "weights": weights} if weights else described


def _summary(
    reports: list[dict[str, Any]], path: Path, card: ModelCard, checks: dict[str, Any]
) -> dict[str, Any]:
    checks = {"input_type": card.input_type, **checks}
    if len(reports) == 1:
        return {**reports[0], **checks}
    worst = max(reports, key=lambda report: report.get("relative_difference", 0))
    of_a_file = ("file", "batch_size", "sha256", "bytes", "weights")
    return {
        "file": str(path.with_suffix(".json")),
        "bytes": sum(report["bytes"] for report in reports),
        **{key: value for key, value in worst.items() if key not in of_a_file},
        **checks,
        "files": reports,
    }


def _with_suffix(path: str | os.PathLike, suffix: str) -> Path:
    path = Path(path)
    path = path if path.suffix == suffix else path.with_name(path.name + suffix)
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name the file to write")
    return path


def _plain_name(path: Path) -> str:
    return re.sub(r"[^0-9A-Za-z@_.-]", "_", path.stem)
