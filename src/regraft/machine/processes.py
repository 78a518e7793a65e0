"""Which of several processes this is, as `torchrun` and `accelerate launch` tell it in the environment."""

from __future__ import annotations

import os

__all__ = ["is_launched", "is_main_process", "local_rank", "num_local_processes", "num_processes"]


# By which a launcher, MPI's too, tells a process that it has others beside it; and what `accelerate launch` sets.
_LAUNCHED = ("LOCAL_RANK", "WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def is_launched() -> bool:
    """Return whether a launcher started this process, if only this one."""
    return any(name in _LAUNCHED or name.startswith("ACCELERATE_") for name in os.environ)


def is_main_process() -> bool:
    """Return whether this is the process that writes, prints and evaluates; true without a launcher."""
    return _number("RANK", 0) == 0


def local_rank() -> int:
    """Return the number of this process on its machine, from 0; it takes the device of that number."""
    return _number("LOCAL_RANK", 0)


def num_processes() -> int:
    """Return the number of processes of this run on all machines."""
    return max(1, _number("WORLD_SIZE", 1))


def num_local_processes() -> int:
    """Return the number of processes of this run on this machine."""
    return max(1, _number("LOCAL_WORLD_SIZE", 1))


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else default
