"""`regraft train`: from a folder of photos to a model that predicts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regraft.cli.news import News
from regraft.cli.options import (
    ClassTableOption,
    DeviceOption,
    IgnoreOption,
    JsonOption,
    LabelsOption,
    LogOption,
    MasksOption,
    NamesOption,
    OutOption,
    ThreadsOption,
    ignored_items,
    log_names,
)
from regraft.cli.settings import opened_recipe

if TYPE_CHECKING:
    from regraft.data.dataset import DataSet
    from regraft.folds import Folds
    from regraft.recipe import Recipe

__all__ = ["finish", "show_folds", "train"]


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
    masks: MasksOption = None,
    class_table: ClassTableOption = None,
    ignore: IgnoreOption = None,
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
    numerics: Annotated[
        str | None,
        typer.Option("--numerics", help="Precision and layout: table, or measure, for seconds.", show_default=False),
    ] = None,
    cache: Annotated[
        str | None, typer.Option("--cache", help="Decoded pixels: auto, off, ram or disk.", show_default=False)
    ] = None,
    folds: Annotated[
        int | None, typer.Option("--folds", min=2, help="Cross-validate: one run for each fold.", show_default=False)
    ] = None,
    feature_cache: Annotated[
        str | None,
        typer.Option(
            "--feature-cache",
            help="What the frozen part computes: auto, off, or K views of augmented images.",
            show_default=False,
        ),
    ] = None,
    log_with: LogOption = None,
    as_json: JsonOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the surgery and the stages, and stop.")] = False,
) -> None:
    """Train on photos, evaluate, and write a report.

    Without options: a new head on the frozen network, then the top of the network with it at a lower rate; the best
    epoch is kept. Images with masks train a U-Net: its decoder on the frozen encoder, then all of it.
    """
    from regraft.run.folder import require_new

    options: dict[str, Any] = {
        "data.source": photos,
        "data.labels": labels and str(labels),
        "data.names": names and str(names),
        "data.masks": masks,
        "data.class_table": class_table and str(class_table),
        "data.ignore": ignored_items(ignore),
        "model.name": model,
        "model.image_size": image_size,
        "seed": seed,
        "numerics.device": device if device != "auto" else None,
        "numerics.precision": precision,
        "numerics.threads": threads,
        "numerics.choose": numerics,
        "log": log_names(log_with),
        "data.cache": cache,
        "feature_cache": {"views": int(feature_cache)}
        if feature_cache and feature_cache.isdecimal()
        else feature_cache,
    }
    news = News(as_json=as_json)
    with news.ended():
        if out is not None:
            require_new(out)
        checked, data = opened_recipe(recipe, options, assignments)
        if stages is not None:
            checked = checked.with_stages([name.strip() for name in stages.split(",")])
        _carry_out(checked, data, out, folds, news, dry_run=dry_run)


def _carry_out(
    recipe: Recipe, data: DataSet | None, out: Path | None, folds: int | None, news: News, *, dry_run: bool
) -> None:
    from regraft.models.numerics import keep_freed_memory
    from regraft.pipeline import rehearse, run_recipe

    if dry_run:
        typer.echo(rehearse(recipe, data=data))
        return
    keep_freed_memory()
    if folds is not None:
        from regraft.folds import cross_validate

        done = cross_validate(recipe, folds=folds, out=out, callbacks=news.callbacks, show=news.shows_progress)
        show_folds(done, news)
        return
    run = run_recipe(recipe, out=out, data=data, callbacks=news.callbacks, show=news.shows_progress)
    finish(run.path, news)


def show_folds(folds: Folds, news: News) -> None:
    """After a cross-validation: its measures."""
    news.say(folds.render())
    news.end(run=str(folds.path), measures=folds.measures)


def finish(run: Path, news: News) -> None:
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
    if not news.as_json:
        show_measures(measures)
    news.say(f"model: {run / 'model'}")
    news.say(f"report: {report}")
    news.end(run=str(run), model=str(run / "model"), report=str(report), measures=measures)
