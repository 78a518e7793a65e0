"""The training part of the report: stages, curves, and the proof of what was frozen and what moved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from regraft.evaluate.tasks import SHARES, told
from regraft.report.charts import Series, Span, line_chart
from regraft.report.evidence import Evidence, Record, best_epoch, part, parts
from regraft.report.markup import Html, block, compact, html, join
from regraft.report.tables import definitions, folded, listing, table
from regraft.report.wording import count, duration, is_number, number, percent

__all__ = ["curves", "freezing", "stages"]

_SELECTION = "validation, also used for selection"


def stages(evidence: Evidence) -> Html:
    """What each stage trained, how, and what came of it."""
    recipe = parts(evidence.recipe, "stages")
    names = [str(stage.get("name", "")) for stage in recipe]
    names += [name for name in dict.fromkeys(str(e.get("stage")) for e in evidence.epochs) if name not in names]
    if not names:
        return html('<p class="absent">The recipe of this run names no stages.</p>')
    settings = {str(stage.get("name", "")): stage for stage in recipe}
    audits = {str(audit.get("stage")): audit for audit in parts(evidence.audit, "stages")}
    header = (
        "stage",
        "what trains",
        "#tensors",
        "#epochs",
        "optimizer",
        "#rate",
        "best of the stage",
        "#time",
        "proof",
    )
    rows = [_stage_row(name, settings.get(name, {}), audits.get(name, {}), evidence) for name in names]
    return html(
        "{}{}{}",
        table(header, rows),
        _augmentations(settings),
        folded("The whole recipe", html("<pre>{}</pre>", block(evidence.recipe_text))),
    )


def curves(evidence: Evidence) -> Html:
    """Loss and accuracy over the epochs of all stages."""
    if not evidence.epochs:
        return html('<p class="absent">No epoch was recorded.</p>')
    spans, best = _spans(evidence.epochs), _best_mark(evidence)
    loss = [Series("training", "train", _points(evidence.epochs, "train_loss"))]
    loss.append(Series("validation", "val", _points(evidence.epochs, "val_loss")))
    return html(
        '<div class="charts">{}{}{}</div>{}',
        line_chart("Loss", loss, x_label="epoch", y_label="loss (nats)", spans=spans, best=best),
        _quality(evidence, spans, best),
        _rates(evidence.epochs, spans),
        folded("The numbers", _epoch_table(evidence)),
    )


def _quality(evidence: Evidence, spans: Sequence[Span], best: tuple[float, str] | None) -> Html:
    """The task's measure over the epochs: accuracy, or areas and F1 of the validation images."""
    names = evidence.task.names
    if evidence.task.main == "top1":
        accuracy = [Series("training", "train", _points(evidence.epochs, "train_top1", 100))]
        accuracy.append(Series(_SELECTION, "val", _points(evidence.epochs, "val_top1", 100)))
        return line_chart("Accuracy", accuracy, x_label="epoch", y_label="top-1 (%)", spans=spans, best=best, most=100)
    first, second = list(names)[:2]
    series = [Series(names[second], "train", _points(evidence.epochs, f"val_{second}"))]
    series.append(Series(names[first], "val", _points(evidence.epochs, f"val_{first}")))
    title = f"Validation: {names[first]} and {names[second]}"
    return line_chart(title, series, x_label="epoch", y_label="share", spans=spans, best=best, most=1)


def _rates(epochs: Sequence[Record], spans: Sequence[Span]) -> Html:
    """The learning rate of each group at the end of each epoch; none where everything was solved."""
    groups = dict.fromkeys(name for epoch in epochs for name in part(epoch, "lr"))
    series = []
    for name in groups:
        rates: list[tuple[float, Any]] = [(float(i), part(epoch, "lr").get(name)) for i, epoch in enumerate(epochs, 1)]
        points = tuple((i, math.log10(rate)) for i, rate in rates if is_number(rate) and rate > 0)
        series.append(Series(str(name), "val" if str(name).startswith("head") else "train", points))
    if not series:
        return Html("")
    return line_chart("Learning rate", series, x_label="epoch", y_label="log10 of the rate", spans=spans)


def freezing(evidence: Evidence) -> Html:
    """The proof, stage by stage, that what was frozen did not move and what should train did."""
    audits = parts(evidence.audit, "stages")
    if not audits:
        return html('<p class="absent">No stage was audited.</p>')
    return join(_audit(audit) for audit in audits)


def _stage_row(name: str, settings: Record, audit: Record, evidence: Evidence) -> tuple[Any, ...]:
    epochs = [epoch for epoch in evidence.epochs if str(epoch.get("stage")) == name]
    planned = settings.get("epochs")
    optimizer = settings.get("optimizer")
    rates = part(epochs[0], "lr") if epochs else {}
    tensors = f"{audit['num_trainable']:,} of {audit['num_trainable'] + audit['num_frozen']:,}" if audit else "–"
    return (
        html("<strong>{}</strong>", name),
        compact(settings.get("train", "–")),
        tensors,
        f"{len(epochs)} of {planned}" if planned else f"{len(epochs)}",
        compact(optimizer.get("name", optimizer) if isinstance(optimizer, dict) else optimizer or "–"),
        ", ".join(sorted({number(rate) for rate in rates.values()})) or compact(settings.get("lr") or "–"),
        _best_of(epochs, evidence.task.main),
        duration(sum(e["seconds"] for e in epochs if is_number(e.get("seconds")))) if epochs else "–",
        _badge(audit),
    )


