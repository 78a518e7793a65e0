"""Exact state: everything that the next step depends on, and how it is put back.

Randomness is a function of seed, epoch, step and sample, so no generator and nothing about workers is saved. Tensors
are kept by parameter name, never by position: a stage may train another set than the one before.
"""

from __future__ import annotations

import base64
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from regraft import commit
from regraft.errors import SettingsError, StorageError
from regraft.run.stored import NUMBER, stored_json

__all__ = [
    "Best",
    "Progress",
    "carry_over",
    "checkpoint_bytes",
    "group_values",
    "holds_extra",
    "load_weights",
    "model_tensors",
    "optimizer_tensors",
    "optimizer_values",
    "packed",
    "read_progress",
    "read_tensors",
    "restore",
    "restore_optimizer",
    "start_tensors",
    "unreadable",
]

MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
VERSION = 1
_VALUE = (int, float, str, type(None))  # what is not finite is a word
_BEST = {
    "step": int,
    "stage": str,
    "epoch": int,
    "value": _VALUE,
    "thresholds": {str: NUMBER},
    "losses": str,
    "share": _VALUE,
    "soup": [int],
}
_RULE = {"best": _VALUE}
_SHAPE = {
    **dict.fromkeys(("version", "stage", "epoch", "batch", "step", "start_step", "num_images", "metrics_bytes"), int),
    "bytes_before_interpolation": int,
    **dict.fromkeys(("stage_started", "stage_done", "stage_ended", "stop_requested"), bool),
    **dict.fromkeys(("optimizer", "scaler", "callbacks", "recipe"), dict),
    "stage_layers": [str],
    "trained_layers": [str],
    **dict.fromkeys(("stage_best", "lowest", "best", "last"), _BEST),
    "bests": [_BEST],
    "late": [_BEST],
    **dict.fromkeys(("early_stopping", "plateau"), _RULE),
    "digests": {str: str},
    "rates": {str: _VALUE},
    "gradient_norms": {str: _VALUE},
    "loss_sum": _VALUE,
    "images_per_step": int,
    "fingerprint": str,
}
_log = logging.getLogger("regraft")
_NOT_VALUES = ("params", "names", "lr")  # the rate is set anew before each step
_PLAIN = (bool, int, float, str, type(None))


