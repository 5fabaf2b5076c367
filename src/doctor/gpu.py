# SPDX-License-Identifier: Apache-2.0
"""A GPU and its driver."""

from collections.abc import Iterator

from ..parallel.launch import checks
from .commands import ask
from .finding import Finding, failure, ok, warning

_QUERY = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
CONTAINER = "in a container: docker run --gpus all; else install the NVIDIA driver, and restart"


def check_gpu(asked: bool) -> Iterator[Finding]:
    """One line; without a GPU it is a failure if the training is to run on one (`asked`)."""
    cards, answer = len(checks.visible_cards("GPU")), ask(_QUERY)
    if not cards:
        yield failure("GPU", "no card", CONTAINER) if asked else ok("GPU", "no card")
    elif answer is None or answer.error:
        reason = "no nvidia-smi" if answer is None else answer.error
        mend = "install the NVIDIA driver of this kernel, or restart after its update"
        yield failure("GPU", f"{cards} device files, but {reason}", mend)
    else:
        rows = [[word.strip() for word in line.split(",")] for line in answer.output.splitlines() if line]
        names = ", ".join(sorted({f"{row[0]}, {row[-1]}, driver {row[1]}" for row in rows if len(row) == 3}))
        what = f"{cards} {'card' if cards == 1 else 'cards'}: {names}"
        if len(rows) < cards:
            what = f"nvidia-smi lists {len(rows) or 'no card'} of {cards}"
            yield warning("GPU", what, "nvidia-smi must list each card; restart the server")
        else:
            yield ok("GPU", what)


def check_use(asked: bool, used: str | None) -> Iterator[Finding]:
    """Whether MindSpore uses the cards that are there; if not, it is a failure if they are asked for.

    Args:
        asked: whether the training is to run on a GPU.
        used: the device that MindSpore computed on; None: it failed.
    """
    cards = len(checks.visible_cards("GPU"))
    if cards and (used != "GPU" if asked else used == "CPU"):
        yield (failure if asked else warning)(
            "GPU",
            f"{cards} {'card' if cards == 1 else 'cards'}, but MindSpore does not run on a GPU here",
            "MindSpore 2.10 needs CUDA 11.6 or 11.1 and cuDNN 8 on LD_LIBRARY_PATH; a card that needs a "
            "newer CUDA, as the H100, cannot train here: train with --device_target CPU, and export to ONNX",
        )
