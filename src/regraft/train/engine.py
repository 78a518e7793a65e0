"""The engine: device, autocast, loss scaling and processes. The only module that imports accelerate."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from regraft.errors import SettingsError
from regraft.models.numerics import Numerics

__all__ = ["Engine"]


class Engine:
    """A thin hold on accelerate. Checkpoints, order and randomness are regraft's own."""

    def __init__(self, numerics: Numerics) -> None:
        self.numerics = numerics
        kind = torch.device(numerics.device).type
        # accelerate keeps one precision for the whole process; two runs in one process may differ.
        AcceleratorState._reset_state()
        self._accelerator = Accelerator(
            cpu=kind == "cpu", mixed_precision={"fp32": "no", "bf16": "bf16", "fp16": "fp16"}[numerics.precision]
        )
        if self._accelerator.num_processes > 1:
            raise SettingsError(
                f"regraft was started as {self._accelerator.num_processes} processes.",
                "Expected one process on one device; several are not supported yet.",
                "Start regraft without a launcher.",
            )

    @property
    def device(self) -> torch.device:
        return torch.device(self.numerics.device)

    @property
    def is_main(self) -> bool:
        return bool(self._accelerator.is_main_process)

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        with self._accelerator.autocast():
            yield

    def place(self, model: nn.Module) -> nn.Module:
        """Move a model to the device and lay it out as the numerics say, in place; parameters stay fp32."""
        return model.to(self.device).to(memory_format=self.numerics.memory_format)

    def optimizer(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """The optimizer, wrapped so that it works with loss scaling (fp16)."""
        return self._accelerator.prepare_optimizer(optimizer) if self.numerics.precision == "fp16" else optimizer

    def backward(self, loss: Tensor) -> None:
        self._accelerator.backward(loss)

    def gradient_norm(self, parameters: Iterable[nn.Parameter], clip_norm: float | None) -> Tensor:
        """The norm of the whole gradient, which is clipped to `clip_norm` where given."""
        norm: Tensor = self._accelerator.clip_grad_norm_(list(parameters), clip_norm or float("inf"))
        return norm
