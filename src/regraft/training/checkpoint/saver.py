"""Checkpoints: copied in a moment, written behind the training loop, committed one after the other, dropped when old.

The order on the disk is fixed: the checkpoint (one rename makes it exist), then the pointers `last.json` and
`best.json`, then the removal of what nothing needs. A process that dies anywhere in between leaves a run that goes on
from the newest whole checkpoint; `settle` puts the pointers right.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from regraft import commit
from regraft.errors import DivergedError, StorageError
from regraft.machine.budget import memory_budget
from regraft.models.store.unshared import unshared
from regraft.run.folder import RunFolder
from regraft.run.records import finite
from regraft.training.checkpoint.state import (
    MODEL,
    OPTIMIZER,
    STATE,
    Progress,
    model_tensors,
    optimizer_tensors,
    optimizer_values,
    read_progress,
)
from regraft.wording import quantity

__all__ = ["Saver", "latest_checkpoint", "settle"]

_log = logging.getLogger("regraft")


class Saver:
    """Writes the checkpoints of one run, at most one at a time.

    `save` copies the state and returns; a thread writes it while training goes on. What the thread met is raised by
    the next `save` or `wait`; `look` says whether there is something.

    Args:
        run: The run folder.

    Attributes:
        told: Called, by whoever calls `save`, `look` or `wait`, when a checkpoint has reached the disk.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.told: Callable[[], None] = lambda: None
        self._buffers: dict[str, Tensor] = {}
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None,
        progress: Progress,
        *,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
        weights: Mapping[str, Tensor] | None = None,
        extra: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Begin a checkpoint of this moment; waits for the one before.

        Args:
            model: Its parameters and buffers.
            optimizer: Its state, by parameter name; None has none.
            progress: Where the run stands.
            groups: `group_values` of the optimizer before its first step.
            weights: What stands in the place of some of the model's parameters and buffers: averages of them.
            extra: Further tensors to keep.

        Raises:
            StorageError: The one before could not be written; those before it are still whole.
            DivergedError: The one before would have held a trained weight that is not finite.
        """
        self.wait()
        values = optimizer_values(optimizer, groups or {})
        progress = replace(progress, optimizer=values)
        record = commit.as_json(progress.to_dict(), indent=2)
        files = {
            MODEL: {**model_tensors(model), **(weights or {})},
            OPTIMIZER: {
                **_prefixed("optimizer", optimizer_tensors(optimizer)),
                **_prefixed("extra", extra or {}),
            },
        }
        trained = [name for group in (optimizer.param_groups if optimizer else ()) for name in group["names"]]
        copies = self._copies(files)
        arguments = (copies or files, record, progress, trained)
        self._thread = threading.Thread(target=self._write, args=arguments, name="regraft-save")
        self._thread.start()
        if copies is None:
            self.wait()

    def look(self) -> bool:
        """Check for a checkpoint that has reached the disk; returns whether it could not be written, as `wait` says."""
        if self._thread is not None and not self._thread.is_alive() and self._error is None:
            self.wait()
        return self._error is not None

    def wait(self) -> None:
        """Return when everything that was handed in is on the disk.

        Raises:
            StorageError: It could not be written.
            DivergedError: A trained weight is not finite.
        """
        if self._thread is None:
            return
        self._thread.join()
        self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        self.told()

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait; an error that is on its way already is the one that tells what happened."""
        with contextlib.suppress(BaseException) if error is not None else contextlib.nullcontext():
            self.wait()

    def _copies(self, files: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]] | None:
        """Return the tensors as they are now, in memory that is used again for the next checkpoint; None if it is
        scarce.
        """
        missing = sum(
            tensor.numel() * tensor.element_size()
            for file, tensors in files.items()
            for name, tensor in tensors.items()
            if not _fits(self._buffers.get(f"{file}/{name}"), tensor)
        )
        if missing > memory_budget():
            self._buffers.clear()
            return None
        buffers: dict[str, Tensor] = {}
        for file, tensors in files.items():
            for name, tensor in tensors.items():
                key = f"{file}/{name}"
                buffer = self._buffers.pop(key, None)
                buffers[key] = buffer if buffer is not None and _fits(buffer, tensor) else _empty(tensor)
                buffers[key].copy_(tensor)
        self._buffers = buffers
        return {file: {name: buffers[f"{file}/{name}"] for name in tensors} for file, tensors in files.items()}

    def _write(
        self, files: Mapping[str, Mapping[str, Tensor]], record: str, progress: Progress, trained: list[str]
    ) -> None:
        try:
            _require_finite(files[MODEL], trained, progress)
            with commit.storage_errors(self.run.metrics):
                commit.sync(self.run.metrics)  # the checkpoint counts on its lines
            with commit.folder(self.run.checkpoint(progress.step)) as folder:
                for file, tensors in files.items():
                    save_file(unshared(tensors), folder / file)
                (folder / STATE).write_text(record + "\n", encoding="utf-8")
            settle(self.run, progress)
        except BaseException as error:
            self._error = error