@dataclass
class Best:
    """An epoch, by the weights that it ended with (the best of a stage, that of the run, the last one), or a network
    that was made of such weights.

    Attributes:
        step: After which step of the run.
        stage: The stage's name.
        epoch: Its number in the stage, from 1.
        value: Of what selects the best.
        thresholds: Those of its validation, where the output has some.
        losses: Of each validation image, where they are compared: fp32 in base64, as JSON can hold them.
        share: How far it lies from where the stage began (0) to that epoch, or soup (1), where it is an interpolation.
        soup: The epochs whose weights it is the average of, where it is one; `epoch` is the last of the stage then.
    """

    step: int
    stage: str
    epoch: int
    value: float
    thresholds: dict[str, float] = field(default_factory=dict)
    losses: str = ""
    share: float | None = None
    soup: list[int] = field(default_factory=list)

    @property
    def of_images(self) -> npt.NDArray[np.float64]:
        """The losses as numbers; none where they are not compared."""
        return np.frombuffer(base64.b64decode(self.losses, validate=True), "<f4").astype(np.float64)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for the records of a run, without the losses of images."""
        absent = {"share": self.share is None, "soup": not self.soup, "losses": True}
        return {key: value for key, value in asdict(self).items() if not absent.get(key)}


def packed(losses: Tensor) -> str:
    """Return the losses of images as `Best` holds them."""
    return base64.b64encode(losses.numpy().astype("<f4").tobytes()).decode("ascii")


@dataclass
class Progress:
    """Where a run stands, at a step boundary.

    Attributes:
        stage: Index of the stage.
        epoch: Epochs of this stage that are complete.
        batch: Batches of the next epoch that are complete.
        step: Optimizer steps of the whole run.
        stage_started: Whether the stage's starting weights were already taken over from the stage before.
        stage_done: Whether the stage takes no further steps.
        stage_ended: Whether the stage was audited as well; the next one comes, or none.
        start_step: The checkpoint whose weights the stage began with.
        stop_requested: Whether a callback asked for the end of the stage.
        loss_sum: Sum of the losses of the images seen in the unfinished epoch.
        num_images: Number of them.
        early_stopping: State of early stopping, or None.
        plateau: State of the plateau rule, or None.
        stage_best: The best epoch of the stage, which the next one may start from.
        lowest: The epoch of the stage with the best value, which later ones are held against.
        bests: The best epoch of each stage so far, by what selects the best, in order.
        best: The one of these that the run would deliver.
        last: The last epoch.
        late: The last epochs of the stage, where it ends with an average of them.
        metrics_bytes: Size of metrics.jsonl.
        bytes_before_interpolation: What it was after the stage's last epoch, where an interpolation, or a soup,
            followed; else 0.
        stage_layers: Layers that this stage trains.
        trained_layers: Layers that earlier stages trained.
        digests: Hashes of what is frozen, as it was when the stage began (the audit's snapshot).
        rates: The learning rate of each group at the last step.
        gradient_norms: Of each parameter at the last step of the last complete epoch, for the audit.
        optimizer: What the optimizer keeps beside tensors, by group and by parameter.
        scaler: State of the loss scaling (fp16).
        images_per_step: Images whose gradients made a step, in the unfinished epoch.
        fingerprint: Of the pixels and labels of all splits.
        callbacks: What callbacks want to know when the run is resumed, by name.
        recipe: The resolved settings in force.
    """

    stage: int = 0
    epoch: int = 0
    batch: int = 0
    step: int = 0
    stage_started: bool = False
    stage_done: bool = False
    stage_ended: bool = False
    start_step: int = 0
    stop_requested: bool = False
    loss_sum: float = 0.0
    num_images: int = 0
    early_stopping: dict[str, Any] | None = None
    plateau: dict[str, Any] | None = None
    stage_best: Best | None = None
    lowest: Best | None = None
    bests: list[Best] = field(default_factory=list)
    best: Best | None = None
    last: Best | None = None
    late: list[Best] = field(default_factory=list)
    metrics_bytes: int = 0
    bytes_before_interpolation: int = 0
    stage_layers: list[str] = field(default_factory=list)
    trained_layers: list[str] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    gradient_norms: dict[str, float] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    images_per_step: int = 0
    fingerprint: str = ""
    callbacks: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as it stands in state.json; numbers that JSON does not have stand as words."""
        values: dict[str, Any] = _worded(asdict(self))
        return {"version": VERSION, **values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Progress:
        """Return the progress that `to_dict` wrote; keys missing from an older regraft's file take their defaults."""
        known = {item.name for item in fields(cls)}
        values = {key: value for key, value in values.items() if key in known}
        for key in ("stage_best", "lowest", "best", "last"):
            if values.get(key) is not None:
                values[key] = _best_from(values[key])
        values["late"] = [_best_from(found) for found in values.get("late", ())]
        older = [] if values.get("best") is None else [values["best"]]
        values["bests"] = [_best_from(found) for found in values["bests"]] if "bests" in values else older
        for key in ("early_stopping", "plateau"):
            if values.get(key) and isinstance(values[key].get("best"), str):
                values[key] = {**values[key], "best": float(values[key]["best"])}
        return cls(**values)

    @property
    def trained_step(self) -> int:
        """The step that training came to: an interpolation or a soup, which ends a stage, is saved one step later."""
        return self.last.step if self.stage_ended and self.last is not None else self.step

    @property
    def is_merged(self) -> bool:
        """Whether the stage has ended with an interpolation or a soup."""
        return self.trained_step != self.step

    def enter_next_stage(self) -> None:
        """Move on to the first step of the next stage."""
        self.trained_layers = sorted({*self.trained_layers, *self.stage_layers})
        self.stage, self.epoch, self.batch = self.stage + 1, 0, 0
        self.lowest, self.late, self.bytes_before_interpolation = None, [], 0
        self.stage_started = self.stage_done = self.stage_ended = self.stop_requested = False
        self.digests, self.gradient_norms, self.stage_layers = {}, {}, []


def _best_from(values: Mapping[str, Any]) -> Best:
    best = Best(**{**values, "value": float(values["value"])})
    _ = best.of_images  # raises where they are damaged
    return best


def _worded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _worded(item) for key, item in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def read_progress(path: Path) -> Progress:
    """Return the progress of the run as stored in a checkpoint.

    Raises:
        StorageError: It cannot be read, or a newer regraft wrote it.
    """
    try:
        values = stored_json(path / STATE, _SHAPE)
        if int(values.get("version", VERSION)) > VERSION:
            raise ValueError(f"version {values['version']} is of a newer regraft; this one knows version {VERSION}")
        return Progress.from_dict(values)
    except (ValueError, TypeError, AttributeError, KeyError, OverflowError) as error:
        raise unreadable(path / STATE, error) from error


def restore(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer | None
) -> tuple[dict[str, Tensor], Progress]:
    """Load a checkpoint into a model and an optimizer (of the saved stage), in place; returns `extra` and the place."""
    load_weights(path, model)
    tensors, progress = read_tensors(path / OPTIMIZER), read_progress(path)
    if optimizer is not None:
        restore_optimizer(optimizer, _without_prefix("optimizer", tensors), progress.optimizer)
    return _without_prefix("extra", tensors), progress


def load_weights(path: Path, model: nn.Module) -> None:
    """Load a checkpoint's parameters and buffers into `model`, in place.

    Raises:
        SettingsError: They are not this model's.
    """
    stored = read_tensors(path / MODEL)
    try:
        model.load_state_dict(stored)
    except RuntimeError as error:
        raise SettingsError(
            f"The checkpoint {str(path)!r} has other layers than this model.",
            "the model that the run trained",
            "pass the same module, built by the same code",
            details=[" ".join(line.split()) for line in str(error).splitlines()[1:4]],
        ) from error


def holds_extra(path: Path) -> bool:
    """Return whether a whole checkpoint keeps tensors beside the model's and the optimizer's."""
    with safe_open(path / OPTIMIZER, framework="pt") as file:
        return any(name.startswith("extra/") for name in file.keys())  # noqa: SIM118 (it is not a mapping)


def start_tensors(path: Path, model: nn.Module, names: Sequence[str]) -> dict[str, Tensor]:
    """Return the weights of these names that a stage began with, from the checkpoint that it took them from.

    They serve the audit alone: where that checkpoint is damaged, the distances are unknown (NaN) and the run goes on.
    """
    reason = commit.damage(path, only=[MODEL])
    if reason is None:
        stored = read_tensors(path / MODEL)
        return {name: stored[name] for name in names}
    _log.warning("the start of this stage is damaged (%s); its audit will not say how far weights moved", reason)
    parameters = dict(model.named_parameters())
    return {name: torch.full_like(parameters[name], float("nan"), device="cpu") for name in names}


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers, by name; the model's own memory, not copies."""
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}


def optimizer_tensors(optimizer: torch.optim.Optimizer | None) -> dict[str, Tensor]:
    """Return the tensors of an optimizer as `parameter/key`, and of its groups as ` group/key`; its own memory, not
    copies.

    Raises:
        TypeError: It keeps something else than tensors and plain values, which could not be put back.
    """
    tensors: dict[str, Tensor] = {}
    for name, state in _states(optimizer).items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"{name}/{key}"] = value.detach()
            elif not isinstance(value, _PLAIN):
                raise TypeError(f"the optimizer keeps a {type(value).__name__} as {key!r} of {name}")
    for group in optimizer.param_groups if optimizer is not None else ():
        found = {key: value for key, value in group.items() if isinstance(value, Tensor) and key not in _NOT_VALUES}
        tensors |= {f" {group['name']}/{key}": value.detach() for key, value in found.items()}
    return tensors


