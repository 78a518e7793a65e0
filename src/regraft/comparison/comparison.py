"""What comparing two runs gives, as facts, a sentence and plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from regraft.summary import Summary
from regraft.wording import quantity

__all__ = ["Comparison"]


@dataclass(frozen=True, repr=False)
class Comparison(Summary):
    """Two runs on the same images.

    Attributes:
        runs: The names of the two.
        label: What the images are called.
        measures: Plain data: see `compare`.
    """

    runs: tuple[str, str]
    label: str
    measures: dict[str, Any]

    def facts(self) -> dict[str, object]:
        """Return the accuracies and what the difference says."""
        first, second = self.measures["accuracy"]
        return {
            "runs": " and ".join(self.runs),
            "accuracy": f"{first:.2%} and {second:.2%} of {quantity(self.measures['num_images'], 'image')}",
            "verdict": self.verdict,
        }

    @property
    def verdict(self) -> str:
        """What the difference says, as a sentence."""
        paired, (first, second) = self.measures["paired"], self.runs
        low, high = paired["interval"]
        where = f"(95 % interval of the difference {low:+.2%} to {high:+.2%}, McNemar p = {paired['p']:.3g})"
        margin = f"{paired['margin']:.1%}"
        if paired["p"] < 0.05:
            better = second if paired["difference"] > 0 else first
            much = f", though by less than {margin}" if paired["equal"] else ""
            return f"{better} is better by {abs(paired['difference']):.2%}{much} {where}"
        if paired["equal"]:
            return f"the two are equal to within {margin} {where}"
        return f"no difference is shown, and none is ruled out {where}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {"runs": list(self.runs), "label": self.label, "verdict": self.verdict, **self.measures}
