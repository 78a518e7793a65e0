"""Measures of a pass over a split, taken batch by batch; one class for each kind of output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from regraft.data.class_table import IGNORED
from regraft.evaluation.metrics.calibrated import PixelSample, calibrated_losses
from regraft.evaluation.metrics.pixels import pixel_metrics
from regraft.evaluation.metrics.scores import average_precision, roc_auc
from regraft.evaluation.metrics.thresholds import choose_thresholds
from regraft.models.describe.outputs import probabilities

__all__ = ["Measure", "measure_for", "undefined_measures"]

_TOP_K = 5
_MOST_CONFUSED = 200  # classes; beyond, a confusion matrix is a cloud of dots


class Measure(Protocol):
    """Takes in batches, gives the measures of all of them."""

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Take in one batch; logits are fp32."""

    def compute(self) -> dict[str, float]:
        """Return the metrics so far, by name; `loss` is always among them, and undefined ones are NaN."""

    def losses(self) -> Tensor:
        """Return the loss of each image at the temperature that is best for all of them, fp64, in order.

        The measure `calibrated_loss` is their mean.
        """

    def thresholds(self) -> dict[str, float]:
        """Return the best threshold of each name that has one; none where the largest probability wins."""
        return {}

    def confusion(self) -> npt.NDArray[np.int64] | None:
        """Return the confusion matrix (C, C): rows are the truth, columns the prediction; None where it is not kept."""
        return None


def measure_for(output: str, class_names: Sequence[str], adjustment: Tensor | None = None) -> Measure:
    """Return the accumulator of an epoch's metrics for this kind of output.

    Args:
        output: A key of `regraft.models.describe.outputs.OUTPUTS`.
        class_names: The names.
        adjustment: Of softmax: what the training loss adds to the logits, (C,), where it corrects for classes of
            different sizes. The losses at the best temperature do so too, as the images have these sizes.
    """
    if adjustment is not None and output == "softmax":
        return _Softmax(class_names, adjustment)
    return _MEASURES[output](class_names)


def undefined_measures(output: str, labels: npt.NDArray[np.integer], class_names: Sequence[str]) -> dict[str, str]:
    """Return the metrics that are undefined for these labels, whatever is predicted, each with the reason.

    Args:
        output: A key of `regraft.models.describe.outputs.OUTPUTS`.
        labels: (N,) class numbers, or (N, C) of 0 and 1.
        class_names: The C names.
    """
    if output == "multilabel" and not labels.any():
        return {"map": "no image has a label"}
    if output != "binary" or len(set(labels.tolist())) == 2:
        return {}
    reason = f"all images are {class_names[int(labels[0])]!r}" if len(labels) else "there are no images"
    return {name: reason for name in ("auc", "ap") if name == "auc" or not labels.any()}


class _Collected(Measure):
    """Keeps logits and targets on the CPU: measures of ranking and the best temperature need all of them."""

    output: str

    def __init__(self, class_names: Sequence[str], adjustment: Tensor | None = None) -> None:
        self.class_names, self.adjustment = class_names, adjustment
        self._logits: list[Tensor] = []
        self._targets: list[Tensor] = []
        self._losses: Tensor | None = None

    def update(self, logits: Tensor, targets: Tensor) -> None:
        self._logits.append(logits.float().cpu())
        self._targets.append(targets.cpu())
        self._losses = None

    def all(self) -> tuple[Tensor, Tensor]:
        """Return the logits and the targets of all batches."""
        return torch.cat(self._logits), torch.cat(self._targets)

    def losses(self) -> Tensor:
        if self._losses is None:
            logits, targets = self.all()
            sigmoid = self.output != "softmax"
            targets = targets.reshape(logits.shape) if sigmoid else targets
            logits = logits if self.adjustment is None else logits + self.adjustment
            self._losses = calibrated_losses(logits, targets, sigmoid=sigmoid)
        return self._losses

    def calibrated(self) -> dict[str, float]:
        """Return the mean of the losses at the best temperature, by its name."""
        return {"calibrated_loss": float(self.losses().mean())}


class _Softmax(_Collected):
    """Mean cross-entropy, share of right answers, mean recall of the classes that occur; counts are whole numbers."""

    output = "softmax"

    def __init__(self, class_names: Sequence[str], adjustment: Tensor | None = None) -> None:
        super().__init__(class_names, adjustment)
        self.num_classes = len(class_names)
        self.loss_sum, self.num_right, self.num_in_top, self.num_images = 0.0, 0, 0, 0
        self.hits, self.support = (torch.zeros(self.num_classes, dtype=torch.int64) for _ in range(2))
        self.pairs = torch.zeros(self.num_classes**2 if self.num_classes <= _MOST_CONFUSED else 0, dtype=torch.int64)

    def update(self, logits: Tensor, targets: Tensor) -> None:
        super().update(logits, targets)
        self.loss_sum += float(F.cross_entropy(logits, targets, reduction="sum"))
        called = logits.argmax(1)
        right = called == targets
        if len(self.pairs):
            self.pairs += torch.bincount(targets * self.num_classes + called, minlength=len(self.pairs)).cpu()
        self.num_right += int(right.sum())
        self.num_images += len(targets)
        self.support += torch.bincount(targets, minlength=self.num_classes).cpu()
        self.hits += torch.bincount(targets[right], minlength=self.num_classes).cpu()
        if self.num_classes > _TOP_K:
            top = logits.topk(_TOP_K, dim=1).indices
            self.num_in_top += int((top == targets[:, None]).sum())

    def compute(self) -> dict[str, float]:
        num = max(self.num_images, 1)
        values = {"loss": self.loss_sum / num, **self.calibrated(), "top1": self.num_right / num}
        if self.num_classes > _TOP_K:
            values["top5"] = self.num_in_top / num
        occurs = self.support > 0
        return {**values, "balanced_accuracy": float((self.hits[occurs] / self.support[occurs].double()).mean())}

    def confusion(self) -> npt.NDArray[np.int64] | None:
        return self.pairs.reshape(self.num_classes, self.num_classes).numpy() if len(self.pairs) else None


