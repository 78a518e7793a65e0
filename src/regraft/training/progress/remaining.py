"""The time that is left of a run, from the pace of each of its phases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from regraft.training.progress.phases import DECODING, Phase, Work

__all__ = ["Remaining"]

_HALF_LIFE = 0.1  # of a phase: by then what was measured before counts half
_NEW = 0.1  # of a phase: until then its pace may be anything
_TELLING = 0.25  # of a forward pass: what costs less, as a head on kept features, tells nothing of it


@dataclass
class _Part:
    units: float
    cost: float
    done: float = 0.0
    recent_units: float = 0.0
    recent_seconds: float = 0.0

    @property
    def left(self) -> float:
        return max(self.units - self.done, 0.0)

    @property
    def pace(self) -> float | None:
        """Seconds of a unit, lately; None before the first."""
        return self.recent_seconds / self.recent_units if self.recent_units else None

    def advance(self, units: float, seconds: float) -> None:
        fade = 0.5 ** (units / (_HALF_LIFE * self.units)) if self.units else 1.0
        self.done += units
        self.recent_units = fade * self.recent_units + units
        self.recent_seconds = fade * self.recent_seconds + seconds


class Remaining:
    """The work of a run by phase, and how fast each phase goes.

    A phase that has begun goes on at its own pace. One that has not is expected at that of the others, by what its
    images cost beside theirs.

    Args:
        work: What there is to do.
    """

    def __init__(self, work: Mapping[Phase, Work]) -> None:
        self._parts = {phase: _Part(*each) for phase, each in work.items()}
        self._now: _Part | None = None

    @property
    def is_new_ground(self) -> bool:
        """Whether the present phase has only begun, so that what was expected of it may be far off."""
        return self._now is not None and self._now.done <= _NEW * self._now.units

    def advance(self, phase: Phase, units: float, seconds: float) -> float:
        """Add finished work, and how long it took; returns how much of it was not planned."""
        part = self._now = self._parts.setdefault(phase, _Part(0.0, 1.0))
        part.advance(units, seconds)
        more = max(part.done - part.units, 0.0)
        part.units += more
        return more

    def skip(self, phase: Phase, units: float) -> float:
        """Take out work of a phase, as far as it is there; returns how much that was."""
        part = self._parts.get(phase, _Part(0.0, 1.0))
        taken = min(units, part.left)
        part.units -= taken
        return taken

    def end(self, stage: str) -> float:
        """Take out what is left of a stage; returns how much that was."""
        return sum(self.skip(phase, part.left) for phase, part in self._parts.items() if phase.stage == stage)

    def seconds(self) -> float | None:
        """Return how long the rest will take; None where nothing was planned, or nothing is known yet."""
        expected = self._expected()
        if expected is None or not any(part.units for part in self._parts.values()):
            return None
        paces = [(part, part.pace) for part in self._parts.values()]
        return sum(part.left * (part.cost * expected if pace is None else pace) for part, pace in paces)

    def _expected(self) -> float | None:
        """Return the seconds of a forward pass, as far as they are known; those of decoding at first."""
        known = [(phase, part) for phase, part in self._parts.items() if part.recent_units]
        passed = [part for phase, part in known if phase != DECODING]
        telling = [part for part in passed if part.cost >= _TELLING]
        parts = telling or passed or [part for _, part in known]
        work = sum(part.recent_units * part.cost for part in parts)
        return sum(part.recent_seconds for part in parts) / work if work else None
