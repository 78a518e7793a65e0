"""Records that grow or change while a run goes on: metrics.jsonl and status.json."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from regraft import commit

__all__ = ["append_metrics", "cut_metrics", "finite", "read_metrics"]


def append_metrics(path: Path, record: dict[str, Any]) -> int:
    """Append one line to metrics.jsonl and return the file's size in bytes afterwards."""
    commit.append_line(path, commit.as_json(finite(record)))
    return path.stat().st_size


def cut_metrics(path: Path, num_bytes: int) -> None:
    """Take back the lines that were written after a checkpoint, so that a resumed run has each step once."""
    if path.exists() and path.stat().st_size > num_bytes:
        with commit.storage_errors(path):
            os.truncate(path, num_bytes)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of metrics.jsonl; a last line that a kill cut off is left out."""
    records = []
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for line in text.split("\n"):  # `splitlines` would also cut at characters that JSON leaves as they are
        try:
            record = json.loads(line) if line.strip() else None
        except ValueError:
            break
        if isinstance(record, dict):
            records.append(record)
    return records


def finite(value: Any) -> Any:
    """`value` with every NaN and infinity, which JSON does not have, as None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value
