"""One row of predictions/, read without trust: whether it is wrong, and how surely."""

from __future__ import annotations

from typing import Any

from regraft.wording import is_number

__all__ = ["Row", "is_wrong", "slips", "sureness"]

Row = dict[str, Any]


def slips(row: Row) -> tuple[list[str], list[str]]:
    """Return the wrong and the missed labels of a row of a multi-label model."""
    named, there = ([str(name) for name in row[key]] for key in ("labels", "label"))
    return [name for name in named if name not in there], [name for name in there if name not in named]


def is_wrong(row: Row) -> bool:
    """Return whether an image was classified wrongly; without a true class nothing is wrong."""
    if isinstance(row.get("label"), list) and isinstance(row.get("labels"), list):
        return any(slips(row))
    return row.get("label") is not None and row.get("label") != row.get("prediction")


def sureness(row: Row) -> float:
    """Return the confidence in the wrong answer: its probability; of masks, 1 - mean IoU."""
    if "miou" in row:
        return 1 - float(row["miou"]) if is_number(row["miou"]) else 0.0
    if not isinstance(row.get("labels"), list):
        value = row.get("probability")
        return float(value) if isinstance(value, int | float) else 0.0
    given = row.get("probabilities")
    shares = {name: share for name, share in given.items() if is_number(share)} if isinstance(given, dict) else {}
    extra, missed = slips(row)
    wrong = [shares[name] for name in extra if name in shares] + [1 - shares[name] for name in missed if name in shares]
    return float(max(wrong, default=0.0))
