"""The rows of a data set with their groups, which no two of its splits share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from regraft.data.dataset import Split
from regraft.data.groups.names import Place, names_of_groups
from regraft.data.groups.units import units_of
from regraft.data.labels import are_multilabel
from regraft.errors import DataError
from regraft.wording import quantity

__all__ = ["classes_of_one_group", "with_groups"]

_FEW = 10


def with_groups(splits: Mapping[str, Split], place: Place, group: str) -> tuple[dict[str, Split], list[str]]:
    """Return the splits with the number of each row's group, and what people should know of them.

    Args:
        splits: As the source has them; that named "" has yet to be divided.
        place: Where the images come from.
        group: As of `names_of_groups`.

    Raises:
        SettingsError: The group says nothing of any image.
        DataError: The source's own splits share groups; all of them named, or the first ones.
    """
    names = names_of_groups(place, [path for split in splits.values() for path in split.paths], group)
    _, numbers = np.unique(units_of(len(names), (), names), return_inverse=True)
    cuts = np.cumsum([len(split) for split in splits.values()])[:-1]
    parts = dict(zip(splits, np.split(numbers.astype(np.int64), cuts), strict=True))
    shared = list(_shared(splits, names))
    if shared:
        raise DataError(
            f"{quantity(len(shared), 'group')} by {group!r} {'is' if len(shared) == 1 else 'are'} in several splits of "
            f"{str(place.source)!r}; metrics would be inflated by train/test leakage.",
            "every group in one split",
            f"`regraft check {place.source} --fix split --group '{group}' --out checked` writes a split without leaks",
            details=[*shared[:_FEW], *([f"and {len(shared) - _FEW} more"] if len(shared) > _FEW else [])],
        )
    given = {
        name: Split(split.paths, split.labels, split.masks, parts[name])  # kept as it is, but for the groups
        for name, split in splits.items()
    }
    lonely = sum(name is None for name in names)
    said = f"{quantity(lonely, 'image has', 'images have')} no group by {group!r}, and each stands for itself."
    return given, [said] if lonely else []


def classes_of_one_group(split: Split) -> set[int]:
    """Return the classes whose images are all of one group; none where nothing was said of groups."""
    if split.groups is None:
        return set()
    many = are_multilabel(split.labels)
    rows, labels = np.nonzero(split.labels) if many else (np.arange(len(split)), split.labels)
    pairs = np.unique(np.stack([labels.astype(np.int64), split.groups[rows]]), axis=1)
    return {label for label, count in Counter(pairs[0].tolist()).items() if count == 1}


def _shared(splits: Mapping[str, Split], names: list[str | None]) -> Iterator[str]:
    """Yield each group that is in several splits, with how many images it has there."""
    counts: dict[str, Counter[str]] = {}
    given = iter(names)
    for split, rows in splits.items():
        for _, name in zip(range(len(rows)), given, strict=False):
            if name is not None:
                counts.setdefault(name, Counter())[split] += 1
    for name, count in counts.items():
        if len(count) > 1:
            yield f"{name!r}: {', '.join(f'{num} in {split}' for split, num in count.items())}"
