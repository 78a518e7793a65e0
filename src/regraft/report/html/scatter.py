"""A chart of points with their intervals: what something reaches against what it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from regraft.report.html.charts import (
    _HEIGHT,
    _LEFT,
    _RIGHT,
    _WIDTH,
    CHARACTER,
    XText,
    _Axes,
    _grid,
    _ticks,
    shorten,
)
from regraft.report.html.markup import Html, html, join

__all__ = ["Point", "scatter_chart"]

_LONGEST = 26


class Point(NamedTuple):
    """A point, its name, and the interval of its y."""

    label: str
    x: float
    y: float
    low: float
    high: float


def scatter_chart(title: str, points: Sequence[Point], *, x_label: str, y_label: str) -> Html:
    """Return points with names and intervals; x is on a logarithmic scale.

    Args:
        title: What the chart shows; also its text for screen readers.
        points: With x above 0.
        x_label: What stands under the x axis.
        y_label: What stands beside the y axis, with its unit.
    """
    shown = [point for point in points if point.x > 0 and all(map(math.isfinite, point[1:]))]
    if not shown:
        return html('<p class="absent">{}: nothing was recorded.</p>', title)
    logs = [math.log10(point.x) for point in shown]
    axes, ticks = _axes(shown, logs)
    return html(
        '<figure class="chart"><figcaption><strong>{title}</strong></figcaption>'
        '<svg viewBox="0 0 {width} {height}" role="img" aria-label="{title}">{grid}{points}'
        '<text class="unit" x="{middle}" y="{bottom}" text-anchor="middle">{x_label}</text>'
        '<text class="unit" x="4" y="12">{y_label}</text></svg></figure>',
        title=title,
        width=_WIDTH,
        height=_HEIGHT,
        grid=_grid(axes, ticks, XText(lambda x: f"{10**x:.3g}")),
        points=join(_point(axes, point, log) for point, log in zip(shown, logs, strict=True)),
        middle=(_LEFT + _WIDTH - _RIGHT) / 2,
        bottom=_HEIGHT - 6,
        x_label=x_label,
        y_label=y_label,
    )


def _axes(points: Sequence[Point], logs: Sequence[float]) -> tuple[_Axes, tuple[list[float], list[float]]]:
    y_ticks = _ticks(min(point.low for point in points), max(point.high for point in points), 5)
    room = max(0.15, 0.12 * (max(logs) - min(logs)))
    low, high = min(logs) - room, max(logs) + room
    steps = [math.log10(factor * 10.0**power) for power in range(-6, 7) for factor in (1, 2, 5)]
    return _Axes(low, high, y_ticks[0], y_ticks[-1]), ([step for step in steps if low <= step <= high], y_ticks)


def _point(axes: _Axes, point: Point, log: float) -> Html:
    x, name = axes.x(log), shorten(point.label, _LONGEST)
    right = x + 8 + len(name) * CHARACTER <= _WIDTH - _RIGHT
    return html(
        '<g class="line val"><line class="interval" x1="{x}" x2="{x}" y1="{low}" y2="{high}"/>'
        '<circle cx="{x}" cy="{y}" r="4"><title>{label}: {value:.4g} ({from_:.4g} to {to:.4g}) at {cost:.4g}</title>'
        '</circle><text class="tick" x="{at}" y="{base}" text-anchor="{anchor}">{name}</text></g>',
        x=x, y=axes.y(point.y), low=axes.y(point.low), high=axes.y(point.high), label=point.label, value=point.y,
        from_=point.low, to=point.high, cost=point.x, at=x + 8 if right else x - 8, base=axes.y(point.y) - 6,
        anchor="start" if right else "end", name=name,
    )  # fmt: skip
