# SPDX-License-Identifier: Apache-2.0
"""The kernels as machine code for this CPU: compiled once, and kept in the user's cache."""

import ctypes
import functools
import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import llvmlite
import llvmlite.binding as llvm

from ...common.errors import UserError
from ...common.files import atomic_path
from . import emit, kernels

_DIGEST = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Processor:
    """A CPU as LLVM knows it.

    Attributes:
        name: for example znver5.
        features: +avx512f,-avx512fp16 and so on; those that are left out are as the name says.
    """

    name: str
    features: str = ""

    @classmethod
    def here(cls) -> Self:
        return cls(llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())

    def machine(self) -> llvm.TargetMachine:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        target = llvm.Target.from_default_triple()
        return target.create_target_machine(cpu=self.name, features=self.features, opt=3, jit=True)

    def has(self, feature: str) -> bool:
        return f"+{feature}" in self.features.split(",")

    @property
    def tiles(self) -> tuple[tuple[int, int], ...]:
        """Those of `kernels.TILES` that fit in its registers."""
        return tuple(kernels.TILES) if self.has("avx512f") else kernels.SMALL_TILES

    def compile(self) -> bytes:
        """The machine code of all kernels."""
        machine = self.machine()
        module = llvm.parse_assembly(kernels.source(counts_words=self.has("avx512vpopcntdq")))
        module.triple = machine.triple
        module.verify()
        builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
        builder.getModulePassManager().run(module, builder)
        return machine.emit_object(module)


class Native:
    """The compiled kernels.

    Attributes:
        tiles: of the processor.
        addresses: of each kernel, by its name.
        run: kernels.py's; called from Python it leaves other threads free to go on.
        give_way: the address of the system's function that lets other threads run.
    """

    def __init__(self, code: bytes, processor: Processor):
        # The engine owns the memory of the machine code.
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), processor.machine())
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        self.tiles = processor.tiles
        self.addresses: Mapping[str, int] = {n: self._engine.get_function_address(n) for n in kernels.NAMES}
        kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)
        self.run = kind(self._engine.get_function_address("run"))
        windows = os.name == "nt"
        give_way = ctypes.WinDLL("kernel32").SwitchToThread if windows else ctypes.CDLL(None).sched_yield
        self.give_way = ctypes.cast(give_way, ctypes.c_void_p).value


@functools.cache
def native() -> Native:
    """The kernels for this CPU, from the cache; what is not in it is compiled, in a second, and put there."""
    processor = Processor.here()
    sources = b"".join(Path(module.__file__).read_bytes() for module in (emit, kernels))
    what = f"{llvmlite.__version__} {llvm.get_default_triple()} {processor}".encode()
    name = f"kernels-{hashlib.sha256(what + sources).hexdigest()[:32]}.bin"
    code = _read(name)
    if code is None:
        code = processor.compile()
        _write(name, code)
    return Native(code, processor)


def _path(name: str) -> Path:
    """Of compiled code: in $XDG_CACHE_HOME/quartet, or ~/.cache/quartet. RuntimeError: there is no home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "quartet" / name


def _read(name: str) -> bytes | None:
    """The code in a file; None: there is none, or not all of what was written."""
    try:
        data = _path(name).read_bytes()
    except (OSError, RuntimeError):
        return None
    code = data[_DIGEST:]
    return code if hashlib.sha256(code).digest() == data[:_DIGEST] else None


def _write(name: str, code: bytes) -> None:
    with suppress(UserError, OSError, RuntimeError):  # no home that can be written: compiled each time
        path = _path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_bytes(hashlib.sha256(code).digest() + code)
