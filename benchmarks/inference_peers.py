# SPDX-License-Identifier: Apache-2.0
"""One model in one backend, in a process of its own: what benchmarks.inference starts and asks.

    python -m benchmarks.inference_peers BACKEND MODEL --shape 3 224 224 --threads 2

MODEL is a file, with `{batch}` in its name where each batch size has its own, or a name of
benchmarks.inference_files. Says when the first answer is there. Then it answers {"batch", "warm_up", "calls"}
by the seconds of each call and the most memory that the process has held, MiB.
"""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.record import end_with, parser
from benchmarks.steps import answer

Run = Callable[[Any], Any]  # float32 (N, C, H, W) -> logits


def open_mindspore(model: str, batch: int, threads: int) -> Run:
    """The network as evaluation runs it."""
    import mindspore as ms

    from benchmarks.inference_files import network_of
    from src.layers.inference import Inference
    from src.model_utils.device_adapter import set_up_device

    set_up_device("CPU")
    cell = Inference(network_of(model))
    return lambda images: cell(ms.Tensor(images)).asnumpy()


def open_mindir(model: str, batch: int, threads: int) -> Run:
    from src.deploy.mindir import open_mindir
    from src.model_utils.device_adapter import set_up_device

    set_up_device("CPU")
    return open_mindir(model.format(batch=batch)).run


def open_onnxruntime(model: str, batch: int, threads: int) -> Run:
    from src.deploy.onnx.session import open_onnx

    return open_onnx(model, threads=threads).run


def open_packed(model: str, batch: int, threads: int) -> Run:
    from benchmarks.inference_layers import CHAINS, program_of

    if model in CHAINS:
        from src.deploy.packed.engine import Engine

        return Engine(program_of(model), threads=threads)
    from src.deploy.packed import PackedModel

    return PackedModel(model, threads=threads).logits


def open_binary(model: str, batch: int, threads: int) -> Run:
    """The program of a packed file, or of a chain of layers, as a model of OpenVINO's binary convolutions."""
    from benchmarks.inference_layers import CHAINS, program_of
    from benchmarks.openvino_peer import open_program
    from src.deploy.packed.file import read_packed

    program = program_of(model) if model in CHAINS else read_packed(model)[0]
    return open_program(program, batch=batch, threads=threads)


def open_openvino(model: str, batch: int, threads: int, *, precision: str = "f32") -> Run:
    """An ONNX file of ours, with its batch size fixed, which is what OpenVINO is best at."""
    import openvino

    core = openvino.Core()
    network = core.read_model(model)
    network.reshape([batch, *list(network.input(0).partial_shape)[1:]])
    settings = {
        "INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"
    }  # fmt: skip
    request = core.compile_model(network, "CPU", settings).create_infer_request()
    return lambda images: request.infer({0: images}, share_inputs=True)[0]


BACKENDS = {
    "MindSpore": open_mindspore,
    "MINDIR": open_mindir,
    "MINDIR unfolded": open_mindir,
    "MINDIR without norms": open_mindir,
    "onnxruntime float32": open_onnxruntime,
    "onnxruntime int8": open_onnxruntime,
    "OpenVINO float32": open_openvino,
    "OpenVINO bfloat16": partial(open_openvino, precision="bf16"),
    "OpenVINO int8": open_openvino,
    "packed": open_packed,
    "OpenVINO binary": open_binary,
}
"""(model, batch size, threads) -> what runs it."""


def main() -> int:
    flags = parser(__doc__)
    flags.add_argument("backend", choices=BACKENDS)
    flags.add_argument("model")
    flags.add_argument(
        "--shape", type=int, nargs=3, required=True, help="of an image: channels, height, width"
    )
    flags.add_argument("--threads", type=int, default=2)
    own = flags.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: own.threads])  # MindSpore takes what there is

    import numpy as np

    opened: dict[int, tuple[Run, np.ndarray]] = {}

    def reply(question: dict[str, int]) -> dict[str, Any]:
        batch = question["batch"]
        if batch not in opened:
            images = np.random.default_rng(0).standard_normal((batch, *own.shape), dtype=np.float32)
            opened[batch] = BACKENDS[own.backend](own.model, batch, own.threads), images
        run, images = opened[batch]
        seconds = []
        for _ in range(question["warm_up"] + question["calls"]):
            began = time.perf_counter()
            run(images)
            seconds.append(time.perf_counter() - began)
        return {"seconds": seconds[question["warm_up"] :], "peak_memory_mib": peak_memory_mib()}

    reply({"batch": 1, "warm_up": 1, "calls": 0})
    print('"started"', flush=True)
    answer(reply)
    return 0


def peak_memory_mib() -> float:
    """Of this program alone: what `getrusage` says counts the process that started it, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    end_with(main)
