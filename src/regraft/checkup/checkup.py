"""What a checkup of a data set found: issues with their images, as text, as plain data, and as rows of a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regraft.checkup.fixes import leak_free_table, left_out, table_of
from regraft.checkup.issue import LEVELS, Issue
from regraft.checkup.rows import Rows
from regraft.data.groups.names import Place, names_of_groups
from regraft.data.sources.packed import source_root
from regraft.errors import SettingsError
from regraft.summary import Summary
from regraft.visible import visible
from regraft.wording import quantity

__all__ = ["COLUMNS", "CheckedImages", "Checkup"]

COLUMNS = ("kind", "level", "path", "split", "label", "detail", "group", "suggestion", "score")
_NAMED = 3  # images that are named below an issue
_MOST_CLASSES = 12


@dataclass(frozen=True, eq=False)
class CheckedImages:
    """The images that were looked at.

    Attributes:
        rows: All of them, as one table.
        readable: Which of these can be read.
        groups: Which of these are copies of each other.
    """

    rows: Rows
    readable: npt.NDArray[np.int64]
    groups: tuple[npt.NDArray[np.int64], ...] = ()


@dataclass(frozen=True, repr=False)
class Checkup(Summary):
    """What was found of a data set.

    Attributes:
        data: Its name.
        root: The absolute path of the folder that paths are seen from.
        splits: For each split, how many images each class has.
        issues: What was found: errors first, then warnings, then notes.
        not_computed: What could not be looked for, and why, a sentence each.
        network: Whose features images were compared by; empty where none were.
        images: What splits and lists are made from; None of a checkup that was made on the way.
        seconds: How long it took.
    """

    data: str
    root: str
    splits: dict[str, dict[str, int]]
    num_images: dict[str, int]
    issues: tuple[Issue, ...] = ()
    not_computed: tuple[str, ...] = ()
    network: str = ""
    images: CheckedImages | None = field(default=None, compare=False)
    seconds: float = field(default=0.0, compare=False)

    @property
    def is_sound(self) -> bool:
        """Whether there is neither an error nor a warning; `--strict` goes by it."""
        return not any(issue.level in ("error", "warning") for issue in self.issues)

    def of(self, kind: str) -> Issue | None:
        """Return the issue of a kind, such as `blank`; None where there is none."""
        return next((issue for issue in self.issues if issue.kind == kind), None)

    def facts(self) -> dict[str, object]:
        """Return the data set's name, its images, and how many issues of each level there are."""
        levels = [issue.level for issue in self.issues]
        return {"data": self.data, "images": sum(self.num_images.values())} | {
            f"{level}s": levels.count(level) for level in LEVELS
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return {
            "data": self.data,
            "root": self.root,
            "num_images": self.num_images,
            "splits": self.splits,
            "is_sound": self.is_sound,
            "issues": [issue.to_dict() for issue in self.issues],
            "not_computed": list(self.not_computed),
            "network": self.network,
            "seconds": round(self.seconds, 2),
        }

    def to_csv(self) -> str:
        """Return a table with a row for each image of each issue."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for issue in self.issues:
            for item in issue.items:
                score = "" if item.score is None else f"{item.score:.4f}"
                group = "" if item.group is None else item.group
                row = (item.path, item.split, item.label, item.detail, group, item.suggestion, score)
                writer.writerow((issue.kind, issue.level, *row))
        return stream.getvalue()

    def split_table(self, group: str | None = None, *, seed: int = 0) -> str:
        """Return the readable images as a table (path, label, split) that `regraft train` reads: copies of an image are
        never in two splits, and every class is divided alike.

        Args:
            group: What else belongs together: a column of the table that lists the images, `folder`, or a regular
                expression for their paths, such as `patient[0-9]+`.
            seed: Which of the possible splits.

        Raises:
            SettingsError: Images with masks; a group that says nothing; or all images belong together.
        """
        found = self._images()
        data = found.rows.data
        labels = data.options.get("labels")
        source = source_root(Path(data.source or data.root))
        place = Place(source, data.root, None if labels is None else Path(labels))
        names = names_of_groups(place, found.rows.paths, group) if group is not None else ()
        return leak_free_table(found.rows, found.readable, found.groups, names, seed=seed)

    def kept_table(self) -> str:
        """Return what `left_out` leaves, as a table that `regraft train` reads, in the splits that it is in.

        Raises:
            SettingsError: Images with masks.
        """
        found, gone = self._images(), self.left_out()
        rows = found.rows
        kept = [row for row in found.readable.tolist() if rows.shown_path(row) not in gone]
        return table_of(rows, kept, [rows.splits[int(rows.split_of[row])] for row in kept])

    def left_out(self) -> dict[str, str]:
        """Return the paths of images that are better left out, each with the kind of issue: unreadable and blank ones,
        labels in doubt, and copies of training images in other splits.
        """
        return left_out(self.issues)

    def _images(self) -> CheckedImages:
        if self.images is None:
            raise SettingsError("This checkup was made without its images.", "", "`rg.check(PHOTOS)`")
        return self.images

    def __str__(self) -> str:
        return self.render()

    def render(self) -> str:
        """Return lines for people: the images by split and class, then each issue with its first images."""
        return "\n".join([*self._counts(), *self._found(), *(f"not computed: {text}" for text in self.not_computed)])

    def _counts(self) -> Iterator[str]:
        total = sum(self.num_images.values())
        yield f"{quantity(total, 'image')} in {visible(self.data)}"
        for split, counts in self.splits.items():
            shown = ", ".join(f"{visible(name)} {num:,}" for name, num in list(counts.items())[:_MOST_CLASSES])
            more = ", ..." if len(counts) > _MOST_CLASSES else ""
            yield f"{split}: {quantity(self.num_images[split], 'image')} ({shown}{more})"

    def _found(self) -> Iterator[str]:
        for issue in self.issues:
            yield f"{issue.level}: {issue.text}"
            for item in issue.items[:_NAMED]:
                said = [item.label, item.detail, f"group {item.group}" if item.group is not None else ""]
                said += [f"{item.suggestion}?" if item.suggestion else ""]
                words = "; ".join(visible(word) for word in said if word)
                yield f"  {visible(item.path)} ({item.split})" + (f": {words}" if words else "")
            if len(issue.items) > _NAMED:
                yield f"  and {len(issue.items) - _NAMED:,} more"
        if not self.issues:
            yield "nothing found"
