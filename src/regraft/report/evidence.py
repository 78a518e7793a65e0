"""What a run folder holds, read without trust: every file may be absent, cut off or not what its name says."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from regraft.evaluate.tasks import Task, task_of
from regraft.report.wording import is_number, number
from regraft.run.folder import RunFolder

__all__ = ["Evaluated", "Evidence", "Record", "best_epoch", "gather", "part", "parts", "slips"]

MOST_PICTURES = 24

Record = dict[str, Any]


@dataclass
class Evaluated:
    """The evaluation of one split: its measures, and what stands out in its rows."""

    split: str
    metrics: Record
    worst: list[Record] = field(default_factory=list)  # wrong, the surest first
    num_rows: int = 0
    num_wrong: int = 0
    unreadable: list[Record] = field(default_factory=list)

    @property
    def label(self) -> str:
        """How its figures must be called: what a run was chosen by is no test."""
        if self.metrics.get("used_for_selection") or self.split == "val":
            return "validation, also used for selection"
        return {"train": "training"}.get(self.split, self.split)


@dataclass
class Evidence:
    """The records of one run; a field is empty when its file is absent, and `problems` says when one is damaged."""

    path: Path
    status: Record
    recipe: Record
    recipe_text: str
    command: str
    environment: Record
    splits: Record
    match: Record
    audit: Record
    model: Record
    epochs: list[Record]
    evaluated: list[Evaluated]
    absent: list[str]
    problems: list[str]

    @property
    def task(self) -> Task:
        """What its network is measured by; runs of older versions do not say it and are softmax."""
        given = [part(self.model, "regraft").get("output"), part(self.recipe, "head").get("output")]
        return task_of({"output": next((output for output in given if output), "softmax")})


def gather(path: Path) -> Evidence:
    """Everything that the report shows, from the run folder alone."""
    run, reader = RunFolder(path), _Reader()
    recipe_text = reader.text(run.recipe)
    return Evidence(
        path=path,
        status=reader.record(run.status),
        recipe=reader.yaml(run.recipe, recipe_text),
        recipe_text=recipe_text,
        command=reader.text(run.command),
        environment=reader.record(run.environment),
        splits=reader.record(run.splits),
        match=reader.record(run.match),
        audit=reader.record(run.audit),
        model=reader.record(run.model / "config.json"),
        epochs=[line for line in reader.lines(run.metrics) if line.get("kind") == "epoch"],
        evaluated=reader.evaluated(run.predictions),
        absent=reader.absent,
        problems=reader.problems,
    )


def part(record: Record, key: str) -> Record:
    """A record inside a record, empty where there is none."""
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def parts(record: Record, key: str) -> list[Record]:
    """The records of a list inside a record; what is no record is left out."""
    value = record.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def best_epoch(status: Record) -> str:
    """Which epoch was best, by which measure; empty when that was not recorded."""
    best = part(status, "best")
    if best.get("epoch") is None:
        return ""
    return f"{best.get('stage')}, epoch {best['epoch']} ({best.get('monitor')} {number(best.get('value'))})"


class _Reader:
    def __init__(self) -> None:
        self.absent: list[str] = []
        self.problems: list[str] = []

    def text(self, path: Path) -> str:
        try:
            return path.read_text(encoding="utf-8", errors="replace")
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

    def yaml(self, path: Path, text: str) -> Record:
        try:
            return self._mapping(path, yaml.safe_load(text)) if text else {}
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            self.problems.append(f"{_name(path)} is damaged: {error}")
            return {}

    def lines(self, path: Path) -> Iterator[Record]:
        """The records of a file that grows; a last line that a kill cut off is left out, others are counted."""
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
            self.problems.append(f"{_name(path)} has {num_bad} lines that are no records")

    def evaluated(self, folder: Path) -> list[Evaluated]:
        found = sorted(folder.glob("*.json")) if folder.is_dir() else []
        if not found:
            self.absent.append("predictions/")
        order = {"test": 0, "val": 1, "train": 3}
        found.sort(key=lambda path: (order.get(path.stem, 2), path.stem))
        return [self._evaluated(path) for path in found]

    def _evaluated(self, path: Path) -> Evaluated:
        result = Evaluated(path.stem, self.record(path))
        result.worst = heapq.nlargest(MOST_PICTURES, self._wrong(path.with_suffix(".jsonl"), result), key=_sureness)
        return result

    def _wrong(self, path: Path, result: Evaluated) -> Iterator[Record]:
        for row in self.lines(path):
            result.num_rows += 1
            if row.get("error"):
                result.unreadable.append(row)
            elif "miou" in row:
                if isinstance(row.get("prediction"), str):  # the worst have their masks kept
                    result.num_wrong += 1
                    yield row
            elif _is_wrong(row):
                result.num_wrong += 1
                yield row

    def _mapping(self, path: Path, value: Any) -> Record:
        if isinstance(value, dict):
            return value
        self.problems.append(f"{_name(path)} holds a {type(value).__name__} where a mapping was expected")
        return {}


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}" if path.parent.name in ("predictions", "model") else path.name


def slips(row: Record) -> tuple[list[str], list[str]]:
    """Of a row with any number of labels: those that are named and not there, and those that are missed."""
    named, there = ([str(name) for name in row[key]] for key in ("labels", "label"))
    return [name for name in named if name not in there], [name for name in there if name not in named]


def _is_wrong(row: Record) -> bool:
    if isinstance(row.get("label"), list) and isinstance(row.get("labels"), list):
        return any(slips(row))
    return row.get("label") is not None and row.get("label") != row.get("prediction")


def _sureness(row: Record) -> float:
    """How sure the network was of what is wrong; of masks, how little of them is right."""
    if "miou" in row:
        return 1 - float(row["miou"]) if is_number(row["miou"]) else 0.0
    if not isinstance(row.get("labels"), list):
        value = row.get("probability")
        return float(value) if isinstance(value, int | float) else 0.0
    shares = {name: share for name, share in part(row, "probabilities").items() if is_number(share)}
    extra, missed = slips(row)
    wrong = [shares[name] for name in extra if name in shares] + [1 - shares[name] for name in missed if name in shares]
    return float(max(wrong, default=0.0))
