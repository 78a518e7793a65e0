"""What a ranking found: a row for each backbone, best first, and how sure that order is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from regraft.ranking.candidates import Candidate
from regraft.summary import Summary
from regraft.visible import visible
from regraft.wording import duration, percent, quantity

__all__ = ["RankedModel", "Ranking"]


@dataclass(frozen=True, repr=False)
class RankedModel(Summary):
    """One backbone on one's own images.

    Attributes:
        name: What `build_model` takes.
        weights: A weights file, `pretrained` or `none`.
        accuracy: Of a linear classifier on its features, cross-validated; None where the backbone failed.
        interval: The 95 % score interval of that share (Wilson).
        log_loss: The mean loss of the same predictions, in nats; less is better.
        behind: How much lower its accuracy is than that of the first row, with the 95 % interval of this difference,
            paired by image: (difference, low, high); None for the first row.
        logme: LogME, the log evidence per image of a linear model; more is better.
        h_score: The H-score with a shrunk covariance; more is better.
        seconds_per_1000: Seconds of 1,000 images through the network, decoded, on this machine.
        megabytes: Of its weights, in fp32.
        image_size: Height and width of its images.
        reason: Why it could not be ranked; empty where it was.
    """

    name: str
    weights: str
    accuracy: float | None = None
    interval: tuple[float, float] | None = None
    log_loss: float | None = None
    behind: tuple[float, float, float] | None = None
    logme: float | None = None
    h_score: float | None = None
    seconds_per_1000: float | None = None
    megabytes: float | None = None
    image_size: tuple[int, int] | None = None
    reason: str = ""

    @property
    def label(self) -> str:
        """The name, with its weights where they are not the pretrained ones."""
        return Candidate(self.name, self.weights).label

    @property
    def is_within_noise(self) -> bool:
        """Whether the images cannot tell it from the first row: the interval of the difference includes 0."""
        return self.behind is not None and self.behind[1] <= 0

    def facts(self) -> dict[str, object]:
        """Return its name and its accuracy, or why there is none."""
        said = {"reason": self.reason} if self.reason else {"accuracy": percent(self.accuracy)}
        return {"name": self.label, **said}

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "label": self.label, "is_within_noise": self.is_within_noise}


@dataclass(frozen=True, repr=False)
class Ranking(Summary):
    """Backbones in the order of their cross-validated log loss, those without weights behind the others.

    Attributes:
        rows: Best first; those that could not be ranked last.
        data: The name of the images.
        num_images: How many images were looked at.
        num_available: How many there are, without a test split.
        num_folds: Of the cross-validation.
        seconds: How long it took.
    """

    rows: tuple[RankedModel, ...]
    data: str
    num_images: int
    num_available: int
    num_folds: int
    seconds: float

    @property
    def best(self) -> RankedModel:
        """The first row."""
        return self.rows[0]

    def facts(self) -> dict[str, object]:
        """Return the backbones in order, and on how many images they were compared."""
        return {"best": self.best.label, "backbones": len(self.rows), "images": self.num_images}

    def to_dict(self) -> dict[str, Any]:
        """Return the ranking as plain data."""
        return {**asdict(self), "rows": [row.to_dict() for row in self.rows]}

    def __str__(self) -> str:
        return self.render()

    def render(self) -> str:
        """Return the ranking as a table for people, with what noise says of its order."""
        lines = [_line(place, row) for place, row in enumerate(self.rows, start=1) if not row.reason]
        shown = [
            ("", "network", "accuracy", "95 %", "log loss", "LogME", "H-score", "s/1,000", "MB", ""),
            *lines,
        ]
        widths = [max(len(line[place]) for line in shown) for place in range(len(shown[0]))]
        table = [
            "  ".join(cell.ljust(width) if place == 1 else cell.rjust(width) for place, (cell, width) in enumerate(row))
            for row in (list(zip(line[:-1], widths, strict=False)) for line in shown)
        ]
        table = [f"{line}  {row[-1]}".rstrip() for line, row in zip(table, shown, strict=True)]
        failed = [f"not ranked: {visible(row.label)}: {visible(row.reason)}" for row in self.rows if row.reason]
        return "\n".join([self.headline(), *table, *failed])

    def headline(self) -> str:
        """Return a sentence on what was compared, and how."""
        of = f" of {self.num_available:,}" if self.num_images < self.num_available else ""
        noise = sum(row.is_within_noise for row in self.rows)
        text = f"linear probes on {self.num_images:,}{of} images, {self.num_folds} folds, {duration(self.seconds)}"
        return text + (f"; {quantity(noise, 'network')} within the noise of the first" if noise else "")


def _line(place: int, row: RankedModel) -> Sequence[str]:
    low, high = row.interval or (0.0, 0.0)
    return (
        str(place),
        visible(row.label),
        percent(row.accuracy),
        f"{percent(low)} to {percent(high)}",
        f"{row.log_loss:.3f}",
        f"{row.logme:.3f}",
        f"{row.h_score:.2f}",
        f"{row.seconds_per_1000:.1f}",
        f"{row.megabytes:.0f}",
        "within noise of the first" if row.is_within_noise else "",
    )
