# SPDX-License-Identifier: Apache-2.0
"""The engine gives what the slow interpreter gives, whatever the sizes, the batch and the threads."""

import ctypes
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import llvmlite.binding as llvm
import numpy as np
import pytest

from src.common.errors import UserError
from src.deploy.packed import native as compiled
from src.deploy.packed.engine import Engine
from src.deploy.packed.kernels import TILES
from src.deploy.packed.layers import Convolution, Value
from src.deploy.packed.layout import Buffer, Layout, filled_up
from src.deploy.packed.program import IMAGES, LOGITS, Program, Step
from tests.helpers.packed import binary_sums, interpret, pack, random_program


@pytest.fixture(scope="module")
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.fixture(scope="module")
def images(rng) -> np.ndarray:
    return rng.normal(size=(32, 3, 23, 29)).astype(np.float32)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(random_program(), threads=2)


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    return found.shape == expected.shape and np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def binary_step(rng, channels: int, outputs: int, size: int, stride: int, padding: int) -> Step:
    arrays = {
        "bits": pack(rng.choice([-1, 1], (outputs, channels, size, size))),
        "multiply": np.ones(outputs, np.float32),
        "add": np.zeros(outputs, np.float32),
    }
    numbers = {"channels": channels, "stride": stride, "padding": padding}
    return Step("binary_convolution", ("x",), "y", numbers, arrays)


def signs_of(x: np.ndarray, border: int) -> Buffer:
    """The bits of (N, C, H, W) in the engine's layout."""
    images, channels, height, width = x.shape
    buffer = Layout(True, images, height, width, filled_up(channels), border).new()
    ones = np.zeros((*buffer.array.shape[:3], 16 * buffer.array.shape[3]), bool)
    ones[:, border : border + height, border : border + width, :channels] = x.transpose(0, 2, 3, 1) >= 0
    return replace(buffer, array=np.packbits(ones, axis=-1, bitorder="little").view(np.uint16))


def run_step(step: Step, x: np.ndarray, native: compiled.Native, border: int) -> Value:
    """What a binary convolution writes: numbers and signs, in a border of 1."""
    images, channels, height, width = x.shape
    source = Value(channels, height, width, images, bits=signs_of(x, border))
    height, width = binary_sums(step, x).shape[2:]
    outputs = len(step.arrays["bits"])
    values, bits = (Layout(s, images, height, width, filled_up(outputs), 1).new() for s in (False, True))
    output = Value(outputs, height, width, images, values=values, bits=bits)
    call = Convolution(step, narrow=False, tiles=native.tiles).call(output, source)
    kernel = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    kernel(native.addresses[call.kernel])(call.table().ctypes.data, 0, call.items)
    return output


@pytest.mark.parametrize(
    "channels, outputs, size, stride, padding, shape",
    [
        (16, 16, 3, 1, 1, (1, 7, 7)),
        (48, 64, 3, 2, 1, (3, 9, 11)),
        (64, 96, 1, 1, 0, (1, 5, 5)),
        (96, 320, 3, 1, 1, (2, 4, 6)),
        (320, 48, 1, 2, 0, (1, 5, 29)),
        (70, 5, 5, 3, 4, (2, 6, 1)),
        (1, 33, 3, 2, 2, (32, 3, 2)),
    ],
)
def test_binary_sums_are_exact(rng, channels, outputs, size, stride, padding, shape):
    step = binary_step(rng, channels, outputs, size, stride, padding)
    x = rng.normal(size=(shape[0], channels, *shape[1:])).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = 0
    sums = binary_sums(step, x)
    output = run_step(step, x, compiled.native(), border=padding + 1)
    inner = output.values.array[:, 1:-1, 1:-1, :outputs]
    assert (inner == sums.transpose(0, 2, 3, 1)).all()
    # The bits of the border and behind the last channel, too.
    assert (output.bits.array == signs_of(sums, 1).array).all()


