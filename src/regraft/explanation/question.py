"""Which classes of an image are explained: those that were asked for, or what was predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from regraft.errors import SettingsError, did_you_mean
from regraft.evaluation.results.prediction import Prediction

__all__ = ["Question", "question"]


@dataclass(frozen=True)
class Question:
    """What is asked of each image.

    Attributes:
        class_names: The model's.
        places: The classes to explain, as positions in the names; none for those that are predicted.
        top: How many of the most probable classes, of masks of the largest, to explain instead; None for what is named.
    """

    class_names: Sequence[str]
    places: tuple[int, ...] = ()
    top: int | None = None

    def of_prediction(self, said: Prediction) -> list[int]:
        """Return the classes to explain of an image that was predicted; none where it cannot be read."""
        if said.error is not None:
            return []
        if self.places:
            return list(self.places)
        shares = said.probabilities
        ranked = sorted(range(len(self.class_names)), key=lambda place: -shares[self.class_names[place]])
        if self.top is not None:
            return ranked[: self.top]
        named = [said.prediction] if said.labels is None else said.labels
        return [self.class_names.index(name) for name in named if name is not None] or ranked[:1]

    def of_counts(self, counts: Sequence[int]) -> list[int]:
        """Return the classes to explain of a mask with so many pixels of each."""
        if self.places:
            return list(self.places)
        ranked = sorted((place for place, count in enumerate(counts) if count), key=lambda place: -counts[place])
        return ranked[: self.top or 1]


def question(class_names: Sequence[str], classes: Sequence[str], top: int | None) -> Question:
    """Return what is asked.

    Raises:
        SettingsError: There is no such class, or both classes and a number are asked for, or none.
    """
    if classes and top is not None:
        raise SettingsError("Classes were named together with a number of the most probable ones.", "one or the other")
    if top is not None and top < 1:
        raise SettingsError(f"The {top} most probable classes were asked for.", "at least one")
    for name in classes:
        if name not in class_names:
            some = ", ".join(map(repr, class_names[:8])) + (" ..." if len(class_names) > 8 else "")
            raise SettingsError(
                f"The model has no class {name!r}{did_you_mean(name, list(class_names))}", f"one of {some}"
            )
    return Question(tuple(class_names), tuple(dict.fromkeys(map(list(class_names).index, classes))), top)
