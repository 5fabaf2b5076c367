# SPDX-License-Identifier: Apache-2.0
"""MindSpore as a backend: a MINDIR file or a network, ready to run."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mindspore as ms
from google.protobuf.message import DecodeError
from mindspore import nn
from mindspore.train.mind_ir_pb2 import ModelProto, TensorProto

from ..common.errors import UserError, first_line
from ..layers.inference import Embedding, Inference
from .card import ModelCard
from .predict import Opened, Predictor, Run

_TYPES = {TensorProto.FLOAT: "float32", TensorProto.UINT8: "uint8"}


def open_mindir(path: str | os.PathLike) -> Opened:
    """Loads an image classifier exported by `src.deploy.export`; `read_export` has compared its checksum.

    Raises:
        UserError: not a MINDIR, damaged, or not an image classifier of fixed batch size.
    """
    path = Path(path)
    graph = _read_proto(path).graph
    inputs, outputs = _shapes(graph.input), _shapes(graph.output)
    fixed = [len(shape) for shape in inputs + outputs] == [4, 2] and min(inputs[0] + outputs[0]) > 0
    if not fixed or inputs[0][0] != outputs[0][0]:
        raise UserError(
            f"{path}: not an image classifier of fixed batch size (inputs {inputs}, outputs {outputs}); "
            "export again"
        )
    input_type = _TYPES.get(graph.input[0].tensor[0].data_type, "another type")
    return Opened(_as_function(_load_graph(path)), inputs[0], input_type, outputs[0])


def network_predictor(
    network: nn.Cell, card: ModelCard, batch_size: int, *, device: str = "CPU"
) -> Predictor:
    """Uses a network as it is now, float32 (N, 3, S, S) -> (N, K); it stays in evaluation mode."""
    name = type(network).__name__
    run, embed = (_as_function(kind(network), name=name) for kind in (Inference, Embedding))
    return Predictor({batch_size: run}, embeds={batch_size: embed}, card=card, device=device)


def export_graph(
    model: nn.Cell, images: ms.Tensor, path: Path, *, network: nn.Cell, file_format: str = "MINDIR"
) -> None:
    """`ms.export` to a file whose name has its suffix, with one line for what it refuses.

    Args:
        model: what is exported, once; see `Inference`.
        images: its input.
        path: the file.
        network: named in the message.

    Raises:
        UserError: MindSpore cannot export the network.
    """
    level = ms.get_context("jit_syntax_level")
    try:
        with _plain(path) as name:
            ms.export(model, images, file_name=name, file_format=file_format)
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        reason = first_line(error)
        raise UserError(f"MindSpore cannot export {type(network).__name__}: {reason}") from error
    finally:
        ms.set_context(jit_syntax_level=level)  # ms.export leaves it on STRICT when it fails


@contextmanager
def _plain(path: Path) -> Iterator[str]:
    """The file under a name without a space or a letter beyond ASCII: `ms.export` takes no other."""
    usual = tempfile.gettempdir()
    where = usual if re.fullmatch(r"[\w@.:/\\-]+", usual, re.ASCII) else "/tmp"
    with tempfile.TemporaryDirectory(dir=where) as short:
        link = Path(short) / "target"
        link.symlink_to(path.parent.resolve(), target_is_directory=True)
        yield str(link / path.name)


def _read_proto(path: Path) -> ModelProto:
    """Parses the file in Python first: MindSpore's own loader prints a page of errors on a damaged one."""
    model = ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
        ours = model.producer_name == "MindSpore" and len(model.graph.node) > 0
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (DecodeError, UnicodeDecodeError):
        ours = False
    if not ours:
        raise UserError(f"{path}: not a MINDIR file, or a damaged one; export the model again")
    return model


def _shapes(values: list) -> list[tuple[int, ...]]:
    return [tuple(value.tensor[0].dims) if value.tensor else () for value in values]


def _load_graph(path: Path) -> nn.Cell:
    try:
        return nn.GraphCell(ms.load(str(path)))
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{path}: MindSpore cannot load this file; it is damaged, export again") from error


def _as_function(cell: nn.Cell, *, name: str = "the model") -> Run:
    def run(batch):
        output = cell(ms.Tensor(batch))
        if not isinstance(output, ms.Tensor):
            raise UserError(f"{name}: gives {type(output).__name__}, not one tensor of logits")
        return output.astype(ms.float32).asnumpy()

    return run
