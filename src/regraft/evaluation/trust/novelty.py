"""Images of no known kind: a score of strangeness from the features and logits of the pass that predicts.

No detector is best for all networks (OpenOOD, arXiv:2306.09301). The one that is kept is chosen without any strange
image: classes in turn play the unknown one, and the detector that tells their validation images from those of the
others best, on average, is taken.

- `distance`: Mahalanobis distance to the nearest class mean, of features on the unit sphere (arXiv:2505.18032).
- `neighbours`: distance to the fifth nearest training image on that sphere (arXiv:2204.06507).
- `energy`: minus the log of the summed exponentials of the logits (arXiv:2010.03759); it needs no features, and has no
  part in the choice: these logits were trained with the class that plays the unknown one.
- `blend`: `neighbours` and `energy`, each on the scale of the validation images, added.

The covariance within classes is kept as its first principal components, with one variance for all other directions:
a state below three megabytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from regraft.evaluation.metrics.scores import roc_auc
from regraft.models.describe.trust import Detector

__all__ = [
    "FEWEST",
    "KINDS",
    "NEIGHBOUR",
    "Evidence",
    "blended",
    "energy",
    "fit_detector",
    "lowered",
    "placed",
    "strangeness",
]

FEWEST = 20  # training images
_COMPONENTS, _BANK = 96, 1000
NEIGHBOUR = 5  # of the training images, whose distance is the score
_MOST_HELD_OUT, _FEWEST_OF_CLASS = 5, 4
_MOST_ASKED = 2000  # validation images that the choice looks at
_AT_ONCE = 512  # images
_TINY = 1e-12
_ROUNDING = 1e-4  # distances of fp32, taken as roots of differences

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Evidence:
    """Images that a detector is fitted to, or measured on.

    Attributes:
        features: (N, d).
        logits: (N, num_logits), raw.
        labels: (N,) class numbers; -1 for images with labels of several classes.
    """

    features: Tensor
    logits: Tensor
    labels: Tensor

    def of(self, rows: Tensor) -> Evidence:
        """Return some of the images."""
        return Evidence(self.features[rows], self.logits[rows], self.labels[rows])


def _distance(tensors: Tensors, features: Tensor, logits: Tensor) -> Tensor:
    points, centres = F.normalize(features, dim=1) - tensors["mean"], tensors["centres"].float()
    inside, others = points @ tensors["basis"], centres @ tensors["basis"]
    scale = tensors["precision"].sqrt()
    outside = (torch.cdist(points, centres).square() - torch.cdist(inside, others).square()).clamp(min=0)
    apart = torch.cdist(inside * scale, others * scale).square() + outside * tensors["rest"]
    return apart.min(1).values.sqrt()


def _neighbours(tensors: Tensors, features: Tensor, logits: Tensor) -> Tensor:
    here, bank = placed(tensors, features), tensors["bank"].float()
    return torch.cdist(here, bank).kthvalue(min(NEIGHBOUR, len(bank)), dim=1).values


def energy(tensors: Tensors, features: Tensor, logits: Tensor) -> Tensor:
    """Return minus the log of the summed exponentials of logits (N, num_logits); of one logit, minus its size."""
    return -(logits.abs()[:, 0] if logits.shape[1] == 1 else torch.logsumexp(logits, 1))


def _blend(tensors: Tensors, features: Tensor, logits: Tensor) -> Tensor:
    return blended(tensors, _neighbours(tensors, features, logits), energy(tensors, features, logits))


def blended(tensors: Tensors, neighbours: Tensor, energies: Tensor) -> Tensor:
    """Return the sum of two scores (N,), each on the scale of the validation images."""
    parts = torch.stack([neighbours, energies])
    total: Tensor = ((parts - tensors["low"][:, None]) / tensors["spread"][:, None]).sum(0)
    return total


_OF_NEIGHBOURS = ("mean", "basis", "bank")
_OF_DISTANCE = ("mean", "basis", "precision", "rest", "centres")
KINDS: Mapping[str, tuple[Callable[[Tensors, Tensor, Tensor], Tensor], tuple[str, ...]]] = {
    "blend": (_blend, (*_OF_NEIGHBOURS, "low", "spread")),
    "distance": (_distance, _OF_DISTANCE),
    "neighbours": (_neighbours, _OF_NEIGHBOURS),
    "energy": (energy, ()),
}
_CHOSEN_FROM = ("blend", "distance", "neighbours")  # of equally good ones the first


def strangeness(detector: Detector, features: Tensor | None, logits: Tensor) -> Tensor:
    """Return a score for each image; larger is stranger.

    Args:
        detector: From `fit_detector`.
        features: (N, d), on the CPU; `energy` takes none.
        logits: (N, num_logits), raw, on the CPU.
    """
    given = logits.new_zeros((len(logits), 0)) if features is None else features
    return _scores(detector.kind, detector.tensors, given, logits)


def lowered(scores: Tensor) -> Tensor:
    """Return scores lowered by rounding: what looks as strange as a validation image does so in every engine."""
    return scores - _ROUNDING * (1 + scores.abs())


def fit_detector(train: Evidence, val: Evidence) -> tuple[Detector, dict[str, float]]:
    """Return the detector that is best at telling a class that it was not fitted to, and what each kind reached.

    Args:
        train: Training images, as they are validated: not augmented. Without features the detector is `energy`.
        val: Validation images.

    Returns:
        The detector, and the mean AUROC of each kind; empty where no class could play the unknown one.
    """
    if not train.features.shape[1]:
        return Detector("energy", {}, _scores("energy", {}, val.features, val.logits).sort().values), {}
    reached = _held_out(train, val.of(torch.linspace(0, len(val.labels) - 1, min(_MOST_ASKED, len(val.labels))).long()))
    kind = max(_CHOSEN_FROM, key=lambda name: round(reached.get(name, 0.0), 3))
    tensors = _fitted(train, val)
    kept = {name: tensors[name] for name in KINDS[kind][1]}
    return Detector(kind, kept, _scores(kind, kept, val.features, val.logits).sort().values), reached


def _held_out(train: Evidence, val: Evidence) -> dict[str, float]:
    """Return the mean AUROC of each kind over the classes that have enough images to play the unknown one."""
    counts = {int(label): int((val.labels == label).sum()) for label in np.unique(train.labels.numpy()) if label >= 0}
    ready = sorted((-num, label) for label, num in counts.items() if num >= _FEWEST_OF_CLASS)
    found: dict[str, list[float]] = {name: [] for name in KINDS}
    for _, label in ready[:_MOST_HELD_OUT]:
        known, others = train.of(train.labels != label), val.of(val.labels != label)
        if len(known.labels) < FEWEST or not len(others.labels):
            continue
        keep = [place for place in range(val.logits.shape[1]) if place != label]
        tensors = _fitted(known, _without(others, keep))
        shown = _without(val, keep)
        for name, values in found.items():
            scores = _scores(name, tensors, shown.features, shown.logits).double().numpy()
            values.append(roc_auc(scores, (val.labels == label).numpy()))
    return {name: float(np.mean(values)) for name, values in found.items() if values}


def _without(images: Evidence, logits: list[int]) -> Evidence:
    """Return the images with those logits alone; all of them where one or two are too few to leave one out."""
    if images.logits.shape[1] <= 2:
        return images
    return Evidence(images.features, images.logits[:, logits], images.labels)


def _scores(kind: str, tensors: Tensors, features: Tensor, logits: Tensor) -> Tensor:
    score = KINDS[kind][0]
    parts = zip(torch.split(features.float(), _AT_ONCE), torch.split(logits.float(), _AT_ONCE), strict=True)
    return torch.cat([score(tensors, *part) for part in parts]) if len(logits) else logits.new_zeros(0)


def _fitted(train: Evidence, val: Evidence) -> dict[str, Tensor]:
    """Return the tensors of all kinds."""
    points = F.normalize(train.features.float(), dim=1)
    mean = points.mean(0)
    centred = points - mean
    members = [train.labels == int(label) for label in np.unique(train.labels.numpy())]
    centres = torch.stack([centred[rows].mean(0) for rows in members])
    within = centred.clone()
    for rows, centre in zip(members, centres, strict=True):
        within[rows] -= centre
    basis, variances, rest = _principal(within)
    tensors = {
        "mean": mean,
        "basis": basis,
        "precision": 1 / variances.clamp(min=rest),
        "rest": 1 / rest[None],
        "centres": centres.half(),
    }
    chosen = torch.linspace(0, len(points) - 1, min(_BANK, len(points))).round().long()
    tensors["bank"] = placed(tensors, train.features[chosen].float()).half()
    parts = torch.stack([_scores(name, tensors, val.features, val.logits) for name in ("neighbours", "energy")])
    tensors |= {"low": parts.mean(1), "spread": parts.std(1).nan_to_num().clamp(min=1e-6)}
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _principal(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the first principal components (d, k) of centred rows, their variances, and the mean of all others.

    They come from the products of the rows with each other, of which there are fewer than features.
    """
    wide = rows.double()
    num, size = wide.shape
    values, vectors = torch.linalg.eigh(wide @ wide.T / num)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    kept = min(_COMPONENTS, int((values > values[0] * 1e-9 + _TINY).sum()), size)
    basis = F.normalize(wide.T @ vectors[:, :kept], dim=0)
    rest = values[kept:].sum() / max(size - kept, 1)
    smallest = values[:kept].min() if kept else values.new_tensor(1.0)
    rest = torch.maximum(rest, 1e-3 * smallest).clamp(min=_TINY)
    return basis.float(), values[:kept].float(), rest.float()


def placed(tensors: Tensors, features: Tensor) -> Tensor:
    """Return points on the sphere by their components (N, k) and, as one more, how far they lie outside them."""
    centred = F.normalize(features, dim=1) - tensors["mean"]
    inside = centred @ tensors["basis"]
    outside = (centred.square().sum(1) - inside.square().sum(1)).clamp(min=0).sqrt()
    return torch.cat([inside, outside[:, None]], 1)
