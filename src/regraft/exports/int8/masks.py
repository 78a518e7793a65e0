"""How good the masks of a sealed file and of its int8 form are, on the same images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from regraft.evaluation.labelled_rows import MaskRows
from regraft.evaluation.metrics.pixels import mask_confusion
from regraft.evaluation.trust.intervals import FEWEST, resampled
from regraft.exports.int8.accuracy import Drop, require_half
from regraft.exports.running.predictor import SealedMaskPredictor
from regraft.exports.running.session import SealedSession

__all__ = ["FEWEST", "MaskAnswers", "mask_answers"]

Floats = npt.NDArray[np.float64]
_MEASURES = ("miou", "pixel_accuracy")


@dataclass(frozen=True, eq=False)
class MaskAnswers:
    """What a file says of images with masks.

    Attributes:
        counts: (N, 3, C): of each image and class the pixels that are right, those that are of the class, and those
            that are called so.
    """

    counts: Floats

    def drops(self, after: MaskAnswers) -> list[Drop]:
        """Return how much mean IoU and pixel accuracy another file loses on the same images (paired bootstrap)."""
        num = len(self.counts)
        pairs = resampled(
            num, lambda weights: _measured(weights, self.counts) - _measured(weights, after.counts), self.counts[0].size
        )
        one, other = (_measured(np.ones((1, num)), counts)[0].tolist() for counts in (self.counts, after.counts))
        return [
            Drop(num, before, now, (-1.0, 1.0) if limits is None else (limits[0], limits[1]), name)
            for name, before, now, limits in zip(_MEASURES, one, other, pairs, strict=True)
        ]


def mask_answers(session: SealedSession, rows: MaskRows) -> MaskAnswers:
    """Return what a file says of images with masks, at the masks' own size.

    Raises:
        DataError: Fewer than half of them can be read together with their masks.
    """
    counts = []
    for said, mask in zip(SealedMaskPredictor(session).predict(rows.paths), rows.masks, strict=True):
        truth = rows.truth(mask)
        if said.mask is None or isinstance(truth, str) or truth.shape != said.mask.shape:
            continue
        confusion = mask_confusion(truth, said.mask, len(session.seal.class_names))
        counts.append(np.stack([confusion.diagonal(), confusion.sum(1), confusion.sum(0)]))
    require_half(len(counts), len(rows.paths))
    return MaskAnswers(np.stack(counts).astype(np.float64))


def _measured(weights: Floats, counts: Floats) -> Floats:
    """Return mean IoU and pixel accuracy (draws, 2) of images that count so many times each (draws, N)."""
    right, there, said = np.moveaxis(np.tensordot(weights, counts, 1), 1, 0)
    union = there + said - right
    overlap = np.divide(right, union, out=np.zeros_like(right), where=union > 0)
    num_classes = np.maximum((union > 0).sum(1), 1)  # that occur or are named
    return np.stack([overlap.sum(1) / num_classes, right.sum(1) / np.maximum(there.sum(1), 1)], 1)
