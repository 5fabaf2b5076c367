"""Opening a MINDIR file: what it says about itself, whether it is whole, and its graph ready to run."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
from google.protobuf.message import DecodeError
from mindspore import nn
from mindspore.train.mind_ir_pb2 import ModelProto

from src.deploy.card import read_json_object
from src.model_utils.errors import UserError


@dataclass(frozen=True)
class Mindir:
    """An opened file: `graph` maps float32 of exactly `input_shape` (N, 3, S, S) to `output_shape` (N, K)."""

    graph: nn.Cell
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]


def parity_path(model_path: str | os.PathLike) -> Path:
    """The parity report that belongs to a model file: `model.mindir` -> `model.parity.json`."""
    return Path(model_path).with_suffix(".parity.json")


def open_mindir(path: str | os.PathLike) -> Mindir:
    """Checks and loads an image classifier exported by `src.deploy.export`.

    MindSpore loads a file with changed weights without complaint, so the file is compared with the SHA-256 of
    the parity report beside it where there is one.

    Raises:
        UserError: missing, not a MINDIR, damaged, changed since its export, or not an image classifier of
            fixed batch size.
    """
    path = Path(path)
    if path.suffix != ".mindir":
        raise UserError(f"{path}: not a .mindir file; export a checkpoint to MINDIR first")
    model = _read_proto(path)
    _check_digest(path)
    inputs, outputs = _shapes(model.graph.input), _shapes(model.graph.output)
    fixed = [len(shape) for shape in inputs + outputs] == [4, 2] and min(inputs[0] + outputs[0]) > 0
    if not fixed or inputs[0][0] != outputs[0][0]:
        raise UserError(
            f"{path}: not an image classifier of fixed batch size (inputs {inputs}, outputs {outputs}); "
            "export again"
        )
    return Mindir(_load_graph(path), inputs[0], outputs[0])


def model_files(path: str | os.PathLike) -> list[Path]:
    """The file itself and those that hold its weights: MindSpore splits a model above 1 GiB."""
    path = Path(path)
    locations = {parameter.external_data.location for parameter in _read_proto(path).graph.parameter}
    return [path, *(path.parent / location for location in sorted(locations - {""}))]


def digest(files: list[Path]) -> str:
    """SHA-256, in hexadecimal, of the contents of `files` one after the other.

    Raises:
        UserError: one of them is missing or cannot be read.
    """
    total = hashlib.sha256()
    for part in files:
        try:
            with part.open("rb") as file:
                while block := file.read(1 << 20):
                    total.update(block)
        except OSError as error:
            raise UserError(f"{part}: part of a model: {error.strerror or error}; export again") from error
    return total.hexdigest()


def _check_digest(path: Path) -> None:
    report = parity_path(path)
    if not report.exists():
        return
    if read_json_object(report, what="parity report").get("sha256") != digest(model_files(path)):
        raise UserError(
            f"{path}: damaged or replaced: not the file that {report.name} describes; export again"
        )


def _read_proto(path: Path) -> ModelProto:
    """Parses the file in Python first: MindSpore's own loader prints a page of errors on a damaged one."""
    model = ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such model file; give the file that the export wrote") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except DecodeError as error:
        raise UserError(f"{path}: not a MINDIR file, or a damaged one; export the model again") from error
    if model.producer_name != "MindSpore" or not model.graph.node:
        raise UserError(f"{path}: not a MINDIR file, or a damaged one; export the model again")
    return model


def _shapes(values: list) -> list[tuple[int, ...]]:
    return [tuple(value.tensor[0].dims) if value.tensor else () for value in values]


def _load_graph(path: Path) -> nn.Cell:
    try:
        return nn.GraphCell(ms.load(str(path)))
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{path}: MindSpore cannot load this file; it is damaged, export again") from error