def test_a_processor_without_wide_vectors(rng):
    """LLVM makes what it lacks of other instructions; more bits differ here than a byte can count."""
    if not llvm.get_default_triple().startswith("x86_64"):
        pytest.skip("of another family")
    processor = compiled.Processor("x86-64-v3")
    native = compiled.Native(processor.compile(), processor)
    step = binary_step(rng, 720, 48, 3, 1, 1)
    step.arrays["bits"][0] = 0
    x = rng.normal(size=(1, 720, 8, 9)).astype(np.float32)
    x[..., :4, :] = np.abs(x[..., :4, :])
    values = run_step(step, x, native, border=1).values.array[:, 1:-1, 1:-1]
    assert (values == binary_sums(step, x).transpose(0, 2, 3, 1)).all()


@pytest.mark.parametrize("width, clip", [(16, True), (48, False), (64, True), (96, False), (320, True)])
def test_each_width(images, width, clip):
    program = random_program(width=width, clip=clip)
    assert close(Engine(program)(images[:1]), interpret(program, images[:1])[LOGITS])


@pytest.mark.parametrize("shape", [(16, 16), (64, 31), (23, 29), (47, 112)])
def test_each_size_of_image_in_turns(engine, rng, shape):
    for count in (1, 3):
        images = rng.normal(size=(count, 3, *shape)).astype(np.float32)
        assert close(engine(images), interpret(engine.program, images)[LOGITS])


def test_batch_and_threads_change_no_bit(engine, images):
    expected = np.concatenate([engine(images[i : i + 1]) for i in range(len(images))])
    for threads in (1, 2, 5):
        other = Engine(engine.program, threads=threads)
        assert (other(images) == expected).all() and (other(images[:3]) == expected[:3]).all()
    assert engine(images[:0]).shape == (0, 5)


def test_helpers_that_never_come_are_not_waited_for(images, engine):
    lonely = Engine(engine.program, threads=2)
    lonely._helpers = type("Nobody", (), {"submit": lambda *_: None})()
    assert (lonely(images[:2]) == engine(images[:2])).all()


@pytest.mark.parametrize("reason", ["can't start new thread", "cannot schedule new futures after shutdown"])
def test_helpers_that_cannot_start_are_not_needed(reason, images, engine):
    """Old: a RuntimeError, as in a thread that goes on when the main one has ended."""

    def submit(*_):
        raise RuntimeError(reason)

    lonely = Engine(engine.program, threads=3)
    lonely._helpers = type("Refused", (), {"submit": submit})()
    assert (lonely(images[:2]) == engine(images[:2])).all() and lonely.threads == 1


def test_many_threads_ask_one_engine(engine, images):
    sizes = [(i, 21 + i % 3) for i in range(24)]
    expected = [engine(images[i : i + 1, :, :side]) for i, side in sizes]
    with ThreadPoolExecutor(6) as pool:
        found = pool.map(lambda size: engine(images[size[0] : size[0] + 1, :, : size[1]]), sizes)
        assert all((a == b).all() for a, b in zip(found, expected, strict=True))


