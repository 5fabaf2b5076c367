# SPDX-License-Identifier: Apache-2.0
"""Where am I running: the device, and this process's place among those that train together.

The names of the model zoos: `get_device_id get_device_num get_rank_id get_job_id`. They come from the local
adapter, on ModelArts too: there moxing_adapter first sets the variables that the platform names otherwise.
"""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import mindspore as ms
from mindspore import communication

from ..common.errors import UserError
from . import local_adapter as adapter
from .cpu import bound_cores, usable_cores, use_fast_convolutions, wait_for_slow_ranks, worker_count
from .run_keys import DEVICE_TARGETS

get_device_id = adapter.get_device_id
get_device_num = adapter.get_device_num
get_rank_id = adapter.get_rank_id
get_job_id = adapter.get_job_id
is_launched = adapter.is_launched


@dataclass(frozen=True)
class Device:
    """What was set up: the target, this process's rank, and how many train together."""

    target: str
    rank: int = 0
    size: int = 1


@contextlib.contextmanager
def without_graph() -> Iterator[None]:
    """PyNative mode within: a graph would be compiled anew for every shape, and has no hooks."""
    mode = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    try:
        yield
    finally:
        ms.set_context(mode=mode)


def _is_available(target: str) -> bool:
    return target == "CPU" or bool(ms.hal.is_available(target))


def set_up_device(device_target: str = "auto", *, seed: int = 0) -> Device:
    """Chooses the device, joins the other processes if there are any, and seeds MindSpore by rank.

    Graph mode on every device. Call it once, before the first network is built.

    Args:
        device_target: one of DEVICE_TARGETS; auto takes the first of Ascend, GPU and CPU that this MindSpore
            build and this machine have.
        seed: the run's seed; rank r gets seed + r.

    Raises:
        UserError: no such device here, or the processes cannot join.
    """
    if device_target not in DEVICE_TARGETS:
        raise UserError(
            f"device_target: {device_target!r} given, allowed: one of {', '.join(DEVICE_TARGETS)}"
        )
    if device_target == "auto":
        device_target = next(t for t in ("Ascend", "GPU", "CPU") if _is_available(t))
    if not _is_available(device_target):
        raise UserError(
            f"device_target {device_target} is not available: MindSpore {ms.__version__} here has no "
            f"{device_target} backend or finds no card; use --device_target CPU, or see "
            f"python -m src.tools.doctor --device_target {device_target}"
        )
    if device_target == "CPU":
        use_fast_convolutions()
        wait_for_slow_ranks()
        if usable_cores() < bound_cores():  # MindSpore takes all and waits for its quota in each operator
            ms.device_context.cpu.op_tuning.threads_num(usable_cores())
        # Setting it again is an error once an operator has run, as in a notebook.
        if ms.get_context("device_target") != "CPU":
            ms.set_device("CPU")
    else:
        ms.set_device(device_target, get_device_id())
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_recursion_limit(10_000)  # calls in a graph: networks of 100 layers need more than 1,000
    rank, size = 0, get_device_num()
    if size > 1 or is_launched():  # msrun's scheduler stays in init, also that of a single worker
        try:
            communication.init()
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"rank {get_rank_id()} of {size} cannot join the others ({str(error).splitlines()[0]}); "
                "start all of them with msrun, or unset RANK_SIZE and MS_WORKER_NUM"
            ) from error
        rank, size = communication.get_rank(), communication.get_group_size()
    ms.set_seed(seed + rank)
    ms.dataset.config.set_num_parallel_workers(worker_count())
    logging.getLogger("quartet").info("running on %s, rank %d of %d", device_target, rank, size)
    return Device(device_target, rank, size)