def optimizer_values(optimizer: torch.optim.Optimizer | None, start: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the optimizer's state beside tensors: numbers of each parameter, and group settings that steps changed.

    Args:
        optimizer: After some steps, or None.
        start: `group_values` of the same optimizer before its first step.
    """
    states = {
        name: {key: value for key, value in state.items() if not isinstance(value, Tensor)}
        for name, state in _states(optimizer).items()
    }
    groups = {
        name: {key: value for key, value in values.items() if start.get(name, {}).get(key, ...) != value}
        for name, values in group_values(optimizer).items()
    }
    return {"states": {name: state for name, state in states.items() if state}, "groups": groups}


def group_values(optimizer: torch.optim.Optimizer | None) -> dict[str, dict[str, Any]]:
    """Return the plain numbers and words of each group, by the group's name."""
    return {
        group["name"]: {
            key: value for key, value in group.items() if key not in _NOT_VALUES and isinstance(value, _PLAIN)
        }
        for group in (optimizer.param_groups if optimizer is not None else ())
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], values: Mapping[str, Any]
) -> None:
    """Load what `optimizer_tensors` and `optimizer_values` gave into a new optimizer over the same names."""
    stored: dict[str, dict[str, Any]] = {name: dict(state) for name, state in values.get("states", {}).items()}
    for name, tensor in tensors.items():
        parameter, _, key = name.rpartition("/")
        stored.setdefault(parameter, {})[key] = tensor
    for group in optimizer.param_groups:
        group.update(values.get("groups", {}).get(group["name"], {}))
        group.update(stored.get(f" {group['name']}", {}))
        on_device = bool(group.get("fused") or group.get("capturable"))
        for name, parameter in zip(group["names"], group["params"], strict=True):
            optimizer.state[parameter] = {
                key: _placed(value, parameter, on_device=on_device or key != "step")
                for key, value in stored.get(name, {}).items()
            }


