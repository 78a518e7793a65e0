"""Classes of different sizes: their weights in the loss, or how often their images are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regraft.data.labels import Labels, are_multilabel, class_counts
from regraft.data.random import bits, permutation
from regraft.errors import SettingsError
from regraft.plan.class_weights import Weights, by_class_name

__all__ = ["class_weights", "epoch_order", "log_shares", "pixel_weights"]

Indices = npt.NDArray[np.int64]
_STREAM = 0x62616C616E6365  # keeps these numbers apart from others drawn with the same seed and epoch


def class_weights(wanted: Weights, class_names: Sequence[str], labels: Labels) -> Tensor | None:
    """Return the weight of each class, fp32 (C,), or None.

    `balanced` is the number of images over the number of classes and the class's own images, as in scikit-learn
    (a class without an image has 0); where images may have several labels, a label's weight is that of its positives,
    and makes them count as much as its negatives. A mapping gives 1 to the classes that it does not name;
    its keys are names, or positions (see `by_class_name`).
    """
    wanted = by_class_name(wanted, class_names)
    if wanted is None:
        return None
    if isinstance(wanted, Mapping):
        return torch.tensor([float(wanted.get(name, 1.0)) for name in class_names])
    if not isinstance(wanted, str):
        return torch.tensor([float(weight) for weight in wanted])
    counts = class_counts(labels, len(class_names))
    if are_multilabel(labels):
        negatives = len(labels) - counts
        return torch.from_numpy(np.where(counts * negatives > 0, negatives / np.maximum(counts, 1), 1.0)).float()
    balanced = len(labels) / (len(class_names) * np.maximum(counts, 1))
    return torch.from_numpy(np.where(counts > 0, balanced, 0.0)).float()


def log_shares(factor: float, num_classes: int, labels: Labels) -> Tensor | None:
    """Return what a loss adds to the logits (logit adjustment), fp32 (C,): the factor times the logarithm of each
    class's share of the images; None for a factor of 0. A class without an image counts as if it had one.
    """
    if not factor:
        return None
    shares = np.maximum(class_counts(labels, num_classes), 1) / len(labels)
    return torch.from_numpy(factor * np.log(shares)).float()


def pixel_weights(
    wanted: str | Sequence[float] | Mapping[str, float] | None,
    class_names: Sequence[str],
    counts: Callable[[], npt.NDArray[np.int64]],
) -> Tensor | None:
    """Return the weight of each class in a loss of pixels, fp32 (C,), or None; a class without a pixel has 0.

    `median_frequency`: the median of the classes' frequencies over the class's own, where a frequency is the share of
    its pixels in the images that have it (D. Eigen, R. Fergus, "Predicting Depth, Surface Normals and Semantic Labels",
    2015). `balanced`: the number of pixels over the number of classes and the class's own pixels.

    Args:
        wanted: One of these, or the weights themselves.
        class_names: The C names.
        counts: Gives the pixels of each class in each image, int64 (images, C).
    """
    if not isinstance(wanted, str):
        return class_weights(wanted, class_names, np.zeros((0, len(class_names)), np.uint8))
    pixels = counts()
    own, whole = pixels.sum(0), pixels.sum(1)
    if wanted == "balanced":
        weights = own.sum() / (len(class_names) * np.maximum(own, 1))
    else:
        frequencies = own / np.maximum(((pixels > 0) * whole[:, None]).sum(0), 1)
        median = np.median(frequencies[own > 0]) if own.any() else 0.0
        weights = median / np.maximum(frequencies, np.finfo(np.float64).tiny)
    return torch.from_numpy(np.where(own > 0, weights, 0.0)).float()


def epoch_order(sampling: str, seed: int, epoch: int, labels: Labels) -> Indices:
    """Return the samples of an epoch in order, as many as there are images: a function of seed and epoch.

    Args:
        sampling: `shuffled`: each image once. `balanced`: each class equally often (give or take one); images of small
            classes come several times, each time as another view, images of large ones not all.
        seed: The run's seed.
        epoch: The epoch.
        labels: The class of each image.

    Returns:
        Numbers of samples: row + n * number of rows for the n-th view of a row.

    Raises:
        SettingsError: `balanced` for images that may have several labels.
    """
    num_rows = len(labels)
    shuffled = permutation(seed, epoch, num_rows)
    if sampling == "shuffled":
        return shuffled
    if are_multilabel(labels):
        raise SettingsError(
            "`sampling: balanced` was asked for, and images may have several labels.",
            "it shows each class equally often, which needs one class for each image",
            "set `class_weights: balanced` instead",
        )
    classes = np.unique(labels)
    quotas = np.full(len(classes), num_rows // len(classes))
    quotas[permutation(seed, epoch, len(classes))[: num_rows % len(classes)]] += 1
    taken = [
        _views(np.flatnonzero(labels == number), int(quota), num_rows, seed, epoch)
        for number, quota in zip(classes, quotas, strict=True)
    ]
    return np.concatenate(taken)[shuffled]


def _views(rows: Indices, quota: int, num_rows: int, seed: int, epoch: int) -> Indices:
    """Draw samples of one class: its rows in random order, again and again, each time as the next view."""
    num_views = -(-quota // len(rows))
    keys = bits(seed, _STREAM, epoch, np.arange(num_views), int(rows[0]), num=len(rows))
    views = [rows[np.argsort(key, kind="stable")] + view * num_rows for view, key in enumerate(keys)]
    return np.concatenate([rows[:0], *views])[:quota]
