# SPDX-License-Identifier: Apache-2.0
"""The packed file: a program and its card, checked as a whole before a number of it is used.

    8 bytes   MAGIC
    4 bytes   version of the format, 1
    4 bytes   length of the header
    header    JSON in UTF-8, compressed by zlib: {"card": {...}, "channels": 3, "steps": [{"kind", "inputs",
              "output", "numbers", "arrays": {name: {"dtype", "shape"}}}]}; see `program` for what a step has
    arrays    in the order of the header, C-contiguous, each at the next multiple of 8 bytes in the file;
              zeros lie between
    32 bytes  SHA-256 of all before

Numbers are little-endian. `bits` are uint64, other arrays float32; `weight` may be float16.
"""

import hashlib
import json
import math
import os
import stat
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...common.errors import UserError
from .program import KINDS, Program, Step

MAGIC = b"\x89QPACK\r\n"  # a transfer as text, which changes line ends, shows here
VERSION = 1
REAL_TYPES = ("float32", "float16")

_START = struct.Struct("<8sII")
_SEAL = 32
_ALIGNMENT = 8
_LARGEST_FILE = 1 << 31
_LONGEST_HEADER = 1 << 24
_LARGEST_IMAGE = 1 << 12
_LARGEST_PIXEL = 1e6
_DTYPES = {"bits": ("uint64",), "weight": REAL_TYPES}
_FLOAT = ("float32",)


def write_packed(
    path: str | os.PathLike, program: Program, card: Mapping[str, Any], *, real_weights: str = "float32"
) -> None:
    """Writes a file that `read_packed` reads.

    Args:
        path: the file; what is there is overwritten.
        program: what it holds.
        card: JSON values: `class_names`, `preparation` with `image_size`, `mean` and `std`, and what else
            users should know.
        real_weights: one of REAL_TYPES: how the weights of real-valued convolutions and dense layers are
            stored. float16 rounds them to 11 bits; who reads them makes them float32 again.

    Raises:
        UserError: a weight is too large for float16.
        ValueError: card and program do not belong together.
    """
    check_card(card, program)
    described, arrays = [], []
    for step in program.steps:
        stored = {name: _stored(step, name, real_weights) for name in KINDS[step.kind].arrays}
        arrays += stored.values()
        shapes = {name: {"dtype": a.dtype.name, "shape": a.shape} for name, a in stored.items()}
        facts = {"kind": step.kind, "inputs": step.inputs, "output": step.output}
        described.append({**facts, "numbers": dict(step.numbers), "arrays": shapes})
    facts = {"card": card, "channels": program.channels, "steps": described}
    header = zlib.compress(_to_json(facts), 9)
    data = bytearray(_START.pack(MAGIC, VERSION, len(header)) + header)
    for array in arrays:
        data += bytes(-len(data) % _ALIGNMENT)
        data += array.astype(array.dtype.newbyteorder("<")).tobytes()
    Path(path).write_bytes(data + hashlib.sha256(data).digest())


def read_packed(path: str | os.PathLike) -> tuple[Program, dict[str, Any]]:
    """The program and the card of a file.

    Before anything is returned these are checked: the first bytes, the version, the checksum, the length
    against the shapes in the header, and each step's kind, names, shapes and numbers. It takes no more memory
    than the file is long, and its header.

    Raises:
        UserError: it cannot be read, is none, is of another version, or is damaged; the message names it.
    """
    try:
        data = _read(Path(path))
        facts, end = _header(data)
        program = Program(_steps(facts["steps"], data, end), facts["channels"])
        check_card(facts["card"], program)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read: {error.strerror or error}; export the model again"
        ) from error
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{path}: {reason}; copy the file again, or export the model again") from error
    return program, facts["card"]


def check_card(card: Mapping[str, Any], program: Program) -> None:
    """Raises ValueError unless a card says what this program needs: class names, size, mean and deviation."""
    names, how = card.get("class_names"), card.get("preparation")
    named = isinstance(names, list | tuple) and all(isinstance(name, str) and name for name in names)
    if not named or not isinstance(how, dict):
        raise ValueError("its card has no class names or no preparation")
    side = how.get("image_size")
    if type(side) is not int or not 1 <= side <= _LARGEST_IMAGE:
        raise ValueError(f"its card has the image size {side!r}")
    classes = program.shapes(side, side)[program.steps[-1].output][0]
    if len(names) != classes:
        raise ValueError(f"its card has {len(names)} class names, and it gives {classes} logits")
    for key, least in (("mean", -_LARGEST_PIXEL), ("std", 1 / _LARGEST_PIXEL)):
        values = how.get(key)
        real = isinstance(values, list | tuple) and all(type(value) in (int, float) for value in values)
        if (
            not real
            or len(values) != program.channels
            or not all(least <= v <= _LARGEST_PIXEL for v in values)
        ):
            raise ValueError(f"its card has the {key} {values!r}")


