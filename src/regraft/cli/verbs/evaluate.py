"""`regraft evaluate`: how good a run's model is."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from regraft.cli.options import (
    CheckpointOption,
    ClassTableOption,
    IgnoreOption,
    LabelsOption,
    MasksOption,
    NamesOption,
    RunArgument,
    ThreadsOption,
    ViewsOption,
    ignored_items,
)
from regraft.cli.say import say
from regraft.visible import one_line
from regraft.wording import quantity

if TYPE_CHECKING:
    from regraft.evaluation.predict import Asked

__all__ = ["evaluate", "show_measures"]


def evaluate(
    run: RunArgument,
    data: Annotated[
        Path | None, typer.Argument(help="Labelled images, as for `regraft train`; by default the run's test split.")
    ] = None,
    labels: LabelsOption = None,
    names: NamesOption = None,
    masks: MasksOption = None,
    class_table: ClassTableOption = None,
    ignore: IgnoreOption = None,
    split: Annotated[str | None, typer.Option("--split", help="Split of the run: train, val or test.")] = None,
    slice_by: Annotated[
        str | None,
        typer.Option(
            "--slice",
            help="Also measure parts of the images: folder, size, brightness, or a column of their table.",
            show_default=False,
        ),
    ] = None,
    checkpoint: CheckpointOption = None,
    tta: ViewsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all metrics as JSON.")] = False,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or mps; default: the run's.")] = None,
    precision: Annotated[str | None, typer.Option("--precision", help="auto, fp32, bf16 or fp16.")] = None,
    threads: ThreadsOption = None,
) -> None:
    """Evaluate a run's model on its test split (or validation split), or on other labelled images."""
    from regraft.compute.numerics import choose_numerics
    from regraft.evaluation.evaluate import evaluate as measure
    from regraft.folds import read_folds
    from regraft.machine.heap import keep_freed_memory

    keep_freed_memory()
    chosen = any(value is not None for value in (device, precision, threads))
    numerics = choose_numerics(device or "auto", precision or "auto", threads) if chosen else None
    said: dict[str, Any] = {"masks": masks, "class_table": class_table, "ignore": ignored_items(ignore)}
    chosen_rows: dict[str, Any] = {"labels": labels, "names": names, "split": split, "slice_by": slice_by, **said}
    views = cast("Asked | None", tta)
    measures = measure(run, data, checkpoint=checkpoint, tta=views, numerics=numerics, **chosen_rows)
    folds = None if checkpoint or tta or data is not None else read_folds(run)
    if folds is not None and not as_json:
        say(folds.render())
    if as_json:
        json.dump(measures, sys.stdout, indent=2, ensure_ascii=False)
        sys.stdout.write("\n")
    else:
        show_measures(measures)


def show_measures(measures: dict[str, Any]) -> None:
    """Print the metrics on stdout; every figure carries the name of the split that it comes from."""
    from regraft.evaluation.tasks import task_of, told

    if "checkpoint" in measures:
        say(f"checkpoint: {one_line(measures['checkpoint'])}")
    label, at_default = measures["label"], measures.get("at_default", {})
    images = f" of {quantity(measures['num_images'], 'image')}"
    for key, name in task_of(measures).names.items():
        if measures.get(key) is None:
            continue
        half = f" (with a threshold of 0.5: {told(key, at_default[key])})" if _differs(measures, key) else ""
        say(f"{name} ({label}): {told(key, measures[key])}{images}{half}{_interval(measures, key)}")
        images = ""
    _show_calibration(measures)
    if "threshold" in measures:
        say(f"threshold: {measures['positive']!r} from a probability of {measures['threshold']:.4g}")
    _show_views(measures)
    for note in measures.get("notes", ()):
        say(f"note: {note}")
    _show_seen(measures)
    if measures["num_errors"]:
        say(f"unreadable images ({label}): {measures['num_errors']}, left out of these figures")
    _show_slices(measures)
    width = max(len(row["name"]) for row in measures["per_class"])
    for row in measures["per_class"] if len(measures["per_class"]) <= 20 else ():
        say(f"  {row['name']:<{width}}  " + "  ".join(_columns(row)))


