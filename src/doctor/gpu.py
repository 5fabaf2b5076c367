# SPDX-License-Identifier: Apache-2.0
"""A GPU and its driver."""

from collections.abc import Iterator

from ..parallel.launch import checks
from .commands import ask
from .finding import Finding, failure, ok

_QUERY = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
CONTAINER = "in a container: docker run --gpus all; else install the NVIDIA driver, and restart"


def check_gpu(asked: bool) -> Iterator[Finding]:
    """One line; without a GPU it is a failure if the training is to run on one (`asked`)."""
    cards, answer = checks.gpu_cards(), ask(_QUERY)
    if not cards:
        yield failure("GPU", "no card", CONTAINER) if asked else ok("GPU", "no card")
    elif answer is None or answer.error:
        reason = "no nvidia-smi" if answer is None else answer.error
        mend = "install the NVIDIA driver of this kernel, or restart after its update"
        yield failure("GPU", f"{cards} device files, but {reason}", mend)
    else:
        rows = [[word.strip() for word in line.split(",")] for line in answer.output.splitlines() if line]
        names = ", ".join(sorted({f"{row[0]}, {row[-1]}, driver {row[1]}" for row in rows if len(row) == 3}))
        yield ok("GPU", f"{cards} {'card' if cards == 1 else 'cards'}: {names}")


def is_unused(cards: int, used: str | None) -> Iterator[Finding]:
    """A failure where MindSpore found none of the cards that are there."""
    if cards and used == "CPU":
        yield failure(
            "GPU",
            f"{cards} cards, but MindSpore finds none",
            "MindSpore 2.10 needs CUDA 11.6 or 11.1 and cuDNN 8 on LD_LIBRARY_PATH; --device_target CPU "
            "trains without them",
        )