def test_a_forked_process_runs_it_too(engine, images):
    """Even if a thread that is not there any more was in the middle of a call."""
    expected = engine(images[:2])
    with engine._lock:
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            os._exit(0 if (engine(images[:2]) == expected).all() else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_signs_of_what_is_not_a_number(rng):
    """NaN has the sign of a negative number, as in x >= 0; so has minus infinity."""
    step = binary_step(rng, 16, 16, 1, 1, 0)
    steps = (
        Step("binary_convolution", (IMAGES,), "y", step.numbers, step.arrays),
        Step("mean", ("y",), LOGITS),
    )
    x = rng.normal(size=(1, 16, 1, 1)).astype(np.float32)
    x[0, :4, 0, 0] = np.nan, np.inf, -np.inf, -0.0
    program = Program(steps, channels=16)
    assert (Engine(program)(x) == interpret(program, x)[LOGITS]).all()


def test_what_is_not_a_number_stays_so(engine, images):
    """As in numpy, through pooling and clipping too; the other images of a batch are not touched."""
    steps = (
        Step("max_pool", (IMAGES,), "pooled", {"size": 3, "stride": 2, "padding": 1}),
        Step("clip", ("pooled",), "clipped", {"low": -1.0, "high": 1.0, "slope": 0.0}),
        Step("mean", ("clipped",), LOGITS),
    )
    broken = images[:4, :, :16, :16].copy()
    broken[0, 0, 5, 5], broken[1, 1, 5, 5], broken[2, 2, 5, 5] = np.nan, np.inf, -np.inf
    for program, run in ((Program(steps), Engine(Program(steps))), (engine.program, engine)):
        with np.errstate(invalid="ignore"):
            expected = interpret(program, broken)[LOGITS]
        assert np.allclose(run(broken), expected, rtol=1e-4, atol=1e-4, equal_nan=True)


def test_images_that_no_convolution_reads(rng):
    """All other kernels read whole vectors of channels."""
    step = binary_step(rng, 3, 20, 3, 1, 1)
    steps = (
        Step("max_pool", (IMAGES,), "pooled", {"size": 2, "stride": 2, "padding": 1}),
        Step("add", ("pooled", "pooled"), "added"),
        Step("binary_convolution", (IMAGES,), "y", step.numbers, step.arrays),
        Step("binary_convolution", ("added",), "z", step.numbers, step.arrays),
        Step("mean", ("y",), "of y"),
        Step("mean", ("z",), "of z"),
        Step("clip", ("z",), "of no use", {"low": 0.0, "high": 1.0, "slope": 0.0}),
        Step("add", ("of y", "of z"), LOGITS),
    )
    images = rng.normal(size=(2, 3, 6, 9)).astype(np.float32)
    program = Program(steps)
    assert close(Engine(program)(images), interpret(program, images)[LOGITS])


def test_what_it_refuses(engine, images):
    for threads in (-1, 1025):
        with pytest.raises(
            UserError, match=f"^threads: {threads} given, allowed: a whole number from 0 to 1024$"
        ):
            Engine(engine.program, threads=threads)
    with pytest.raises(ValueError, match="the network takes 3"):
        engine(images[:, :2])


@pytest.fixture(scope="module")
def code() -> bytes:
    return compiled.Processor.here().compile()


class TestCache:
    @pytest.fixture(autouse=True)
    def own_folder(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        compiled.native.cache_clear()
        yield
        compiled.native.cache_clear()

    @pytest.fixture
    def compilations(self, monkeypatch, code) -> list[int]:
        """One entry a compilation, which is not done again."""
        made = []

        def count(processor):
            made.append(1)
            return code

        monkeypatch.setattr(compiled.Processor, "compile", count)
        return made

    def test_compiled_once(self, tmp_path, compilations):
        for _ in range(2):
            native = compiled.native()
            assert compilations == [1] and set(native.addresses) > {"pointwise_4", f"real_{TILES[7, 2]}"}
            compiled.native.cache_clear()

    @pytest.mark.parametrize("damage", [b"", b"x" * 5000, None])
    def test_damaged_code_is_compiled_again(self, tmp_path, compilations, damage):
        compiled.native()
        (path,) = (tmp_path / "quartet").glob("*.bin")
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + b"?" if damage is None else damage)
        compiled.native.cache_clear()
        compiled.native()
        assert compilations == [1, 1] and path.read_bytes() == whole

    def test_a_folder_that_cannot_be_written(self, tmp_path, compilations):
        (tmp_path / "quartet").write_bytes(b"")
        compiled.native()
        assert compilations == [1]

    def test_a_user_without_a_home(self, monkeypatch, compilations):
        """As in a container whose user is not in its list of users."""
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr("posixpath.expanduser", lambda path: path)
        compiled.native()
        assert compilations == [1]
