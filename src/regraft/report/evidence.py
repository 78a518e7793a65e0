"""What a run folder holds, read without trust: every file may be absent, cut off or not what its name says."""

from __future__ import annotations

import contextlib
import heapq
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from regraft.evaluation.tasks import Task, task_of
from regraft.report.predictions.chosen import Confusion, Confusions, OfEachClass
from regraft.report.predictions.rows import is_wrong, sureness
from regraft.run.folder import RunFolder
from regraft.run.folds_folder import MOST_FOLDS, FoldsFolder, is_folds
from regraft.run.records import CANDIDATES, place_name
from regraft.wording import is_number, number

__all__ = ["Evaluated", "Evidence", "Record", "best_epoch", "epoch_name", "gather", "is_candidate", "part", "parts"]

MOST_PICTURES = 24
_MOST_BATCHES = 100
_LARGEST_RECORD = 256 << 20  # bytes
_LARGEST_BATCH = 4 << 20  # bytes of an image of a batch

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
    folds: Record = field(default_factory=dict)  # of a cross-validation: its record
    fold_epochs: list[list[Record]] = field(default_factory=list)  # and the epochs of each fold
    candidates: list[Record] = field(default_factory=list)  # networks made of a stage's weights at its end
    check: Record = field(default_factory=dict)  # of its images, beside the head's stage
    batches: dict[int, bytes] = field(default_factory=dict)  # of each stage an image of its first batch, JPEG

    @property
    def task(self) -> Task:
        """What its network is measured by; runs of older versions do not say it and are softmax."""
        given = [part(self.model, "regraft").get("output"), part(self.recipe, "head").get("output")]
        return task_of({"output": next((output for output in given if output), "softmax")})


def gather(path: Path) -> Evidence:
    """Return everything that the report shows, from the run folder alone."""
    reader = _Reader()
    if is_folds(path):
        return _gather_folds(FoldsFolder(path), reader)
    run = RunFolder(path)
    recipe_text, lines = reader.text(run.recipe), list(reader.lines(run.metrics))
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
        epochs=[line for line in lines if line.get("kind") == "epoch"],
        candidates=[line for line in lines if line.get("kind") in CANDIDATES],
        evaluated=reader.evaluated(run),
        absent=reader.absent,
        problems=reader.problems,
        check=reader.optional(run.check),
        batches=_batches(run.batches),
    )


def _batches(folder: Path) -> dict[int, bytes]:
    """Return the images of first batches, by the number of the stage; what is no JPEG file is left out."""
    found = {}
    for path in sorted(folder.glob("*.jpg"))[:_MOST_BATCHES] if folder.is_dir() else ():
        with contextlib.suppress(OSError):
            if path.stem.isdecimal() and path.is_file() and path.stat().st_size <= _LARGEST_BATCH:
                content = path.read_bytes()
                if content.startswith(b"\xff\xd8\xff"):
                    found[int(path.stem)] = content
    return found


def _gather_folds(run: FoldsFolder, reader: _Reader) -> Evidence:
    """Return the evidence of a cross-validation: what all folds share, their metrics and their epochs."""
    record, recipe_text = reader.record(run.record), reader.text(run.recipe)
    num = record.get("num_folds")
    paths = [run.path / f"fold-{n}" for n in range(1, min(num if isinstance(num, int) else 0, MOST_FOLDS) + 1)]
    return Evidence(
        path=run.path,
        status={},
        recipe=reader.yaml(run.recipe, recipe_text),
        recipe_text=recipe_text,
        command=reader.text(run.command),
        environment=reader.record(run.environment),
        splits={**(shared := reader.record(run.splits)), "splits": _without_folds(shared)},
        match=reader.optional(run.match),
        audit={},
        model=reader.record(run.model / "config.json"),
        epochs=[],
        evaluated=_with_maps(
            reader.evaluated(run), [reader.optional(RunFolder(fold).heat_maps("val")) for fold in paths]
        ),
        absent=reader.absent,
        problems=reader.problems,
        folds=record or {"num_folds": 0},
        fold_epochs=[
            [line for line in reader.lines(path / "metrics.jsonl") if line.get("kind") == "epoch"] for path in paths
        ],
    )


def _with_maps(evaluated: list[Evaluated], maps: Sequence[Record]) -> list[Evaluated]:
    """Return the splits, that of all folds with the heat maps that each of them keeps of its own images."""
    for result in evaluated:
        if result.split == "out-of-fold":
            result.heat = {"images": {path: kept for record in maps for path, kept in part(record, "images").items()}}
    return evaluated


def _without_folds(splits: Record) -> Record:
    """Return the images of a cross-validation as they are divided for all folds."""
    rows = part(splits, "splits")
    shared = [row for name in ("train", "val") for row in rows.get(name) or ()]
    return {"folds": shared, **{name: part_ for name, part_ in rows.items() if name not in ("train", "val")}}


def part(record: Record, key: str) -> Record:
    """Return a record inside a record, empty where there is none."""
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def parts(record: Record, key: str) -> list[Record]:
    """Return the records of a list inside a record; what is no record is left out."""
    value = record.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def best_epoch(evidence: Evidence) -> str:
    """Return the best epoch, with the metric it was chosen by, as text; empty when that was not recorded."""
    best = part(evidence.status, "best")
    if best.get("epoch") is None:
        return ""
    same = (e for e in evidence.epochs if all(e.get(key) == best.get(key) for key in ("stage", "epoch")))
    where = epoch_name(best if is_candidate(best) else next(same, best))
    return f"{best.get('stage')}, {where} ({best.get('monitor')} {number(best.get('value'))})"


def epoch_name(epoch: Record) -> str:
    """Return the display name of an epoch; each step of an L-BFGS head is a solution, named by its regularisation."""
    return f"solution with l2 {epoch['l2']:g}" if is_number(epoch.get("l2")) else place_name(epoch)


def is_candidate(record: Record) -> bool:
    """Return whether a record is of a network made of a stage's weights at its end, instead of an epoch."""
    return record.get("share") is not None or record.get("soup") is not None


class _Reader:
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
