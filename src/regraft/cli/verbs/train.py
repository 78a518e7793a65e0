"""`regraft train`: from a folder of images to a model that predicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regraft.cli.effects import say_unused
from regraft.cli.options import (
    ClassTableOption,
    DeviceOption,
    GroupOption,
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
from regraft.cli.output import Output
from regraft.cli.say import say
from regraft.cli.settings import opened_recipe

if TYPE_CHECKING:
    from regraft.data.dataset import DataSet
    from regraft.folds import Folds
    from regraft.recipe.recipe import Recipe

__all__ = ["finish", "show_folds", "train"]


def train(
    data: Annotated[
        str | None,
        typer.Argument(
            help="Images: root/class/*, root/{train,val,test}/class/*, a list or a table; overrides data.source.",
            show_default=False,
        ),
    ] = None,
    labels: LabelsOption = None,
    names: NamesOption = None,
    masks: MasksOption = None,
    class_table: ClassTableOption = None,
    ignore: IgnoreOption = None,
    group: GroupOption = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Name of a network: any timm model, alexnet, unet, segnet, keras_NAME; auto compares those with "
            "weights on this machine.",
            show_default=False,
        ),
    ] = None,
    out: OutOption = None,
    recipe: Annotated[Path | None, typer.Option("--recipe", help="YAML recipe.", show_default=False)] = None,
    stages: Annotated[str | None, typer.Option("--stages", help="Run only these stages, e.g. `--stages head`.")] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            help="Time for the whole run, e.g. 10m: the stages are as long as it allows on this machine.",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            min=1,
            help="Epochs of the last stage with an iterative optimizer; for others: `--set NAME.epochs=`.",
        ),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            "--lr", help="Learning rate of the last stage with an iterative optimizer; for others: `--set NAME.lr=`."
        ),
    ] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, help="Batch size, in all stages.")] = None,
    image_size: Annotated[int | None, typer.Option("--image-size", min=1, help="Side in pixels.")] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Seed of splits, order, augmentation and new layers.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="KEY=VALUE, e.g. `--set all.lr=3e-5` or `--set data.resize=crop`.", show_default=False
        ),
    ] = None,
    device: DeviceOption = "auto",
    precision: Annotated[str | None, typer.Option("--precision", help="auto, fp32, bf16 or fp16.")] = None,
    threads: ThreadsOption = None,
    numerics: Annotated[
        str | None,
        typer.Option(
            "--numerics", help="Precision and layout: use the built-in table, or benchmark briefly.", show_default=False
        ),
    ] = None,
    cache: Annotated[
        str | None, typer.Option("--cache", help="Cache of decoded pixels: auto, off, ram or disk.", show_default=False)
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            "--folds", min=2, help="Number of folds to cross-validate over, one run per fold.", show_default=False
        ),
    ] = None,
    feature_cache: Annotated[
        str | None,
        typer.Option(
            "--feature-cache",
            help="Cache of backbone features: auto, off, or K to cycle through K augmented views.",
            show_default=False,
        ),
    ] = None,
    log_with: LogOption = None,
    as_json: JsonOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the surgery, the stages and the expected time; train nothing.")
    ] = False,
) -> None:
    """Train on images, evaluate, and write a report.

    Without options: a new head on the frozen network, then all layers, the earlier ones at lower rates. The best
    network by validation is kept, be it one between the two. Images with masks train a U-Net: its decoder on the
    frozen encoder, then all of it.
    """
    from regraft.run.folder import is_started_again, require_new

    options: dict[str, Any] = {
        "data.source": data,
        "data.labels": labels and str(labels),
        "data.names": names and str(names),
        "data.masks": masks,
        "data.class_table": class_table and str(class_table),
        "data.ignore": ignored_items(ignore),
        "data.group": group,
        "model.name": model,
        "model.image_size": image_size,
        "seed": seed,
        "numerics.device": device if device != "auto" else None,
        "numerics.precision": precision,
        "numerics.threads": threads,
        "numerics.choose": numerics,
        "log": log_names(log_with),
        "data.cache": cache,
        "budget": budget,
        "feature_cache": {"views": int(feature_cache)}
        if feature_cache and feature_cache.isdecimal()
        else feature_cache,
    }
    output = Output(as_json=as_json)
    with output.ended():
        if out is not None and not dry_run and is_started_again(out):
            _go_on(out, output)
            return
        if out is not None:
            require_new(out)
        only = None if stages is None else [name.strip() for name in stages.split(",")]
        given = {"epochs": epochs, "lr": lr, "batch_size": batch_size}
        checked, opened = opened_recipe(recipe, options, [*_of_stages(given), *(assignments or ())], stages=only)
        _carry_out(checked, opened, out, folds, output, dry_run=dry_run)


def _of_stages(given: Mapping[str, Any]) -> Iterator[str]:
    """Return options that are settings of stages, as `--set` has them."""
    for key, value in given.items():
        if value is not None and key == "batch_size":
            yield f"data.batch_size={value}"
            yield "stages.*.batch_size=null"
        elif value is not None:
            yield f"{key}={value}"


def _carry_out(
    recipe: Recipe, data: DataSet | None, out: Path | None, folds: int | None, output: Output, *, dry_run: bool
) -> None:
    import time

    from regraft.machine.heap import keep_freed_memory
    from regraft.pipeline import run_recipe
    from regraft.run.invocation import seconds_so_far

    keep_freed_memory()  # a dry run times what the run will do
    started = time.perf_counter() - seconds_so_far()
    if dry_run:
        from regraft.assembly.rehearsal import rehearse

        unused = {"--out": out, "--folds": folds, "--json": output.as_json}
        say_unused(unused, "--dry-run shows one run as text and writes nothing")
        say(rehearse(recipe, data=data, started=started))
        return
    if folds is not None:
        from regraft.folds import cross_validate

        done = cross_validate(recipe, folds=folds, out=out, callbacks=output.callbacks, show=output.shows_progress)
        show_folds(done, output)
        return
    callbacks, show = output.callbacks, output.shows_progress
    run = run_recipe(recipe, out=out, data=data, callbacks=callbacks, show=show, started=started)
    finish(run.path, output)


def _go_on(out: Path, output: Output) -> None:
    """Resume the run that this command began before its launcher started it again."""
    from regraft.machine.heap import keep_freed_memory
    from regraft.pipeline import resume
    from regraft.run.folder import open_run

    keep_freed_memory()
    run = open_run(out)
    was_complete = run.is_finished and run.report.exists()
    resume(run, callbacks=output.callbacks, show=output.shows_progress)
    if not was_complete:
        finish(out, output)


def show_folds(folds: Folds, output: Output) -> None:
    """Print the metrics of a cross-validation."""
    output.say(folds.render())
    output.end(run=str(folds.path), measures=folds.measures)


def finish(run: Path, output: Output) -> None:
    """Finish a run: evaluate (with what the run computed with), write the report, say where everything is."""
    from regraft.machine.processes import is_main_process
    from regraft.run.invocation import seconds_so_far, typed_path
    from regraft.training.checkpoint.stop import stop_as_error
    from regraft.wording import duration

    if not is_main_process():
        return
    with stop_as_error(f"The evaluation of {str(run)!r}", f"`regraft resume {typed_path(run)}` to evaluate it"):
        from regraft import pipeline
        from regraft.cli.verbs.evaluate import show_measures

        outcome = pipeline.finish(run, command_seconds=seconds_so_far)
    if not output.as_json:
        show_measures(outcome.measures)
    output.say(f"model: {run / 'model'}")
    output.say(f"report: {outcome.report}")
    output.say(f"time: {duration(outcome.seconds or 0.0)}")
    output.end(run=str(run), model=str(run / "model"), report=str(outcome.report), measures=outcome.measures)
