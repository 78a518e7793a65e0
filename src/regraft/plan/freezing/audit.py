"""The audit at the end of a stage: what was frozen is byte-identical, and exactly what should train has trained.

A snapshot at the start of a stage keeps a hash of each frozen tensor and a copy of each trainable one; the audit at its
end compares them, and checks the optimizer's parameters against the plan's by identity, not by value.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from regraft.errors import RegraftError
from regraft.models.describe.trace import plain
from regraft.plan.freezing.eval_lock import is_eval_locked
from regraft.plan.freezing.freeze import Freeze

__all__ = ["Snapshot", "StageAudit", "Trained", "digest"]

_CHUNK = 1 << 20  # numbers compared at a time, so that a large layer needs no second copy in double precision


class HasGroups(Protocol):
    """Any optimizer, wrapped or not."""

    @property
    def param_groups(self) -> list[dict[str, Any]]: ...


@dataclass(frozen=True)
class Trained:
    """One trainable tensor: the norm of its gradient as handed in, and the distance (L2) from where it started."""

    name: str
    shape: tuple[int, ...]
    grad_norm: float | None
    moved: float


@dataclass(frozen=True)
class StageAudit:
    """What a stage did to the model; `to_dict()` is one entry of `stages` in audit.json.

    Attributes:
        stage: The stage's name.
        frozen: Parameters and buffers that were compared byte for byte with their start.
        trainable: Each trainable parameter, with its gradient norm and how far it moved.
        buffers_moved: Buffers that training may move, and that did move.
        violations: One sentence per violation; empty when there is none.
        optimizer_equals_trainable: Whether the optimizer held exactly the trainable parameters, by identity.
    """

    stage: str
    frozen: tuple[str, ...]
    trainable: tuple[Trained, ...]
    buffers_moved: tuple[str, ...]
    violations: tuple[str, ...]
    optimizer_equals_trainable: bool

    @property
    def verdict(self) -> str:
        """`ok` or `violated`."""
        return "violated" if self.violations else "ok"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as in audit.json."""
        return {
            "stage": self.stage,
            "verdict": self.verdict,
            "num_frozen": len(self.frozen),
            "num_trainable": len(self.trainable),
            "frozen": list(self.frozen),
            "trainable": [asdict(tensor) | {"shape": list(tensor.shape)} for tensor in self.trainable],
            "buffers_moved": list(self.buffers_moved),
            "violations": list(self.violations),
            "optimizer_equals_trainable": self.optimizer_equals_trainable,
        }

    def raise_if_violated(self) -> None:
        """Stop the run if anything frozen has moved.

        Raises:
            RegraftError: With one line per violation.
        """
        if self.violations:
            raise RegraftError(
                f"The audit of stage {self.stage!r} found {len(self.violations)} violations of its freeze plan.",
                "",
                "look for code that edits the model or the optimizer during training",
                details=self.violations,
            )