class _Decided(_Collected):
    """Each logit decides for itself, from a threshold of its own on."""

    def thresholds(self) -> dict[str, float]:
        logits, targets = self.all()
        return choose_thresholds(
            self.output, probabilities(self.output, logits).numpy(), targets.numpy(), self.class_names
        )


class _Binary(_Decided):
    """Mean cross-entropy, accuracies at a probability of 0.5, and the two areas; the second class is the positive."""

    output = "binary"

    def compute(self) -> dict[str, float]:
        logits, targets = self.all()
        scores, positive = logits[:, 0].numpy(), targets.numpy() == 1
        right = (scores >= 0) == positive
        recalls = [right[kind].mean() for kind in (positive, ~positive) if kind.any()]
        return {
            "loss": _mean_entropy(logits[:, 0], targets),
            **self.calibrated(),
            "top1": float(right.mean()),
            "balanced_accuracy": float(np.mean(recalls)),
            "auc": roc_auc(scores, positive),
            "ap": average_precision(scores, positive),
        }

    def confusion(self) -> npt.NDArray[np.int64]:
        logits, targets = self.all()
        pairs = targets.numpy().astype(np.int64) * 2 + (logits[:, 0].numpy() >= 0)
        return np.bincount(pairs, minlength=4).reshape(2, 2).astype(np.int64)


class _MultiLabel(_Decided):
    """Mean cross-entropy over images and labels, mean average precision, F1 at probabilities of 0.5."""

    output = "multilabel"

    def compute(self) -> dict[str, float]:
        logits, targets = self.all()
        scores, positive = logits.numpy(), targets.numpy() != 0
        precisions = [average_precision(scores[:, place], positive[:, place]) for place in range(scores.shape[1])]
        micro, macro = _f1(scores >= 0, positive)
        return {
            "loss": _mean_entropy(logits, targets),
            **self.calibrated(),
            "map": _mean_of_defined(precisions, undefined=~positive.any(0)),
            "f1_micro": micro,
            "f1_macro": macro,
        }


class _Segmentation(Measure):
    """Mean cross-entropy of the pixels that count, and what a confusion matrix of pixels gives.

    The logits of some pixels of each image are kept, for the best temperature.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names, num = class_names, len(class_names)
        self._sample = PixelSample()
        self.loss_sum, self.pairs = 0.0, torch.zeros(num * num, dtype=torch.int64)

    def update(self, logits: Tensor, targets: Tensor) -> None:
        masks = targets.long()
        self._sample.update(logits, masks)
        self.loss_sum += float(F.cross_entropy(logits, masks, ignore_index=IGNORED, reduction="sum"))
        counted = masks != IGNORED
        pairs = masks[counted] * len(self.class_names) + logits.argmax(1)[counted]
        self.pairs += torch.bincount(pairs, minlength=len(self.pairs)).cpu()

    def compute(self) -> dict[str, float]:
        measures = pixel_metrics(self.confusion(), self.class_names)
        values = {name: measures[name] for name in ("miou", "pixel_accuracy", "class_accuracy")}
        num = int(self.pairs.sum())
        named = {name: float("nan") if value is None else float(value) for name, value in values.items()}
        losses = {
            "loss": self.loss_sum / num if num else float("nan"),
            "calibrated_loss": float(self.losses().nanmean()),
        }
        return {**losses, **named}

    def losses(self) -> Tensor:
        return self._sample.losses()

    def confusion(self) -> npt.NDArray[np.int64]:
        return self.pairs.reshape(len(self.class_names), -1).numpy()


_MEASURES: Mapping[str, Callable[[Sequence[str]], Measure]] = {
    "softmax": _Softmax,
    "binary": _Binary,
    "multilabel": _MultiLabel,
    "segmentation": _Segmentation,
}


def _mean_entropy(logits: Tensor, targets: Tensor) -> float:
    wide = logits.double()
    return float(F.binary_cross_entropy_with_logits(wide, targets.to(wide)))


def _f1(called: npt.NDArray[np.bool_], positive: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Return the scores of all decisions together, and the mean over labels; a label that neither occurs nor is
    named has none.
    """
    hits, sizes = (called & positive).sum(0), called.sum(0) + positive.sum(0)
    each = np.divide(2 * hits, sizes, out=np.full(len(hits), np.nan), where=sizes > 0)
    micro = 2 * hits.sum() / sizes.sum() if sizes.sum() else float("nan")
    return float(micro), _mean_of_defined(each.tolist(), undefined=sizes == 0)


def _mean_of_defined(values: Sequence[float], undefined: npt.NDArray[np.bool_]) -> float:
    """Return the mean of those that are defined; NaN where none is, or where a defined one is NaN."""
    kept = np.asarray(values, dtype=np.float64)[~undefined]
    return float(kept.mean()) if len(kept) else float("nan")
