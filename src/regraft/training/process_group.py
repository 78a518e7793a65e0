"""Several processes of one run, which share each batch; with one, every call gives back what it was given."""

from __future__ import annotations

import atexit
import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from regraft.errors import LostProcessError, RegraftError, SettingsError
from regraft.wording import quantity

__all__ = ["ProcessGroup"]

Indices = npt.NDArray[np.int64]
Value = TypeVar("Value")
_WIRE_BYTES = 64_000_000  # sent at once: on its way, a part takes room on the device
_LOST = ("closed by peer", "connection reset", "broken pipe", "nccl", "gloo", "timed out", "connection refused")


class ProcessGroup:
    """The processes of a run, as this one sees them.

    Args:
        rank: The number of this process, from 0.
        num_processes: How many there are.
        device: What this process computes on.
    """

    def __init__(self, rank: int, num_processes: int, device: torch.device) -> None:
        self.rank, self.num_processes, self.device = rank, num_processes, device
        if num_processes > 1:
            _leave_at_exit()

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run folder and talks to the user."""
        return self.rank == 0

    def require_shareable(self, batch_size: int) -> None:
        """Refuse a batch that the processes cannot share evenly.

        Raises:
            SettingsError: The batch cannot be shared evenly.
        """
        if batch_size % self.num_processes:
            raise SettingsError(
                f"A batch of {quantity(batch_size, 'image')} cannot be shared by {self.num_processes} processes.",
                "the batch size of a recipe is that of all processes together, and each takes as many images",
                f"set `batch_size: {-(-batch_size // self.num_processes) * self.num_processes}`",
            )

    def shard(
        self,
        order: Indices,
        bounds: Indices,
        accumulate: int = 1,
        weights: npt.NDArray[np.float64] | None = None,
    ) -> tuple[Indices, Indices, list[float]]:
        """Return this process's rows of every batch of an epoch, one batch after the other.

        Args:
            order: The rows of the epoch, in the order of all processes.
            bounds: Where the batches of all processes begin, and where the last one ends.
            accumulate: Batches in an optimizer step.
            weights: The weight of each of these rows in a mean loss; None for equal ones.

        Returns:
            The rows; where this process's part of each batch begins among them, and where the last one ends; and for
            each batch the factor on the mean loss over its rows with which the gradients' mean over the processes,
            added up over the step's batches, is that of one batch of all their rows. A process that a batch has no row
            for takes its first row, with the factor 0.
        """
        weights = np.ones(len(order)) if weights is None else weights
        rows, factors = [], []
        for number, (start, end) in enumerate(pairwise(bounds.tolist())):
            batch = np.arange(start, end)
            first = number - number % accumulate
            total = weights[bounds[first] : bounds[min(first + accumulate, len(bounds) - 1)]].sum()
            own = np.array_split(batch, self.num_processes)[self.rank]
            rows.append(own if len(own) else batch[:1])
            factors.append(float(weights[own].sum() * self.num_processes / total) if total else 0.0)
        ends = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        return order[np.concatenate(rows)] if rows else order, ends, factors

    def sum(self, *values: float) -> list[float]:
        """Return the sums of these numbers over all processes."""
        if self.num_processes == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self._wire)
        with self._together():
            dist.all_reduce(tensor)
        return [float(value) for value in tensor.cpu()]

    def any(self, value: bool) -> bool:
        """Return whether it is true in one process at least."""
        return self.sum(float(value))[0] > 0

    def gather(self, value: Value) -> list[Value]:
        """Return the value of every process, in order."""
        if self.num_processes == 1:
            return [value]
        values: list[Value | None] = [None] * self.num_processes
        with self._together():
            dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def exchange(self, rows: Sequence[Tensor | npt.NDArray[Any]], bounds: Sequence[tuple[int, int]]) -> None:
        """Fill each process's rows [start, end) of these tensors, or arrays, in every process, in place."""
        if self.num_processes == 1:
            return
        with self._together():
            for tensor in map(torch.as_tensor, rows):
                step = max(1, _WIRE_BYTES // max(1, tensor[:1].nbytes))
                for source, (start, end) in enumerate(bounds):
                    for first in range(start, end, step):
                        last = min(first + step, end)
                        part = tensor[first:last].to(self._wire)
                        dist.broadcast(part, source)
                        tensor[first:last] = part.to(tensor.device)

    def from_main(self, make: Callable[[], Value]) -> Value:
        """Return the result of `make` in the main process, which alone calls it; its error ends all processes."""
        if self.num_processes == 1:
            return make()
        made: list[Value | RegraftError | None] = [None]
        if self.is_main:
            try:
                made = [make()]
            except RegraftError as error:
                made = [error]
        with self._together():
            dist.broadcast_object_list(made, 0)
        if isinstance(made[0], RegraftError):
            raise made[0]
        return made[0]  # type: ignore[return-value]

    def wait(self) -> None:
        """Wait until every process is here."""
        self.sum(0.0)

    @property
    def _wire(self) -> torch.device:
        return self.device if dist.get_backend() == "nccl" else torch.device("cpu")

    @contextlib.contextmanager
    def _together(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise self.lost(error) or error from error

    def lost(self, error: RuntimeError) -> LostProcessError | None:
        """Return the error to raise when this one says that another process is gone; then the group of processes is,
        too.
        """
        text = " ".join(str(error).split())
        if self.num_processes == 1 or not any(word in text.lower() for word in _LOST):
            return None
        _leave_group()
        return LostProcessError(
            f"Another process of this run has ended, so process {self.rank} cannot go on ({text[:160]}).",
            "all processes of a run work on each batch together",
            "see its messages above; the run goes on from its last checkpoint with the same launcher and "
            "`-m regraft resume RUN`",
        )


@functools.cache
def _leave_at_exit() -> None:
    atexit.register(_leave_group)


def _leave_group() -> None:
    """Leave the group of processes; threads of a group that was never left can abort this process at its end."""
    if dist.is_initialized():
        with contextlib.suppress(Exception):
            dist.destroy_process_group()
