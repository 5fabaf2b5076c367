# SPDX-License-Identifier: Apache-2.0
"""A packed program in OpenVINO is the same function: what our engine is compared with."""

import numpy as np
import pytest

from benchmarks.openvino_peer import open_program
from src.deploy.packed.program import LOGITS, Program, Step
from tests.helpers.packed import interpret, random_program


def test_it_is_the_same_function():
    pytest.importorskip("openvino")
    *steps, _ = random_program(width=24).steps[:8]
    steps += [
        Step("clip", ("down",), "clipped again", {"low": 0.0, "high": 1.0, "slope": 0.0}),
        Step("mean", ("clipped again",), "features"),
        Step("affine", ("features",), LOGITS, {}, {n: steps[-1].arrays[n] for n in ("multiply", "add")}),
    ]
    program = Program(tuple(steps))
    images = np.random.default_rng(0).normal(size=(2, 3, 32, 24)).astype(np.float32)
    expected = interpret(program, images)[LOGITS]
    found = open_program(program, batch=2, threads=1)(images)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_what_it_computes_wrongly_is_refused():
    pytest.importorskip("openvino")
    with pytest.raises(ValueError, match="70 channels"):
        open_program(random_program(), batch=1, threads=1)(np.zeros((1, 3, 16, 16), np.float32))
