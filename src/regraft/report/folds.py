"""The report of a cross-validation: its measures over the folds, and the curves of all folds in one chart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from regraft.evaluation.tasks import Task, task_of, told
from regraft.report.evidence import Evidence, Record, part
from regraft.report.html.charts import Series, curves_or_values
from regraft.report.html.markup import Html, html, join
from regraft.report.html.tables import table
from regraft.report.sections import model_name
from regraft.wording import duration, is_number, number, quantity

__all__ = ["curves", "measures", "verdict"]


def verdict(evidence: Evidence) -> Html:
    """Return the mean of the main metric over the folds with its spread, and the cross-validation in a few facts."""
    record, task = evidence.folds, _task(evidence)
    values = part(part(record, "measures"), task.main)
    seconds = [e["seconds"] for epochs in evidence.fold_epochs for e in epochs if is_number(e.get("seconds"))]
    facts = [
        ("Model", model_name(evidence)),
        ("Data", str(evidence.splits.get("source") or "–")),
        ("Images", quantity(len(part(evidence.splits, "splits").get("folds") or ()), "image")),
        ("Folds", str(record.get("num_folds", "–"))),
        ("Time of all epochs", duration(sum(seconds)) if seconds else "–"),
    ]
    shown = join(html("<div><dt>{}</dt><dd>{}</dd></div>", name, text) for name, text in facts)
    return html('{}<dl class="facts four">{}</dl>', _headline(values, task, record), shown)


def _headline(values: Record, task: Task, record: Record) -> Html:
    if not is_number(values.get("mean")):
        return html(
            '<p class="warning">This cross-validation is not finished; <code>regraft resume</code> continues it.</p>'
        )
    return html(
        '<p class="headline"><span class="figure">{} ± {}</span> <span class="label">{} (mean and standard deviation '
        'of {} folds)</span><span class="note">Each model is measured on images that it did not train on; its best '
        "epoch was chosen on them, so the figures are slightly in its favour.</span></p>",
        told(task.main, values["mean"], 1),
        told(task.main, values["sd"], 1) if is_number(values.get("sd")) else "–",
        task.names[task.main],
        record.get("num_folds"),
    )


def measures(evidence: Evidence) -> Html:
    """Return a row for each metric: mean, standard deviation, and each fold's, whose own report is linked."""
    found = part(evidence.folds, "measures")
    num = len(evidence.fold_epochs)
    links = join(
        html('<a href="fold-{n}/report.html">fold {n}</a>{}', "" if n == num else ", ", n=n) for n in range(1, num + 1)
    )
    if not found:
        return html('<p class="absent">No metrics yet.</p><p>The reports of the folds: {}.</p>', links)
    names = {**_task(evidence).names, "loss": "cross-entropy (nats)"}
    header = ("measure", "#mean", "#standard deviation", *(f"#fold {n}" for n in range(1, num + 1)))
    rows = [
        (
            names.get(key, key.replace("_", " ")),
            _told(key, row.get("mean")),
            _told(key, row.get("sd")),
            *_each(key, row),
        )
        for key, row in found.items()
        if isinstance(row, dict) and len(row.get("folds") or ()) == num
    ]
    return html("{}<p>The reports of the folds: {}.</p>", table(header, rows), links)


def _each(key: str, row: Record) -> tuple[str, ...]:
    return tuple(_told(key, value) for value in row["folds"])


def _told(key: str, value: Any) -> str:
    if not is_number(value):
        return "–"
    return number(value) if key == "loss" else told(key, value)


def curves(evidence: Evidence) -> Html:
    """Return the validation loss and the main metric of every fold over its epochs."""
    task = _task(evidence)
    scale, unit = (100.0, "%") if told(task.main, 0.5).endswith("%") else (1.0, "share")
    measure = "val_calibrated_loss"  # runs of older versions have the raw one alone
    if not any(measure in epoch for epochs in evidence.fold_epochs for epoch in epochs):
        measure = "val_loss"
    loss = curves_or_values("Validation loss", _series(evidence, measure), x_label="epoch", y_label="loss (nats)")
    main = curves_or_values(
        f"Validation {task.names[task.main]}",
        _series(evidence, f"val_{task.main}", scale),
        x_label="epoch",
        y_label=f"{task.names[task.main]} ({unit})",
        most=scale,
    )
    return html('<div class="charts">{}{}</div>', loss, main)


def _series(evidence: Evidence, key: str, scale: float = 1.0) -> Sequence[Series]:
    """Return a line for each fold, over all epochs of all its stages."""
    found = []
    for number_, epochs in enumerate(evidence.fold_epochs, 1):
        points = tuple((float(i), scale * e[key]) for i, e in enumerate(epochs, 1) if is_number(e.get(key)))
        found.append(Series(f"fold {number_}", f"hue-{(number_ - 1) % 6}", points))
    return found


def _task(evidence: Evidence) -> Task:
    first = evidence.evaluated[0].metrics if evidence.evaluated else {}
    return task_of(first) if first.get("output") else evidence.task
