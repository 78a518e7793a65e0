"""What a network's logits mean: one table, in which each kind of output stands once.

`softmax`: one class of C, C logits. `binary`: one of two classes, one logit, its sigmoid is the probability of the
second class. `multilabel`: any of C labels, C logits, each with a sigmoid of its own. `segmentation`: one of C classes
for each pixel, logits (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from regraft.errors import SettingsError
from regraft.models.describe.decide import chosen_places
from regraft.models.describe.info import info_of
from regraft.wording import quantity

__all__ = [
    "DEFAULT_THRESHOLD",
    "OUTPUTS",
    "check_num_classes",
    "decide",
    "monitors",
    "num_logits",
    "output_of",
    "probabilities",
    "row_names",
    "threshold_names",
]

DEFAULT_THRESHOLD = 0.5
_TOP_K = 5


@dataclass(frozen=True)
class _Output:
    """One kind of output.

    Attributes:
        logits_name: How it is called for people.
        fewest: Classes that it needs at least.
        most: Classes that it can have at most; None for any number.
        num_logits: Number of classes -> number of logits.
        probabilities: Logits in fp32 -> probabilities (N, classes), or (N, classes, H, W).
        thresholded: Class names -> those whose probability is compared with a threshold of their own.
        measures: What an epoch is described by, without the prefix `val_`.
    """

    logits_name: str
    fewest: int
    most: int | None
    num_logits: Callable[[int], int]
    probabilities: Callable[[Tensor], Tensor]
    thresholded: Callable[[Sequence[str]], tuple[str, ...]]
    measures: tuple[str, ...]


def _sigmoid(logits: Tensor) -> Tensor:
    """Compute in fp64: in fp32 everything from a logit of 17 on would be 1, and no ranking left."""
    return logits.cpu().double().sigmoid()


def _both_sides(logits: Tensor) -> Tensor:
    """Turn (N, 1) into (N, 2)."""
    return torch.cat([_sigmoid(-logits), _sigmoid(logits)], dim=1)


OUTPUTS: Mapping[str, _Output] = {
    "softmax": _Output(
        "softmax over the classes",
        fewest=2,
        most=None,
        num_logits=lambda num_classes: num_classes,
        probabilities=lambda logits: logits.softmax(1),
        thresholded=lambda names: (),
        measures=("loss", "calibrated_loss", "top1", "top5", "balanced_accuracy"),
    ),
    "binary": _Output(
        "one logit with a sigmoid",
        fewest=2,
        most=2,
        num_logits=lambda num_classes: 1,
        probabilities=_both_sides,
        thresholded=lambda names: (names[1],),
        measures=("loss", "calibrated_loss", "top1", "balanced_accuracy", "auc", "ap"),
    ),
    "multilabel": _Output(
        "a sigmoid for each label",
        fewest=1,
        most=None,
        num_logits=lambda num_classes: num_classes,
        probabilities=_sigmoid,
        thresholded=tuple,
        measures=("loss", "calibrated_loss", "map", "f1_micro", "f1_macro"),
    ),
    "segmentation": _Output(
        "softmax over the classes of each pixel",
        fewest=2,
        most=None,
        num_logits=lambda num_classes: num_classes,
        probabilities=lambda logits: logits.softmax(1),
        thresholded=lambda names: (),
        measures=("loss", "calibrated_loss", "miou", "pixel_accuracy", "class_accuracy"),
    ),
}


def output_of(model: nn.Module) -> str:
    """Return the kind of output that the model's head gives."""
    return info_of(model).output


def num_logits(output: str, num_classes: int) -> int:
    """Return the number of logits for so many classes."""
    return OUTPUTS[output].num_logits(num_classes)


def row_names(output: str, class_names: Sequence[str]) -> tuple[str, ...]:
    """Return the class name of each logit: all of them, or the second class alone for a single logit."""
    return tuple(class_names[-num_logits(output, len(class_names)) :])


def probabilities(output: str, logits: Tensor) -> Tensor:
    """Turn logits (N, num_logits, ...) into probabilities (N, num_classes, ...), in the order of the class names."""
    return OUTPUTS[output].probabilities(logits)


def threshold_names(output: str, class_names: Sequence[str]) -> tuple[str, ...]:
    """Return the class names whose probability is compared with a threshold; none where the largest wins."""
    return OUTPUTS[output].thresholded(class_names)


def decide(
    output: str, values: npt.NDArray[np.floating], class_names: Sequence[str], thresholds: Mapping[str, float]
) -> tuple[int, ...]:
    """Return the predicted classes for one row of probabilities, as positions in the class names.

    The most probable class; of two classes the second one if its probability reaches its threshold, else the first;
    of labels all that reach theirs.
    """
    names = threshold_names(output, class_names)
    return chosen_places(values, class_names, {name: thresholds.get(name, DEFAULT_THRESHOLD) for name in names})


def monitors(output: str, num_classes: int) -> tuple[str, ...]:
    """Return the metrics of an epoch that can select the best, end a stage or lower a rate."""
    names = [name for name in OUTPUTS[output].measures if name != "top5" or num_classes > _TOP_K]
    return (*(f"val_{name}" for name in names), "train_loss")


def check_num_classes(output: str, class_names: Sequence[str]) -> None:
    """Raise SettingsError where these classes and this output do not go together."""
    kind, num = OUTPUTS[output], len(class_names)
    if num < kind.fewest:
        raise SettingsError(
            f"The class list has {num} name(s): {list(class_names)!r}.",
            "at least two classes" if kind.fewest > 1 else "at least one label",
            "add the other classes",
        )
    if kind.most is not None and num > kind.most:
        raise SettingsError(
            f"The output {output!r} is {kind.logits_name}, and there are {quantity(num, 'class', 'classes')}: "
            f"{_short(class_names)}.",
            "exactly two classes; the second is the one whose probability the logit gives",
            "set `head.output: softmax` (`rg.Head(output='softmax')`), or `multilabel` where an image has several",
        )


def _short(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")
