"""The confusion matrix as inline SVG. Colours come from classes in style.css."""

from __future__ import annotations

from collections.abc import Sequence

from regraft.report.html.charts import CHARACTER, shorten
from regraft.report.html.markup import Html, html, join

__all__ = ["MOST_CLASSES", "confusion_chart", "counts_fit"]

MOST_CLASSES = 40  # beyond this a confusion matrix is a cloud of dots

_DIGIT = 7.6  # the width of a digit in a cell


def confusion_chart(counts: Sequence[Sequence[int]], names: Sequence[str]) -> Html:
    """Return the confusion matrix of up to MOST_CLASSES classes: rows are the truth, shaded by their share of the row.

    Where a count would not fit into its cell, all cells have their percentage of the row instead.
    """
    cell, as_counts = _cell_side(len(names)), counts_fit(counts)
    longest = 18 if len(names) > 12 else 22
    labels = [shorten(name, longest) for name in names]
    room = min(max(map(len, labels)), longest) * CHARACTER + 12
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
