"""A ranking of backbones as one HTML file: what each reaches against what it costs."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from regraft import commit
from regraft.report.html.markup import PAGE_MARK, Html, html, package_text
from regraft.report.html.scatter import Point, scatter_chart
from regraft.report.html.tables import listing, table
from regraft.version import __version__
from regraft.wording import percent

__all__ = ["write_ranking"]

_COLUMNS = ("#", "network", "#accuracy", "95 % interval", "behind the first", "#log loss", "#LogME", "#H-score")
_COSTS = ("#s for 1,000 images", "#MB", "#pixels")


def write_ranking(path: str | Path, found: Mapping[str, Any]) -> Path:
    """Write the table and the plot of `Ranking.to_dict` to an HTML file that opens offline.

    Raises:
        StorageError: It cannot be written.
    """
    path = Path(path)
    style = package_text("style.css")
    page = html(
        package_text("page.html"),
        title="regraft rank",
        name=f"Backbones for {found['data']}",
        style=style,
        style_digest=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii"),
        links=Html(""),
        verdict=html("<p>First: <strong>{}</strong></p>", _label(found["rows"][0])),
        gaps=Html(""),
        sections=_section(found),
        version=__version__,
    )
    commit.require_replaceable(path, PAGE_MARK)
    commit.write_text(path, page)
    return path


def _section(found: Mapping[str, Any]) -> Html:
    """Return the plot, the table, and what could not be ranked."""
    ranked = [row for row in found["rows"] if not row["reason"]]
    points = [
        Point(_label(row), row["seconds_per_1000"], 100 * row["accuracy"], *(100 * end for end in row["interval"]))
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
    failed = [f"{_label(row)}: {row['reason']}" for row in found["rows"] if row["reason"]]
    return html(
        '<section id="ranking"><div class="charts">{}</div><p class="note">{}</p>{}{}</section>',
        chart,
        note.format(found["num_images"], found["num_available"], found["num_folds"]),
        table((*_COLUMNS, *_COSTS), [_cells(place, row) for place, row in enumerate(ranked, start=1)]),
        html("<h3>Not ranked</h3>{}", listing(failed)) if failed else Html(""),
    )


def _label(row: Mapping[str, Any]) -> str:
    return str(row["name"]) if row["weights"] == "pretrained" else f"{row['name']}@{row['weights']}"


def _cells(place: int, row: Mapping[str, Any]) -> Sequence[Any]:
    low, high = row["interval"]
    return (
        place,
        _label(row),
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
