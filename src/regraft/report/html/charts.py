"""Charts as inline SVG: lines over epochs, and the confusion matrix. Colours come from classes in style.css."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from regraft.report.html.markup import Html, html, join

__all__ = ["MOST_CLASSES", "Series", "Span", "XText", "bar", "confusion_chart", "counts_fit", "line_chart", "shorten"]

MOST_CLASSES = 40  # beyond this a confusion matrix is a cloud of dots

_WIDTH, _HEIGHT = 520, 288
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 34, 44
_DIGIT = 7.6  # the width of a digit in a cell
_CHARACTER = 6.6  # the width of an average character of the charts' font, in pixels


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
    axes, ticks = _axes(drawn, spans, most)
    said = x_text or XText()
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


def confusion_chart(counts: Sequence[Sequence[int]], names: Sequence[str]) -> Html:
    """Return the confusion matrix of up to MOST_CLASSES classes: rows are the truth, shaded by their share of the row.

    Where a count would not fit into its cell, all cells have their percentage of the row instead.
    """
    cell, as_counts = _cell_side(len(names)), counts_fit(counts)
    longest = 18 if len(names) > 12 else 22
    labels = [shorten(name, longest) for name in names]
    room = min(max(map(len, labels)), longest) * _CHARACTER + 12
    upright = cell < room  # column names are rotated when they do not fit side by side
    left, top = room + 18, (room if upright else 22) + 18
    width, height = left + cell * len(names) + 2, top + cell * len(names) + 2
    rows = join(_matrix_row(row, i, counts[i], names, (left, top, cell), as_counts) for i, row in enumerate(labels))
    columns = join(_column_name(name, left + cell * (i + 0.5), top - 7, upright) for i, name in enumerate(labels))
    return html(
        '<svg class="confusion" viewBox="0 0 {w:.0f} {h:.0f}" width="{w:.0f}" height="{h:.0f}" role="img" '
        'aria-label="Confusion matrix"><text class="unit" x="{left:.0f}" y="12">predicted as</text>'
        '<text class="unit" x="4" y="{top:.0f}">truth</text>{columns}{rows}</svg>',
        w=width, h=height, left=left, top=top - 7, columns=columns, rows=rows,
    )  # fmt: skip


def counts_fit(counts: Sequence[Sequence[int]]) -> bool:
    """Return whether every count fits into its cell of the confusion matrix."""
    side = _cell_side(len(counts))
    return all(len(str(count)) * _DIGIT < side - 2 for row in counts for count in row)


def _cell_side(num_classes: int) -> int:
    sizes = ((3, 84), (6, 62), (12, 44), (20, 32), (MOST_CLASSES, 23))
    return next(size for most, size in sizes if num_classes <= most)


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
        room = int((right - left - 8) / _CHARACTER)
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


def _matrix_row(
    label: str,
    index: int,
    counts: Sequence[int],
    names: Sequence[str],
    place: tuple[float, float, float],
    as_counts: bool,
) -> Html:
    left, top, cell = place
    y, total = top + index * cell, max(sum(counts), 1)
    cells = join(
        _cell(
            num,
            num / total,
            (left + j * cell, y, cell),
            f"{names[index]} → {names[j]}",
            right=j == index,
            text=str(num) if as_counts else _percentage(num / total),
        )
        for j, num in enumerate(counts)
    )
    name = '<text class="name" x="{:.1f}" y="{:.1f}" text-anchor="end">{}</text>{}'
    return html(name, left - 8, y + cell / 2 + 4, label, cells)


def _percentage(share: float) -> str:
    """Return whole percent in at most three signs; a share that is not whole is never told as 0 or 100."""
    return "<1" if share < 0.005 else "100" if share == 1 else str(min(round(100 * share), 99))


def _cell(num: int, share: float, place: tuple[float, float, float], title: str, *, right: bool, text: str) -> Html:
    x, y, size = place
    # A single error among thousands still has to be seen.
    opacity = 0.12 + 0.88 * share if num else 0.0
    written = Html("")
    if num:
        template = '<text class="count {}" x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>'
        written = html(template, "dark" if opacity > 0.55 else "light", x + size / 2, y + size / 2 + 4, text)
    square = html('x="{:.1f}" y="{:.1f}" width="{s}" height="{s}"', x, y, s=size - 1)
    return html(
        '<g><title>{}: {} ({:.1%} of the row)</title><rect class="cell" {square}/>'
        '<rect class="{}" {square} fill-opacity="{:.3f}"/>{}</g>',
        *(title, f"{num:,}", share, "right" if right else "wrong", opacity, written),
        square=square,
    )


def _column_name(name: str, x: float, y: float, upright: bool) -> Html:
    if upright:
        return html(
            '<text class="name" transform="translate({:.1f} {:.1f}) rotate(-90)">{}</text>', x + 4, y, name,
        )  # fmt: skip
    return html('<text class="name" x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>', x, y, name)
