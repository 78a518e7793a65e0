"""One kind of thing that is wrong with a data set, and the images that have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["LEVELS", "Issue", "Item", "Level"]

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Item:
    """One image that has an issue.

    Attributes:
        path: As it is seen from the root of the data set.
        split: The split that it is in.
        label: The names of its classes; empty for an image with a mask.
        detail: What is wrong with it, in a few words.
        group: Which items belong together, as copies of one image do; None where each stands for itself.
        suggestion: The class that it may belong to instead; empty where there is none.
        score: How sure that is, from 0 to 1; None where there is no such measure.
    """

    path: str
    split: str
    label: str = ""
    detail: str = ""
    group: int | None = None
    suggestion: str = ""
    score: float | None = None


@dataclass(frozen=True)
class Issue:
    """One kind of thing that is wrong, or worth knowing.

    Attributes:
        kind: A short name for programs, such as `blank`.
        title: A few words for people.
        level: An `error` keeps the data from being trained on; a `warning` should be looked into; a `note`
            may be meant.
        text: A sentence that says how often, and why it matters.
        items: The images; empty where the issue is one of the whole data set.
    """

    kind: str
    title: str
    level: Level
    text: str
    items: tuple[Item, ...] = ()

    @property
    def num_groups(self) -> int:
        """How many groups the items form."""
        return len({item.group for item in self.items if item.group is not None})

    def to_dict(self) -> Mapping[str, Any]:
        """Return plain data, for JSON."""
        return asdict(self)
