"""The curve of a learning-rate range test as one HTML file."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regraft import __version__, commit
from regraft.report.charts import Series, line_chart
from regraft.report.markup import Html, html, package_text

__all__ = ["write_range_test"]


def write_range_test(path: str | Path, found: Mapping[str, Any]) -> Path:
    """Write the curve and the suggestion of `RangeTest.to_dict` to an HTML file that opens offline.

    Raises:
        StorageError: It cannot be written.
    """
    path = Path(path)
    points = [
        tuple((math.log10(rate), loss) for rate, loss in zip(found["rates"], found[key], strict=True))
        for key in ("losses", "smoothed")
    ]
    chart = line_chart(
        "Loss against the learning rate",
        [Series("each step", "train", points[0]), Series("running mean", "val", points[1])],
        x_label="log10 of the learning rate",
        y_label="loss (nats)",
        best=(math.log10(found["suggestion"]), f"suggested: {found['suggestion']:.1e}"),
    )
    style = package_text("style.css")
    page = html(
        package_text("page.html"),
        title="regraft find-lr",
        name=f"Range test of stage {found['stage']}",
        style=style,
        style_digest=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii"),
        links=Html(""),
        verdict=html("<p>Suggested learning rate: <strong>{}</strong></p>", f"{found['suggestion']:.1e}"),
        gaps=Html(""),
        sections=html('<section id="curve"><div class="charts">{}</div></section>', chart),
        version=__version__,
    )
    commit.write_text(path, page)
    return path
