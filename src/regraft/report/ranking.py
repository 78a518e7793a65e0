"""A ranking of backbones as one HTML file: what each reaches against what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from regraft.report.html.markup import Html, html
from regraft.report.html.page import page, write_page
from regraft.report.html.scatter import Point, scatter_chart
from regraft.report.html.tables import listing, table
from regraft.wording import percent

__all__ = ["write_ranking"]

_COLUMNS = ("#", "network", "#accuracy", "95 % interval", "behind the first", "#log loss", "#LogME", "#H-score")
_COSTS = ("#s for 1,000 images", "#MB", "#pixels")


def write_ranking(path: str | Path, found: Mapping[str, Any]) -> Path:
    """Write the table and the plot of `Ranking.to_dict` to an HTML file that opens offline.

    Raises:
        StorageError: It cannot be written.
    """
    whole = page(
        title="regraft rank",
        name=f"Backbones for {found['data']}",
        verdict=html("<p>First: <strong>{}</strong></p>", found["rows"][0]["label"]),
        sections=_section(found),
    )
    return write_page(path, whole)


def _section(found: Mapping[str, Any]) -> Html:
    """Return the plot, the table, and what could not be ranked."""
    ranked = [row for row in found["rows"] if not row["reason"]]
    points = [
        Point(row["label"], row["seconds_per_1000"], 100 * row["accuracy"], *(100 * end for end in row["interval"]))
        for row in ranked
    ]
    chart = scatter_chart(
        "Accuracy of linear probes against cost", points, x_label="seconds for 1,000 images", y_label="accuracy (%)"
    )
    note = (
        "Linear classifiers on the features of {:,} of {:,} images, cross-validated over {} folds, the penalty chosen "
        "inside each. Bars are 95 % intervals (Wilson); a difference is within noise where the 95 % interval of the "
        "images' paired differences includes 0."
    )
    failed = [f"{row['label']}: {row['reason']}" for row in found["rows"] if row["reason"]]
    return html(
        '<section id="ranking"><div class="charts">{}</div><p class="note">{}</p>{}{}</section>',
        chart,
        note.format(found["num_images"], found["num_available"], found["num_folds"]),
        table((*_COLUMNS, *_COSTS), [_cells(place, row) for place, row in enumerate(ranked, start=1)]),
        html("<h3>Not ranked</h3>{}", listing(failed)) if failed else Html(""),
    )


def _cells(place: int, row: Mapping[str, Any]) -> Sequence[Any]:
    low, high = row["interval"]
    return (
        place,
        row["label"],
        percent(row["accuracy"]),
        f"{percent(low)} to {percent(high)}",
        _behind(row),
        f"{row['log_loss']:.3f}",
        f"{row['logme']:.3f}",
        f"{row['h_score']:.2f}",
        f"{row['seconds_per_1000']:.1f}",
        f"{row['megabytes']:.0f}",
        "×".join(map(str, row["image_size"])),
    )


def _behind(row: Mapping[str, Any]) -> str:
    if row["behind"] is None:
        return ""
    mean, low, high = (100 * value for value in row["behind"])
    noise = ", within noise" if row["is_within_noise"] else ""
    return f"{mean:.1f} points ({low:.1f} to {high:.1f}){noise}"
