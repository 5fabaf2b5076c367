# SPDX-License-Identifier: Apache-2.0
"""The most multiply-adds a second of a processor: of 1 bit, by xor, popcount and add, and of float32, by fma.

Both loops work on registers alone. They are written in LLVM's own language, which leaves a compiler nothing
to make of them but these operations, as wide as the processor has them.
"""

import ctypes
import time
from concurrent.futures import ThreadPoolExecutor

CHAINS = 10  # sums that do not wait for each other
CALLS, ROUNDS = 15, 2_000_000
FLOATS, WORDS = 16, 8  # in 512 bits
PRODUCTS = {"popcount": 64 * WORDS, "float32": FLOATS}  # of one operation
STEPS = {
    "popcount": (
        f"<{WORDS} x i64>", "ctpop.v8i64", "%a{n} = xor TYPE %s{n}, %x",
        "%c{n} = call TYPE @llvm.ctpop.v8i64(TYPE %a{n})", "%t{n} = add TYPE %s{n}, %c{n}",
    ),
    "float32": (
        f"<{FLOATS} x float>", "fma.v16f32",
        "%t{n} = call TYPE @llvm.fma.v16f32(TYPE %s{n}, TYPE %x, TYPE %x)",
    ),
}  # fmt: skip


def peaks(threads: int) -> dict[str, list[float]]:
    """T multiply-adds a second of so many threads together, by kind, of each of CALLS calls."""
    return {kind: [_measured(loop, kind, threads) for _ in range(CALLS)] for kind, loop in _loops()}


def _measured(loop, kind: str, threads: int) -> float:
    buffers = [(ctypes.c_int64 * (CHAINS + 1) * WORDS)() for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        list(pool.map(lambda buffer: loop(ROUNDS, buffer), buffers))  # ctypes lets the others run
        seconds = time.perf_counter() - began
    return threads * ROUNDS * CHAINS * PRODUCTS[kind] / seconds / 1e12


def _loops():
    """Of each kind a function of a number of rounds and a buffer: the numbers to work on, and their sums."""
    from llvmlite import binding

    from src.deploy.packed.native import Processor

    for kind in STEPS:
        module, machine = binding.parse_assembly(_code(kind)), Processor.here().machine()
        with binding.create_mcjit_compiler(module, machine) as engine:
            engine.finalize_object()
            address = engine.get_function_address("peak")
            yield kind, ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p)(address)


def _code(kind: str) -> str:
    """Each round takes one step of each chain; the sums are stored, so that none is left out."""
    kind_of_vector, intrinsic, *steps = STEPS[kind]
    arguments = ", ".join(["TYPE"] * (1 if kind == "popcount" else 3))
    numbers = range(CHAINS)
    lines = [
        f"declare TYPE @llvm.{intrinsic}({arguments})",
        "define void @peak(i64 %rounds, TYPE* %buffer) {",
        "entry:",
        "%x = load volatile TYPE, TYPE* %buffer, align 8",
        "br label %loop",
        "loop:",
        "%round = phi i64 [ 0, %entry ], [ %next, %loop ]",
        *(f"%s{n} = phi TYPE [ %x, %entry ], [ %t{n}, %loop ]" for n in numbers),
        *(step.format(n=n) for n in numbers for step in steps),
        "%next = add i64 %round, 1",
        "%more = icmp ult i64 %next, %rounds",
        "br i1 %more, label %loop, label %done",
        "done:",
        *(f"%p{n} = getelementptr TYPE, TYPE* %buffer, i64 {n + 1}" for n in numbers),
        *(f"store TYPE %t{n}, TYPE* %p{n}, align 8" for n in numbers),
        "ret void",
        "}",
    ]
    return "\n".join(lines).replace("TYPE", kind_of_vector)
