"""The curve of a learning-rate range test as one HTML file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from regraft.report.html.charts import Series, XText, line_chart
from regraft.report.html.markup import Html, html
from regraft.report.html.page import page, write_page

__all__ = ["write_range_test"]


def write_range_test(path: str | Path, found: Mapping[str, Any]) -> Path:
    """Write the curve and the suggestion of `RangeTest.to_dict` to an HTML file that opens offline.

    Raises:
        StorageError: It cannot be written.
    """
    ceiling = _ceiling(found["smoothed"])
    points = [
        tuple((math.log10(rate), min(loss, ceiling)) for rate, loss in zip(found["rates"], found[key], strict=True))
        for key in ("losses", "smoothed")
    ]
    num_above = sum(loss > ceiling for loss in found["losses"])
    chart = line_chart(
        "Loss against the learning rate",
        [Series("each step", "train", points[0]), Series("running mean", "val", points[1])],
        x_label="learning rate",
        y_label="loss (nats)",
        best=(math.log10(found["suggestion"]), f"suggested: {found['suggestion']:.1e}"),
        x_text=XText(lambda x: f"1e{x:g}", lambda x: f"a rate of {10**x:.2g}"),
    )
    note = Html("")
    if num_above:
        text = '<p class="note">{} of {} losses are above {:.3g}, where the chart ends: the rate is too high there.</p>'
        note = html(text, num_above, len(found["losses"]), ceiling)
    whole = page(
        title="regraft find-lr",
        name=f"Range test of stage {found['stage']}",
        verdict=html("<p>Suggested learning rate: <strong>{}</strong></p>", f"{found['suggestion']:.1e}"),
        sections=html('<section id="curve"><div class="charts">{}</div>{}</section>', chart, note),
    )
    return write_page(path, whole)


def _ceiling(smoothed: Sequence[float]) -> float:
    """Return the upper limit of the loss axis: above the first loss by half of the largest fall of the running mean."""
    fall = max(smoothed[0] - min(smoothed), 0.1 * abs(smoothed[0]), 1e-6)
    return float(smoothed[0] + 0.5 * fall)
