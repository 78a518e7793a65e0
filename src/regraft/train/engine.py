"""The engine: device, autocast, loss scaling and processes; with trackers.py all that imports accelerate.

Several processes (`torchrun`, `accelerate launch`) share each batch of a run: the batch size of a recipe is that of all
of them together, so a run means the same thing on any number of them.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn

from regraft.errors import LostProcessError, RegraftError, SettingsError
from regraft.models.fast_layers import fast_layers
from regraft.models.numerics import Numerics
from regraft.models.program import SplitProgram
from regraft.run.processes import local_rank

__all__ = ["Engine"]

Indices = npt.NDArray[np.int64]
Value = TypeVar("Value")
_LOST = ("closed by peer", "connection reset", "broken pipe", "nccl", "gloo", "timed out", "connection refused")


class Engine:
    """A thin hold on accelerate and torch.distributed. Checkpoints, order and randomness are regraft's own.

    Args:
        numerics: What to compute with; `cuda` becomes the device of this process's number.

    Attributes:
        numerics: The same, with this process's device.
        rank: The number of this process, from 0.
        num_processes: How many there are.
    """

    def __init__(self, numerics: Numerics) -> None:
        kind = torch.device(numerics.device).type
        # accelerate keeps one precision for the whole process; two runs in one process may differ.
        AcceleratorState._reset_state()
        self._accelerator = Accelerator(
            cpu=kind == "cpu", mixed_precision={"fp32": "no", "bf16": "bf16", "fp16": "fp16"}[numerics.precision]
        )
        self.rank = int(self._accelerator.process_index)
        self.num_processes = int(self._accelerator.num_processes)
        several = self.num_processes > 1 and kind == "cuda"
        self.numerics = replace(numerics, device=f"cuda:{local_rank()}") if several else numerics

    @property
    def device(self) -> torch.device:
        return torch.device(self.numerics.device)

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run folder and talks to the user."""
        return self.rank == 0

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        """Compute in the run's precision; in bf16 on a CPU, layers in their fastest way."""
        fast = self.numerics.precision == "bf16" and self.device.type == "cpu"
        with self._accelerator.autocast(), fast_layers() if fast else contextlib.nullcontext():
            yield

    def place(self, model: nn.Module) -> nn.Module:
        """Move a model to the device and lay it out as the numerics say, in place; parameters stay fp32."""
        return model.to(self.device).to(memory_format=self.numerics.memory_format)

    def optimizer(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """The optimizer, wrapped so that it works with loss scaling (fp16)."""
        return self._accelerator.prepare_optimizer(optimizer) if self.numerics.precision == "fp16" else optimizer

    def skipped(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether loss scaling (fp16) let the optimizer's last step out, because a gradient was not finite."""
        return bool(getattr(optimizer, "step_was_skipped", False))

    def scaler_state(self) -> dict[str, Any]:
        """What loss scaling (fp16) has to know to go on; empty without it."""
        scaler = self._accelerator.scaler
        return dict(scaler.state_dict()) if scaler is not None else {}

    def restore_scaler(self, state: Mapping[str, Any]) -> None:
        """Put back what `scaler_state` gave."""
        scaler = self._accelerator.scaler
        if scaler is not None and state:
            scaler.load_state_dict(dict(state))

    def backward(self, loss: Tensor) -> None:
        self._accelerator.backward(loss)

    def gradient_norm(self, parameters: Iterable[nn.Parameter], clip_norm: float | None) -> Tensor:
        """The norm of the whole gradient, which is clipped to `clip_norm` where given."""
        if clip_norm is None:  # clipping to infinity would read and write every gradient once more
            self._accelerator.unscale_gradients()
            return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        norm: Tensor = self._accelerator.clip_grad_norm_(list(parameters), clip_norm)
        return norm

    # Several processes; with one, each of these gives back what it was given.

    def share(self, batch_size: int) -> int:
        """This process's images of a batch.

        Raises:
            SettingsError: The batch cannot be shared evenly.
        """
        if batch_size % self.num_processes:
            raise SettingsError(
                f"A batch of {batch_size} images cannot be shared by {self.num_processes} processes.",
                "The batch size of a recipe is that of all processes together, and each takes as many images.",
                f"Set `batch_size: {-(-batch_size // self.num_processes) * self.num_processes}`.",
            )
        return batch_size // self.num_processes

    def shard(
        self,
        order: Indices,
        batch_size: int,
        accumulate: int = 1,
        weights: npt.NDArray[np.float64] | None = None,
    ) -> tuple[Indices, list[float]]:
        """This process's rows of every batch of an epoch, one batch after the other.

        Args:
            order: The rows of the epoch, in the order of all processes.
            batch_size: Images in a batch of all processes.
            accumulate: Batches in an optimizer step.
            weights: The weight of each of these rows in a mean loss; None for equal ones.

        Returns:
            The rows, `share(batch_size)` for each batch but the last, and for each batch the factor on the mean loss
            over its rows with which the gradients' mean over the processes, added up over the step's batches, is that
            of one batch of all their rows. A process that the last batch has no row for takes its first row, with the
            factor 0.
        """
        weights = np.ones(len(order)) if weights is None else weights
        rows, factors = [], []
        for number, start in enumerate(range(0, len(order), batch_size)):
            batch = np.arange(start, min(start + batch_size, len(order)))
            first = (number - number % accumulate) * batch_size
            total = weights[first : first + batch_size * accumulate].sum()
            own = np.array_split(batch, self.num_processes)[self.rank]
            rows.append(own if len(own) else batch[:1])
            factors.append(float(weights[own].sum() * self.num_processes / total) if total else 0.0)
        return order[np.concatenate(rows)] if rows else order, factors

    def parallel(self, program: SplitProgram) -> SplitProgram:
        """The program with gradients that are means over all processes; weights are the main process's."""
        if self.num_processes == 1 or not isinstance(program.tail_train, nn.Module):
            return program
        with warnings.catch_warnings():  # newer torch has another name for `broadcast_buffers`
            warnings.simplefilter("ignore", FutureWarning)
            wrapped = nn.parallel.DistributedDataParallel(
                program.tail_train,
                device_ids=[self.device.index] if self.device.type == "cuda" else None,
                broadcast_buffers=False,
                find_unused_parameters=program.prefix is None,
            )
        return replace(program, tail_train=wrapped)

    def synchronise_norms(self, model: nn.Module) -> nn.Module:
        """Give batch norms the statistics of the whole batch, where torch can (CUDA); keys stay as they are."""
        several = self.num_processes > 1 and self.device.type == "cuda"
        return convert_sync_batchnorm(model) if several else model

    def require_still_norms(self, model: nn.Module, stage: str) -> None:
        """Refuse batch statistics of a part of the batch.

        Raises:
            SettingsError: A batch norm takes statistics while training, on several CPU processes.
        """
        if self.num_processes == 1 or self.device.type == "cuda":
            return
        moving = [
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training and module.track_running_stats
        ]
        if moving:
            raise SettingsError(
                f"In stage {stage!r}, {len(moving)} batch norms (the first is {moving[0]!r}) take the statistics of "
                f"each batch, and {self.num_processes} processes on the CPU see a part of it each.",
                "torch synchronises batch norms between CUDA devices only.",
                "Set `bn: affine-only` or `bn: frozen` in this stage, or train in one process.",
            )

    def sum(self, *values: float) -> list[float]:
        """The sums of these numbers over all processes."""
        if self.num_processes == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self._wire)
        with self._together():
            dist.all_reduce(tensor)
        return [float(value) for value in tensor.cpu()]

    def any(self, value: bool) -> bool:
        """Whether it is true in one process at least."""
        return self.sum(float(value))[0] > 0

    def gather(self, value: Value) -> list[Value]:
        """The value of every process, in order."""
        if self.num_processes == 1:
            return [value]
        values: list[Value | None] = [None] * self.num_processes
        with self._together():
            dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def exchange(self, rows: Sequence[Tensor], bounds: Sequence[tuple[int, int]]) -> None:
        """Fill each process's rows [start, end) of these tensors in every process, in place."""
        if self.num_processes == 1:
            return
        with self._together():
            for tensor in rows:
                for source, (start, end) in enumerate(bounds):
                    if end > start:
                        part = tensor[start:end].to(self._wire)
                        dist.broadcast(part, source)
                        tensor[start:end] = part.to(tensor.device)

    def from_main(self, make: Callable[[], Value]) -> Value:
        """What `make` gives in the main process; it is not called elsewhere. Its error ends all processes."""
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
        """The error to raise when this one says that another process is gone."""
        text = " ".join(str(error).split())
        if self.num_processes == 1 or not any(word in text.lower() for word in _LOST):
            return None
        return LostProcessError(
            f"Another process of this run has ended, so process {self.rank} cannot go on ({text[:160]}).",
            "All processes of a run work on each batch together.",
            "See its messages above; the run goes on from its last checkpoint with the same launcher and "
            "`-m regraft resume RUN`.",
        )