def settle(run: RunFolder, progress: Progress) -> None:
    """Point `last.json`, `best.json` and `networks.json` to what is committed, and drop what nothing needs.

    Kept are the newest checkpoint, the best of the run and of the stage, and the one that a stage that goes on, or that
    ended with an interpolation, began with; of the best of other stages, of the last epoch, and of late epochs that may
    be averaged, the weights alone. A stage that ended with an interpolation or a soup can be extended from its last
    epoch, so what that needs stays too.
    """
    _point(run, run.last, {"step": progress.step, "checkpoint": run.checkpoint(progress.step).name})
    if progress.best is not None:
        best = run.weights(progress.best.step).name
        _point(run, run.best, finite({**progress.best.to_dict(), "checkpoint": best}))
    keep, lone = _needed(progress)
    trained = run.checkpoint(progress.trained_step)
    if progress.is_merged and (trained / STATE).is_file():
        more_to_keep, more_lone = _needed(read_progress(trained))
        keep, lone = keep | more_to_keep, lone | more_lone
    lone -= {step for step in keep if run.checkpoint(step).is_dir()}
    for step in lone:
        _keep_weights(run, step)
    if progress.bests:
        _point(run, run.networks, _networks(progress))
    for step in run.checkpoint_steps():
        if step not in keep:
            commit.remove(run.checkpoint(step))
    for step in run.lone_weights_steps():
        if step not in lone:
            commit.remove(run.lone_weights(step))


def _needed(progress: Progress) -> tuple[set[int], set[int]]:
    """Return the steps whose checkpoints a run that stands there needs, and those whose weights it needs."""
    keeps_start = not progress.stage_ended or progress.bytes_before_interpolation
    keep = {progress.step, progress.start_step} if keeps_start else {progress.step}
    keep |= {best.step for best in (progress.best, progress.stage_best) if best is not None}
    return keep, {epoch.step for epoch in (*progress.bests, *progress.late, progress.last) if epoch is not None}


def _keep_weights(run: RunFolder, step: int) -> None:
    """Copy the weights of a checkpoint to a folder of their own, where they are not there yet."""
    whole, lone = run.checkpoint(step), run.lone_weights(step)
    if whole.is_dir() and commit.damage(lone, hashes=False) is not None:
        with commit.folder(lone) as folder:
            shutil.copyfile(whole / MODEL, folder / MODEL)


def _networks(progress: Progress) -> dict[str, Any]:
    """Return the best epoch of each stage and the last one, as plain data."""
    stages = [best.to_dict() for best in progress.bests]
    networks: dict[str, Any] = finite({"stages": stages, "last": progress.last and progress.last.to_dict()})
    return networks


def latest_checkpoint(run: RunFolder) -> Path:
    """Return the newest checkpoint that is whole; damaged ones are passed over with a message.

    Raises:
        StorageError: None is whole.
    """
    steps = run.checkpoint_steps()
    for step in reversed(steps):
        path = run.checkpoint(step)
        reason = commit.damage(path)
        if reason is None:
            return path
        _log.warning("checkpoint %s is damaged (%s); falling back to the previous checkpoint", path.name, reason)
    raise StorageError(
        f"None of the {quantity(len(steps), 'checkpoint')} of {str(run.path)!r} is whole.",
        "at least one that can be read back",
        "train again into a new folder",
    )


def _point(run: RunFolder, pointer: Path, target: dict[str, Any]) -> None:
    try:
        before = run.read(pointer)
    except StorageError:
        before = None
    if before != target:
        commit.write_json(pointer, target)


def _require_finite(tensors: Mapping[str, Tensor], trained: list[str], progress: Progress) -> None:
    """Refuse weights that are not finite: such a checkpoint is never written."""
    wrong = [name for name in trained if not bool(torch.isfinite(tensors[name]).all())]
    if wrong:
        raise DivergedError(
            f"After step {progress.step} the weights of {wrong[0]!r} are not finite; this state is not saved.",
            "finite numbers",
            "lower the learning rate, or set `clip_norm: 1.0`",
        )


def _fits(buffer: Tensor | None, tensor: Tensor) -> bool:
    return buffer is not None and buffer.shape == tensor.shape and buffer.dtype == tensor.dtype


def _empty(tensor: Tensor) -> Tensor:
    """Return memory for a copy, laid out as the tensor is. NumPy asks for huge pages, which saves most of the first
    touch.
    """
    num_bytes = tensor.numel() * tensor.element_size()
    raw = torch.from_numpy(np.empty(max(num_bytes, 1), dtype=np.uint8))
    strides = torch.empty_like(tensor, device="meta").stride()
    return raw[:num_bytes].view(tensor.dtype).as_strided(tensor.shape, strides)


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": tensor.detach() for name, tensor in tensors.items()}
