"""ROC and precision-recall curves as inline SVG: shares against shares, with the point of the threshold in use."""

from __future__ import annotations

from collections.abc import Sequence

from regraft.report.evidence import Record
from regraft.report.html.markup import Html, html, join
from regraft.wording import is_number, number, percent

__all__ = ["threshold_curves"]

_SIDE, _LEFT, _TOP, _RIGHT, _BOTTOM = 250, 48, 12, 14, 42
Point = tuple[float, float]


def threshold_curves(metrics: Record) -> Html:
    """Return both curves of a classifier of two classes; a sentence where the split has one class only."""
    roc, pairs = _points(metrics.get("roc")), _points(metrics.get("precision_recall"))
    if not roc or not pairs:
        return Html("")
    rates = _rates(metrics)
    title = f"ROC, area {number(metrics.get('auc'))}"
    charts = [
        _square(title, roc, ("false positive rate", "true positive rate"), mark=rates.get("roc"), diagonal=True),
        _square(
            f"Precision and recall, average precision {number(metrics.get('ap'))}",
            pairs,
            ("recall", "precision"),
            mark=rates.get("precision_recall"),
        ),
    ]
    return html(
        '<h4>Over all thresholds</h4><div class="charts">{}</div><p class="note">The circle is the threshold in use: '
        "{} is named from a probability of {} on. It was chosen on validation images; 0.5 gives {} accuracy.</p>",
        join(charts),
        metrics.get("positive"),
        number(metrics.get("threshold")),
        percent((metrics.get("at_default") or {}).get("top1"), 2),
    )


def _points(value: object) -> list[Point]:
    """Return the points of a curve; missing values are left out."""
    pairs = value if isinstance(value, list) else []
    return [
        (float(pair[0]), float(pair[1]))
        for pair in pairs
        if isinstance(pair, list) and len(pair) == 2 and all(is_number(x) and 0 <= x <= 1 for x in pair)
    ]


def _rates(metrics: Record) -> dict[str, Point]:
    """Return the operating point of the threshold in use on the ROC and PR curves, from the confusion matrix."""
    counts = metrics.get("confusion")
    if not isinstance(counts, list) or len(counts) != 2:
        return {}
    (right_no, false), (missed, hits) = ([int(cell) for cell in row] for row in counts)
    if not (right_no + false and missed + hits):
        return {}
    recall = hits / (missed + hits)
    rates = {"roc": (false / (right_no + false), recall)}
    return {**rates, "precision_recall": (recall, hits / (hits + false))} if hits + false else rates


def _x(value: float) -> float:
    return round(_LEFT + value * _SIDE, 2)


def _y(value: float) -> float:
    return round(_TOP + (1 - value) * _SIDE, 2)


def _square(
    title: str, points: Sequence[Point], labels: tuple[str, str], *, mark: Point | None, diagonal: bool = False
) -> Html:
    width, height = _LEFT + _SIDE + _RIGHT, _TOP + _SIDE + _BOTTOM
    path = " ".join(f"{_x(x)},{_y(y)}" for x, y in points)
    return html(
        '<figure class="chart square"><figcaption><strong>{title}</strong></figcaption>'
        '<svg viewBox="0 0 {width} {height}" role="img" aria-label="{title}">{grid}{diagonal}'
        '<g class="line val"><polyline points="{path}"/></g>{mark}'
        '<text class="unit" x="{middle}" y="{low}" text-anchor="middle">{across}</text>'
        '<text class="unit" transform="translate(11 {centre}) rotate(-90)" text-anchor="middle">{up}</text>'
        "</svg></figure>",
        title=title,
        width=width,
        height=height,
        grid=_grid(),
        diagonal=html('<line class="boundary" x1="{}" y1="{}" x2="{}" y2="{}"/>', _x(0), _y(0), _x(1), _y(1))
        if diagonal
        else "",
        path=path,
        mark=html('<circle class="mark" cx="{}" cy="{}" r="5"/>', _x(mark[0]), _y(mark[1])) if mark else "",
        middle=_LEFT + _SIDE / 2,
        low=height - 6,
        across=labels[0],
        centre=_TOP + _SIDE / 2,
        up=labels[1],
    )


def _grid() -> Html:
    lines = []
    for step in range(6):
        share = step / 5
        lines.append(html('<line class="grid" x1="{}" x2="{}" y1="{y}" y2="{y}"/>', _x(0), _x(1), y=_y(share)))
        lines.append(
            html(
                '<text class="tick" x="{}" y="{}" text-anchor="end">{:g}</text>'
                '<text class="tick" x="{}" y="{}" text-anchor="middle">{:g}</text>',
                *(_x(0) - 6, _y(share) + 4, share, _x(share), _y(0) + 17, share),
            )
        )
    return join(lines)
