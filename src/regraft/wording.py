"""Numbers as people read them: percentages, durations, sizes of samples."""

from __future__ import annotations

import math
import numbers
from typing import Any

__all__ = ["duration", "is_number", "number", "percent", "quantity", "wilson_interval"]

_Z = 1.959964  # two-sided 95 % of the normal distribution


def is_number(value: Any) -> bool:
    """Return true for finite numbers, numpy's too, not for booleans."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def percent(share: Any, digits: int = 1) -> str:
    """Return a share of 0 to 1 as a percentage; a dash for what is not a number."""
    return f"{100 * share:.{digits}f}%" if is_number(share) else "–"


def number(value: Any) -> str:
    """Return four significant digits, or a dash."""
    return f"{value:.4g}" if is_number(value) else "–"


def quantity(value: Any, noun: str, plural: str = "") -> str:
    """Return `1 image`, `1,200 images`."""
    return f"{value:,} {noun if value == 1 else plural or noun + 's'}" if is_number(value) else f"– {noun}"


def duration(seconds: Any) -> str:
    """Return `48 s`, `3 min 12 s`, `2 h 5 min`; a dash for what is not a number."""
    if not is_number(seconds):
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def wilson_interval(share: float, num: float) -> tuple[float, float]:
    """Return the 95 % score interval of a share seen in `num` trials (Wilson, JASA 22, 1927)."""
    centre = (share + _Z**2 / (2 * num)) / (1 + _Z**2 / num)
    half = _Z / (1 + _Z**2 / num) * math.sqrt(share * (1 - share) / num + _Z**2 / (4 * num**2))
    return max(0.0, centre - half), min(1.0, centre + half)
