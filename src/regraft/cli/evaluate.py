"""`regraft evaluate`: how good a run's model is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from regraft.cli.options import LabelsOption, NamesOption, RunArgument, ThreadsOption

__all__ = ["evaluate", "show_measures"]


def evaluate(
    run: RunArgument,
    data: Annotated[
        Path | None, typer.Argument(help="Labelled photos: folders, a list or a table; else the run's test split.")
    ] = None,
    labels: LabelsOption = None,
    names: NamesOption = None,
    split: Annotated[str | None, typer.Option("--split", help="One of the run's: train, val or test.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All measures as JSON.")] = False,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or mps; else the run's.")] = None,
    precision: Annotated[str | None, typer.Option("--precision", help="auto, fp32, bf16 or fp16.")] = None,
    threads: ThreadsOption = None,
) -> None:
    """Measure a run's model on its test split (or validation split), or on other labelled photos."""
    from regraft.evaluate.evaluate import evaluate as measure
    from regraft.models.numerics import choose_numerics, keep_freed_memory

    keep_freed_memory()
    chosen = any(value is not None for value in (device, precision, threads))
    numerics = choose_numerics(device or "auto", precision or "auto", threads) if chosen else None
    measures = measure(run, data, labels=labels, names=names, split=split, numerics=numerics)
    if as_json:
        json.dump(measures, sys.stdout, indent=2, ensure_ascii=False)
        sys.stdout.write("\n")
    else:
        show_measures(measures)


def show_measures(measures: dict[str, Any]) -> None:
    """The measures for people, on stdout; every accuracy carries the name of the split that it comes from."""
    label = measures["label"]
    typer.echo(f"accuracy ({label}): {measures['top1']:.2%} of {measures['num_images']} images")
    typer.echo(f"balanced accuracy ({label}): {measures['balanced_accuracy']:.2%}")
    if measures["num_errors"]:
        typer.echo(f"unreadable images ({label}): {measures['num_errors']}, left out of the accuracy")
    width = max(len(row["name"]) for row in measures["per_class"])
    for row in measures["per_class"] if len(measures["per_class"]) <= 20 else ():
        typer.echo(
            f"  {row['name']:<{width}}  precision {row['precision']:.3f}  recall {row['recall']:.3f}  "
            f"f1 {row['f1']:.3f}  images {row['support']}"
        )
