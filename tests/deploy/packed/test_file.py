# SPDX-License-Identifier: Apache-2.0
"""A packed file gives back what was written, or one line that names it."""

import copy
import hashlib
import json
import os
import struct
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from src.common.errors import UserError
from src.deploy.packed import PackedModel
from src.deploy.packed.file import MAGIC, read_packed, write_packed
from src.deploy.packed.program import LOGITS, Program, Step
from tests.helpers.mutations import mutated, outcomes
from tests.helpers.packed import interpret, random_program

START, SEAL = struct.Struct("<8sII"), 32


def sealed(data: bytes) -> bytes:
    return data + hashlib.sha256(data).digest()


def started(header: bytes, *, version: int = 1) -> bytes:
    compressed = zlib.compress(header)
    return START.pack(MAGIC, version, len(compressed)) + compressed


def with_header(whole: bytes, header: bytes) -> bytes:
    """A file of these arrays behind another header, with the checksum of all."""
    end = START.size + START.unpack(whole[: START.size])[2]
    start = started(header)
    return sealed(start + bytes(-len(start) % 8) + whole[end + -end % 8 : -SEAL])


def facts_of(whole: bytes) -> dict:
    return json.loads(zlib.decompress(whole[START.size : START.size + START.unpack(whole[: START.size])[2]]))


def dumped(facts: object) -> bytes:
    return json.dumps(facts, ensure_ascii=False).encode()


def refusal(path) -> str:
    with pytest.raises(UserError) as caught:
        read_packed(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and len(message.splitlines()) == 1
    return message


def same(one: Program, other: Program) -> bool:
    return one.channels == other.channels and all(
        (a.kind, tuple(a.inputs), a.output, a.numbers) == (b.kind, b.inputs, b.output, b.numbers)
        and a.arrays.keys() == b.arrays.keys()
        and all((a.arrays[k] == b.arrays[k]).all() for k in a.arrays)
        for a, b in zip(one.steps, other.steps, strict=True)
    )


def test_what_was_written_is_read(packed_file, program, facts):
    read, read_card = read_packed(packed_file)
    assert read_card == facts and same(read, program)
    for step in read.steps:
        for array in step.arrays.values():
            assert array.flags.aligned and array.flags.writeable


@pytest.mark.parametrize("width", [1, 64, 130])
def test_each_width(tmp_path, facts, width):
    program = random_program(width=width)
    write_packed(tmp_path / "model.packed", program, facts)
    assert same(read_packed(tmp_path / "model.packed")[0], program)


def test_float16_halves_the_weights_and_rounds_them(tmp_path, program, packed_file, facts):
    path = tmp_path / "model.packed"
    write_packed(path, program, facts, real_weights="float16")
    saved = packed_file.stat().st_size - path.stat().st_size
    numbers = sum(step.arrays["weight"].size for step in program.steps if "weight" in step.arrays)
    assert abs(saved - 2 * numbers) < 1000
    for was, now in zip(program.steps, read_packed(path)[0].steps, strict=True):
        for name, array in was.arrays.items():
            expected = array.astype(np.float16).astype(np.float32) if name == "weight" else array
            assert now.arrays[name].dtype == array.dtype and (now.arrays[name] == expected).all()


def test_it_is_hardly_larger_than_its_arrays(tmp_path, program, facts):
    """1,000 names are compressed: they are of a dozen letters each."""
    path = tmp_path / "model.packed"
    program = random_program(classes=1000)
    write_packed(path, program, {**facts, "class_names": [f"n{10000000 + 7919 * k}" for k in range(1000)]})
    arrays = sum(array.nbytes for step in program.steps for array in step.arrays.values())
    assert 0 < path.stat().st_size - arrays < 6000


def test_a_weight_that_float16_has_not(tmp_path, facts):
    steps = list(random_program().steps)
    steps[-1].arrays["weight"][0, 0] = 1e5
    with pytest.raises(UserError, match=r"^real_weights: .*logits has larger weights; use float32"):
        write_packed(tmp_path / "model.packed", Program(tuple(steps)), facts, real_weights="float16")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "not a packed model"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not a packed model"),
        (MAGIC, "damaged"),
        (sealed(started(b"{}", version=2)), "of format 2, and this program reads format 1"),
        (sealed(START.pack(MAGIC, 1, 1 << 31) + b"{}"), "a header of 2147483648 bytes"),
        (sealed(START.pack(MAGIC, 1, 2) + b"{}"), "not compressed by zlib"),
        (sealed(started(bytes(1 << 25))), "cut off, or too long"),
        (sealed(started(b"{}")), "the header has not card, channels, steps"),
        (sealed(started(b"[" * 90000)), "recursion"),
    ],
)
def test_what_is_no_packed_file(tmp_path, data, reason):
    (tmp_path / "model.packed").write_bytes(data)
    assert reason in refusal(tmp_path / "model.packed")


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.packed")
    assert "not a file" in refusal(tmp_path / "pipe.packed")
    assert "No such file" in refusal(tmp_path / "none.packed")


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda f: f["card"]["class_names"].pop(), "4 class names, and it gives 5 logits"),
        (lambda f: f["card"].pop("preparation"), "no preparation"),
        (lambda f: f["card"]["preparation"].update(image_size=2), "nothing is left"),
        (lambda f: f["card"]["preparation"].update(image_size=5000), "image size 5000"),
        (lambda f: f["card"]["preparation"].update(std=[1, 0, 1]), "std"),
        (lambda f: f["steps"][0].update(kind="convolve"), "unknown kind"),
        (lambda f: f["steps"][0].update(inputs=["pooled"]), "convolution of ['pooled']"),
        (lambda f: f["steps"][1].update(output="stem"), "computed twice"),
        (lambda f: f["steps"][3]["numbers"].update(channels=69), "bits behind channel 69 are not 0"),
        (lambda f: f["steps"][3]["numbers"].update(channels=70.0), "channels is 70.0"),
        (lambda f: f["steps"][3]["numbers"].update(padding=3), "a window of 3 with padding 3"),
        (lambda f: f["steps"][0]["numbers"].update(stride=0), "stride is 0"),
        (lambda f: f["steps"][2]["numbers"].update(low=2.0), "from 2.0 to 1.0"),
        (lambda f: f["steps"][0]["arrays"]["weight"]["shape"].reverse(), "arrays for different numbers"),
        (lambda f: f["steps"][0]["arrays"]["bias"].update(dtype="float16"), "of type float16"),
        (lambda f: f["steps"][0]["arrays"]["weight"]["shape"].append(2), "of shape"),
        (lambda f: f["steps"][0]["arrays"]["weight"].update(shape=[70, 3, 7 * 7, 1]), "not square"),
        (lambda f: f["steps"].pop(), "bytes more than its header describes"),
        (lambda f: f.update(channels=1), "takes 3 channels, and gets 1"),
        (lambda f: f["card"].update(model="\x1b[31m\nred"), None),
    ],
)
def test_a_header_that_was_changed_on_purpose(tmp_path, packed_file, change, reason):
    whole = packed_file.read_bytes()
    facts = facts_of(whole)
    change(facts)
    path = tmp_path / "model.packed"
    path.write_bytes(with_header(whole, dumped(facts)))
    if reason is None:
        assert read_packed(path)[1] == facts["card"]
    else:
        assert reason in refusal(path)


