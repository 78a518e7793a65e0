"""How far probabilities can be believed: a plot of what was promised against what came true, and the figures of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from regraft.report.curves import _BOTTOM, _LEFT, _RIGHT, _SIDE, _TOP, _grid, _x, _y
from regraft.report.evidence import Record, part, parts
from regraft.report.html.charts import Series, XText, line_chart
from regraft.report.html.markup import Html, html, join
from regraft.report.html.tables import table
from regraft.wording import is_number, number, percent, quantity

__all__ = ["reliability_plots"]

_FEW = 100  # images: below, the plot is mostly noise


def reliability_plots(metrics: Record) -> Html:
    """Return the plots of a split, raw and calibrated; nothing where probabilities were not compared with the truth."""
    account = part(metrics, "calibration")
    told, raw = part(account, "told"), part(account, "raw")
    if not parts(told, "bins"):
        return Html("")
    temperatures = [value for value in account.get("temperatures") or () if is_number(value)]
    raw = {} if temperatures == [1.0] else raw  # the same probabilities
    charts = [_chart("As the network gives them", raw)] if raw else []
    charts.append(_chart("Calibrated" if raw else "Predictions", told))
    return html(
        '<h4>Can the probabilities be believed?</h4><p class="note">{}</p>'
        '<div class="charts">{}</div>{}<p class="note">{}</p>{}',
        _sentence(told, metrics),
        join(charts),
        _figures(told, raw),
        _origin(temperatures, account, metrics),
        _risk_coverage(account.get("risk_coverage")),
    )


def _risk_coverage(points: Any) -> Html:
    """Return how many errors are left when only the surest images are answered."""
    pairs = [pair for pair in points or () if isinstance(pair, list) and len(pair) == 2 and all(map(is_number, pair))]
    if len(pairs) < 2:
        return Html("")
    series = Series("wrong among them", "val", tuple((100 * share, 100 * risk) for share, risk in pairs))
    chart = line_chart(
        "If only the surest are answered",
        [series],
        x_label="images that are answered, %",
        y_label="%",
        most=100,
        x_text=XText(point="{:.0f} % answered".format),
    )
    return html(
        '<h4>What hesitating would save</h4><div class="charts">{}</div><p class="note">The least sure images, left to '
        "a person, take these errors with them. Read it from the right: all images are answered there.</p>",
        chart,
    )


def _sentence(told: Record, metrics: Record) -> str:
    chance = told.get("ece_by_chance") or (None, None)
    few = metrics.get("num_images")
    unit = "pixels" if metrics.get("output") == "segmentation" else "images"
    text = f"Of the {unit} that get 80 %, about 80 % should be right. On average the promise is off by "
    text += percent(told.get("ece"))
    if chance[0] is None:
        text += ". Pixels of one image are right or wrong together, so that the intervals are over images."
    else:
        text += f"; exact probabilities would show {percent(chance[0])} on so many images, and up to "
        text += f"{percent(chance[1])} by chance."
    return text + (f" {quantity(few, 'image')}: too few to say much." if isinstance(few, int) and few < _FEW else "")


def _origin(temperatures: Sequence[float], account: Record, metrics: Record) -> str:
    if temperatures == [1.0]:
        return (
            "Points on the diagonal are exact; bars are 95 % intervals. These probabilities are the network's own: on "
            f"{quantity(account.get('num_images'), 'image')} of the validation split no temperature was surely better."
        )
    if not temperatures:
        return "Points on the diagonal are exact; bars are 95 % intervals. These probabilities are the network's own."
    low, high = min(temperatures), max(temperatures)
    one = f"a temperature of {number(low)}"
    shown = one if len(temperatures) == 1 else f"temperatures of {number(low)} to {number(high)}, one for each class"
    same = " These are the images that it was fitted to." if metrics.get("used_for_selection") else ""
    return (
        "Points on the diagonal are exact, points below it are overconfident; bars are 95 % intervals, and larger "
        f"points are more images. Calibrated by {shown}, fitted on {quantity(account.get('num_images'), 'image')} of "
        f"the validation split; the predicted classes stay the same.{same}"
    )


def _figures(told: Record, raw: Record) -> Html:
    names = (
        ("ece", "Calibration error (ECE)", percent),
        ("brier", "Brier score", number),
        ("nll", "NLL, nats", number),
    )
    limits = ("#95 % interval",) if part(told, "intervals") else ()
    rows = [
        (
            name,
            *([show(raw.get(key))] if raw else []),
            show(told.get(key)),
            *([_interval(told, key, show)] if limits else []),
        )
        for key, name, show in names
    ]
    return table(("smaller is better", *(("#raw",) if raw else ()), "#calibrated" if raw else "#value", *limits), rows)


def _interval(told: Record, key: str, show: Callable[[Any], str]) -> str:
    """Return the 95 % interval of a figure as text; a dash where there is none."""
    limits = part(told, "intervals").get(key)
    if not isinstance(limits, list) or len(limits) != 2 or not all(map(is_number, limits)):
        return "–"
    return f"{show(limits[0])} to {show(limits[1])}"


def _chart(title: str, measured: Record) -> Html:
    width, height = _LEFT + _SIDE + _RIGHT, _TOP + _SIDE + _BOTTOM
    rows = [row for row in parts(measured, "bins") if all(map(is_number, (row.get(key) for key in _KEYS)))]
    most = max((row["num"] for row in rows), default=1)
    return html(
        '<figure class="chart square"><figcaption><strong>{title}</strong></figcaption>'
        '<svg viewBox="0 0 {width} {height}" role="img" aria-label="{title}: probability against share of right '
        'answers">{grid}<line class="boundary" x1="{x0}" y1="{y0}" x2="{x1}" y2="{y1}"/>'
        '<g class="line val">{points}</g>'
        '<text class="unit" x="{middle}" y="{low}" text-anchor="middle">probability given</text>'
        '<text class="unit" transform="translate(11 {centre}) rotate(-90)" text-anchor="middle">share that was '
        "right</text></svg></figure>",
        title=title,
        width=width,
        height=height,
        grid=_grid(),
        x0=_x(0),
        y0=_y(0),
        x1=_x(1),
        y1=_y(1),
        points=join(_point(row, most) for row in rows),
        middle=_LEFT + _SIDE / 2,
        low=height - 6,
        centre=_TOP + _SIDE / 2,
    )


_KEYS = ("low", "high", "num", "confidence", "share")


def _point(row: Record, most: int) -> Html:
    low, high = row.get("interval") or (row["share"], row["share"])
    x = _x(row["confidence"])
    return html(
        '<line class="interval" x1="{x}" x2="{x}" y1="{}" y2="{}"/><circle cx="{x}" cy="{}" r="{:.1f}"><title>{}: '
        "{} given, {} right</title></circle>",
        _y(low),
        _y(high),
        _y(row["share"]),
        2.5 + 4.5 * (row["num"] / most) ** 0.5,
        quantity(row["num"], "answer"),
        percent(row["confidence"]),
        percent(row["share"]),
        x=x,
    )
