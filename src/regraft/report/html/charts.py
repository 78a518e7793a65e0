"""Charts as inline SVG: lines over epochs, and bars. Colours come from classes in style.css."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from regraft.report.html.markup import Html, html, join

__all__ = ["CHARACTER", "Series", "Span", "XText", "bar", "curves_or_values", "line_chart", "shorten"]

_WIDTH, _HEIGHT = 520, 288
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 34, 44
CHARACTER = 6.6  # the width of an average character of the charts' font, in pixels


@dataclass(frozen=True)
class Series:
    """One line: its name, its class in style.css (`train`, `val`, ...) and its points (x, y), y in the axis's unit."""

    label: str
    css: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Span:
    """A stage on the x axis: its name, its first and its last epoch."""

    label: str
    first: float
    last: float


@dataclass(frozen=True)
class XText:
    """How values of the x axis are written: under it, and in the text of a point."""

    tick: Callable[[float], str] = "{:g}".format
    point: Callable[[float], str] = "epoch {:g}".format


@dataclass(frozen=True)
class _Axes:
    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        share = (value - self.x_low) / (self.x_high - self.x_low)
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 2)

    def y(self, value: float) -> float:
        share = (value - self.y_low) / (self.y_high - self.y_low)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 2)


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    spans: Sequence[Span] = (),
    best: tuple[float, str] | None = None,
    most: float = math.inf,
    x_text: XText | None = None,
) -> Html:
    """Return lines over epochs with stage boundaries and the best epoch marked.

    Args:
        title: What the chart shows; also its text for screen readers.
        series: The lines; points that are not finite are left out.
        x_label: What stands under the x axis.
        y_label: What stands beside the y axis, with its unit.
        spans: The stages, in order.
        best: The best epoch's x and a text for its mark.
        most: The largest value that y can take, for example 100 of percentages.
        x_text: How a value of the x axis is written, as its tick and in the text of a point; None counts epochs.

    Returns:
        A figure with its legend, or a sentence when there is nothing to draw.
    """
    drawn = [
        Series(s.label, s.css, tuple((x, y) for x, y in s.points if math.isfinite(x) and math.isfinite(y)))
        for s in series
    ]
    drawn = [s for s in drawn if s.points]
    if not drawn:
        return html('<p class="absent">{}: nothing was recorded.</p>', title)
    said = x_text or XText()
    axes, ticks = _axes(drawn, spans, most)
    return html(
        '<figure class="chart"><figcaption><strong>{title}</strong>{legend}</figcaption>'
        '<svg viewBox="0 0 {width} {height}" role="img" aria-label="{title}">{grid}{stages}{best}{lines}'
        '<text class="unit" x="{middle}" y="{bottom}" text-anchor="middle">{x_label}</text>'
        '<text class="unit" x="{left}" y="12">{y_label}</text></svg></figure>',
        title=title,
        legend=join(html('<span class="key {}">{}</span>', s.css, s.label) for s in drawn),
        width=_WIDTH,
        height=_HEIGHT,
        grid=_grid(axes, ticks, said),
        stages=_stages(axes, spans),
        best=_best(axes, best),
        lines=join(_line(axes, s, said) for s in drawn),
        middle=(_LEFT + _WIDTH - _RIGHT) / 2,
        bottom=_HEIGHT - 6,
        left=4,
        x_label=x_label,
        y_label=y_label,
    )


def curves_or_values(title: str, series: Sequence[Series], *, y_label: str, **shown: Any) -> Html:
    """Return `line_chart`; where all lines have but one and the same place, their values as text: there is no curve."""
    places = {x for s in series for x, y in s.points if math.isfinite(y)}
    if len(places) != 1:
        return line_chart(title, series, y_label=y_label, **shown)
    said = shown.get("x_text") or XText()
    values = [html("{} <strong>{:.4g}</strong>", s.label, s.points[0][1]) for s in series if s.points]
    told = (title, said.point(places.pop()), join(_listed(values)), y_label)
    return html('<p><strong>{}</strong>, {}: {} <span class="note">{}</span></p>', *told)


def _listed(parts: Sequence[Html]) -> Iterator[Html]:
    for place, part in enumerate(parts):
        yield html("{}{}", "; " if place else "", part)


