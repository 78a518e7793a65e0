"""The results of the report: for each evaluated split its measures, confusion matrix, classes and worst errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from regraft.evaluation.tasks import SHARES, task_of, told
from regraft.report.curves import threshold_curves
from regraft.report.evidence import Evaluated, Evidence, Record, part, parts
from regraft.report.gallery.gallery import gallery
from regraft.report.gallery.heat_maps import mask_heat_maps
from regraft.report.html.charts import bar
from regraft.report.html.confusion import MOST_CLASSES, confusion_chart, counts_fit
from regraft.report.html.markup import Html, html, join
from regraft.report.html.tables import folded, table
from regraft.report.masks import mask_classes, mask_pictures
from regraft.report.reliability import reliability_plots
from regraft.wording import is_number, number, percent, quantity

__all__ = ["results"]

_MOST_ROWS = 60  # classes in one table; beyond, the worst are shown and the rest is folded
_MOST_PAIRS = 10
_FEW = 100  # images
_MOST_UNREADABLE = 100


def results(evidence: Evidence) -> Html:
    """Return one block for each split that was evaluated, the test split first."""
    if not evidence.evaluated:
        return html('<p class="absent">No split was evaluated in this run. Type <code>regraft evaluate</code> RUN.</p>')
    first, *others = evidence.evaluated
    blocks = [html("<h3>Results: {}</h3>{}", first.label, _split(first, evidence))]
    for result in others:
        title = f"Results: {result.label} ({_main_figure(result.metrics)})"
        blocks.append(folded(title, _split(result, evidence)))
    return join(blocks)


def _main_figure(metrics: Record) -> str:
    main = task_of(metrics).main
    return percent(metrics.get(main), 2) if main == "top1" else number(metrics.get(main))


def _figures(metrics: Record) -> list[tuple[str, str | None]]:
    """Return the metrics of the task; with a threshold in use also those at 0.5."""
    if task_of(metrics).main == "top1":
        return [
            ("Accuracy (top-1)", percent(metrics.get("top1"), 2) + _limits(metrics, "top1")),
            ("Top-5", percent(metrics.get("top5"), 2) + _limits(metrics, "top5") if metrics.get("top5") else None),
            (
                "Balanced accuracy",
                percent(metrics.get("balanced_accuracy"), 2) + _limits(metrics, "balanced_accuracy"),
            ),
        ]
    return [
        (name[:1].upper() + name[1:], _with_half(metrics, key) + _limits(metrics, key))
        for key, name in task_of(metrics).names.items()
        if key in metrics
    ]


def _limits(record: Record, key: str) -> str:
    """Return the 95 % interval of a metric, as ` (93.1–97.0%)`; empty where there is none."""
    limits = part(record, "intervals").get(key)
    if not isinstance(limits, list) or len(limits) != 2 or not all(map(is_number, limits)):
        return ""
    low, high = limits
    if key in SHARES or key in ("recall", "precision", "f1"):
        return f" ({100 * low:.1f}–{100 * high:.1f}%)"
    return f" ({low:.3f}–{high:.3f})"


def _with_half(metrics: Record, key: str) -> str:
    value, half = metrics.get(key), part(metrics, "at_default").get(key)
    if not is_number(value):
        return "–"
    return told(key, value) + (f" ({told(key, half)} at 0.5)" if is_number(half) and half != value else "")


def _split(result: Evaluated, evidence: Evidence) -> Html:
    metrics, is_masks = result.metrics, result.metrics.get("output") == "segmentation"
    facts = [
        *_figures(metrics),
        ("Cross-entropy", f"{number(metrics.get('loss'))} nats{_limits(metrics, 'loss')}"),
        ("Images", quantity(metrics.get("num_images"), "image")),
        ("Wrong", f"{result.num_wrong:,}" if result.num_rows and not is_masks else None),
        ("Pixels", f"{metrics['num_pixels']:,}" if is_number(metrics.get("num_pixels")) else None),
        ("Unreadable", f"{len(result.unreadable):,}" if result.unreadable else None),
    ]
    return html(
        '{}<dl class="facts">{}</dl>{}<div class="side"><div>{}</div><div>{}</div></div>{}{}{}{}{}',
        _uncertain(metrics),
        join(html("<div><dt>{}</dt><dd>{}</dd></div>", name, text) for name, text in facts if text is not None),
        join(html('<p class="note">{}</p>', note) for note in metrics.get("notes") or ()),
        _confusion(metrics),
        mask_classes(metrics) if is_masks else _classes(metrics),
        threshold_curves(metrics),
        _slices(metrics),
        reliability_plots(metrics),
        _mask_images(result, evidence) if is_masks else gallery(result, evidence),
        _unreadable(result.unreadable),
    )


def _mask_images(result: Evaluated, evidence: Evidence) -> Html:
    root = str(evidence.splits.get("source") or "")
    return html("{}{}", mask_pictures(result, evidence), mask_heat_maps(result, root))


def _uncertain(metrics: Record) -> Html:
    """Return what the figures in brackets are, with a warning where there are few images."""
    if not part(metrics, "intervals"):
        return Html("")
    num, few = metrics.get("num_images"), ""
    if isinstance(num, int) and num < _FEW:
        few = f" {quantity(num, 'image')}: too few for small differences to mean anything."
    return html(
        '<p class="note">In brackets: 95 % intervals, where the figures on many more such images would most likely '
        "lie.{}</p>",
        few,
    )


def _slices(metrics: Record) -> Html:
    """Return the share of right answers in each slice, the lowest first."""
    tables = [
        html(
            "<h4>Right answers by {}, the lowest first</h4>{}",
            by,
            table(
                ("slice", "#images", "#right", "", "#95 % interval"),
                [_slice_row(row) for row in rows if isinstance(row, dict)],
                most=_MOST_ROWS,
            ),
        )
        for by, rows in part(metrics, "slices").items()
    ]
    return join(tables)


def _slice_row(row: Record) -> tuple[Any, ...]:
    share, (low, high) = row.get("share"), row.get("interval") or (None, None)
    filled = bar(share if isinstance(share, float | int) else 0.0)
    return (
        row.get("name"),
        f"{row.get('num_images', 0):,}",
        percent(share),
        filled,
        f"{percent(low)} to {percent(high)}",
    )


def _confusion(metrics: Record) -> Html:
    counts, names = metrics.get("confusion"), metrics.get("class_names")
    if not counts or not names:
        return Html("")
    rows = [[int(cell) for cell in row] for row in counts]
    names = [str(name) for name in names]
    if len(rows) != len(names) or any(len(row) != len(names) for row in rows):
        raise ValueError("the confusion matrix and the class names differ in size")
    chart = html(
        '<p class="note">A matrix of {} is too large to read; these are its largest entries off the diagonal.</p>',
        quantity(len(names), "class", "classes"),
    )
    if len(names) <= MOST_CLASSES:
        chart = html(
            '<div class="scroll">{}</div><p class="note">{} Shade: share of the row, that is of the true class. '
            "Blue is right, red is wrong.</p>",
            confusion_chart(rows, names),
            "" if counts_fit(rows) else "Numbers: percent of the row, rounded.",
        )
    unit = "pixel" if task_of(metrics).main == "miou" else "image"
    return html("<h4>Confusion matrix</h4>{}{}", chart, _pairs(rows, names, unit))


def _pairs(rows: Sequence[Sequence[int]], names: Sequence[str], unit: str) -> Html:
    pairs = [(row[j], i, j, sum(row)) for i, row in enumerate(rows) for j in range(len(names)) if i != j and row[j]]
    if not pairs:
        return html('<p class="note">No {} was taken for another class.</p>', unit)
    if len(names) <= 3:
        return Html("")  # the matrix says it already
    pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    lines = [(names[i], names[j], f"{wrong:,} of {total:,}", percent(wrong / total)) for wrong, i, j, total in pairs]
    shown = lines[: _MOST_PAIRS if len(names) <= MOST_CLASSES else 3 * _MOST_PAIRS]
    return html("<h4>Most frequent confusions</h4>{}", table(("truth", "taken for", f"#{unit}s", "#share"), shown))


def _classes(metrics: Record) -> Html:
    rows = parts(metrics, "per_class")
    if not rows:
        return Html("")
    many = "threshold" in rows[0]
    more = ("#average precision", "#named from") if many else ()
    header = ("label" if many else "class", "#images", "#precision", "#recall", "", "#F1", *more)
    if len(rows) <= _MOST_ROWS:
        return html("<h4>Per class</h4>{}", table(header, map(_class_row, rows)))
    weakest = sorted(rows, key=lambda row: row.get("f1") or 0.0)
    return html(
        "<h4>Per class: the {} weakest</h4>{}{}",
        _MOST_ROWS // 2,
        table(header, map(_class_row, weakest[: _MOST_ROWS // 2])),
        folded(f"All {len(rows)} classes", table(header, map(_class_row, rows))),
    )


def _class_row(row: Record) -> tuple[Any, ...]:
    if row.get("support") == 0:
        row = {**row, "recall": None, "f1": None}  # of no image
    recall = row.get("recall")
    return (
        row.get("name"),
        f"{row.get('support', 0):,}",
        percent(row.get("precision")) + _limits(row, "precision"),
        percent(recall) + _limits(row, "recall"),
        bar(recall if isinstance(recall, float | int) else 0.0),
        percent(row.get("f1")) + _limits(row, "f1"),
        *((number(row.get("ap")) + _limits(row, "ap"), number(row["threshold"])) if "threshold" in row else ()),
    )


def _unreadable(rows: Sequence[Record]) -> Html:
    if not rows:
        return Html("")
    listed = [(row.get("path"), row.get("error")) for row in rows]
    return folded(
        f"{quantity(len(rows), 'file')} could not be read", table(("file", "reason"), listed, most=_MOST_UNREADABLE)
    )
