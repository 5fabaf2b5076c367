# SPDX-License-Identifier: Apache-2.0
"""How fast does each model run in each format, and how near to what the machine can do?

    python -m benchmarks.inference                   # all, some 8 minutes on two cores that do nothing else
    python -m benchmarks.inference --models birealnet18 resnet18 --rounds 3 --record /tmp/inference.json
    python -m benchmarks.inference --table           # the figures of the record as tables in Markdown
    python -m benchmarks.inference --picture         # its picture, for docs/inference.md
    python -m benchmarks.tables                      # its figures, for all pages

Each model in each backend is a process of its own, and all have the same number of threads. They take turns
of some calls each, and those whose turn it is not are stopped. Batches of 1 give the latency, of 32 the
throughput. A start is the time from a new process to its first answer, with what it caches on disk. The
networks have initial weights, and int8 is calibrated on noise: trained ones are as fast. The float twin of
birealnet18, a ResNet-18, is called resnet18. Writes benchmarks/records/inference.json, and says of each bar
whether it is met.
"""

import importlib.metadata
import importlib.util
import json
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.inference_bars import bars, in_words
from benchmarks.inference_files import AT_BATCH_1, BATCHES, GROUPS, MODELS, SHAPES
from benchmarks.inference_page import PICTURE, all_tables, draw
from benchmarks.inference_peaks import peaks
from benchmarks.record import RECORDS, end_with, parser, spread, write_record
from benchmarks.steps import Peer

