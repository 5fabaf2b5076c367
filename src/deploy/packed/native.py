"""The kernels as machine code for this CPU: compiled once, and kept in the user's cache."""

import ctypes
import functools
import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import llvmlite
import llvmlite.binding as llvm

from ...common.errors import UserError
from ...common.files import atomic_path
from . import emit, kernels

_DIGEST = hashlib.sha256().digest_size


class Native:
    """The compiled kernels.

    Attributes:
        addresses: of each kernel, by its name.
        run: kernels.py's; called from Python it leaves other threads free to go on.
        tiles: those of `kernels.TILES` that suit the processor.
    """

    def __init__(self, code: bytes, machine: llvm.TargetMachine, *, wide: bool):
        # The engine owns the memory of the machine code.
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        self.addresses: Mapping[str, int] = {n: self._engine.get_function_address(n) for n in kernels.NAMES}
        kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)
        self.run = kind(self._engine.get_function_address("run"))
        library = (
            ctypes.WinDLL("kernel32").SwitchToThread if os.name == "nt" else ctypes.CDLL(None).sched_yield
        )
        self.tiles = tuple(kernels.TILES) if wide else kernels.SMALL_TILES
        self.give_way = ctypes.cast(library, ctypes.c_void_p).value


@functools.cache
def native() -> Native:
    """The kernels for this CPU, from the cache; what is not in it is compiled, in a second, and put there."""
    machine = this_machine()
    sources = b"".join(Path(module.__file__).read_bytes() for module in (emit, kernels))
    what = f"{llvmlite.__version__} {machine.triple} {_cpu()}".encode()
    path = cache_folder() / f"kernels-{hashlib.sha256(what + sources).hexdigest()[:32]}.bin"
    code = _read(path)
    if code is None:
        code = compile_kernels(machine)
        _write(path, code)
    return Native(code, machine, wide="+avx512f" in _cpu()[1])


def this_machine() -> llvm.TargetMachine:
    """LLVM's view of this CPU."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    cpu, features = _cpu()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=cpu, features=features, opt=3, jit=True
    )


def _cpu() -> tuple[str, str]:
    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


def compile_kernels(machine: llvm.TargetMachine) -> bytes:
    module = llvm.parse_assembly(kernels.source())
    module.triple = machine.triple
    module.verify()
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    builder.getModulePassManager().run(module, builder)
    return machine.emit_object(module)


def cache_folder() -> Path:
    """Where compiled code is kept: $XDG_CACHE_HOME/quartet, or ~/.cache/quartet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "quartet"


def _read(path: Path) -> bytes | None:
    """The code in a file; None: there is none, or not all of what was written."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    code = data[_DIGEST:]
    return code if hashlib.sha256(code).digest() == data[:_DIGEST] else None


def _write(path: Path, code: bytes) -> None:
    with suppress(UserError, OSError):  # a home that cannot be written: compiled each time
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_bytes(hashlib.sha256(code).digest() + code)
