"""The run folder's tensorboard/: what the network sees, learns and gets wrong, for `tensorboard --logdir RUN`.

Every value stands at the optimizer step of the whole run that it belongs to. A resumed run cuts off what was written
after its checkpoint, as with metrics.jsonl, so each step is there once.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from regraft import commit
from regraft.compute.graph import trace_graph
from regraft.run.records import candidate_name, curves
from regraft.training.callbacks import Callback
from regraft.training.loggers.event_file import EventFile, event_files, histogram, picture, scalar
from regraft.training.loggers.graph_nodes import graph_nodes
from regraft.training.loggers.pictures import Picture, confusion_picture, grid_picture

if TYPE_CHECKING:
    from regraft.training.views import RunView, StageView

__all__ = ["TensorBoard"]

_NUM_BINS = 64
_MOST_NUMBERS = 1 << 20  # of a tensor that a histogram counts, evenly spread


class TensorBoard(Callback):
    """Writes the event files of one run; needs no package.

    Args:
        folder: Where; RunFolder.tensorboard.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: dict[str, Any] = {}
        self._file: EventFile | None = None

    def __str__(self) -> str:
        return "TensorBoard"

    @property
    def file(self) -> EventFile:
        """The open event file."""
        if self._file is None:
            self._file = EventFile(self._folder)
        return self._file

    def on_run_start(self, session: RunView) -> None:
        """Begin a new file with the network's graph; a resumed run keeps its files up to its checkpoint."""
        self._cut_back()
        if self._kept:
            self.file.add_restart(session.progress.step + 1)
            return
        graph = trace_graph(session.model)
        if graph is not None:
            self.file.add_graph(graph_nodes(session.model, graph))
        self.file.flush()

    def on_step_end(self, stage: StageView, loss: float) -> None:
        """Write the loss and the rates; a stage's first step also shows the inputs, an epoch's last one the
        gradients.
        """
        values = {"step/loss": loss, **{f"step/lr/{name}": rate for name, rate in stage.progress.rates.items()}}
        self.file.add_values(stage.progress.step, [scalar(tag, value) for tag, value in values.items()])
        if stage.progress.epoch == 0 and stage.progress.batch == 1:
            self._show_inputs(stage)
        if stage.progress.batch == stage.num_steps:  # a run that resumes from here to validate has no gradients
            self._add_histograms(stage.progress.step, _gradients(stage))

    def on_epoch_end(self, stage: StageView, record: Mapping[str, Any]) -> None:
        """Write the line of metrics.jsonl, the confusion matrix of the validation, the weights of what trains."""
        step = stage.progress.step
        self.file.add_values(step, [scalar(f"epoch/{key}", value) for key, value in curves(record).items()])
        if stage.is_solved and stage.progress.epoch == 1:
            self._show_inputs(stage)
        counts = stage.measure.confusion() if stage.measure is not None else None
        if counts is not None:
            self._add_picture(step, "confusion", confusion_picture(counts, stage.session.class_names))
        self._add_histograms(step, _weights(stage))
        self.file.flush()

    def on_candidate(self, stage: StageView, record: Mapping[str, Any]) -> None:
        """Write the line of metrics.jsonl under its name, at the step that it would be saved at."""
        values = {f"{candidate_name(record)}/{key}": value for key, value in curves(record).items()}
        self.file.add_values(stage.progress.step + 1, [scalar(tag, value) for tag, value in values.items()])
        self.file.flush()

    def on_run_end(self, session: RunView) -> None:
        """Flush everything to the disk."""
        self.file.flush()

    def state_dict(self) -> dict[str, Any]:
        """Return the newest event file and its size at this checkpoint; everything before is on the disk."""
        if self._file is None:
            return self._kept
        self._file.flush()
        return {"file": self._file.path.name, "num_bytes": self._file.num_bytes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the size of the newest file at the checkpoint."""
        self._kept = state

    def close(self) -> None:
        """Write what waits."""
        if self._file is not None:
            self._file.flush()

    def _cut_back(self) -> None:
        """Cut what was written after the checkpoint, so that a resumed run has each step once."""
        name = self._kept.get("file", "")
        for path in event_files(self._folder):
            with commit.storage_errors(path), contextlib.suppress(FileNotFoundError):
                if path.name > name:
                    path.unlink()
                elif path.name == name and path.stat().st_size > self._kept["num_bytes"]:
                    os.truncate(path, self._kept["num_bytes"])

    def _add_histograms(self, step: int, tensors: Iterator[tuple[str, Tensor]]) -> None:
        self.file.add_values(step, [value for tag, tensor in tensors for value in _histogram(tag, tensor)])

    def _show_inputs(self, stage: StageView) -> None:
        if stage.source.shown is not None:
            images, masks = stage.session.normaliser.undone(stage.source.shown), stage.source.shown_masks
            palette = stage.session.palette
            if masks is not None and palette is not None:  # each image beside its mask
                coloured = palette[masks.numpy()]
                images = np.stack([images, coloured], axis=1).reshape(-1, *images.shape[1:])
            self._add_picture(stage.progress.step, f"inputs/{stage.stage.name}", grid_picture(images))

    def _add_picture(self, step: int, tag: str, made: Picture) -> None:
        value = picture(tag, made.png, height=made.height, width=made.width, channels=made.channels)
        self.file.add_values(step, [value])


def _weights(stage: StageView) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in stage.model.named_parameters():
        if parameter.requires_grad:
            yield f"weights/{name}", parameter.detach()


def _gradients(stage: StageView) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in stage.model.named_parameters():
        if parameter.grad is not None:
            yield f"gradients/{name}", parameter.grad.detach()


def _histogram(tag: str, tensor: Tensor) -> Iterator[bytes]:
    """Return counts in equal bins; none where no number is finite."""
    numbers = tensor.float().flatten()
    numbers = numbers[:: max(1, -(-len(numbers) // _MOST_NUMBERS))]
    numbers = numbers[torch.isfinite(numbers)]
    if not len(numbers):
        return
    facts = torch.stack([*numbers.aminmax(), numbers.sum(), numbers.square().sum()]).tolist()
    low, high = facts[:2]
    if low == high:
        limits, counts = [low, low + max(abs(low), 1.0) * 1e-6], [0.0, float(len(numbers))]
    else:
        counts = torch.histc(numbers, _NUM_BINS, low, high).tolist()
        limits = torch.linspace(low, high, _NUM_BINS + 1, dtype=torch.float64)[1:].tolist()
    yield histogram(tag, [low, high, len(numbers), *facts[2:]], limits, counts)