def _to_json(facts: Any) -> bytes:
    return json.dumps(facts, ensure_ascii=False, allow_nan=False).encode()


def _stored(step: Step, name: str, real_weights: str) -> np.ndarray:
    array = step.arrays[name]
    if name != "weight" or real_weights == "float32":
        return array
    if np.abs(array).max() > np.finfo(np.float16).max:
        raise UserError(f"real_weights: float16 given, and {step.output} has larger weights; use float32")
    return array.astype(np.float16)


def _read(path: Path) -> np.ndarray:
    """All bytes but the checksum, after it was compared."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait
        raise ValueError("not a file")
    with open(path, "rb") as file:
        start = file.read(_START.size)
        if not start.startswith(MAGIC):
            raise ValueError("not a packed model")
        if not _START.size + _SEAL < status.st_size <= _LARGEST_FILE:
            raise ValueError(f"damaged: it is {status.st_size} bytes long")
        if (version := _START.unpack(start)[1]) != VERSION:
            raise ValueError(f"of format {version}, and this program reads format {VERSION}")
        data = np.empty(status.st_size, np.uint8)
        file.seek(0)
        if file.readinto(data) != len(data):
            raise ValueError("damaged: it became shorter while it was read")
    if hashlib.sha256(data[:-_SEAL]).digest() != data[-_SEAL:].tobytes():
        raise ValueError("damaged: it is not what its checksum was made of")
    return data[:-_SEAL]


def _header(data: np.ndarray) -> tuple[dict[str, Any], int]:
    """The header, with the types that it must have down to the steps, and where it ends."""
    length = _START.unpack(data[: _START.size].tobytes())[2]
    end = _START.size + length
    if end > len(data):
        raise ValueError(f"damaged: a header of {length} bytes")
    inflater = zlib.decompressobj()
    try:
        header = inflater.decompress(data[_START.size : end].tobytes(), _LONGEST_HEADER)
    except zlib.error as error:
        raise ValueError(f"damaged: its header is not compressed by zlib ({error})") from error
    if not inflater.eof or inflater.unused_data:
        raise ValueError("damaged: its header is cut off, or too long")

    facts = json.loads(header.decode())
    if _to_json(facts) != header:  # a key twice, half a character, NaN
        raise ValueError("damaged: its header is not as one is written")
    _check_types(facts, {"card": dict, "channels": int, "steps": list}, "the header")
    return facts, end


def _check_types(facts: Any, types: Mapping[str, type], who: str) -> None:
    if not isinstance(facts, dict) or set(facts) != set(types):
        raise ValueError(f"damaged: {who} has not {', '.join(types)}")
    for key, kind in types.items():
        if type(facts[key]) is not kind:
            raise ValueError(f"damaged: {key} of {who} is {facts[key]!r:.80}")


def _steps(described: list, data: np.ndarray, place: int) -> tuple[Step, ...]:
    """The steps, whose arrays are parts of `data` from `place` on, and are all of it."""
    steps = []
    types = {"kind": str, "inputs": list, "output": str, "numbers": dict, "arrays": dict}
    for facts in described:
        _check_types(facts, types, f"step {len(steps)}")
        if not all(isinstance(name, str) for name in facts["inputs"]):
            raise ValueError(f"damaged: step {len(steps)} has the inputs {facts['inputs']!r:.80}")
        arrays = {}
        for name, form in facts["arrays"].items():
            arrays[name], place = _array(form, f"{name!r:.80} of {facts['output']!r:.80}", name, data, place)
        inputs = tuple(facts["inputs"])
        steps.append(Step(facts["kind"], inputs, facts["output"], facts["numbers"], arrays))
    if place != len(data):
        raise ValueError(f"damaged: {len(data) - place} bytes more than its header describes")
    return tuple(steps)


def _array(form: Any, who: str, name: str, data: np.ndarray, place: int) -> tuple[np.ndarray, int]:
    """One array, float32 if it is real, and where it ends."""
    _check_types(form, {"dtype": str, "shape": list}, who)
    dtype, shape = form["dtype"], form["shape"]
    if dtype not in _DTYPES.get(name, _FLOAT):
        raise ValueError(f"damaged: {who} is of type {dtype:.80}")
    if not all(type(length) is int and 0 < length <= _LARGEST_FILE for length in shape) or len(shape) > 4:
        raise ValueError(f"damaged: {who} is of shape {shape!r:.80}")
    kind = np.dtype(dtype).newbyteorder("<")
    start = place + -place % _ALIGNMENT
    end = start + kind.itemsize * math.prod(shape)
    if end > len(data):
        raise ValueError(f"damaged: {who} lies outside the file")
    if data[place:start].any():
        raise ValueError(f"damaged: the bytes before {who} are not 0")
    array = data[start:end].view(kind).reshape(shape)
    return array.astype(np.uint64 if dtype == "uint64" else np.float32, copy=False), end
