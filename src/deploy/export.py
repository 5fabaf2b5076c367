# SPDX-License-Identifier: Apache-2.0
"""Exporting a network to files that are proven to give the same answers before they take their place."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mindspore as ms
import numpy as np
from mindspore import nn

from ..common.errors import UserError
from ..common.files import checksum, new_folder, write_json
from ..layers.device import use_plain_operators
from ..layers.inference import Inference
from ..layers.pixels import Pixels
from .card import ModelCard
from .exported import CARD, MODEL, REPORT, Exported, is_export
from .formats import FORMATS, Format, find_format
from .mindir import export_graph, network_predictor
from .parity import LIMITS, compare_logits
from .predict import Predictor

if TYPE_CHECKING:
    from .onnx.calibration import Calibration

RANDOM_IMAGES = 8
ROUNDINGS = 4
"""So many times what one rounding of the input does to a network's answers may folding and the file do. A BiT
R101x1 of random weights makes 2e-5 of its largest logit of it."""


def export_model(
    network: nn.Cell,
    folder: str | os.PathLike,
    *,
    card: ModelCard,
    file_format: str = "MINDIR",
    batch_sizes: Sequence[int] | None = None,
    fold: bool = True,
    to_float16: Callable[[nn.Cell], Any] | None = None,
    real_images: np.ndarray | None = None,
    calibration: "Calibration | None" = None,
    accept_difference: bool = False,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Exports, opens each file again and compares it with the network, before all of it takes its place.

    A MINDIR or AIR takes batches of exactly one size: a free batch dimension can be exported, but MindSpore
    2.10 then fails at run time on CPU for some networks. So several sizes are several files, as
    `model_b1.mindir` and `model_b8.mindir`; a single one is `model.mindir`. Other formats take any size, and
    are compared at 1, 3 and more. Beside the files are `card.json` and the report, `parity.json`. Above 1 GiB
    MindSpore puts the weights of a file into a folder `model_variables`.

    The network's `fold`, if it has one, first computes what inference need not compute again. In float32 the
    folded network must answer as the network did (`folding`), and the file as the network of the file's own
    precision does (`file`). A format that cannot be opened here, as AIR, has no `file`.

    Args:
        network: float32 (N, 3, S, S) -> logits (N, K), in float32. It stays folded, in the file's precision
            and in evaluation mode.
        folder: becomes the export; an earlier export there is replaced.
        card: what is written beside the model; gives S and K. With its `input_type` uint8, the file takes
            pixels and holds transposition and normalisation; it is compared on the same images.
        file_format: one of formats.FORMATS, in upper or lower case.
        batch_sizes: images a call, one file each; None for 1, or for any where the format takes any.
        fold: false leaves `fold` out, and the file computes all that evaluation computes.
        to_float16: lowers the precision of a network in place; None for a file in float32.
        real_images: normalised float32 (N, 3, S, S), compared in addition to random ones.
        calibration: an ONNX file becomes int8 by these pictures, after it was compared.
        accept_difference: a difference above the limit is reported, not refused.
        options: of the format; see `formats.Format.options`.

    Returns:
        The report: {"folder", "file_format", "input_type", "compute_type", "inputs": {"random", "real"},
        "bytes", "passed", "folding", "file", "embedding", "top1_agreement", "quantisation", "files"}.
        `folding`, `file` and `embedding` are answers of `compare_logits`, those of the worst file;
        `top1_agreement` {"images", "agree"} counts the real images for which file and float32 network have
        the same largest logit. An int8 file is compared so before it becomes int8; `quantisation` is what
        `quantise_file` says of that. `files` has each file's {"path", "batch_size", "bytes", "file",
        "embedding"}, where the size is None for any. What was not compared is None; so `folding` is None of a
        file that is not folded.

    Raises:
        UserError: the format is unknown, not for this device, or not for these batch sizes or this
            precision, the network cannot be exported or is not for int8, the answers differ by more than the
            limit, or nothing can be written. What was at `folder` before is then untouched.
    """
    kind, device = find_format(file_format), ms.get_context("device_target")
    signs = any(getattr(cell, "input_bits", 32) == 1 for _, cell in network.cells_and_names())
    _check(kind, device, card, float16=bool(to_float16), int8=bool(calibration), signs=signs)
    folder, sizes = Path(folder), kind.batch_sizes(batch_sizes)
    asked, images = _images(card, real_images)
    batches = np.split(asked, [1, 4]) if kind.any_batch else [asked]
    # Elsewhere convolutions of float32 may compute by TF32 or HF32, whose mantissa is that of float16.
    exact = LIMITS["float32" if device == "CPU" else "float16"]
    limit = exact if "mindspore" in kind.backends else max(exact, LIMITS["another runtime"])
    limit = LIMITS["float16"] if to_float16 else limit
    reference = _Reference(network, card, images, batch_size=min(sizes) or RANDOM_IMAGES, signs=signs)
    who = f"{folder}: not written: the network"

    written, entries, same, folding, quantisation = {}, [], [], None, None
    with new_folder(folder, replace=True) as made:
        as_trained = expected = reference.logits(who, "train it again")
        if fold and hasattr(network, "fold"):
            network.fold()
            expected = reference.logits(who, "report this network, whose weights cannot be folded")
            folding = reference.compare(as_trained, expected, exact)
        use_plain_operators(network)  # the file is for other devices too
        if to_float16:
            to_float16(network)
            expected = reference.logits(who, "it needs float32: --amp_level O0")
        for size in sizes:
            name = f"{MODEL}_b{size}" if len(sizes) > 1 else MODEL
            parts = written[size] = _write(network, card, made / name, size, kind, options or {})
            entry = {"path": str(folder / parts[0].name), "batch_size": size or None, "bytes": 0}
            entry |= {"file": None, "embedding": None}
            entries.append(entry)
            if kind.open:
                exported, opened = Exported(folder, card, (parts[0],)), kind.open(parts[0])
                predictor = Predictor.from_files(exported, [opened], backend=kind.backends[0], device=device)
                logits = np.concatenate([predictor.logits(batch) for batch in batches])
                _finite(logits, entry["path"], "report this network")
                entry["file"] = reference.compare(expected, logits, limit)
                same.append((logits.argmax(axis=1) == as_trained.argmax(axis=1))[RANDOM_IMAGES:])
                if predictor.gives_embeddings:
                    embedded = np.concatenate([predictor.embeddings(batch) for batch in batches])
                    entry["embedding"] = reference.compare_embeddings(embedded, limit)
        if calibration:  # of the one file that such a format has
            from .onnx.calibration import quantise_file

            quantisation = quantise_file(parts, predictor, calibration)
            written[size] = parts[:1]
        for entry, parts in zip(entries, written.values(), strict=True):
            entry["bytes"] = sum(map(_finish, parts))
        report = {
            "folder": str(folder),
            "file_format": kind.name,
            "input_type": card.input_type,
            "compute_type": "int8" if calibration else "float16" if to_float16 else "float32",
            "inputs": {"random": RANDOM_IMAGES, "real": len(images) - RANDOM_IMAGES},
            **_summary(entries, folding, same, quantisation),
        }
        if report["passed"] is False and not accept_difference:
            _refuse(report)
        files = {
            size: {str(part.relative_to(made)): checksum(part) for part in parts}
            for size, parts in written.items()
        }
        card.model_copy(update={"files": files}).save(made / CARD)
        write_json(made / REPORT, report)
    return report


