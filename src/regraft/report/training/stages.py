"""The stages of a run: what each trained, with which settings, and what it reached."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from regraft.evaluation.tasks import told
from regraft.report.evidence import Evidence, Record, epoch_name, part, parts
from regraft.report.html.markup import Html, block, compact, html, join
from regraft.report.html.tables import definitions, folded, table
from regraft.report.training.freezing import badge
from regraft.wording import duration, is_number, number, quantity

__all__ = ["rates_text", "stages"]

_MOST_LISTED = 3  # rates in a cell of a table


def stages(evidence: Evidence) -> Html:
    """Return the section on stages: trained layers, settings and results of each."""
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
        "epochs",
        "optimizer",
        "#rate",
        "best of the stage",
        "#time",
        "proof",
    )
    rows = [_stage_row(name, settings.get(name, {}), audits.get(name, {}), evidence) for name in names]
    return html(
        "{}{}{}{}{}",
        _choices(evidence.recipe_text),
        table(header, rows),
        _augmentations(settings),
        _batches(evidence, names),
        folded("The whole recipe", html("<pre>{}</pre>", block(evidence.recipe_text))),
    )


def _choices(recipe_text: str) -> Html:
    """Return what was chosen for the run and why, as the head of its recipe says: networks that were compared too."""
    head = takewhile(lambda line: line.startswith("# "), recipe_text.splitlines())
    lines = [line.removeprefix("# ") for line in head]
    return html("<ul>{}</ul>", join(html("<li>{}</li>", line) for line in lines)) if lines else Html("")


def _batches(evidence: Evidence, names: Sequence[str]) -> Html:
    """Return the first training batch of each stage, augmented, as images."""
    pictures = [
        html(
            '<figure class="batch"><figcaption>First training images of the stage <strong>{}</strong>, as the network '
            'sees them</figcaption><img src="data:image/jpeg;base64,{}" alt=""></figure>',
            names[number_],
            base64.b64encode(content).decode("ascii"),
        )
        for number_, content in evidence.batches.items()
        if number_ < len(names)
    ]
    return html('<div class="batches">{}</div>', join(pictures)) if pictures else Html("")


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
        _length(epochs, planned),
        compact(optimizer.get("name", optimizer) if isinstance(optimizer, dict) else optimizer or "–"),
        rates_text(rates) or compact(settings.get("lr") or "–"),
        _best_of([*epochs, *(e for e in evidence.candidates if str(e.get("stage")) == name)], evidence.task.main),
        duration(sum(e["seconds"] for e in epochs if is_number(e.get("seconds")))) if epochs else "–",
        badge(audit),
    )


def rates_text(rates: Record) -> str:
    """Return the rates of all groups, smallest first; of more than three the smallest and the largest."""
    known = sorted({rate for rate in rates.values() if is_number(rate)})
    if len(known) > _MOST_LISTED:
        return f"{number(known[0])} to {number(known[-1])}"
    return ", ".join(dict.fromkeys(map(number, known)))


def _length(epochs: Sequence[Record], planned: Any) -> str:
    if epochs and all(is_number(epoch.get("l2")) for epoch in epochs):
        folds = epochs[-1].get("folds")
        how = f"; l2 by {folds}-fold cross-validation, as images are few" if is_number(folds) and folds else ""
        return quantity(len(epochs), "solution") + how
    return f"{len(epochs)} of {planned}" if planned else f"{len(epochs)}"


def _best_of(epochs: Sequence[Record], main: str) -> str:
    key = next((key for key in ("val_calibrated_loss", "val_loss") if any(is_number(e.get(key)) for e in epochs)), None)
    if key is None:
        return "–"
    best = min((e for e in epochs if is_number(e.get(key))), key=lambda e: e[key])
    value = best.get(f"val_{main}")
    quality = f", {told(main, value, 1)}" if is_number(value) else ""
    name = key.replace("_", " ")
    return f"{name} {number(best[key])}{quality} ({epoch_name(best)})"


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
