"""The sections of the report around the training: verdict, weights, data, environment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from regraft.evaluation.tasks import task_of, told
from regraft.report.evidence import Evaluated, Evidence, Record, best_epoch, part, parts
from regraft.report.html.charts import bar, shorten
from regraft.report.html.markup import Html, block, compact, html, join
from regraft.report.html.tables import definitions, folded, listing, table
from regraft.wording import duration, is_number, number, percent, quantity, wilson_interval

__all__ = ["data", "environment", "model_name", "verdict", "weights"]

_SELECTION = "validation, also used for selection"
_MOST_CLASSES_LISTED = 60


def verdict(evidence: Evidence) -> Html:
    """Return the headline figure with the name of its split, and the run in a few facts."""
    status = evidence.status
    facts = [
        ("Model", model_name(evidence)),
        ("Data", _data_name(evidence)),
        ("Classes", _classes_in_short(evidence)),
        ("Weights", _weights_in_short(evidence.match)),
        ("Frozen parts", _proof_in_short(evidence.audit)),
        ("Best epoch", best_epoch(evidence)),
        ("Time", duration(_seconds(evidence))),
        ("State", _state(status)),
    ]
    shown = join(html("<div><dt>{}</dt><dd>{}</dd></div>", name, text) for name, text in facts if text)
    return html('{}{}<dl class="facts four">{}</dl>', _headline(evidence), _interruption(status), shown)


def _seconds(evidence: Evidence) -> float | None:
    """Return the duration of the run in seconds; of a resumed one, the sum over its epochs where that is longer."""
    of_epochs = sum(float(epoch["seconds"]) for epoch in evidence.epochs if is_number(epoch.get("seconds")))
    whole = evidence.status.get("command_seconds")  # what the terminal says: with starting, evaluating and the report
    last = whole if is_number(whole) else evidence.status.get("seconds")
    return max(of_epochs, float(last or 0.0) if is_number(last) else 0.0) or None


def model_name(evidence: Evidence) -> str:
    """Return the architecture, as the model folder or else the recipe has it."""
    return compact(evidence.model.get("architecture") or part(evidence.recipe, "model").get("name") or "–")


def weights(evidence: Evidence) -> Html:
    """Return the match of the weight file: six counts, coverage, rules, and what is left on either side."""
    match = evidence.match
    if not match:
        return html('<p class="absent">No match was recorded: the model kept the weights it was built with.</p>')
    origin = [(key, match.get(key)) for key in ("file", "format", "producer", "model") if match.get(key)]
    counts = part(match, "counts")
    tiles = join(html("<div><dt>{}</dt><dd>{:,}</dd></div>", str(k).replace("_", " "), v) for k, v in counts.items())
    coverage = part(match, "coverage")
    rules = Counter(str(entry.get("rule")) for entry in parts(match, "matched"))
    kinds = ("missing", "unexpected", "wrong_shape", "ambiguous", "dropped", "notes")
    return html(
        '{}<dl class="facts">{}</dl><div class="side">{}{}</div>{}{}',
        definitions(origin),
        tiles,
        table(("coverage", "", "#"), ((name, bar(float(share)), percent(share)) for name, share in coverage.items())),
        table(("rule", "#tensors"), ((rule, f"{num:,}") for rule, num in rules.most_common())) if rules else "",
        _matched_table(parts(match, "matched")),
        join(folded(f"{k.replace('_', ' ')} ({len(match[k]):,})", listing(match[k])) for k in kinds if match.get(k)),
    )


def data(evidence: Evidence) -> Html:
    """Return sizes of splits and classes, and what was left out and why."""
    splits = evidence.splits
    if not splits:
        return html('<p class="absent">The splits of this run were not recorded.</p>')
    origins = {
        "folders": "the folders of the data set",
        "lists": "the lists of the data set",
        "random": f"random, stratified, seed {splits.get('seed')}",
        "folds": f"one fold of a cross-validation, stratified, seed {splits.get('seed')}",
    }
    origin = splits.get("split_origin")
    quarantined, ignored = parts(splits, "quarantined"), part(splits, "ignored")
    rows = [(item.get("path"), item.get("reason"), item.get("split")) for item in quarantined]
    return html(
        "{}{}{}{}{}",
        definitions([("source", splits.get("source")), ("splits come from", origins.get(str(origin), origin))]),
        _class_sizes(splits),
        _warnings(splits.get("warnings") or ()),
        html(
            "<h3>Quarantined: {}</h3>{}",
            quantity(len(rows), "file"),
            table(("file", "reason", "split"), rows, most=500),
        )
        if rows
        else html("<p>No file was quarantined.</p>"),
        html("<h3>Ignored</h3>{}", definitions((reason, f"{num:,}") for reason, num in ignored.items()))
        if ignored
        else "",
    )


def environment(evidence: Evidence) -> Html:
    """Return the machine, the versions and the exact command."""
    command = html("<pre>{}</pre>", block(evidence.command.strip())) if evidence.command else Html("")
    pairs = [(key, compact(value)) for key, value in evidence.environment.items()]
    return html("<h3>Command</h3>{}<h3>Machine and versions</h3>{}", command or "–", definitions(pairs))


def _headline(evidence: Evidence) -> Html:
    if evidence.evaluated:
        metrics = evidence.evaluated[0].metrics
        main = task_of(metrics).main
        if is_number(metrics.get(main)):
            return _measured(evidence.evaluated[0]) if main == "top1" else _ranked(evidence.evaluated[0])
    best = part(evidence.status, "best")
    if not is_number(best.get("value")):
        return html('<p class="headline"><span class="label">This run has no result yet.</span></p>')
    monitor = str(best.get("monitor"))
    value = percent(best["value"]) if "top" in monitor or "accuracy" in monitor else number(best["value"])
    label = f"{monitor} ({_SELECTION})" if monitor.startswith("val") else monitor
    return html(
        '<p class="headline"><span class="figure">{}</span> <span class="label">best {}</span></p>', value, label
    )


def _measured(result: Evaluated) -> Html:
    top1, num = float(result.metrics["top1"]), result.metrics.get("num_images")
    note = ""
    if isinstance(num, int) and num > 0:
        low, high = wilson_interval(top1, num)
        note = f"{round(top1 * num):,} of {num:,} images; 95 % interval {percent(low)} to {percent(high)}"
    return html(
        '<p class="headline"><span class="figure">{}</span> <span class="label">accuracy ({})</span>'
        '<span class="note">{}</span></p>',
        percent(top1, 1 if top1 < 0.9995 or top1 == 1 else 2), result.label, note,
    )  # fmt: skip


def _ranked(result: Evaluated) -> Html:
    """Return the headline of a task whose figure is no share of images."""
    task, num = task_of(result.metrics), result.metrics.get("num_images")
    others = [
        f"{name} {told(key, result.metrics[key])}"
        for key, name in list(task.names.items())[1:]
        if is_number(result.metrics.get(key))
    ]
    return html(
        '<p class="headline"><span class="figure">{}</span> <span class="label">{} ({})</span>'
        '<span class="note">{}; {}</span></p>',
        number(result.metrics[task.main]), task.names[task.main], result.label,
        quantity(num, "image"), ", ".join(others),
    )  # fmt: skip


def _state(status: Record) -> str:
    where = f"in stage {status['stage']}" if status.get("stage") is not None else ""
    where += f", epoch {status['epoch']}" if where and status.get("epoch") is not None else ""
    state = str(status.get("state", "unknown"))
    return state if state == "finished" else f"{state} {where}".strip()


def _interruption(status: Record) -> Html:
    if status.get("state") == "finished":
        return Html("")
    text = {
        "running": "The run was still going on, or was killed, when this report was written.",
        "stopped": "The run was stopped before its end.",
        "failed": "The run failed.",
    }.get(str(status.get("state")), "How the run ended was not recorded.")
    return html('<p class="warning">{} {}</p>', text, status.get("message") or "")


def _data_name(evidence: Evidence) -> str:
    source = str(evidence.splits.get("source") or part(evidence.recipe, "data").get("source") or "")
    return PurePath(source).name or source or "–"


def _weights_in_short(match: Record) -> str:
    counts = part(match, "counts")
    if not is_number(counts.get("matched")):
        return ""
    return f"{counts['matched']:,} tensors matched, {counts.get('missing', 0):,} missing"


def _proof_in_short(audit: Record) -> str:
    verdicts = [stage.get("verdict") == "ok" for stage in parts(audit, "stages")]
    if not verdicts:
        return "not audited"
    broken = verdicts.count(False)
    return (
        f"violated in {quantity(broken, 'stage')}"
        if broken
        else f"unchanged ({quantity(len(verdicts), 'stage')} audited)"
    )


def _classes_in_short(evidence: Evidence) -> str:
    names = [str(name) for name in evidence.splits.get("class_names") or ()]
    shown = [shorten(name, 18) for name in names[:5]]
    return f"{len(names)}: {', '.join(shown)}{', …' if len(names) > 5 else ''}" if names else "–"


def _matched_table(matched: Sequence[Record]) -> Html:
    if not matched:
        return Html("")
    rows = [
        (
            m.get("target"),
            compact(m.get("source")),
            m.get("rule"),
            "; ".join(map(str, m.get("steps") or ())) or "as it is",
        )
        for m in matched
    ]
    title = f"matched ({len(rows):,})"
    return folded(title, table(("model", "file", "rule", "axis steps"), rows, most=500))


def _class_sizes(splits: Record) -> Html:
    if part(splits, "class_table"):  # a row names an image and its mask
        pairs = [(split, f"{len(rows):,}") for split, rows in part(splits, "splits").items()]
        return table(("split", "#images with masks"), pairs)
    names = [str(name) for name in splits.get("class_names") or ()]
    sizes = {str(split): _sizes(rows, names) for split, rows in part(splits, "splits").items()}
    header = ("class", *(f"#{split}" for split in sizes))
    totals = ("all", *(f"{len(rows):,}" for rows in part(splits, "splits").values()))
    rows = [(name, *(f"{size[name]:,}" for size in sizes.values())) for name in names]
    if len(rows) <= _MOST_CLASSES_LISTED:
        return table(header, [*rows, tuple(html("<strong>{}</strong>", cell) for cell in totals)])
    return html("{}{}", table(header, [totals]), folded(f"All {len(rows)} classes", table(header, rows)))


def _sizes(rows: Sequence[Sequence[Any]], names: Sequence[str]) -> Counter[str]:
    labels = Counter(name for row in rows for name in (row[1] if isinstance(row[1], list) else [row[1]]))
    return Counter({(names[k] if isinstance(k, int) else str(k)): num for k, num in labels.items()})


def _warnings(warnings: Sequence[Any]) -> Html:
    if not warnings:
        return Html("")
    return html('<ul class="warning">{}</ul>', join(html("<li>{}</li>", text) for text in warnings))