def _best_of(epochs: Sequence[Record], main: str) -> str:
    losses = [e for e in epochs if is_number(e.get("val_loss"))]
    if not losses:
        return "–"
    best = min(losses, key=lambda e: e["val_loss"])
    value = best.get(f"val_{main}")
    quality = f", {told(main, value, 1)}" if is_number(value) else ""
    return f"val loss {number(best['val_loss'])}{quality} (epoch {best.get('epoch')})"


def _badge(audit: Record) -> Html:
    if not audit:
        return html('<span class="badge none">no audit</span>')
    good = audit.get("verdict") == "ok"
    return html('<span class="badge {}">{}</span>', "good" if good else "bad", audit.get("verdict"))


def _augmentations(settings: Mapping[str, Record]) -> Html:
    told = {name: _active(stage.get("augment")) for name, stage in settings.items()}
    if not any(told.values()):
        return html("<p>No stage changed its training images.</p>")
    return definitions((f"augmentation of {name}", text or "none") for name, text in told.items())


def _active(augment: Any) -> str:
    if not isinstance(augment, dict):
        return compact(augment) if augment else ""
    active = {key: value for key, value in augment.items() if value not in (0, None, False)}
    return compact(active) if set(active) - {"fill"} else ""


def _points(epochs: Sequence[Record], key: str, scale: float = 1.0) -> tuple[tuple[float, float], ...]:
    return tuple((float(i), scale * e[key]) for i, e in enumerate(epochs, 1) if is_number(e.get(key)))


def _spans(epochs: Sequence[Record]) -> list[Span]:
    numbered = enumerate((str(epoch.get("stage")) for epoch in epochs), 1)
    groups = [(name, [i for i, _ in group]) for name, group in groupby(numbered, key=lambda pair: pair[1])]
    return [Span(name, float(numbers[0]), float(numbers[-1])) for name, numbers in groups]


def _best_mark(evidence: Evidence) -> tuple[float, str] | None:
    best = part(evidence.status, "best")
    for i, epoch in enumerate(evidence.epochs, 1):
        if epoch.get("epoch") is not None and all(epoch.get(key) == best.get(key) for key in ("stage", "epoch")):
            return float(i), f"best epoch: {best_epoch(evidence.status)}"
    return None


def _epoch_table(evidence: Evidence) -> Html:
    epochs, task = evidence.epochs, evidence.task
    names = ["val top-1"] if task.main == "top1" else [f"val {name}" for name in task.names.values()]
    measures = ["top1"] if task.main == "top1" else list(task.names)
    kept = [place for place, key in enumerate(measures) if any(f"val_{key}" in e for e in epochs)]
    columns = [f"#{names[place]}" for place in kept]
    speed = ("#images/s", "#data wait", "#time")
    header = ("stage", "#epoch", "#train loss", "#val loss", *columns, "learning rate", *speed)
    rows = [
        (
            e.get("stage"),
            e.get("epoch"),
            number(e.get("train_loss")),
            number(e.get("val_loss")),
            *(_measure(measures[place], e.get(f"val_{measures[place]}")) for place in kept),
            compact(e.get("lr")),
            number(e.get("images_per_second")),
            percent(e.get("data_wait")),
            duration(e.get("seconds")),
        )
        for e in epochs
    ]
    return table(header, rows)


def _measure(name: str, value: Any) -> str:
    return percent(value, 2) if name in SHARES else number(value)


def _audit(audit: Record) -> Html:
    trainable, frozen = parts(audit, "trainable"), list(audit.get("frozen") or ())
    moved = list(audit.get("buffers_moved") or ())
    equal = audit.get("optimizer_equals_trainable")
    sentence = (
        f"{count(audit.get('num_trainable', len(trainable)), 'tensor')} trained, "
        f"{audit.get('num_frozen', len(frozen)):,} frozen and compared byte for byte. "
        f"The optimizer held {'exactly the trainable tensors' if equal else 'other tensors than the trainable ones'}."
    )
    rows = [
        (t.get("name"), _shape(t.get("shape")), number(t.get("grad_norm")), number(t.get("moved"))) for t in trainable
    ]
    header = ("tensor", "shape", "#gradient norm", "#moved (L2)")
    return html(
        "<h3>{} {}</h3><p>{}</p>{}{}{}{}",
        audit.get("stage"),
        _badge(audit),
        sentence,
        html('<ul class="warning">{}</ul>', join(html("<li>{}</li>", text) for text in audit.get("violations") or ()))
        if audit.get("violations")
        else "",
        folded(f"Trained ({len(rows):,})", table(header, rows, most=500), opened=len(rows) <= 8),
        folded(f"Frozen ({len(frozen):,})", listing(frozen)) if frozen else "",
        folded(f"Buffers that moved, as they may ({len(moved):,})", listing(moved)) if moved else "",
    )


def _shape(shape: Any) -> str:
    return " × ".join(map(str, shape)) if isinstance(shape, list) else compact(shape)