def output_folder(
    file_name: str | None,
    *,
    checkpoint: Path,
    card: ModelCard,
    file_format: str,
    batch_sizes: Sequence[int] | None = None,
    fold: bool = True,
    options: Mapping[str, Any] | None = None,
    calibration: "Calibration | None" = None,
) -> Path:
    """Where an export goes: the folder that is named, or one of a name of its own in an existing folder.

    Its own name holds what tells exports of a model apart: format, types unless float32, batch sizes unless
    1, that it is not folded, and that it is int8. Without `file_name` it goes into the folder of the
    checkpoint's run, or of the checkpoint where that lies in none. The suffix of a model file, as in
    OUT.mindir, is left out: the export is the folder OUT, with the file in it.
    """
    words = [card.model, file_format.lower()]
    words += [] if card.input_type == "float32" else [card.input_type]
    words += [] if list(batch_sizes or [1]) == [1] else [f"b{size}" for size in batch_sizes]
    words += [] if fold else ["unfolded"]
    words += [str(option) for option in (options or {}).values() if option != "float32"]
    words += ["int8"] if calibration else []
    own = "_".join(words)
    if file_name is None:
        folder = checkpoint.resolve().parent
        return (folder.parent if folder.name == "checkpoints" else folder) / own
    path = Path(file_name)
    if is_export(path):
        return path
    if file_name.endswith("/") or path.is_dir():
        return path / own
    return path.with_suffix("") if path.suffix in {f.suffix for f in FORMATS.values()} else path


