"""MindSpore as a backend: a MINDIR file or a network, ready to run."""

import os
from pathlib import Path

import mindspore as ms
from google.protobuf.message import DecodeError
from mindspore import nn
from mindspore.train.mind_ir_pb2 import ModelProto, TensorProto

from ..common.errors import UserError
from .card import ModelCard
from .model_set import check_digest
from .predict import Opened, Predictor, Run

_TYPES = {TensorProto.FLOAT: "float32", TensorProto.UINT8: "uint8"}


def open_mindir(path: str | os.PathLike) -> Opened:
    """Checks and loads an image classifier exported by `src.deploy.export`.

    MindSpore loads a file with changed weights without complaint, so the file is compared with the SHA-256 of
    the parity report beside it where there is one.

    Raises:
        UserError: missing, not a MINDIR, damaged, changed since its export, or not an image classifier of
            fixed batch size.
    """
    path = Path(path)
    model = _read_proto(path)
    check_digest(path, model_files(path))
    inputs, outputs = _shapes(model.graph.input), _shapes(model.graph.output)
    fixed = [len(shape) for shape in inputs + outputs] == [4, 2] and min(inputs[0] + outputs[0]) > 0
    if not fixed or inputs[0][0] != outputs[0][0]:
        raise UserError(
            f"{path}: not an image classifier of fixed batch size (inputs {inputs}, outputs {outputs}); "
            "export again"
        )
    input_type = _TYPES.get(model.graph.input[0].tensor[0].data_type, "another type")
    return Opened(_as_function(_load_graph(path)), inputs[0], input_type, outputs[0])


def network_predictor(
    network: nn.Cell, card: ModelCard, batch_size: int, *, device: str = "CPU"
) -> Predictor:
    """Uses a network directly, float32 (N, 3, S, S) -> (N, K), from now on in evaluation mode."""
    network.set_train(False)
    return Predictor({batch_size: _as_function(network)}, card=card, device=device)


def model_files(path: str | os.PathLike) -> list[Path]:
    """The file itself and those that hold its weights: MindSpore splits a model above 1 GiB."""
    path = Path(path)
    locations = {parameter.external_data.location for parameter in _read_proto(path).graph.parameter}
    return [path, *(path.parent / location for location in sorted(locations - {""}))]


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


def _as_function(cell: nn.Cell) -> Run:
    def run(batch):
        output = cell(ms.Tensor(batch))
        if not isinstance(output, ms.Tensor):
            raise UserError(f"{type(cell).__name__}: gives {type(output).__name__}, not one tensor of logits")
        return output.astype(ms.float32).asnumpy()

    return run
