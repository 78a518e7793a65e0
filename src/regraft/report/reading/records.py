"""The files of a run folder, read without trust: each may be absent, cut off or not what its name says."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from regraft.report.predictions.chosen import Confusion, Confusions, OfEachClass
from regraft.report.predictions.rows import is_wrong, sureness
from regraft.run.folder import RunFolder

__all__ = ["Evaluated", "Reader", "Record", "part", "parts"]

MOST_PICTURES = 24
_LARGEST_RECORD = 256 << 20  # bytes

Record = dict[str, Any]


@dataclass
class Evaluated:
    """The evaluation of one split: its measures, and what stands out in its rows."""

    split: str
    metrics: Record
    worst: list[Record] = field(default_factory=list)  # wrong, the surest first
    num_rows: int = 0
    num_wrong: int = 0
    right: list[Record] = field(default_factory=list)  # some, of each class in turn
    num_right: int = 0
    unreadable: list[Record] = field(default_factory=list)
    confused: list[tuple[Confusion, Confusion]] = field(default_factory=list)  # pairs of classes, most errors first
    nearest: Record = field(default_factory=dict)  # training images that are most like the errors
    heat: Record = field(default_factory=dict)  # maps of some images

    @property
    def label(self) -> str:
        """How its figures must be called: what a run was chosen by is no test."""
        if self.split == "out-of-fold":
            return "out of fold, also used for selection"
        if self.metrics.get("used_for_selection") or self.split == "val":
            return "validation, also used for selection"
        return {"train": "training"}.get(self.split, self.split)


def part(record: Record, key: str) -> Record:
    """Return a record inside a record, empty where there is none."""
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def parts(record: Record, key: str) -> list[Record]:
    """Return the records of a list inside a record; what is no record is left out."""
    value = record.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


class Reader:
    """Reads the records of a run, and notes what is absent and what is damaged."""

    def __init__(self) -> None:
        self.absent: list[str] = []
        self.problems: list[str] = []

    def text(self, path: Path) -> str:
        try:
            if path.stat().st_size <= _LARGEST_RECORD:
                return path.read_text(encoding="utf-8", errors="replace")
            self.problems.append(f"{_name(path)} has {path.stat().st_size:,} bytes, more than a record needs")
        except FileNotFoundError:
            self.absent.append(_name(path))
        except OSError as error:
            self.problems.append(f"{_name(path)} cannot be read: {error.strerror}")
        return ""

    def record(self, path: Path) -> Record:
        text = self.text(path)
        try:
            return self._mapping(path, json.loads(text)) if text else {}
        except (ValueError, RecursionError) as error:
            self.problems.append(f"{_name(path)} is damaged: {error}")
            return {}

    def optional(self, path: Path) -> Record:
        """Return a record that need not be there."""
        return self.record(path) if path.exists() else {}

    def yaml(self, path: Path, text: str) -> Record:
        try:
            return self._mapping(path, yaml.safe_load(text)) if text else {}
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            self.problems.append(f"{_name(path)} is damaged: {error}")
            return {}

    def lines(self, path: Path) -> Iterator[Record]:
        """Yield the records of a file that grows; a last line that a kill cut off is left out, others are counted."""
        try:
            with path.open(encoding="utf-8", errors="replace") as stream:
                yield from self._records(path, stream)
        except FileNotFoundError:
            self.absent.append(_name(path))
        except OSError as error:
            self.problems.append(f"{_name(path)} cannot be read: {error.strerror}")

    def _records(self, path: Path, stream: Iterator[str]) -> Iterator[Record]:
        num_bad = 0
        for line in stream:
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                value = None
            if isinstance(value, dict):
                yield value
            elif line.endswith("\n"):
                num_bad += 1
        if num_bad:
            self.problems.append(f"{_name(path)} has {num_bad} lines that are not records")

    def evaluated(self, run: RunFolder) -> list[Evaluated]:
        folder = run.predictions
        found = sorted(folder.glob("*.json")) if folder.is_dir() else []
        if not found:
            self.absent.append("predictions/")
        order = {"test": 0, "val": 1, "train": 3}
        found.sort(key=lambda path: (order.get(path.stem, 2), path.stem))
        return [self._evaluated(path, run.nearest(path.stem), run.heat_maps(path.stem)) for path in found]

    def _evaluated(self, path: Path, nearest: Path, heat: Path) -> Evaluated:
        near, hot = self.optional(nearest), self.optional(heat)
        result = Evaluated(path.stem, self.record(path), nearest=near, heat=hot)
        right, confusions = OfEachClass(), Confusions()
        rows = self._wrong(path.with_suffix(".jsonl"), result, right)
        result.worst = heapq.nlargest(MOST_PICTURES, _each_told(rows, confusions), key=sureness)
        result.right = right.some()
        result.confused = confusions.most_confused()
        return result

    def _wrong(self, path: Path, result: Evaluated, right: OfEachClass) -> Iterator[Record]:
        for row in self.lines(path):
            result.num_rows += 1
            if row.get("error"):
                result.unreadable.append(row)
            elif "miou" in row:
                if isinstance(row.get("prediction"), str):  # the worst have their masks kept
                    result.num_wrong += 1
                    yield row
            elif is_wrong(row):
                result.num_wrong += 1
                yield row
            elif row.get("label") is not None:
                result.num_right += 1
                right.take(row)

    def _mapping(self, path: Path, value: Any) -> Record:
        if isinstance(value, dict):
            return value
        self.problems.append(f"{_name(path)} holds a {type(value).__name__} instead of a mapping")
        return {}


def _each_told(rows: Iterator[Record], confusions: Confusions) -> Iterator[Record]:
    for row in rows:
        confusions.take(row)
        yield row


def _name(path: Path) -> str:
    return (
        f"{path.parent.name}/{path.name}"
        if path.parent.name in ("predictions", "model", "nearest", "heat-maps")
        else path.name
    )