@dataclass(frozen=True)
class Snapshot:
    """The model as it was when a stage began.

    Attributes:
        plan: The freeze plan of the stage.
        digests: A hash of each frozen parameter and of each buffer, by name.
        starts: Each trainable parameter's value, on the CPU, by name.
    """

    plan: Freeze
    digests: dict[str, str]
    starts: dict[str, Tensor]

    @classmethod
    def take(cls, model: nn.Module, plan: Freeze) -> Snapshot:
        """Record a model right after `freeze`; needs CPU memory for the trainable parameters only."""
        tensors = dict(_tensors(plain(model)))
        hashed = (*plan.frozen, *plan.still, *plan.moving)
        return cls(
            plan,
            {name: digest(tensors[name]) for name in hashed},
            {name: tensors[name].detach().to("cpu", copy=True) for name in plan.trainable},
        )

    def audit(
        self,
        model: nn.Module,
        optimizer: HasGroups,
        gradient_norms: Mapping[str, float] | None = None,
        *,
        stage: str = "",
    ) -> StageAudit:
        """Compare the model and the optimizer with the plan and with the start of the stage.

        Args:
            model: The model at the end of the stage, wrapped or not.
            optimizer: The optimizer of the stage.
            gradient_norms: A gradient norm for each trainable parameter, by name (the last step's, or a mean).
            stage: The stage's name.
        """
        model = plain(model)
        tensors, norms = dict(_tensors(model)), gradient_norms or {}
        optimizer_faults = list(_optimizer_faults(model, optimizer, self.plan))
        violations = [
            *self._names_changed(tensors),
            *self._bytes_changed(tensors),
            *_flags_lost(model, self.plan),
            *optimizer_faults,
        ]
        trained = [
            Trained(name, tuple(tensors[name].shape), norms.get(name), _distance(start, tensors[name]))
            for name, start in self.starts.items()
            if name in tensors
        ]
        return StageAudit(
            stage=stage,
            frozen=(*self.plan.frozen, *self.plan.still),
            trainable=tuple(trained),
            buffers_moved=tuple(n for n in self.plan.moving if n in tensors and digest(tensors[n]) != self.digests[n]),
            violations=tuple(violations),
            optimizer_equals_trainable=not optimizer_faults,
        )

    def _names_changed(self, tensors: Mapping[str, Tensor]) -> Iterator[str]:
        known = {*self.digests, *self.starts}
        for name in sorted(known - set(tensors)):
            yield f"{name} was in the model when the stage began and is no longer."
        for name in sorted(set(tensors) - known):
            yield f"{name} was not in the model when the stage began."

    def _bytes_changed(self, tensors: Mapping[str, Tensor]) -> Iterator[str]:
        for kind, names in (("parameter", self.plan.frozen), ("buffer", self.plan.still)):
            for name in names:
                if name in tensors and digest(tensors[name]) != self.digests[name]:
                    yield f"{name} is a frozen {kind}, but its bytes have changed."


def digest(tensor: Tensor) -> str:
    """Hash (SHA-256) a tensor's type, shape and bytes; equal for the same numbers on any device."""
    data = tensor.detach().to("cpu").contiguous()
    summary = hashlib.sha256(f"{data.dtype} {tuple(data.shape)}".encode())
    if data.numel():
        summary.update(data.reshape(-1).view(torch.uint8).numpy().data)
    return summary.hexdigest()


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _distance(start: Tensor, now: Tensor) -> float:
    if start.shape != now.shape:
        return float("nan")
    flat = (start.reshape(-1), now.detach().to("cpu").reshape(-1))
    pairs = zip(*(torch.split(tensor, _CHUNK) for tensor in flat), strict=True)
    return math.hypot(*(float(torch.linalg.vector_norm(b.to(torch.float64) - a)) for a, b in pairs))


def _flags_lost(model: nn.Module, plan: Freeze) -> Iterator[str]:
    trainable, frozen = set(plan.trainable), set(plan.frozen)
    for name, parameter in model.named_parameters():
        if name in trainable and not parameter.requires_grad:
            yield f"{name} should train, but it no longer gets gradients."
        elif name in frozen and parameter.requires_grad:
            yield f"{name} is frozen, but it gets gradients again."
    modules = dict(model.named_modules())
    for name in plan.eval_locked:
        module = modules.get(name)
        if module is not None and (module.training or not is_eval_locked(module)):
            yield f"{name or 'the model'} is frozen, but it follows `.train()` again (it was replaced or edited)."


def _optimizer_faults(model: nn.Module, optimizer: HasGroups, plan: Freeze) -> Iterator[str]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    wanted, seen = set(plan.trainable), set[str]()
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names.get(id(parameter))
            if name is None:
                yield f"The optimizer has a tensor of shape {tuple(parameter.shape)} that is not in the model."
            elif name in seen:
                yield f"{name} is in the optimizer twice."
            elif name not in wanted:
                yield f"{name} is frozen, but it is in the optimizer."
            if name is not None:
                seen.add(name)
    for name in plan.trainable:
        if name not in seen:
            yield f"{name} should train, but it is not in the optimizer."