def carry_over(path: Path, optimizer: torch.optim.Optimizer) -> int:
    """Carry the optimizer state over to a new stage, for each parameter that still trains.

    An optimizer that also keeps something for whole groups starts afresh, because the groups are other ones.

    Args:
        path: The checkpoint that the stage takes its weights from.
        optimizer: Of the same kind as the one in the checkpoint; edited in place.

    Returns:
        For how many parameters something was found.
    """
    tensors, values = _without_prefix("optimizer", read_tensors(path / OPTIMIZER)), read_progress(path).optimizer
    if any(values.get("groups", {}).values()) or any(name.startswith(" ") for name in tensors):
        return 0
    restore_optimizer(optimizer, tensors, values)
    return sum(bool(state) for state in optimizer.state.values())


def _placed(value: Any, parameter: Tensor, *, on_device: bool) -> Any:
    if not isinstance(value, Tensor) or not on_device:
        return value  # torch counts the steps on the CPU, but for fused and capturable optimizers
    if value.shape != parameter.shape:
        return value.to(parameter.device, memory_format=torch.preserve_format)
    # A fused step goes through the memory of a parameter and of its moments side by side: one layout for all.
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _states(optimizer: torch.optim.Optimizer | None) -> dict[str, dict[str, Any]]:
    return {
        name: dict(optimizer.state.get(parameter, {}))  # type: ignore[union-attr]
        for group in (optimizer.param_groups if optimizer is not None else ())
        for name, parameter in zip(group["names"], group["params"], strict=True)
    }


def checkpoint_bytes(model: nn.Module, trainable: Sequence[Sequence[str]], num_late: int = 0) -> int:
    """Return about how much the checkpoints and the model folder of a run take at most, in bytes.

    Args:
        model: The model.
        trainable: The names of what trains in each stage.
        num_late: Late epochs whose weights are kept to be averaged.
    """
    sizes: dict[str, int] = {
        name: tensor.numel() * tensor.element_size() for name, tensor in model.state_dict().items()
    }
    moments: int = 2 * max(sum(sizes.get(name, 0) for name in names) for names in trainable)
    # The last, the one that replaces it, the best, and the stage's start; and the weights of each stage, and model/.
    return int(4 * (sum(sizes.values()) + moments) + (len(trainable) + 1 + num_late) * sum(sizes.values()))


def _without_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(prefix + "/")}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint's file.

    Raises:
        StorageError: It cannot be read.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> StorageError:
    return StorageError(
        f"{str(path)!r} cannot be read: {error}.",
        "a checkpoint that regraft wrote",
        "restore it from a copy, or train again into a new folder",
    )
