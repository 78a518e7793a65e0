"""What a head that was solved last knows of its images is kept until the model is written: nothing passes the network
again.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TypeGuard

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save
from torch import nn

from regraft import commit
from regraft.errors import StorageError
from regraft.evaluation.trust.novelty import Evidence
from regraft.evaluation.trust.pixel_temperature import FEWEST_WITH_MASKS, MOST_WITH_MASKS
from regraft.evaluation.trust.temperatures import FEWEST
from regraft.machine.processes import is_main_process
from regraft.training.callbacks import Callback
from regraft.training.checkpoint.state import read_tensors
from regraft.training.views import StageView

__all__ = [
    "EvidenceKeeper",
    "kept_evidence",
    "num_looked_at",
    "num_looked_at_with_masks",
    "rows_to_train",
    "rows_to_validate",
    "rows_with_masks",
]

_MOST_VAL = 10_000  # images, evenly over the split: more would say the same
_MOST_TRAIN = 1000  # images that the detector is fitted to


class EvidenceKeeper(Callback):
    """Writes the features and logits of a solved head, before the checkpoint that ends its stage: a run that is resumed
    there finds them too.
    """

    def on_stage_end(self, stage: StageView) -> None:
        """Keep what the last stage knows, where it is a solved head whose features are at hand."""
        session = stage.session
        is_last = stage.progress.stage == len(session.plan.stages) - 1
        if not (stage.is_solved and is_last and is_main_process()) or len(session.labels["val"]) < FEWEST:
            return
        head = next((layer for layer in stage.model.modules() if _is_trained(layer)), None)
        if head is None or any(stage.source.kept.of(name) is None for name in ("train", "val")):
            return
        tensors: dict[str, torch.Tensor] = {}
        for name in ("train", "val"):
            features, labels = (tensor.cpu() for tensor in stage.source.matrix(name))
            some = rows_to_train(labels.numpy()) if name == "train" else rows_to_validate(len(labels))
            features, labels = features[some], labels[some]
            with torch.no_grad():
                logits = torch.nn.functional.linear(features.float(), head.weight.cpu(), head.bias.cpu())
            of_one = labels if labels.ndim == 1 else torch.full((len(labels),), -1)
            parts = {"features": features.float().flatten(1), "logits": logits, "labels": of_one.long()}
            tensors |= {f"{name}.{key}": tensor.contiguous() for key, tensor in parts.items()}
        with suppress(StorageError):  # then the images pass the network once more
            commit.write_bytes(session.run_folder.evidence, save(tensors))


def kept_evidence(path: Path) -> dict[str, Evidence] | None:
    """Return what was kept of the images to validate and of some to train on, by split; None where nothing was."""
    if not path.exists():
        return None
    tensors = read_tensors(path)
    parts = ("features", "logits", "labels")
    return {name: Evidence(*(tensors[f"{name}.{part}"] for part in parts)) for name in ("train", "val")}


def num_looked_at(num_train: int, num_val: int) -> int:
    """Return how many images pass a network that was trained once more, so that it knows itself."""
    return 0 if num_val < FEWEST else min(num_val, _MOST_VAL) + min(num_train, _MOST_TRAIN)


def num_looked_at_with_masks(num_val: int) -> int:
    """Return how many images pass a network for masks once more."""
    return 0 if num_val < FEWEST_WITH_MASKS else min(num_val, MOST_WITH_MASKS)


def rows_with_masks(num: int) -> npt.NDArray[np.int64]:
    """Return the rows of the validation images whose pixels are looked at, of so many."""
    return _evenly(num, MOST_WITH_MASKS)


def rows_to_validate(num: int) -> npt.NDArray[np.int64]:
    """Return the rows of the validation images that are looked at, of so many."""
    return _evenly(num, _MOST_VAL)


def rows_to_train(labels: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Return some rows, evenly over each class."""
    if labels.ndim == 2:
        return _evenly(len(labels), _MOST_TRAIN)
    return np.sort(np.argsort(labels, kind="stable")[_evenly(len(labels), _MOST_TRAIN)])


def _evenly(num: int, most: int) -> npt.NDArray[np.int64]:
    return np.unique(np.linspace(0, num - 1, min(most, num)).round().astype(np.int64))


def _is_trained(layer: nn.Module) -> TypeGuard[nn.Linear]:
    return isinstance(layer, nn.Linear) and layer.bias is not None and layer.weight.requires_grad
