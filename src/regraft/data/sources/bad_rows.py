"""All rows of a list that cannot be used, told at once: file, row, reason; the first ones in full, the rest counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from regraft.errors import DataError

__all__ = ["BadRows"]

_SHOWN = 20


class BadRows:
    """What is wrong with the rows of one source.

    Attributes:
        lines: The first mistakes, as lines for people.
        kinds: How many there are of each kind.
        hints: Further sentences on what to do, by kind of mistake.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.kinds: Counter[str] = Counter()
        self.hints: dict[str, str] = {}

    def add(self, file: Path, row: int | None, kind: str, reason: str | Callable[[], str]) -> None:
        """Add one row that cannot be used.

        Args:
            file: The list.
            row: Its line in that file, from 1; None where the whole file is meant.
            kind: A few words under which it is counted, such as "missing files".
            reason: A sentence without its subject and without a full stop; a function is called only where the row is
                among those that are shown.
        """
        self.kinds[kind] += 1
        if len(self.lines) < _SHOWN:
            name = file.name if file.name.isprintable() else repr(file.name)
            where = name if row is None else f"{name}, row {row}"
            self.lines.append(f"{where}: {reason if isinstance(reason, str) else reason()}.")

    def __len__(self) -> int:
        return self.kinds.total()

    def error(self, source: Path, root: str) -> DataError:
        """Return everything found, as one error."""
        counted = ", ".join(f"{count} x {kind}" for kind, count in self.kinds.most_common())
        hidden = len(self) - len(self.lines)
        return DataError(
            f"{str(source)!r} cannot be used as a data set; mistakes: {len(self)}.",
            "every row names an image that exists, and its class",
            " ".join(
                [
                    f"correct or take out these rows; paths are relative to {root!r}.",
                    *self.hints.values(),
                ]
            ),
            details=[*self.lines, f"and {hidden} more; all of them: {counted}."] if hidden else self.lines,
        )
