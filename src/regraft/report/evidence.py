"""What a run folder holds, as the report shows it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from regraft.evaluation.tasks import Task, task_of
from regraft.report.reading.records import Evaluated, Reader, Record, part, parts
from regraft.run.folder import RunFolder
from regraft.run.folds_folder import MOST_FOLDS, FoldsFolder, is_folds
from regraft.run.records import CANDIDATES, place_name
from regraft.wording import is_number, number

__all__ = ["Evaluated", "Evidence", "Record", "best_epoch", "epoch_name", "gather", "is_candidate", "part", "parts"]

_MOST_BATCHES = 100
_LARGEST_BATCH = 4 << 20  # bytes of an image of a batch


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
    reader = Reader()
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


def _gather_folds(run: FoldsFolder, reader: Reader) -> Evidence:
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
