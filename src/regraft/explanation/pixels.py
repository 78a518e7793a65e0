"""Heat maps of networks for segmentation: what speaks for a class, summed over the pixels that it was given.

As Seg-Grad-CAM (Vinogradova et al. 2020), with the product place by place instead of a mean over the gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from regraft.compute.numerics import Numerics
from regraft.data.cache.stream import DecodedBatch, DecodedStream
from regraft.data.decode.memory import MemoryImage
from regraft.explanation.evidence import EvidenceMaps, Places, class_score
from regraft.explanation.images import turns_of
from regraft.explanation.question import Question
from regraft.explanation.record import Explanation
from regraft.explanation.seen import Seen, seen_in
from regraft.models.describe.calibration import Calibration
from regraft.models.describe.info import info_of, preprocessing_of
from regraft.models.describe.inputs import Normaliser
from regraft.models.segment.padding import padded_size

__all__ = ["explained_masks"]

_BATCH = 8


def explained_masks(
    model: nn.Module, numerics: Numerics, asked: Question, sources: Sequence[str | MemoryImage]
) -> Iterator[list[Explanation]]:
    """Yield the rows of each image, one for each class that is explained, or one with an error.

    Raises:
        SettingsError: The network has no map of places.
    """
    maps, preprocessing = EvidenceMaps(model, numerics), preprocessing_of(model)
    covered = padded_size(model, preprocessing.pixels.size)
    normaliser, coming = Normaliser(preprocessing, numerics.device), iter(sources)
    stream = DecodedStream(sources, preprocessing.pixels, batch_size=_BATCH, threads=numerics.threads)
    try:
        for batch in stream:
            yield from _batch(
                batch,
                seen_in(batch, coming, preprocessing.pixels),
                maps,
                normaliser,
                (asked, info_of(model).calibration, covered),
            )
    finally:
        stream.close()


def _batch(
    batch: DecodedBatch,
    seen: Sequence[Seen | None],
    maps: EvidenceMaps,
    normaliser: Normaliser,
    asked: tuple[Question, Calibration | None, tuple[int, int]],
) -> Iterator[list[Explanation]]:
    good = [(row, one) for row, one in enumerate(seen) if one is not None]
    masks: _Masks | None = None
    found: list[Places] = []
    if good:
        images = batch.images[[row for row, _ in good]]
        inside = np.stack([one.view.inside((images.shape[1], images.shape[2])) for _, one in good])
        masks = _Masks(*asked, torch.from_numpy(inside).to(normaliser.device))
        _, found = maps(normaliser(normaliser.pixels(images)), masks.scores)
    numbers = {row: number for number, (row, _) in enumerate(good)}
    for row, (path, reason) in enumerate(zip(batch.paths, batch.reasons, strict=True)):
        if masks is None or row not in numbers:
            yield [Explanation(path, None, None, None, error=reason)]
        else:
            yield masks.rows(path, numbers[row], found, seen[row])


class _Masks:
    """The masks that a batch of images is given, and the classes in them that are explained.

    Args:
        asked: What is asked of each.
        calibration: What the logits of probabilities are divided by.
        covered: Height and width of what the maps cover: the network's input, padded as it does.
        inside: Which pixels show the image, not its padding, (N, H, W).
    """

    def __init__(
        self, asked: Question, calibration: Calibration | None, covered: tuple[int, int], inside: Tensor
    ) -> None:
        self._asked, self._inside, self._calibration, self._covered = asked, inside, calibration, covered
        self._largest: list[int] = []
        self._wanted: list[list[int]] = []
        self._shares: list[Tensor] = []

    def scores(self, logits: Tensor) -> list[Tensor]:
        """Return for each class in turn what speaks for it, (N,), summed over the pixels that it was given."""
        given = logits.detach().argmax(1).masked_fill(~self._inside, -1)
        counts = [torch.bincount(own[own >= 0], minlength=logits.shape[1]).tolist() for own in given]
        self._largest = [own.index(max(own)) for own in counts]
        self._wanted = [self._asked.of_counts(own) for own in counts]
        return [self._score(logits, given, turn) for turn in turns_of(self._wanted)]

    def _score(self, logits: Tensor, given: Tensor, turn: Sequence[int]) -> Tensor:
        place = torch.tensor(turn, device=logits.device)
        counted = given == place[:, None, None]
        raw = logits.detach()
        told = raw if self._calibration is None else self._calibration(raw, "segmentation")
        shares = told.softmax(1)[torch.arange(len(turn)), place]
        self._shares.append((shares * counted).sum((1, 2)) / counted.sum((1, 2)))
        return (class_score(logits, "segmentation", place) * counted).sum((1, 2))

    def rows(self, path: str, number: int, found: Sequence[Places], seen: Seen | None) -> list[Explanation]:
        """Return the rows of one image, by its number in the batch."""
        names, rows = self._asked.class_names, []
        shape = (self._inside.shape[1], self._inside.shape[2])
        seen = None if seen is None else replace(seen, view=seen.view.padded(shape, self._covered))
        for turn, place in enumerate(self._wanted[number]):
            share, largest = float(self._shares[turn][number]), names[self._largest[number]]
            if share == share:
                rows.append(Explanation(path, largest, names[place], share, found[turn][number], seen))
            else:
                why = f"has no pixel that is taken for {names[place]}"
                rows.append(Explanation(path, largest, names[place], None, error=why))
        return rows
