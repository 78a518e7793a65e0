"""Heat maps of networks that name whole images, for what `predict` says of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from regraft.compute.numerics import Numerics
from regraft.data.cache.stream import DecodedStream
from regraft.data.decode.memory import MemoryImage
from regraft.evaluation.predict import Observed, Predictor
from regraft.explanation.evidence import EvidenceMaps, Places, class_score
from regraft.explanation.question import Question
from regraft.explanation.record import Explanation
from regraft.explanation.seen import Seen, seen_in
from regraft.models.describe.info import info_of, preprocessing_of
from regraft.models.describe.inputs import Normaliser

__all__ = ["explained_as", "explained_images", "turns_of"]

Item = TypeVar("Item")
_BATCH = 8


def explained_images(
    model: nn.Module, numerics: Numerics, asked: Question, sources: Sequence[str | MemoryImage]
) -> Iterator[list[Explanation]]:
    """Yield the rows of each image, one for each class that is explained, or one with an error.

    Raises:
        SettingsError: The network has no map of places, or names no classes.
    """
    predictor, maps = Predictor(model, numerics), EvidenceMaps(model, numerics)
    normaliser, coming = Normaliser(preprocessing_of(model), numerics.device), iter(sources)
    for batch, observed in predictor.observe_batches(sources):
        wanted = [asked.of_prediction(each.prediction) for each in observed]
        good = [row for row, own in enumerate(wanted) if own]
        found: list[Places] = []
        if good:
            turns = [torch.tensor(turn, device=numerics.device) for turn in turns_of([wanted[row] for row in good])]

            def scores(logits: Tensor, turns: Sequence[Tensor] = turns) -> list[Tensor]:
                return [class_score(logits, predictor.output, turn) for turn in turns]

            _, found = maps(normaliser(normaliser.pixels(batch.images[good])), scores)
        seen = seen_in(batch, coming, predictor.pixels)
        for row, each in enumerate(observed):
            places = [turn[good.index(row)] for turn in found[: len(wanted[row])]]
            yield _rows(each, wanted[row], places, asked, seen[row])


def explained_as(
    model: nn.Module, numerics: Numerics, sources: Sequence[str], names: Sequence[str]
) -> Iterator[Explanation]:
    """Yield the map of one class of each image, whose predictions are known: without a pass that predicts them again.

    Args:
        model: It names whole images.
        numerics: Device, layout, threads.
        sources: The images.
        names: The class of each.

    Raises:
        SettingsError: The network has no map of places.
    """
    info, preprocessing, maps = info_of(model), preprocessing_of(model), EvidenceMaps(model, numerics)
    normaliser, coming, wanted = Normaliser(preprocessing, numerics.device), iter(sources), iter(names)
    classes = list(info.class_names or ())
    stream = DecodedStream(sources, preprocessing.pixels, batch_size=_BATCH, threads=numerics.threads)
    try:
        for batch in stream:
            own = [next(wanted) for _ in batch.paths]
            turn = torch.tensor([classes.index(name) for name in own], device=numerics.device)

            def scores(logits: Tensor, turn: Tensor = turn) -> list[Tensor]:
                return [class_score(logits, info.output, turn)]

            _, (found,) = maps(normaliser(normaliser.pixels(batch.images)), scores)
            seen = seen_in(batch, coming, preprocessing.pixels)
            for path, name, places, one, why in zip(batch.paths, own, found, seen, batch.reasons, strict=True):
                yield Explanation(path, name, name, None, None if why else places, one, why)
    finally:
        stream.close()


def turns_of(wanted: Sequence[Sequence[Item]]) -> list[list[Item]]:
    """Return the first item of every list, the second of every one, and so on; short lists repeat their last."""
    longest = max(map(len, wanted), default=0)
    return [[own[min(turn, len(own) - 1)] for own in wanted] for turn in range(longest)]


def _rows(
    each: Observed, wanted: Sequence[int], places: Sequence[Places], asked: Question, seen: Seen | None
) -> list[Explanation]:
    said = each.prediction
    if said.error is not None:
        return [Explanation(said.path, None, None, None, error=said.error)]
    names = [asked.class_names[place] for place in wanted]
    return [
        Explanation(said.path, said.prediction, name, said.probabilities[name], own, seen)
        for name, own in zip(names, places, strict=True)
    ]
