"""Which of several processes this is, as `torchrun` and `accelerate launch` tell it in the environment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

__all__ = [
    "ALONE",
    "Team",
    "is_launched",
    "is_main_process",
    "launch_id",
    "local_rank",
    "num_local_processes",
    "num_processes",
    "num_restarts",
]

Value = TypeVar("Value")


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


def launch_id() -> str:
    """Return what torchrun calls its job (`--rdzv-id`, or a name of its own making); empty where it has no name."""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "")
    return "" if name == "none" else name


def num_restarts() -> int:
    """Return how often torchrun has started its processes again after one of them failed."""
    return _number("TORCHELASTIC_RESTART_COUNT", 0)


class Team(Protocol):
    """The processes of one run, as they share work that needs no torch.

    Attributes:
        rank: The number of this process, from 0.
        num_processes: How many there are.
    """

    rank: int
    num_processes: int

    def gather(self, value: Value) -> list[Value]:
        """Return the value of every process, in order."""

    def exchange(self, rows: Sequence[Any], bounds: Sequence[tuple[int, int]]) -> None:
        """Fill each process's rows [start, end) of these arrays in every process, in place."""


class _Alone:
    rank, num_processes = 0, 1

    def gather(self, value: Value) -> list[Value]:
        return [value]

    def exchange(self, rows: Sequence[Any], bounds: Sequence[tuple[int, int]]) -> None:
        pass


ALONE: Team = _Alone()


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else default
