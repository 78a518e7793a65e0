"""Losses, metrics and rates over the epochs of a run, and which network was chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from regraft.evaluation.tasks import SHARES
from regraft.report.evidence import Evidence, Record, best_epoch, epoch_name, is_candidate, part
from regraft.report.html.charts import Series, Span, XText, curves_or_values
from regraft.report.html.markup import Html, html
from regraft.report.html.tables import folded, table
from regraft.report.training.stages import rates_text
from regraft.run.records import candidate_name
from regraft.wording import duration, is_number, number, percent

__all__ = ["curves"]

_SELECTION = "validation, also used for selection"
_MADE = "soups and interpolations"
_OF_NETWORK = ("stage", "epoch", "share", "soup")  # what tells a network of the run from all others
_Points = tuple[tuple[float, float], ...]
_MOST_RATES = 6  # lines that can be told apart


def curves(evidence: Evidence) -> Html:
    """Return loss and accuracy over the epochs of all stages."""
    if not evidence.epochs:
        return html('<p class="absent">No epoch was recorded.</p>')
    rows, best = _rows(evidence), _best_mark(evidence)
    loss = [Series("training", "train", _points(rows, "train_loss"))]
    loss.append(Series("validation", "val", _points(rows, "val_loss")))
    loss.append(Series("validation, calibrated", "hue-2", _points(rows, "val_calibrated_loss")))
    made = _points(rows, "val_calibrated_loss", made=True) or _points(rows, "val_loss", made=True)
    loss.append(Series(_MADE, "hue-3", made))
    shown: dict[str, Any] = {"x_label": _x_label(evidence.epochs), "spans": _spans(rows), "x_text": _x_text(rows)}
    return html(
        '<div class="charts">{}{}{}</div>{}{}{}',
        curves_or_values("Loss", loss, y_label="loss (nats)", best=best, **shown),
        _quality(evidence, {**shown, "best": best}),
        _rates(evidence.epochs),
        _chosen(evidence),
        _adjusted(evidence),
        folded("The numbers", _epoch_table(evidence)),
    )


def _chosen(evidence: Evidence) -> Html:
    """Return the note on how the marked epoch was chosen."""
    best = best_epoch(evidence)
    if not best:
        return Html("")
    calibrated = part(evidence.status, "best").get("monitor") == "val_calibrated_loss"
    why = (
        " The calibrated loss is the one at the best temperature: it compares networks whatever they minimised. "
        "A later epoch or stage is taken unless an earlier one is better by more than the noise of the images; an "
        "average of late epochs (soup), and a stage that interpolates between its start and its end, only where it is "
        "better."
    )
    return html('<p class="note">Marked as best is the network in model/: {}.{}</p>', best, why if calibrated else "")


def _adjusted(evidence: Evidence) -> Html:
    """Return the note on stages whose loss corrects for classes of different sizes."""
    stages = evidence.recipe.get("stages")
    factors = {
        str(stage.get("name")): stage["logit_adjustment"]
        for stage in (stages if isinstance(stages, list) else ())
        if isinstance(stage, dict) and is_number(stage.get("logit_adjustment")) and stage["logit_adjustment"]
    }
    if not factors:
        return Html("")
    told = ", ".join(f"{name} (factor {factor:g})" for name, factor in factors.items())
    return html(
        '<p class="note">Classes of different sizes: the loss of stage {} adds the logarithms of the classes\' shares '
        "of the training images to the logits (logit adjustment, arXiv:2007.07314). The network names each class as "
        "often as if all were equally frequent, so balanced accuracy says how good it is.</p>",
        told,
    )


def _x_label(epochs: Sequence[Record]) -> str:
    """Return the label of the x axis: epochs, or the solutions of an L-BFGS head, or both."""
    solved = list(dict.fromkeys(str(e.get("stage")) for e in epochs if is_number(e.get("l2"))))
    if not solved:
        return "epoch"
    if all(is_number(e.get("l2")) for e in epochs):
        return "solution, by the strength of its regularisation (l2)"
    return f"epoch; of {', '.join(solved)}: the solution's regularisation (l2)"


def _x_text(epochs: Sequence[Record]) -> XText:
    def at(x: float) -> Record:
        place = round(x) - 1
        return epochs[place] if 0 <= place < len(epochs) else {}

    def tick(x: float) -> str:
        record = at(x)
        if is_candidate(record):
            return f"{record['share']:.0%}" if is_number(record.get("share")) else "soup"
        return f"l2 {record['l2']:g}" if is_number(record.get("l2")) else f"{record.get('epoch', x)}"

    return XText(tick, lambda x: epoch_name(at(x)))


def _quality(evidence: Evidence, shown: Mapping[str, Any]) -> Html:
    """Return the chart of the task's metric over the epochs: accuracy, or areas and F1 of the validation images."""
    names, rows = evidence.task.names, _rows(evidence)
    if evidence.task.main == "top1":
        accuracy = [Series("training", "train", _points(rows, "train_top1", 100))]
        accuracy.append(Series(_SELECTION, "val", _points(rows, "val_top1", 100)))
        accuracy.append(Series(_MADE, "hue-3", _points(rows, "val_top1", 100, made=True)))
        return curves_or_values("Accuracy", accuracy, y_label="top-1 (%)", most=100, **shown)
    first, second = list(names)[:2]
    series = [Series(names[second], "train", _points(rows, f"val_{second}"))]
    series.append(Series(names[first], "val", _points(rows, f"val_{first}")))
    series.append(Series(f"{names[first]}: {_MADE}", "hue-3", _points(rows, f"val_{first}", made=True)))
    title = f"Validation: {names[first]} and {names[second]}"
    return curves_or_values(title, series, y_label="share", most=1, **shown)


