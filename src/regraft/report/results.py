"""The results of the report: for each evaluated split its measures, confusion matrix, classes and worst errors."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from regraft.data.decode import PixelProgram, decode
from regraft.errors import RegraftError
from regraft.report.charts import MOST_CLASSES, bar, confusion_chart
from regraft.report.evidence import Evaluated, Evidence, Record, parts
from regraft.report.markup import Html, html, join
from regraft.report.tables import folded, table
from regraft.report.wording import count, number, percent

__all__ = ["results"]

_MOST_ROWS = 60  # classes in one table; beyond, the worst are shown and the rest is folded
_MOST_PAIRS = 10
_MOST_UNREADABLE = 100
_GREY = (128, 128, 128)
_THUMBNAIL = PixelProgram(size=(176, 176), resize="pad", background=_GREY)
_QUALITY = 82


def results(evidence: Evidence) -> Html:
    """One block for each split that was evaluated, the test split first."""
    if not evidence.evaluated:
        return html('<p class="absent">No split was evaluated in this run. Type <code>regraft evaluate</code> RUN.</p>')
    first, *others = evidence.evaluated
    blocks = [html("<h3>Results: {}</h3>{}", first.label, _split(first, evidence))]
    for result in others:
        title = f"Results: {result.label} ({percent(result.metrics.get('top1'), 2)})"
        blocks.append(folded(title, _split(result, evidence)))
    return join(blocks)


def _split(result: Evaluated, evidence: Evidence) -> Html:
    metrics = result.metrics
    facts = [
        ("Accuracy (top-1)", percent(metrics.get("top1"), 2)),
        ("Top-5", percent(metrics.get("top5"), 2) if metrics.get("top5") is not None else None),
        ("Balanced accuracy", percent(metrics.get("balanced_accuracy"), 2)),
        ("Cross-entropy", f"{number(metrics.get('loss'))} nats"),
        ("Images", count(metrics.get("num_images"), "image")),
        ("Wrong", f"{result.num_wrong:,}" if result.num_rows else None),
        ("Unreadable", f"{len(result.unreadable):,}" if result.unreadable else None),
    ]
    return html(
        '<dl class="facts">{}</dl><div class="side"><div>{}</div><div>{}</div></div>{}{}',
        join(html("<div><dt>{}</dt><dd>{}</dd></div>", name, text) for name, text in facts if text is not None),
        _confusion(metrics),
        _classes(metrics),
        _pictures(result, evidence),
        _unreadable(result.unreadable),
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
        count(len(names), "class", "classes"),
    )
    if len(names) <= MOST_CLASSES:
        chart = html(
            '<div class="scroll">{}</div><p class="note">Shade: share of the row, that is of the true class. '
            "Blue is right, red is wrong.</p>",
            confusion_chart(rows, names),
        )
    return html("<h4>Confusion matrix</h4>{}{}", chart, _pairs(rows, names))


def _pairs(rows: Sequence[Sequence[int]], names: Sequence[str]) -> Html:
    pairs = [(row[j], i, j, sum(row)) for i, row in enumerate(rows) for j in range(len(names)) if i != j and row[j]]
    if not pairs:
        return html('<p class="note">No image was taken for another class.</p>')
    if len(names) <= 3:
        return Html("")  # the matrix says it already
    pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    lines = [(names[i], names[j], f"{wrong:,} of {total:,}", percent(wrong / total)) for wrong, i, j, total in pairs]
    shown = lines[: _MOST_PAIRS if len(names) <= MOST_CLASSES else 3 * _MOST_PAIRS]
    return html("<h4>Most frequent confusions</h4>{}", table(("truth", "taken for", "#images", "#share"), shown))


def _classes(metrics: Record) -> Html:
    rows = parts(metrics, "per_class")
    if not rows:
        return Html("")
    header = ("class", "#images", "#precision", "#recall", "", "#F1")
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
    recall = row.get("recall")
    return (
        row.get("name"),
        f"{row.get('support', 0):,}",
        percent(row.get("precision")),
        percent(recall),
        bar(recall if isinstance(recall, float | int) else 0.0),
        percent(row.get("f1")),
    )


def _pictures(result: Evaluated, evidence: Evidence) -> Html:
    if not result.num_wrong:
        absent = "The predictions for single images were not recorded."
        text = "Every image was classified correctly." if result.num_rows else absent
        return html("<h4>Errors</h4><p>{}</p>", text)
    root = str(evidence.splits.get("source") or "")
    shown = (
        f"all {result.num_wrong}"
        if result.num_wrong <= len(result.worst)
        else f"{len(result.worst)} of {result.num_wrong:,}"
    )
    return html(
        '<h4>Worst errors <small>({}, the surest first)</small></h4><div class="pictures">{}</div>',
        shown,
        join(_picture(row, root) for row in result.worst),
    )


def _picture(row: Record, root: str) -> Html:
    path = str(row.get("path", ""))
    return html(
        '<figure>{}<figcaption><span class="truth">{}</span><span class="taken">taken for {} ({})</span>'
        '<span class="path">{}</span></figcaption></figure>',
        _thumbnail(Path(root, path), path),
        row.get("label"),
        row.get("prediction"),
        percent(row.get("probability")),
        _below(path, root),
    )


def _below(path: str, root: str) -> str:
    """The path from the data set's folder on, where it lies in it."""
    return path.removeprefix(f"{root}/") if root else path


def _thumbnail(file: Path, path: str) -> Html:
    try:
        pixels = decode(file, _THUMBNAIL)
    except (RegraftError, OSError, ValueError):
        return html('<div class="no-picture">picture not found or not readable</div>')
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=_QUALITY)
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    return html('<img src="data:image/jpeg;base64,{}" width="176" height="176" alt="{}">', data, path)


def _unreadable(rows: Sequence[Record]) -> Html:
    if not rows:
        return Html("")
    listed = [(row.get("path"), row.get("error")) for row in rows]
    return folded(
        f"{count(len(rows), 'file')} could not be read", table(("file", "reason"), listed, most=_MOST_UNREADABLE)
    )
