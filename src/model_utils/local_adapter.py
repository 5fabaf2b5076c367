# SPDX-License-Identifier: Apache-2.0
"""Who am I on this machine: card, rank and job, from the variables that launchers set."""

import os

from ..common.errors import UserError


def _number(name: str, *, default: int, minimum: int) -> int:
    value = os.environ.get(name, "")
    if not value:
        return default
    if not value.isdecimal() or int(value) < minimum:
        raise UserError(
            f"environment variable {name} is {value!r}; a whole number of at least {minimum} is needed"
        )
    return int(value)


def get_device_id() -> int:
    """The card of this process on its server: DEVICE_ID, by default 0."""
    return _number("DEVICE_ID", default=0, minimum=0)


def get_device_num() -> int:
    """The number of cards that train together: RANK_SIZE, else msrun's MS_WORKER_NUM, by default 1."""
    return _number("RANK_SIZE", default=_number("MS_WORKER_NUM", default=1, minimum=1), minimum=1)


def get_rank_id() -> int:
    """The rank of this process among them: RANK_ID, else msrun's MS_NODE_ID, by default 0."""
    return _number("RANK_ID", default=_number("MS_NODE_ID", default=0, minimum=0), minimum=0)


def is_launched() -> bool:
    """Whether msrun started this process: as one of the workers, or as the scheduler, which runs no work."""
    return bool(os.environ.get("MS_ROLE"))


def is_scheduler() -> bool:
    """Whether this is the process that msrun's workers meet at.

    msrun starts the door once more for it: it reads what they read and trains nothing, and MindSpore ends it
    without a return to Python.
    """
    return os.environ.get("MS_ROLE") == "MS_SCHED"


def get_job_id() -> str:
    """The name of the job: JOB_ID, by default "local"."""
    return os.environ.get("JOB_ID") or "local"