@dataclass(frozen=True)
class _Reference:
    """The network as it is now, by which a file is judged.

    Attributes:
        network, card: as `export_model` takes them.
        images: normalised, (N, 3, S, S).
        batch_size: of a call.
        signs: as `compare_logits` takes it.
    """

    network: nn.Cell
    card: ModelCard
    images: np.ndarray
    batch_size: int
    signs: bool

    def logits(self, who: str, mend: str) -> np.ndarray:
        """Of the images. Raises UserError, which says who and mend, unless all are numbers."""
        return _finite(self._predictor.logits(self.images), who, mend)

    def compare(
        self, expected: np.ndarray, found: np.ndarray, limit: float, ask: Callable = Predictor.logits
    ) -> dict[str, Any]:
        """By the limit, or, of a network that amplifies roundings by more, by ROUNDINGS."""
        compared = compare_logits(expected, found, limit=limit, signs=self.signs)
        if not compared["passed"]:
            up = np.nextafter(self.images, np.float32(np.inf))
            own, moved = (ask(self._predictor, images) for images in (self.images, up))
            limit = max(limit, ROUNDINGS * compare_logits(own, moved)["relative_difference"])
            compared = compare_logits(expected, found, limit=limit, signs=self.signs)
        return compared

    def compare_embeddings(self, found: np.ndarray, limit: float) -> dict[str, Any]:
        expected = self._predictor.embeddings(self.images)
        return self.compare(expected, found, limit, Predictor.embeddings)

    @property
    def _predictor(self) -> Predictor:
        """A new one, for the network may have changed since."""
        plain = self.card.model_copy(update={"input_type": "float32"})
        return network_predictor(self.network, plain, self.batch_size)


def _finite(logits: np.ndarray, who: str, mend: str) -> np.ndarray:
    if not np.isfinite(logits).all():
        raise UserError(f"{who} answers with NaN or infinity; {mend}")
    return logits


def _check(kind: Format, device: str, card: ModelCard, *, float16: bool, int8: bool, signs: bool) -> None:
    """Raises UserError where the format is not for this device or network, or not in this type."""
    if kind.device not in (None, device):
        raise UserError(
            f"file_format: {kind.name} needs an {kind.device} device and this is {device}; use MINDIR"
        )
    if float16 and not kind.float16:
        raise UserError(f"file_format: {kind.name} computes in float32; give --amp_level O0")
    if int8 and not kind.int8:
        raise UserError(f"quantise: {kind.name} is written in floating point alone; use --file_format ONNX")
    if int8 and signs:
        raise UserError(
            f"quantise: {card.model} is a 1-bit network: its convolutions take signs, which int8 would store "
            "in 8 bits and multiply no faster; use --file_format PACKED"
        )
    if int8 and float16:
        raise UserError("quantise: int8 is made of a float32 network; give --amp_level O0")


