"""Exact state: everything that the next step depends on, saved at step boundaries with one commit point.

Randomness is a function of seed, epoch, step and sample, so no generator and nothing about workers is saved.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from regraft import commit
from regraft.errors import StorageError
from regraft.run.folder import RunFolder

__all__ = ["Best", "Progress", "checkpoint_bytes", "latest_checkpoint", "load_weights", "restore", "save"]

MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
_log = logging.getLogger("regraft")


@dataclass
class Best:
    """The best epoch so far, of a stage or of the run."""

    step: int
    stage: str
    epoch: int
    value: float


@dataclass
class Progress:
    """Where a run stands, at a step boundary.

    Attributes:
        stage: Index of the stage.
        epoch: Epochs of this stage that are complete.
        batch: Batches of the next epoch that are complete.
        step: Optimizer steps of the whole run.
        stage_started: Whether the stage's starting weights were already taken over from the stage before.
        stage_done: Whether the stage has ended.
        loss_sum: Sum of the losses of the images seen in the unfinished epoch.
        num_images: Number of them.
        early_stopping: State of early stopping, or None.
        plateau: State of the plateau rule, or None.
        stage_best: The best epoch of the stage.
        best: The best epoch of the run.
        metrics_bytes: Size of metrics.jsonl.
        trained_layers: Layers that earlier stages trained.
        digests: Hashes of what is frozen, as it was when the stage began (the audit's snapshot).
        fingerprint: Of the pixels and labels of all splits.
    """

    stage: int = 0
    epoch: int = 0
    batch: int = 0
    step: int = 0
    stage_started: bool = False
    stage_done: bool = False
    loss_sum: float = 0.0
    num_images: int = 0
    early_stopping: dict[str, Any] | None = None
    plateau: dict[str, Any] | None = None
    stage_best: Best | None = None
    best: Best | None = None
    metrics_bytes: int = 0
    trained_layers: list[str] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)
    fingerprint: str = ""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Progress:
        for key in ("stage_best", "best"):
            if values.get(key) is not None:
                values[key] = Best(**values[key])
        return cls(**values)


def save(
    run: RunFolder,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    progress: Progress,
    extra: dict[str, Tensor],
) -> Path:
    """Write a checkpoint, then point `last.json` (and `best.json`) to it, then drop those that nothing needs.

    Args:
        extra: Further tensors to keep with the checkpoint (the audit's snapshot of the stage's start).

    Raises:
        StorageError: It could not be written; the checkpoint before is still whole.
    """
    path = run.checkpoint(progress.step)
    with commit.folder(path) as folder:
        save_file(_detached(model.state_dict()), folder / MODEL)
        save_file({**_optimizer_tensors(optimizer), **_prefixed("extra", extra)}, folder / OPTIMIZER)
        commit.write_json(folder / STATE, asdict(progress))
    commit.write_json(run.last, {"step": progress.step, "checkpoint": path.name})
    if progress.best is not None:
        best = run.checkpoint(progress.best.step).name
        commit.write_json(run.best, {**asdict(progress.best), "checkpoint": best})
    _drop_old(run, progress)
    return path


def latest_checkpoint(run: RunFolder) -> Path:
    """The newest checkpoint that is whole; damaged ones are passed over with a message.

    Raises:
        StorageError: None is whole.
    """
    commit.sweep(run.checkpoints)
    steps = run.checkpoint_steps()
    for step in reversed(steps):
        path = run.checkpoint(step)
        reason = commit.damage(path)
        if reason is None:
            return path
        _log.warning("checkpoint %s is damaged (%s); going back to the one before", path.name, reason)
    raise StorageError(
        f"None of the {len(steps)} checkpoints of {str(run.path)!r} is whole.",
        "Expected at least one that can be read back.",
        "Train again into a new folder.",
    )


def restore(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer | None
) -> tuple[dict[str, Tensor], Progress]:
    """Load a checkpoint into a model and an optimizer (of the saved stage), in place; returns `extra` and the place."""
    load_weights(path, model)
    tensors = _read(path / OPTIMIZER)
    if optimizer is not None:
        _restore_optimizer(optimizer, tensors)
    return _without_prefix("extra", tensors), read_progress(path)


def read_progress(path: Path) -> Progress:
    """Where the run stood when this checkpoint was written."""
    return Progress.from_dict(json.loads((path / STATE).read_text(encoding="utf-8")))


def load_weights(path: Path, model: nn.Module) -> None:
    """Load a checkpoint's parameters and buffers into `model`, in place."""
    model.load_state_dict(_read(path / MODEL))


def checkpoint_bytes(model: nn.Module) -> int:
    """About how much the checkpoints and the model folder of a run take at most, in bytes."""
    state: int = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    return 10 * state  # last, best of stage and run: each with two moments; and model/


def _detached(state: dict[str, Tensor]) -> dict[str, Tensor]:
    detached: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in state.items():
        tensor = tensor.detach().cpu().contiguous()
        detached[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    return detached


def _optimizer_tensors(optimizer: torch.optim.Optimizer | None) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for group in optimizer.param_groups if optimizer is not None else ():
        for name, parameter in zip(group["names"], group["params"], strict=True):
            for key, value in optimizer.state.get(parameter, {}).items():  # type: ignore[union-attr]
                tensor = value if isinstance(value, Tensor) else torch.tensor(value)
                tensors[f"optimizer/{name}/{key}"] = tensor.detach().cpu().contiguous()
    return tensors


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    stored: dict[str, dict[str, Tensor]] = {}
    for name, tensor in _without_prefix("optimizer", tensors).items():
        parameter, _, key = name.rpartition("/")
        stored.setdefault(parameter, {})[key] = tensor
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            optimizer.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device, memory_format=torch.preserve_format)
                for key, value in stored.get(name, {}).items()
            }


def _prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _without_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(prefix + "/")}


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"{str(path)!r} cannot be read: {error}.",
            "Expected a checkpoint that regraft wrote.",
            "Restore it from a copy, or train again into a new folder.",
        ) from error


def _drop_old(run: RunFolder, progress: Progress) -> None:
    keep = {progress.step}
    keep |= {best.step for best in (progress.best, progress.stage_best) if best is not None}
    for step in run.checkpoint_steps():
        if step not in keep:
            commit.remove(run.checkpoint(step))