def _show_views(measures: dict[str, Any]) -> None:
    """Print what the views of each image change against the image alone."""
    from regraft.evaluation.tasks import task_of, told

    tta = measures.get("tta")
    if tta is None:
        return
    text = f"tta: {tta['views'] or 'the image alone'}"
    if "alone" in tta:
        key, gain = task_of(measures).main, tta["gain"]
        alone = "not defined" if tta["alone"].get(key) is None else told(key, tta["alone"][key])
        text += f", {tta['num_views']} views (the image alone: {alone}); loss at the best temperature lower by "
        text += f"{gain['mean']:.4f} (95 % interval {gain['low']:.4f} to {gain['high']:.4f})"
    say(text)


def _interval(measures: dict[str, Any], key: str) -> str:
    """Return the 95 % interval of a metric as text; empty where there is none."""
    from regraft.evaluation.tasks import told

    limits = measures.get("intervals", {}).get(key)
    return "" if limits is None else f", 95 % interval {told(key, limits[0])} to {told(key, limits[1])}"


def _show_slices(measures: dict[str, Any]) -> None:
    """Print the share of right answers in each slice, the lowest first."""
    for by, rows in measures.get("slices", {}).items():
        say(f"right answers by {one_line(by)} ({measures['label']}):")
        width = max(len(one_line(row["name"])) for row in rows)
        for row in rows:
            low, high = row["interval"]
            say(
                f"  {one_line(row['name']):<{width}}  {row['share']:.2%} of {quantity(row['num_images'], 'image')}, "
                f"95 % interval {low:.2%} to {high:.2%}"
            )


def _show_calibration(measures: dict[str, Any]) -> None:
    """Print how far the probabilities are off, and how far they would be without the temperature."""
    from regraft.wording import number, percent

    account = measures.get("calibration")
    if not account:
        return
    told, raw = account["told"], account.get("raw") if account.get("temperatures") != [1.0] else None
    before = "" if raw is None else f", {percent(raw['ece'])} without the temperature"
    limits = told.get("intervals", {})
    ece = _between(limits.get("ece"), percent)
    chance = f"; chance alone gives {percent(told['ece_by_chance'][0])}" if "ece_by_chance" in told else ""
    say(
        f"calibration ({measures['label']}): confidences are off by {percent(told['ece'])} on average "
        f"(ECE{before}){ece}{chance}"
    )
    for key, name in (("nll", "negative log-likelihood (nats)"), ("brier", "Brier score")):
        without = "" if raw is None else f" ({number(raw[key])} without the temperature)"
        say(f"{name} ({measures['label']}): {number(told[key])}{without}{_between(limits.get(key), number)}")


def _between(limits: Sequence[float] | None, show: Callable[[float], str]) -> str:
    return "" if limits is None else f", 95 % interval {show(limits[0])} to {show(limits[1])}"


def _show_seen(measures: dict[str, Any]) -> None:
    """Print the main figure of images that the run has seen, apart."""
    from regraft.evaluation.seen import SEEN_LABEL
    from regraft.evaluation.tasks import task_of, told

    seen = measures.get("seen", {}).get("measures")
    if seen is None or measures["label"].endswith(SEEN_LABEL):
        return
    key = task_of(measures).main
    name = f"{task_of(measures).names[key]} ({measures['label']}{SEEN_LABEL})"
    figure = "not defined" if seen.get(key) is None else told(key, seen[key])
    say(f"{name}: {figure} of {seen['num_images']} images")


def _differs(measures: dict[str, Any], key: str) -> bool:
    half = measures.get("at_default", {}).get(key)
    return half is not None and half != measures[key]


def _columns(row: dict[str, Any]) -> list[str]:
    """Return the metrics of one class as text columns; a dash for an undefined one."""
    names = {"iou": "IoU", "boundary_f1": "boundary F1"} if "iou" in row else {}
    names |= {"threshold": "threshold", "ap": "average precision", "precision": "precision", "recall": "recall"}
    columns = [(key, name) for key, name in (*names.items(), ("f1", "f1")) if key in row]
    empty = ("recall", "f1") if not row["support"] else ()  # of no image
    shown = [
        f"{name} " + ("–" if row[key] is None or key in empty else f"{row[key]:.3f}{_around(row, key)}")
        for key, name in columns
    ]
    return [*shown, f"{'pixels' if 'iou' in row else 'images'} {row['support']}"]


def _around(row: dict[str, Any], key: str) -> str:
    limits = row.get("intervals", {}).get(key)
    return "" if limits is None else f" ({limits[0]:.3f}–{limits[1]:.3f})"
