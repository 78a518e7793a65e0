"""The loss at the best temperature: what a network knows, however sure of it it is.

A validation loss says two things at once: how well the classes are told apart, and how far the confidence is off. Label
smoothing, mixup, class weights and long training move the second alone, which one scalar would put right. So before
epochs are compared, their logits are divided by the temperature that makes their own loss smallest (Guo et al. 2017,
arXiv:1706.04599), as Berta et al. 2025 (arXiv:2501.19195) do to stop a training.

The temperature is fitted to targets of which 1 / (n + 1) is spread evenly, n being the rows, as if one more of them
were undecided: without that, n right answers would ask for a temperature of 0, and every such network would be as good.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from regraft.data.class_table import IGNORED

__all__ = ["PixelSample", "best_temperature", "calibrated_losses"]

_AT_ONCE = 1 << 15  # numbers: they stay in a processor's cache, and torch adds them up in one order
_PIXELS = 1024  # of an image
_MOST_HELD = 1 << 24  # numbers
_ROUNDS = 100
_EXACT = 1e-10  # of the factor; the loss is flat there, so its error is the square of that

_Derivatives = Callable[[float], tuple[float, float]]


def calibrated_losses(logits: Tensor, targets: Tensor, *, sigmoid: bool = False) -> Tensor:
    """Return the cross-entropy of each row at the temperature that is best for all rows together, in fp64.

    Multiplying all logits by a positive number changes nothing.

    Args:
        logits: (N, C).
        targets: (N,) class numbers; with a sigmoid 0 and 1, of the logits' shape.
        sigmoid: Whether each logit decides for itself; a row's loss is then the mean over its logits.

    Returns:
        (N,); NaN where a logit is not finite.
    """
    if not len(logits) or not bool(torch.isfinite(logits).all()):
        return torch.full((len(logits),), float("nan"), dtype=torch.float64)
    kind = _Sigmoids if sigmoid else _Softmax
    fitted = kind(logits, targets)
    factor = _root(fitted.derivatives) if fitted.scale else 0.0
    return torch.cat([fitted.losses(*part, factor) for part in fitted.parts()])


def best_temperature(logits: Tensor, targets: Tensor, *, sigmoid: bool = False) -> float:
    """Return the temperature at which the cross-entropy of all rows together is smallest.

    Args:
        logits: (N, C), finite.
        targets: As for `calibrated_losses`.
        sigmoid: Whether each logit decides for itself.

    Returns:
        A positive number; infinity for logits that say less than nothing.
    """
    fitted = (_Sigmoids if sigmoid else _Softmax)(logits, targets)
    factor = _root(fitted.derivatives) if fitted.scale else 0.0
    return fitted.scale / factor if factor else math.inf


class _Fit:
    """Logits on a scale on which the factor 1 is a usual one, a part at a time."""

    def __init__(self, logits: Tensor, targets: Tensor) -> None:
        self._logits, self._targets = logits, targets
        self.scale = 1.0
        self.scale = math.sqrt(sum(float(scores.square().sum()) for scores, _ in self.parts()) / logits.numel())
        self._spread = 1 / (len(logits) + 1)

    def parts(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Return scores in fp64 and their targets."""
        rows = max(1, _AT_ONCE // max(1, self._logits.shape[1]))
        for start in range(0, len(self._logits), rows):
            part = slice(start, start + rows)
            yield self.centred(self._logits[part].double()) / (self.scale or 1.0), self._targets[part]

    def derivatives(self, factor: float) -> tuple[float, float]:
        """Return the first and second derivative of the loss by the factor, as sums over all rows."""
        found = [self.part_derivatives(*part, factor) for part in self.parts()]
        return sum(first for first, _ in found), sum(second for _, second in found)

    def centred(self, logits: Tensor) -> Tensor:
        raise NotImplementedError

    def part_derivatives(self, scores: Tensor, targets: Tensor, factor: float) -> tuple[float, float]:
        raise NotImplementedError

    def losses(self, scores: Tensor, targets: Tensor, factor: float) -> Tensor:
        raise NotImplementedError


class _Softmax(_Fit):
    def centred(self, logits: Tensor) -> Tensor:
        return logits - logits.mean(1, keepdim=True)

    def part_derivatives(self, scores: Tensor, targets: Tensor, factor: float) -> tuple[float, float]:
        shares = (scores * factor).softmax(1)
        mean = (shares * scores).sum(1)
        spread = (shares * scores.square()).sum(1) - mean.square()
        right = scores.gather(1, targets[:, None].long())[:, 0] * (1 - self._spread)  # evenly spread scores have mean 0
        return float((mean - right).sum()), float(spread.sum())

    def losses(self, scores: Tensor, targets: Tensor, factor: float) -> Tensor:
        return F.cross_entropy(scores * factor, targets.long(), reduction="none")


class _Sigmoids(_Fit):
    def centred(self, logits: Tensor) -> Tensor:
        return logits

    def part_derivatives(self, scores: Tensor, targets: Tensor, factor: float) -> tuple[float, float]:
        shares = (scores * factor).sigmoid()
        wanted = targets.to(scores) * (1 - self._spread) + self._spread / 2
        return float(((shares - wanted) * scores).sum()), float((shares * (1 - shares) * scores.square()).sum())

    def losses(self, scores: Tensor, targets: Tensor, factor: float) -> Tensor:
        return F.binary_cross_entropy_with_logits(scores * factor, targets.to(scores), reduction="none").mean(1)


def _root(derivatives: _Derivatives) -> float:
    """Return the minimizer of a convex function of a factor >= 0, by Newton's method with bisection as a safeguard.

    0 is the answer of a network that knows less than nothing: its best temperature is infinite.
    """
    if derivatives(0.0)[0] >= 0:
        return 0.0
    low, high, factor = 0.0, float("inf"), 1.0
    for _ in range(_ROUNDS):
        slope, curvature = derivatives(factor)
        low, high = (low, factor) if slope > 0 else (factor, high)
        step = factor - slope / curvature if curvature > 0 else float("inf")
        most = min(high, 4 * factor)
        following = step if low < step < most else most if most < high else (low + high) / 2
        if abs(following - factor) <= _EXACT * factor:
            break
        factor = following
    return factor


class PixelSample:
    """Some pixels of each image, evenly spread over those that count, and their losses at the best temperature.

    As many of each image as memory allows: where there are many images, fewer of each.
    """

    def __init__(self) -> None:
        self._images: list[tuple[Tensor, Tensor]] = []
        self._step, self._held = 1, 0

    def update(self, logits: Tensor, masks: Tensor) -> None:
        """Take in logits (N, C, H, W) and class numbers (N, H, W), of which IGNORED does not count."""
        for scores, mask in zip(logits, masks, strict=True):
            counted = (mask.flatten() != IGNORED).nonzero()[:, 0]
            num = min(len(counted), _PIXELS)
            places = counted[(torch.arange(num, device=counted.device) * len(counted)) // max(num, 1)][:: self._step]
            kept = scores.flatten(1)[:, places].T.float().cpu(), mask.flatten()[places].cpu()
            self._images.append(kept)
            self._held += kept[0].numel()
        while self._held > _MOST_HELD and self._step < _PIXELS:
            self._step *= 2
            self._images = [(scores[::2].clone(), mask[::2].clone()) for scores, mask in self._images]
            self._held = sum(scores.numel() for scores, _ in self._images)

    def losses(self) -> Tensor:
        """Return the mean loss of the pixels of each image, in fp64; NaN of images without one that counts."""
        if not self._images:
            return torch.zeros(0, dtype=torch.float64)
        losses = calibrated_losses(*(torch.cat(parts) for parts in zip(*self._images, strict=True)))
        ends = [0, *itertools.accumulate(len(mask) for _, mask in self._images)]
        return torch.stack([losses[start:end].mean() for start, end in itertools.pairwise(ends)])