def _images(card: ModelCard, real_images: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Random images and real ones behind them: as the file takes them, and as the network does."""
    rng, side = np.random.default_rng(0), card.preparation.image_size
    if real_images is not None and real_images.shape[1:] != (3, side, side):
        raise UserError(f"images of shape {real_images.shape}: {card.model} takes (N, 3, {side}, {side})")
    if card.input_type == "float32":
        parts = [rng.standard_normal((RANDOM_IMAGES, 3, side, side), dtype=np.float32)]
        parts += [] if real_images is None else [real_images]
        images = np.concatenate(parts)
        return images, images
    parts = [rng.integers(0, 256, (RANDOM_IMAGES, side, side, 3)).astype(np.uint8)]
    if real_images is not None:  # what was bytes before it was normalised is bytes again
        how = card.preparation
        pixels = np.rint(np.moveaxis(real_images, 1, -1) * np.float32(how.std) + np.float32(how.mean))
        parts.append(pixels.clip(0, 255).astype(np.uint8))
    pixels = np.concatenate(parts)
    return pixels, np.stack([card.preparation.normalise(one) for one in pixels])


def _write(
    network: nn.Cell, card: ModelCard, path: Path, size: int, kind: Format, options: Mapping[str, Any]
) -> list[Path]:
    """Exports to `path` without its suffix; returns the model, and behind it the files of its weights."""
    written = path.with_name(path.name + kind.suffix)
    write = kind.write or partial(_export, size=size, file_format=kind.name)
    return write(network, card, written, **options)


def _finish(part: Path) -> int:
    """A file that all may read, as what a user writes, and that is on the disk; returns its size."""
    part.chmod(0o644)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    return part.stat().st_size


def _export(network: nn.Cell, card: ModelCard, path: Path, *, size: int, file_format: str) -> list[Path]:
    """By `ms.export`, for one batch size."""
    model = Inference(network, Pixels(card.preparation.mean, card.preparation.std))  # leaves float32 as it is
    images = ms.Tensor(np.zeros((size, *card.image_shape), card.image_dtype))
    export_graph(model, images, path, network=network, file_format=file_format)
    split, weights = (path.with_name(f"{path.stem}_{end}") for end in ("graph.mindir", "variables"))
    if split.exists():
        split.rename(path)
        weights.chmod(0o755)
    return [path, *sorted(weights.glob("*"))]


def _summary(
    entries: list[dict[str, Any]],
    folding: dict[str, Any] | None,
    same: list[np.ndarray],
    quantisation: dict[str, Any] | None,
) -> dict[str, Any]:
    """What all files say together. `same`: of each, for which real images the largest class is the same."""
    worst = {
        what: min(
            filter(None, (entry[what] for entry in entries)),
            key=lambda one: (one["passed"], -one["relative_difference"]),
            default=None,
        )
        for what in ("file", "embedding")
    }
    passed = all(one["passed"] for one in (folding, *worst.values(), quantisation) if one)
    images = same[0].size if same else 0
    return {
        "bytes": sum(entry["bytes"] for entry in entries),
        "passed": None if passed and not worst["file"] else passed,
        "folding": folding,
        **worst,
        "top1_agreement": {"images": images, "agree": int(np.all(same, axis=0).sum())} if images else None,
        "quantisation": quantisation,
        "files": entries,
    }


def _refuse(report: dict[str, Any]) -> None:
    what = {
        "folding": "the folded network differs from the network",
        "file": "the file differs from the network",
        "embedding": "the file's embedding differs from the network's",
    }
    failed = next((name for name in what if report[name] and not report[name]["passed"]), "quantisation")
    if failed == "quantisation":
        compared = report[failed]["compared"]
        raise UserError(
            f"{report['folder']}: not written: int8 has the class of float32 for {compared['agree']} of "
            f"{compared['images']} pictures, below {compared['limit']:.0%}; calibrate on pictures like those "
            "that it is for, or write it all the same with --accept_difference"
        )
    one, unit = report[failed], "value" if failed == "embedding" else "logit"
    agree = report["top1_agreement"]
    top1 = f", the same class for {agree['agree']} of {agree['images']} test images" if agree else ""
    raise UserError(
        f"{report['folder']}: not written: {what[failed]} by {one['relative_difference']:.3g} of its largest "
        f"{unit} (limit {one['limit']:g}){top1}; report this network, or write it all the same with "
        "--accept_difference"
    )