RECORD = RECORDS / "inference.json"
TURN = 0.2  # seconds of a turn, or one call
STARTS, START_SECONDS = 3, 2.0  # no more starts of a peer once they took so long together
CPU_FLAGS = ("avx2", "avx512f", "avx512_vpopcntdq", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8")
PACKAGES = ("onnx", "onnxruntime", "llvmlite", "openvino")
HELP = {
    "models": f"of {', '.join(SHAPES)} (default all)",
    "rounds": "turns of each at batch 1, four times as many as at batch 32 (default 8)",
    "record": "the record (default benchmarks/records/inference.json)",
    "table": "print the tables of the record; nothing is measured",
    "picture": "draw docs/inference.png from the record; nothing is measured",
}


class Backend(Peer):
    """A process of benchmarks.inference_peers, which stands still until it is asked."""

    def __init__(self, backend: str, model: str, *, shape: Sequence[int], threads: int):
        began = time.perf_counter()
        words = [backend, model, "--shape", *map(str, shape), "--threads", str(threads)]
        super().__init__([sys.executable, "-m", "benchmarks.inference_peers", *words])
        self.hear()
        self.start = time.perf_counter() - began
        self.process.send_signal(signal.SIGSTOP)

    def calls(self, *, batch: int, warm_up: int, calls: int) -> dict[str, Any]:
        self.process.send_signal(signal.SIGCONT)
        said = self.ask({"batch": batch, "warm_up": warm_up, "calls": calls})
        self.process.send_signal(signal.SIGSTOP)
        return said


def started(backend: str, model: str, **how: Any) -> tuple[Backend, dict[str, float]]:
    """A backend, started several times if that takes little, and the seconds of its starts."""
    seconds: list[float] = []
    while True:
        peer = Backend(backend, model, **how)
        seconds.append(peer.start)
        if len(seconds) == STARTS or sum(seconds) > START_SECONDS:
            return peer, spread(seconds)
        peer.close()


def take_turns(
    peers: Mapping[tuple[str, str], Backend], batch: int, rounds: int
) -> dict[tuple[str, str], dict[str, Any]]:
    """The figures of each peer: milliseconds a call, the median of each round, images a second, memory."""
    counts, took, most = {}, {peer: [] for peer in peers}, {}
    for name, peer in peers.items():
        first = peer.calls(batch=batch, warm_up=1, calls=1)
        counts[name] = max(1, round(TURN / first["seconds"][0]))
    for _ in range(rounds):
        for name, peer in peers.items():
            said = peer.calls(batch=batch, warm_up=int(counts[name] > 1), calls=counts[name])
            took[name].append(1000 * np.array(said["seconds"]))
            most[name] = round(said["peak_memory_mib"])
    found = {}
    for name, by_round in took.items():
        calls = np.concatenate(by_round)
        p99, median = (float(np.percentile(calls, share)) for share in (99, 50))
        found[name] = {
            "milliseconds": {**spread(calls.tolist(), 3), "p99": round(p99, 3)},
            "round_medians": [round(float(np.median(one)), 4) for one in by_round],
            "images_per_second": round(1000 * batch / median, 1),
            "peak_memory_mib": most[name],
        }
    return found


def measure(names: Sequence[str], folder: Path, *, rounds: int, threads: int) -> dict[str, dict[str, Any]]:
    """The figures of each model, or chain of layers, in each backend, all of them in turns."""
    peers: dict[tuple[str, str], Backend] = {}
    found: dict[str, dict[str, Any]] = {name: {} for name in names}
    try:
        for name in names:
            for backend, file in written(name, folder / name).items():
                peer, starts = started(backend, file["model"], shape=SHAPES[name], threads=threads)
                peers[name, backend] = peer
                found[name][backend] = {"file_bytes": file["bytes"], "start_seconds": starts}
        turns = {BATCHES[0]: rounds, BATCHES[1]: max(1, rounds // 4)}
        for batch in BATCHES if names[0] in MODELS else BATCHES[:1]:
            asked = {key: peer for key, peer in peers.items() if batch == 1 or key[1] not in AT_BATCH_1}
            for (name, backend), figures in take_turns(asked, batch, turns[batch]).items():
                found[name][backend][f"batch_{batch}"] = figures
                took, rate = figures["milliseconds"]["median"], figures["images_per_second"]
                print(
                    f"{name:19} {backend:19} batch of {batch:2}: {took:8.2f} ms, {rate:8,.0f} images/s",
                    flush=True,
                )
    finally:
        for peer in peers.values():
            peer.close()
    return found


def written(name: str, folder: Path) -> dict[str, dict[str, Any]]:
    """What each backend opens; a process of its own has written it to `folder`."""
    writer = Peer([sys.executable, "-m", "benchmarks.inference_files", name, str(folder)])
    try:
        return writer.hear()
    finally:
        writer.close()


def flags_of_cpu() -> list[str]:
    """Those of CPU_FLAGS that this processor has."""
    known = Path("/proc/cpuinfo").read_text().split()
    return [flag for flag in CPU_FLAGS if flag in known]


def main() -> int:
    flags = parser(__doc__)
    flags.add_argument(
        "--models", nargs="+", choices=SHAPES, metavar="NAME", default=[*SHAPES], help=HELP["models"]
    )
    flags.add_argument("--rounds", type=int, default=8, help=HELP["rounds"])
    flags.add_argument("--threads", type=int, default=2, help="of each backend (default 2)")
    flags.add_argument("--record", type=Path, default=RECORD, help=HELP["record"])
    flags.add_argument("--table", action="store_true", help=HELP["table"])
    flags.add_argument("--picture", action="store_true", help=HELP["picture"])
    own = flags.parse_args()
    if own.table or own.picture:
        record = json.loads(own.record.read_text())
        if own.picture:
            draw(record, PICTURE)
        else:
            print(all_tables(record))
        return 0
    if not importlib.util.find_spec("openvino"):
        sys.exit("openvino is not installed: pip install -r requirements-dev.txt")
    began, most, found = time.perf_counter(), peaks(own.threads), {}
    with tempfile.TemporaryDirectory() as folder:
        for group in GROUPS:
            if names := [name for name in group if name in own.models]:
                found |= measure(names, Path(folder), rounds=own.rounds, threads=own.threads)
    most = {kind: spread(before + peaks(own.threads)[kind], 3) for kind, before in most.items()}
    cpu_flags = flags_of_cpu()
    record = write_record(
        own.record,
        question="latency, throughput, start, memory and size of each model in each format, on a CPU",
        command="python -m benchmarks.inference",
        versions={name: importlib.metadata.version(name) for name in PACKAGES},
        cpu_flags=cpu_flags,
        settings={
            "threads": own.threads,
            "rounds": own.rounds,
            "weights": "initial",
        },
        minutes=round((time.perf_counter() - began) / 60, 1),
        peaks_tera_multiply_adds_per_second=most,
        figures=found,
        bars=bars(found, amx="amx_int8" in cpu_flags),
    )
    print(*map(in_words, record["bars"]), sep="\n")
    return 0 if all(bar["met"] for bar in record["bars"]) else 1


if __name__ == "__main__":
    end_with(main)
