"""The rows that the report shows of many, chosen while they are read."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from regraft.report.predictions.rows import Row, sureness

__all__ = ["Confusion", "Confusions", "OfEachClass"]

_MOST_RIGHT = 12
_MOST_PAIRS = 4
_MOST_OF_PAIR = 3  # errors of one class that are shown
_KEPT = ("path", "label", "prediction", "probability")


class OfEachClass:
    """The first few rows of each class."""

    def __init__(self) -> None:
        self._rows: dict[str, list[Row]] = {}

    def take(self, row: Row) -> None:
        """Keep a row, if its class has few so far."""
        rows = self._rows.setdefault(str(row.get("label")), [])
        if len(rows) < _MOST_RIGHT:
            rows.append(row)

    def some(self) -> list[Row]:
        """Return rows from all classes in turn: one of each in the order of the names, then a second one, and so on."""
        columns = [self._rows[name] for name in sorted(self._rows)]
        turns = [rows[turn] for turn in range(_MOST_RIGHT) for rows in columns if turn < len(rows)]
        return turns[:_MOST_RIGHT]


@dataclass
class Confusion:
    """The images of one class that were taken for another.

    Attributes:
        truth: Their class.
        taken: The other.
        num: How many there are.
        rows: The surest of them, the surest first.
    """

    truth: str
    taken: str
    num: int = 0
    rows: list[Row] = field(default_factory=list)


class Confusions:
    """The errors of each two classes, counted; the surest are kept."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Confusion] = {}

    def take(self, row: Row) -> None:
        """Count a wrong row; one with several labels or none is of no two classes."""
        truth, taken = row.get("label"), row.get("prediction")
        if not isinstance(truth, str) or not isinstance(taken, str) or "labels" in row or "miou" in row:
            return
        found = self._found.setdefault((truth, taken), Confusion(truth, taken))
        found.num += 1
        slim = {key: row.get(key) for key in _KEPT}
        found.rows = heapq.nlargest(_MOST_OF_PAIR, [*found.rows, slim], key=sureness)

    def most_confused(self) -> list[tuple[Confusion, Confusion]]:
        """Return the pairs of classes with the most errors: the more frequent direction first, the other beside it."""
        pairs = {}
        for truth, taken in self._found:
            both = [self._found.get(names, Confusion(*names)) for names in ((truth, taken), (taken, truth))]
            both.sort(key=lambda found: (-found.num, found.truth))
            pairs[frozenset((truth, taken))] = (both[0], both[1])
        ordered = sorted(pairs.values(), key=lambda both: (-both[0].num - both[1].num, both[0].truth, both[0].taken))
        return ordered[:_MOST_PAIRS]
