"""The straight pipe: everything `regraft train` does, in the order a reader meets it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from regraft import commit
from regraft.assembly.choosing import with_network
from regraft.assembly.data import opened_recipe, stored_data
from regraft.assembly.network import network_for, resumed_network
from regraft.assembly.options import measured, numerics_for, options_for, stored_settings, write_notes
from regraft.assembly.planning import Clock, planned
from regraft.checkup.during.watch import RunCheckup
from regraft.data.dataset import DataSet
from regraft.evaluation.evaluate import evaluate
from regraft.explanation.kept import keep_heat_maps
from regraft.plan.make import make_plan
from regraft.recipe.recipe import Recipe, validate_recipe
from regraft.report.build import write_report
from regraft.run.folder import RunFolder, open_run, require_new
from regraft.training.callbacks import Callback
from regraft.training.loggers.registry import require_loggers
from regraft.training.prepare import ResumeRequest, RunRequest
from regraft.training.train import carry_out

__all__ = ["Outcome", "finish", "resume", "run_recipe"]

_log = logging.getLogger("regraft")


def run_recipe(
    recipe: Recipe | Mapping[str, Any],
    *,
    out: str | Path | None = None,
    data: DataSet | None = None,
    callbacks: Sequence[Callback] = (),
    show: bool = True,
    started: float | None = None,
) -> RunFolder:
    """Carry out a whole recipe: data, network, weights, surgery, plan, training. Returns the run's folder.

    Args:
        recipe: Checked settings, or plain data that is checked first.
        out: The run folder; None makes `runs/<data>-<n>`.
        data: The images, where they were opened before; None opens `data.source`.
        callbacks: Who is told what happens (`rg.Callback`).
        show: Whether to write progress to stderr.
        started: When the program did, as `time.perf_counter` tells it: a budget counts from there. None takes this
            call.

    Raises:
        RegraftError: Whatever the parts raise, each with its own exit code.
    """
    started = time.perf_counter() if started is None else started
    if out is not None:
        require_new(out)
    recipe, data = opened_recipe(recipe, data)
    write_notes(recipe)
    require_loggers(recipe.log)
    recipe, reasons, tried = with_network(recipe, data, started=started)
    options = options_for(recipe)
    began = time.perf_counter()
    model = network_for(recipe, data)
    clock = Clock(started, time.perf_counter() - began)
    options = measured(options, recipe, model)
    plan, chosen, _ = planned(recipe, model, data, options.numerics or numerics_for(recipe), clock, tried)
    callbacks = (*callbacks, RunCheckup())
    return carry_out(RunRequest(model, plan, data, options, out, callbacks, show, chosen=(*reasons, *chosen)))


def resume(
    run: RunFolder | str | Path,
    *,
    recipe: Recipe | Mapping[str, Any] | None = None,
    allow_change: Sequence[str] = (),
    model: nn.Module | None = None,
    callbacks: Sequence[Callback] = (),
    show: bool = True,
) -> RunFolder:
    """Resume a run that was stopped, bit-exactly; a finished run is left as it is.

    Args:
        run: The run's folder.
        recipe: The settings to go on with, where they are to differ from the run's; whole, as `run.settings()` is.
            A finished run goes on with more epochs in its last stage, or with further stages.
        allow_change: The keys in which they may differ, such as `stages.1.epochs`.
        model: The module itself, for a run that trained a module of the user's own.
        callbacks: Who is told what happens; they are no part of what the run's folder holds.
        show: Whether to write progress to stderr.

    Raises:
        SettingsError: There is no run there; or settings differ that were not allowed to, or cannot.
        StorageError: Its records or checkpoints are damaged.
        DataError: The images have changed since.
    """
    run = run if isinstance(run, RunFolder) else open_run(run)
    if recipe is None and run.is_finished:
        with run.locked():
            run.sweep()
        _log.info("%s is finished; nothing to resume", run.path)
        return run
    recipe = run.settings() if recipe is None else recipe
    recipe = recipe if isinstance(recipe, Recipe) else validate_recipe(recipe)
    if recipe.budget is not None:
        _log.info("note: budget has no effect on a run that has begun; its stages say how long they are")
    resumed = ResumeRequest(allow_change, stored_settings(run, recipe))
    data = stored_data(run, recipe)
    model = resumed_network(run, recipe, data, model)
    plan = make_plan(model, recipe.stages)
    callbacks = (*callbacks, RunCheckup())
    return carry_out(RunRequest(model, plan, data, options_for(recipe), run.path, callbacks, show, resumed))


class Outcome(NamedTuple):
    """What a trained run came to.

    Attributes:
        measures: On the test images, or on those of validation.
        report: The page about the run.
        seconds: How long the command took until it was measured; None where nobody asked.
    """

    measures: dict[str, Any]
    report: Path
    seconds: float | None


def finish(
    run: RunFolder | str | Path, *, split: str | None = None, command_seconds: Callable[[], float] | None = None
) -> Outcome:
    """Finish the pipeline: evaluate the run's model, keep a few heat maps, and write its report.

    Args:
        run: The run's folder.
        split: Which images to measure on; None takes the test split, or validation where there is none.
        command_seconds: How long the command has taken so far; noted for the report, which shows the same.

    Raises:
        RegraftError: Whatever `evaluate` and `write_report` raise.
    """
    run = run if isinstance(run, RunFolder) else RunFolder(Path(run))
    measures = evaluate(run, split=split)
    keep_heat_maps(run, measures["split"])
    seconds = None if command_seconds is None else round(command_seconds(), 1)
    if seconds is not None:
        commit.write_json(run.status, {**(run.read(run.status) or {}), "command_seconds": seconds})
    return Outcome(measures, write_report(run), seconds)
