"""Records that grow or change while a run goes on: metrics.jsonl, metrics.csv and status.json."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from regraft import commit
from regraft.run.stored import require_plain
from regraft.visible import cell

__all__ = [
    "CANDIDATES",
    "append_metrics",
    "candidate_name",
    "curves",
    "cut_metrics",
    "finite",
    "flat",
    "kind_of_candidate",
    "network_name",
    "place_name",
    "read_metrics",
    "soup_name",
    "write_metrics_csv",
]

CANDIDATES = ("soup", "interpolation")  # kinds of lines in metrics.jsonl, beside epochs
_PLACE = ("kind", "stage", "stage_index", "epoch", "epochs", "step", "share")


def network_name(best: Mapping[str, Any]) -> str:
    """Return the display name of a run's network, from a record of `stage`, `epoch` and perhaps `share` and `soup`."""
    return f"stage {best.get('stage')}, {place_name(best)}"


def place_name(best: Mapping[str, Any]) -> str:
    """Return the display name of a network inside its stage."""
    share, soup = best.get("share"), _soup_of(best)
    end = soup_name(soup) if soup else f"epoch {best.get('epoch')}"
    if not isinstance(share, int | float):
        return end
    return f"{share:.0%} of the way from its start to {'the ' if soup else ''}{end}"


def candidate_name(record: Mapping[str, Any]) -> str:
    """Return the display name of a network that was made of a stage's weights at its end."""
    if _soup_of(record) or not isinstance(record.get("share"), int | float):
        return place_name(record)
    return f"{record['share']:.0%} of the way from its start"


def soup_name(epochs: Sequence[int]) -> str:
    """Return the display name of the average of some epochs' weights."""
    return f"soup of epochs {', '.join(map(str, epochs))}"


def kind_of_candidate(record: Mapping[str, Any]) -> str:
    """Return the kind of a line in metrics.jsonl: one of CANDIDATES."""
    return "soup" if record.get("share") is None else "interpolation"


def _soup_of(record: Mapping[str, Any]) -> list[int]:
    soup = record.get("soup")
    return [epoch for epoch in soup if isinstance(epoch, int)] if isinstance(soup, list) else []


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
    """Write metrics.jsonl as a CSV file: a row for each epoch, and for each network made of a stage's weights at its
    end (`share`, `soup`); a column for each number, empty where none is.

    Raises:
        StorageError: It cannot be written.
    """
    rows = [flat(record) for record in read_metrics(metrics) if record.get("kind") in ("epoch", *CANDIDATES)]
    columns = dict.fromkeys(key for row in rows for key in row if key != "kind")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([cell(column) for column in columns])
    writer.writerows([cell(_in_a_cell(row.get(column))) for column in columns] for row in rows)
    commit.write_text(table, text.getvalue())


def _in_a_cell(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, list) else value


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