def _rates(epochs: Sequence[Record]) -> Html:
    """Return the learning rate of each group at the end of each epoch that takes steps; groups of the same rates are
    one line.

    Of more groups than can be told apart, those with the lowest and the highest rates are shown.
    """
    stepped = [epoch for epoch in epochs if not is_number(epoch.get("l2"))]
    groups = dict.fromkeys(name for epoch in stepped for name in part(epoch, "lr"))
    lines: dict[tuple[tuple[float, float], ...], list[str]] = {}
    for name in groups:
        rates: list[tuple[float, Any]] = [(float(i), part(epoch, "lr").get(name)) for i, epoch in enumerate(stepped, 1)]
        points = tuple((i, math.log10(rate)) for i, rate in rates if is_number(rate) and rate > 0)
        if points:
            lines.setdefault(points, []).append(str(name))
    if not lines:
        return Html("")
    ordered = sorted(lines, key=lambda points: sum(y for _, y in points) / len(points))
    left_out = len(ordered) - _MOST_RATES
    if left_out > 0:
        ordered = [*ordered[: _MOST_RATES // 2], *ordered[len(ordered) - _MOST_RATES // 2 :]]
    series = [Series(_group_name(lines[points]), f"hue-{place}", points) for place, points in enumerate(ordered)]
    chart = curves_or_values(
        "Learning rate",
        series,
        x_label="epoch",
        y_label="log10 of the rate",
        spans=_spans(stepped),
        x_text=_x_text(stepped),
    )
    note = (
        html('<p class="note">{} groups with rates between these are left out.</p>', left_out) if left_out > 0 else ""
    )
    return html("<div>{}{}</div>", chart, note)


def _group_name(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} to {names[-1]} ({len(names)})"


def _rows(evidence: Evidence) -> list[Record]:
    """Return the epochs, and after those of each stage the networks made of its weights at its end."""
    return sorted([*evidence.epochs, *evidence.candidates], key=_place)


def _points(rows: Sequence[Record], key: str, scale: float = 1.0, *, made: bool = False) -> _Points:
    """Return a metric of the epochs by their place among the rows; `made`: of the networks made at a stage's end."""
    numbered = [(float(i), row) for i, row in enumerate(rows, 1) if is_candidate(row) == made]
    return tuple((i, scale * row[key]) for i, row in numbered if is_number(row.get(key)))


def _spans(epochs: Sequence[Record]) -> list[Span]:
    numbered = enumerate((str(epoch.get("stage")) for epoch in epochs), 1)
    groups = [(name, [i for i, _ in group]) for name, group in groupby(numbered, key=lambda pair: pair[1])]
    return [Span(name, float(numbers[0]), float(numbers[-1])) for name, numbers in groups]


def _best_mark(evidence: Evidence) -> tuple[float, str] | None:
    best = part(evidence.status, "best")
    for i, row in enumerate(_rows(evidence), 1):
        if row.get("epoch") is not None and all(row.get(key) == best.get(key) for key in _OF_NETWORK):
            return float(i), f"best: {best_epoch(evidence)}"
    return None


def _epoch_table(evidence: Evidence) -> Html:
    epochs, task = evidence.epochs, evidence.task
    names = ["val top-1"] if task.main == "top1" else [f"val {name}" for name in task.names.values()]
    measures = ["top1"] if task.main == "top1" else list(task.names)
    kept = [place for place, key in enumerate(measures) if any(f"val_{key}" in e for e in epochs)]
    columns = [f"#{names[place]}" for place in kept]
    speed = ("#images/s", "#data wait", "#time")
    header = ("stage", "#epoch", "#train loss", "#val loss", "#calibrated", *columns, "learning rate", *speed)
    rows = [
        (
            e.get("stage"),
            _row_name(e),
            number(e.get("train_loss")),
            number(e.get("val_loss")),
            number(e.get("val_calibrated_loss")),
            *(_measure(measures[place], e.get(f"val_{measures[place]}")) for place in kept),
            rates_text(part(e, "lr")),
            number(e.get("images_per_second")),
            percent(e.get("data_wait")),
            duration(e.get("seconds")),
        )
        for e in _rows(evidence)
    ]
    return table(header, rows)


def _row_name(record: Record) -> str:
    if is_candidate(record):
        return candidate_name(record).removesuffix(" from its start")
    return f"l2 {record['l2']:g}" if is_number(record.get("l2")) else str(record.get("epoch"))


def _place(record: Record) -> tuple[float, bool]:
    """Return where a row stands: by its stage; what was made of its weights at its end comes after its epochs."""
    stage = record.get("stage_index")
    return (float(stage) if isinstance(stage, int | float) else 0.0, is_candidate(record))


def _measure(name: str, value: Any) -> str:
    return percent(value, 2) if name in SHARES else number(value)
