"""`regraft train`: from a folder of photos to a model that predicts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from regraft.cli.options import (
    DeviceOption,
    LabelsOption,
    LogOption,
    NamesOption,
    OutOption,
    ThreadsOption,
    log_names,
)

__all__ = ["finish", "train"]


def train(
    photos: Annotated[
        str | None,
        typer.Argument(
            help="root/class/*, root/{train,val,test}/class/*, a list or a table; replaces data.source.",
            show_default=False,
        ),
    ] = None,
    labels: LabelsOption = None,
    names: NamesOption = None,
    model: Annotated[str | None, typer.Option("--model", help="A timm name.", show_default=False)] = None,
    out: OutOption = None,
    recipe: Annotated[Path | None, typer.Option("--recipe", help="A YAML recipe.", show_default=False)] = None,
    stages: Annotated[str | None, typer.Option("--stages", help="Only these, as in `--stages head`.")] = None,
    image_size: Annotated[int | None, typer.Option("--image-size", min=1, help="Side in pixels.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of splits, order, augmentation, new layers.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, as in `--set stages.1.lr=3e-5`.", show_default=False)
    ] = None,
    device: DeviceOption = "auto",
    precision: Annotated[str | None, typer.Option("--precision", help="auto, fp32, bf16 or fp16.")] = None,
    threads: ThreadsOption = None,
    cache: Annotated[
        str | None, typer.Option("--cache", help="Decoded pixels: auto, off, ram or disk.", show_default=False)
    ] = None,
    folds: Annotated[
        int | None, typer.Option("--folds", min=2, help="Cross-validate: one run for each fold.", show_default=False)
    ] = None,
    log_with: LogOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the surgery and the stages, and stop.")] = False,
) -> None:
    """Train on photos, evaluate, and write a report.

    Without options: a new head on the frozen network, then the top of the network with it at a lower rate; the best
    epoch is kept.
    """
    from regraft.data.open import open_data
    from regraft.recipe import apply_set, default_recipe, read_recipe, validate_recipe
    from regraft.run.folder import require_new

    values = read_recipe(recipe) if recipe is not None else {"model": default_recipe()["model"]}
    options: dict[str, Any] = {
        "data.source": photos,
        "data.labels": labels and str(labels),
        "data.names": names and str(names),
        "model.name": model,
        "model.image_size": image_size,
        "seed": seed,
        "numerics.device": device if device != "auto" else None,
        "numerics.precision": precision,
        "numerics.threads": threads,
        "log": log_names(log_with),
        "data.cache": cache,
    }
    if photos is not None and isinstance(values.get("data"), dict) and values["data"].get("source"):
        values["data"].pop("labels", None)  # they belong to the source that is replaced
    for key, value in options.items():
        if value is not None:
            _put(values, key, value)
    for assignment in assignments or ():
        apply_set(values, assignment)
    checked = validate_recipe(values)
    if stages is not None:
        checked = checked.with_stages([name.strip() for name in stages.split(",")])
    if out is not None:
        require_new(out)
    # Mistakes in the data are told before torch and timm, which take seconds, are imported.
    source = checked.data.source
    data = open_data(source, seed=checked.seed, **checked.data.choices()) if source is not None else None

    from regraft.models.numerics import keep_freed_memory
    from regraft.pipeline import rehearse, run_recipe

    if dry_run:
        typer.echo(rehearse(checked, data=data))
        return
    keep_freed_memory()
    if folds is not None:
        from regraft.folds import cross_validate

        typer.echo(cross_validate(checked, folds=folds, out=out).render())
        return
    run = run_recipe(checked, out=out, data=data)
    finish(run.path)


def finish(run: Path) -> None:
    """After training: evaluate (with what the run computed with), write the report, say where everything is."""
    from regraft.run.processes import is_main_process
    from regraft.train.stop import stop_as_error

    if not is_main_process():
        return
    with stop_as_error(f"The evaluation of {str(run)!r}", f"Type `regraft resume {run}` to evaluate it."):
        from regraft.cli.evaluate import show_measures
        from regraft.evaluate.evaluate import evaluate
        from regraft.report.build import write_report

        measures = evaluate(run)
        report = write_report(run)
    show_measures(measures)
    typer.echo(f"model: {run / 'model'}")
    typer.echo(f"report: {report}")


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    section, _, name = key.partition(".")
    if not name:
        values[section] = value
        return
    if not isinstance(values.get(section), dict):
        values[section] = {}
    values[section][name] = value
