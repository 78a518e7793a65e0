"""Records that grow or change while a run goes on: metrics.jsonl, metrics.csv and status.json."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regraft import commit
from regraft.run.stored import require_plain
from regraft.visible import cell

__all__ = [
    "append_metrics",
    "curves",
    "cut_metrics",
    "finite",
    "flat",
    "network_name",
    "read_metrics",
    "write_metrics_csv",
]

_PLACE = ("kind", "stage", "stage_index", "epoch", "epochs", "step")


def network_name(best: Mapping[str, Any]) -> str:
    """Return the display name of a run's network, from a record of `stage`, `epoch` and perhaps `share`."""
    stage, epoch, share = best.get("stage"), best.get("epoch"), best.get("share")
    if isinstance(share, int | float):
        return f"stage {stage}, {share:.0%} of the way from its start to epoch {epoch}"
    return f"stage {stage}, epoch {epoch}"


def append_metrics(path: Path, record: dict[str, Any]) -> int:
    """Append one line to metrics.jsonl and return the file's size in bytes afterwards."""
    commit.append_line(path, commit.as_json(finite(record)))
    return path.stat().st_size


def cut_metrics(path: Path, num_bytes: int) -> None:
    """Cut the lines that were written after a checkpoint, so that a resumed run has each step once."""
    commit.cut(path, num_bytes)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the records of metrics.jsonl; a last line that a kill cut off is left out."""
    records = []
    require_plain(path)
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for line in text.split("\n"):  # `splitlines` would also cut at characters that JSON leaves as they are
        try:
            record = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError):
            break
        if isinstance(record, dict):
            records.append(record)
    return records


def write_metrics_csv(metrics: Path, table: Path) -> None:
    """Write the epochs of metrics.jsonl as a CSV file: a row for each, a column for each number, empty where none is.

    Raises:
        StorageError: It cannot be written.
    """
    rows = [flat(record) for record in read_metrics(metrics) if record.get("kind") == "epoch"]
    columns = dict.fromkeys(key for row in rows for key in row if key != "kind")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([cell(column) for column in columns])
    writer.writerows([cell(row.get(column)) for column in columns] for row in rows)
    commit.write_text(table, text.getvalue())


def flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record without groups: `lr: {head: 0.1}` becomes `lr/head: 0.1`."""
    values: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            values |= {f"{key}/{inner}": item for inner, item in flat(value).items()}
        else:
            values[key] = value
    return values


def curves(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite metrics of a record by name, without the numbers that say which epoch it is."""
    measured = {key: value for key, value in flat(record).items() if key not in _PLACE}
    numbers = {key: float(value) for key, value in measured.items() if isinstance(value, int | float)}
    return {key: value for key, value in numbers.items() if math.isfinite(value)}


def finite(value: Any) -> Any:
    """Return `value` with every NaN and infinity, which JSON does not have, as None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value