def bar(share: float) -> Html:
    """Return a small horizontal bar, `share` (0 to 1) of its width filled."""
    filled = round(100 * min(max(share, 0.0), 1.0), 1)
    return html(
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" width="100" height="8"/><rect class="filled" width="{}" height="8"/></svg>',
        filled,
    )


def shorten(text: str, longest: int) -> str:
    """Return the text, its middle replaced by an ellipsis where it is too long: names often differ at their ends."""
    if len(text) <= longest:
        return text
    tail = (longest - 1) // 3
    return text[: longest - 1 - tail] + "…" + text[len(text) - tail :]


def _axes(
    series: Sequence[Series], spans: Sequence[Span], most: float
) -> tuple[_Axes, tuple[list[float], list[float]]]:
    xs = [x for s in series for x, _ in s.points] + [edge for span in spans for edge in (span.first, span.last)]
    ys = [y for s in series for _, y in s.points]
    y_ticks = [tick for tick in _ticks(min(ys), max(ys), 5) if tick <= most]
    x_ticks = [tick for tick in _ticks(min(xs), max(xs), 8) if tick == int(tick) and min(xs) <= tick <= max(xs)]
    axes = _Axes(min(xs) - 0.5, max(xs) + 0.5, min(y_ticks[0], min(ys)), max(y_ticks[-1], max(ys)))
    return axes, (x_ticks, y_ticks)


def _ticks(low: float, high: float, about: int) -> list[float]:
    """Return round numbers that enclose low and high: steps of 1, 2 or 5 times a power of ten."""
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _grid(axes: _Axes, ticks: tuple[list[float], list[float]], said: XText) -> Html:
    template = (
        '<line class="grid" x1="{}" x2="{}" y1="{y}" y2="{y}"/>'
        '<text class="tick" x="{}" y="{}" text-anchor="end">{:g}</text>'
    )
    right, label = _WIDTH - _RIGHT, _LEFT - 7
    across = join(html(template, _LEFT, right, label, axes.y(t) + 4, t, y=axes.y(t)) for t in ticks[1])
    template, low = '<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>', _HEIGHT - _BOTTOM + 17
    return join((across, *(html(template, axes.x(tick), low, said.tick(tick)) for tick in ticks[0])))


def _stages(axes: _Axes, spans: Sequence[Span]) -> Html:
    if len(spans) < 2:
        return Html("")
    boundary, parts = '<line class="boundary" x1="{x}" x2="{x}" y1="{}" y2="{}"/>', []
    for i, span in enumerate(spans):
        left, right = axes.x(span.first - 0.5), axes.x(span.last + 0.5)
        room = int((right - left - 8) / CHARACTER)
        if i:
            parts.append(html(boundary, _TOP, _HEIGHT - _BOTTOM, x=left))
        if room >= 4:
            text = shorten(span.label, room)
            parts.append(html('<text class="stage" x="{}" y="{}">{}</text>', left + 5, _TOP + 11, text))
    return join(parts)


def _best(axes: _Axes, best: tuple[float, str] | None) -> Html:
    if best is None or not axes.x_low <= best[0] <= axes.x_high:
        return Html("")
    x = axes.x(best[0])
    return html(
        '<g class="best"><line x1="{x}" x2="{x}" y1="{top}" y2="{bottom}"/><title>{text}</title>'
        '<text x="{at}" y="{low}" text-anchor="{anchor}">best</text></g>',
        x=x, top=_TOP, bottom=_HEIGHT - _BOTTOM, text=best[1], at=x,
        low=_TOP - 5, anchor="middle",
    )  # fmt: skip


def _line(axes: _Axes, series: Series, said: XText) -> Html:
    places = [(axes.x(x), axes.y(y)) for x, y in series.points]
    path = " ".join(f"{x},{y}" for x, y in places)
    radius = 3.0 if len(places) <= 40 else 1.5
    dot = '<circle cx="{}" cy="{}" r="{}"><title>{}: {:.4g} at {}</title></circle>'
    dots = join(
        html(dot, px, py, radius, series.label, y, said.point(x))
        for (px, py), (x, y) in zip(places, series.points, strict=True)
    )
    return html('<g class="line {}"><polyline points="{}"/>{}</g>', series.css, path, dots)
