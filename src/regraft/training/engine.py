"""The engine: device, autocast, loss scaling and processes; with trackers.py all that imports accelerate.

accelerate joins the processes of a launcher, and scales losses (fp16). A run in one process has no use for it, and does
not wait for its import.

Several processes (`torchrun`, `accelerate launch`) share each batch of a run: the batch size of a recipe is that of all
of them together, so a run means the same thing on any number of them.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from regraft.compute.kernels.fast_layers import fast_layers
from regraft.compute.numerics import Numerics
from regraft.compute.program import SplitProgram
from regraft.errors import LostProcessError, SettingsError
from regraft.machine.processes import is_launched, local_rank, num_processes
from regraft.training.process_group import ProcessGroup
from regraft.wording import quantity

__all__ = ["Engine"]


class Engine(ProcessGroup):
    """A thin hold on accelerate and torch.distributed. Checkpoints, order and randomness are regraft's own.

    Args:
        numerics: What to compute with; `cuda` becomes the device of this process's number.

    Attributes:
        numerics: The same, with this process's device.
    """

    def __init__(self, numerics: Numerics) -> None:
        kind = torch.device(numerics.device).type
        self._accelerator = _accelerator(kind, numerics.precision)
        rank, num_processes = 0, 1
        if self._accelerator is not None:
            rank, num_processes = int(self._accelerator.process_index), int(self._accelerator.num_processes)
        several = num_processes > 1 and kind == "cuda"
        self.numerics = replace(numerics, device=f"cuda:{local_rank()}") if several else numerics
        super().__init__(rank, num_processes, torch.device(self.numerics.device))

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        """Compute in the run's precision; in bf16 on a CPU, layers in their fastest way."""
        fast = self.numerics.precision == "bf16" and self.device.type == "cpu"
        with self._autocast(), fast_layers() if fast else contextlib.nullcontext():
            yield

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self._accelerator is not None:
            own: contextlib.AbstractContextManager[Any] = self._accelerator.autocast()
            return own
        if self.numerics.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def place(self, model: nn.Module) -> nn.Module:
        """Move a model to the device and lay it out as the numerics say, in place; parameters stay fp32."""
        return model.to(self.device).to(memory_format=self.numerics.memory_format)

    def optimizer(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """Return the optimizer, wrapped so that it works with loss scaling (fp16)."""
        if self._accelerator is None or self.numerics.precision != "fp16":
            return optimizer
        wrapped: torch.optim.Optimizer = self._accelerator.prepare_optimizer(optimizer)
        return wrapped

    def skipped(self, optimizer: torch.optim.Optimizer) -> bool:
        """Return whether loss scaling (fp16) let the optimizer's last step out, because a gradient was not finite."""
        return bool(getattr(optimizer, "step_was_skipped", False))

    def scaler_state(self) -> dict[str, Any]:
        """Return the state of the loss scaler (fp16); empty without one."""
        scaler = getattr(self._accelerator, "scaler", None)
        return dict(scaler.state_dict()) if scaler is not None else {}

    def restore_scaler(self, state: Mapping[str, Any]) -> None:
        """Load the state that `scaler_state` gave."""
        scaler = getattr(self._accelerator, "scaler", None)
        if scaler is not None and state:
            scaler.load_state_dict(dict(state))

    def backward(self, loss: Tensor) -> None:
        if self._accelerator is None:
            loss.backward()  # type: ignore[no-untyped-call]
        else:
            self._accelerator.backward(loss)

    def gradient_norm(self, parameters: Iterable[nn.Parameter], clip_norm: float | None) -> Tensor:
        """Return the norm of the whole gradient, which is clipped to `clip_norm` where given."""
        if clip_norm is None:  # clipping to infinity would read and write every gradient once more
            if self._accelerator is not None:
                self._accelerator.unscale_gradients()
            return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self._accelerator is None:
            return torch.nn.utils.clip_grad_norm_(list(parameters), clip_norm)
        norm: Tensor = self._accelerator.clip_grad_norm_(list(parameters), clip_norm)
        return norm

    def parallel(self, program: SplitProgram) -> SplitProgram:
        """Return the program with gradients that are means over all processes; weights are the main process's."""
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

    def accumulating(self, program: SplitProgram) -> contextlib.AbstractContextManager[None]:
        """Return a context whose gradients stay in this process, added up until a backward pass outside it."""
        tail = None if self.num_processes == 1 else program.tail_train
        if not isinstance(tail, nn.parallel.DistributedDataParallel):
            return contextlib.nullcontext()
        kept: contextlib.AbstractContextManager[None] = tail.no_sync()
        return kept

    def synchronise_norms(self, model: nn.Module) -> nn.Module:
        """Give batch norms the statistics of the whole batch, where torch can (CUDA); keys stay as they are."""
        if self.num_processes == 1 or self.device.type != "cuda":
            return model
        from timm.layers import convert_sync_batchnorm

        converted: nn.Module = convert_sync_batchnorm(model)
        return converted

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
                f"each batch, and {quantity(self.num_processes, 'process', 'processes')} on the CPU see a part of it "
                "each.",
                "torch synchronises batch norms between CUDA devices only",
                "set `bn: affine-only` or `bn: frozen` in this stage, or train in one process",
            )


def _accelerator(kind: str, precision: str) -> Any:
    """Return accelerate's hold on the processes and the loss scaling; None for one process that scales no loss."""
    if not is_launched() and precision != "fp16":
        return None
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    # accelerate keeps one precision for the whole process; two runs in one process may differ.
    AcceleratorState._reset_state()
    try:
        return Accelerator(cpu=kind == "cpu", mixed_precision={"fp32": "no"}.get(precision, precision))
    except RuntimeError as error:  # dist.DistError is one
        if num_processes() == 1:
            raise
        text = " ".join(str(error).split())
        raise LostProcessError(
            f"Process {os.environ.get('RANK', '0')} could not meet the other processes of this run ({text[:160]}).",
            "all of them are alive and reach each other",
            "`export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1` before torchrun on each machine: otherwise processes that "
            "it restarts look for each other at old addresses",
        ) from error
