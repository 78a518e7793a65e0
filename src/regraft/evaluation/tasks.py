"""What each kind of output is measured by, for people: the figure that counts, its name, how it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["SHARES", "TASKS", "Task", "main_of", "task_of", "told"]


@dataclass(frozen=True)
class Task:
    """How the results of one kind of output are told.

    Attributes:
        main: The measure that stands for all, a key of what `evaluate` returns and, with `val_`, of metrics.jsonl.
        names: The measures of an epoch or a split and their names for people, the main one first.
    """

    main: str
    names: Mapping[str, str]


TASKS: Mapping[str, Task] = {
    "softmax": Task("top1", {"top1": "accuracy", "top5": "top-5 accuracy", "balanced_accuracy": "balanced accuracy"}),
    "binary": Task(
        "auc",
        {
            "auc": "ROC-AUC",
            "ap": "average precision",
            "top1": "accuracy",
            "balanced_accuracy": "balanced accuracy",
        },
    ),
    "multilabel": Task(
        "map",
        {"map": "mean average precision", "f1_micro": "micro F1", "f1_macro": "macro F1", "exact": "all labels right"},
    ),
    "segmentation": Task(
        "miou",
        {
            "miou": "mean IoU",
            "pixel_accuracy": "pixel accuracy",
            "class_accuracy": "class accuracy",
            "boundary_f1": "boundary F1",
        },
    ),
}
# Told as percentages: shares of images, or of pixels.
SHARES = ("top1", "top5", "balanced_accuracy", "exact", "pixel_accuracy", "class_accuracy")


def task_of(measures: Mapping[str, Any]) -> Task:
    """Return the task of what `evaluate` returned; runs of older versions have no `output` and are softmax."""
    return TASKS.get(str(measures.get("output", "softmax")), TASKS["softmax"])


def main_of(record: Mapping[str, Any]) -> str | None:
    """Return the main metric of a line of metrics.jsonl, with its prefix; None where it has none.

    Accuracy comes last, because other outputs have it too.
    """
    mains = sorted((f"val_{task.main}" for task in TASKS.values()), key=lambda key: key == "val_top1")
    return next((key for key in mains if record.get(key) is not None), None)


def told(key: str, value: Any, digits: int = 2) -> str:
    """Return a metric for display: shares of images as percentages, areas and losses as numbers."""
    name = key.removeprefix("val_").removeprefix("train_")
    return f"{value:.{digits}%}" if name in SHARES else f"{value:.4f}"