@pytest.mark.parametrize(
    "old, new",
    [
        (b'"low": -1.0', b'"low": NaN'),
        (b'"low": -1.0', b'"low": -1e999'),
        (b'"low": -1.0', b'"low": -1.0, "low": -1.0'),
        (b'"tiny"', b'"\\ud800"'),
        (b'"stride": 2', b'"stride": ' + b"2" * 5000),
    ],
)
def test_a_header_that_is_not_as_one_is_written(tmp_path, packed_file, old, new):
    whole = packed_file.read_bytes()
    header = dumped(facts_of(whole))
    assert old in header
    (tmp_path / "model.packed").write_bytes(with_header(whole, header.replace(old, new, 1)))
    refusal(tmp_path / "model.packed")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers(program, value):
    step = program.steps[-1]
    arrays = {**step.arrays, "bias": np.full_like(step.arrays["bias"], value)}
    with pytest.raises(ValueError, match="'logits': bias: holds NaN or infinity"):
        Program((*program.steps[:-1], Step("dense", step.inputs, step.output, {}, arrays)))


@pytest.fixture
def narrow_file(tmp_path, facts) -> Path:
    write_packed(tmp_path / "model.packed", random_program(width=8), facts)
    return tmp_path / "model.packed"


def test_a_thousand_damaged_files_are_refused(narrow_file):
    """Damage that leaves the checksum as it was."""
    assert outcomes([narrow_file], lambda: read_packed(narrow_file)[1], count=1000) == {"refused": 1000}


VALUES = (None, True, -1, 0, 1, 2, 3, 7, 64, 65, 1 << 31, 1 << 63, 10**30, 0.5, -1.0, 1e300, "", "x", [], {})
VALUES += ("images", "logits", "stem", "uint64", "float16", [1], [8, 8, 3, 3], [1 << 40, 1 << 40])


def changed(facts: dict, rng: np.random.Generator) -> None:
    """Changes one value at a random place of the header, puts a key in or takes one out."""
    places = []

    def walk(value: dict | list) -> None:
        keys = value if isinstance(value, dict) else range(len(value))
        for key in keys:
            places.append((value, key))
            if isinstance(value[key], dict | list):
                walk(value[key])

    walk(facts)
    values, key = places[rng.integers(len(places))]
    kind = rng.integers(4)
    if kind == 0 and isinstance(values, list):
        values.insert(key, copy.deepcopy(values[key]))
    elif kind == 1:
        del values[key]
    elif kind == 2 and type(values[key]) in (int, float):
        values[key] += int(rng.integers(-2, 3))
    else:
        values[key] = copy.deepcopy(VALUES[rng.integers(len(VALUES))])


def test_a_thousand_files_changed_on_purpose(narrow_file):
    """With the checksum made again: what is not refused means what can be computed, and the engine does."""
    whole, rng = narrow_file.read_bytes(), np.random.default_rng(0)
    original, outcome = dumped(facts_of(whole)), Counter()
    images = rng.normal(size=(1, 3, 16, 16)).astype(np.float32)
    for number in range(1000):
        if number % 4:
            facts = json.loads(original)
            changed(facts, rng)
            narrow_file.write_bytes(with_header(whole, dumped(facts)))
        else:
            narrow_file.write_bytes(sealed(mutated(whole[:-SEAL], number // 4, other=whole[:-SEAL])[1]))
        try:
            program, card = read_packed(narrow_file)
        except UserError as error:
            assert str(error).startswith(f"{narrow_file}: ") and len(str(error).splitlines()) == 1, number
            outcome["refused"] += 1
            continue
        found = PackedModel(narrow_file, threads=1).logits(images)
        with np.errstate(all="ignore"):
            expected = interpret(program, images)[LOGITS]
        assert found.shape == expected.shape == (1, len(card["class_names"])), number
        if (largest := np.abs(expected).max()) < 1e6:  # else floats overflow on the way, here and there
            np.testing.assert_allclose(found, expected, atol=0.1 * largest, err_msg=str(number))
        outcome["computed"] += 1
    assert outcome["refused"] > 700 and outcome["computed"] > 20, outcome
