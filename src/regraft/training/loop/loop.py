"""A whole run: its stages one after the other, from wherever the saved progress says."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from regraft import commit
from regraft.errors import DivergedError, OutOfMemoryError, RegraftError, SettingsError
from regraft.plan.optimizers import learning_rate
from regraft.run.changes import record_change
from regraft.run.invocation import typed_path
from regraft.run.records import finite
from regraft.settings.stage import Stage
from regraft.training.checkpoint.records import recipe_text
from regraft.training.checkpoint.state import Best, load_weights
from regraft.training.limits.lone_image import stands_alone
from regraft.training.limits.memory import BatchTooLargeError, give_back, in_smaller_batches
from regraft.training.loop.begin_stage import begin_stage
from regraft.training.loop.gradient_stage import descend
from regraft.training.loop.lbfgs_stage import solve
from regraft.training.loop.merging import merge
from regraft.training.loop.session import Session
from regraft.training.loop.stage_run import StageRun
from regraft.wording import quantity

__all__ = ["run_stages"]


def run_stages(session: Session) -> Best:
    """Carry out what is left of the plan; returns the best epoch, whose weights the model then has.

    Raises:
        StoppedError: A signal came; the state is saved.
        DivergedError: A loss or a gradient is not finite; it names the last good state.
        OutOfMemoryError: A step of the smallest batch does not fit, or one of a stage that had begun before.
        StorageError: A checkpoint could not be written.
    """
    try:
        while (stage := _next_stage(session)) is not None:
            _run_stage(session, stage)
        session.checkpoints.wait()
    except DivergedError as error:
        raise _with_last_good_state(session, error) from error
    best = session.progress.best
    if best is None:
        raise SettingsError(
            f"No epoch of this run has a finite {session.monitor}.",
            "at least one epoch with a finite value is needed to choose the best by",
            "lower the learning rate and train again",
        )
    load_weights(session.run_folder.weights(best.step), session.model)
    return best


def _run_stage(session: Session, stage: Stage) -> None:
    """Run a whole stage; one whose first steps do not fit into memory is restarted with smaller batches."""
    before = copy.deepcopy(session.progress)
    run = begin_stage(session, stage)
    try:
        (solve if run.is_solved else descend)(run)
        if stage.interpolate or stage.soup:
            merge(run)
    except BatchTooLargeError as error:
        smaller = _smaller(session, stage, run.batch_size)
        may_begin_again = not before.stage_started and not run.saver.has_saved and session.engine.num_processes == 1
        if smaller is None or not may_begin_again:
            raise _out_of_memory(session, stage, run.batch_size) from error.__cause__
        traceback.clear_frames(error.__traceback__)  # they hold the tensors of the step
    else:
        end_stage(run)
        return
    del run
    give_back()
    session.progress = before
    _change_stage(session, smaller)


def end_stage(run: StageRun) -> None:
    """Audit a stage, write the audit, and save that it has ended.

    Raises:
        RegraftError: Something frozen moved, or the optimizer held something else than what trains.
    """
    session, stage, progress, state = run.session, run.stage, run.progress, run.state
    if state.average is not None:
        state.average.settle()
    audit = state.snapshot.audit(run.model, run.optimizer, progress.gradient_norms, stage=stage.name)
    folder = session.run_folder
    stages = (folder.read(folder.audit) or {"stages": []})["stages"]
    if run.engine.is_main:
        commit.write_json(folder.audit, {"stages": [*stages[: progress.stage], finite(audit.to_dict())]})
    audit.raise_if_violated()
    session.sinks.end(stage.name)
    session.sinks.line(
        f"{stage.name}: audit ok, {quantity(len(audit.frozen), 'frozen tensor')} byte-identical, "
        f"{len(audit.trainable)} trained"
    )
    session.sinks.tell_bottleneck(stage.name)
    session.callbacks.tell("on_stage_end", run)
    progress.stage_ended = True
    if progress.is_merged:
        state.average = None  # the last epoch's checkpoint has the weights and their average
    state.snapshot.starts.clear()
    run.saver.save()


def _smaller(session: Session, stage: Stage, batch_size: int) -> Stage | None:
    """Return the stage in smaller batches; None where there are none that it can take."""
    smaller = in_smaller_batches(stage, batch_size)
    num_images, trained = len(session.labels["train"]), session.progress.trained_layers
    if smaller is None or stands_alone(session.model, smaller, num_images, batch_size, trained=trained):
        return None
    return smaller


def _change_stage(session: Session, smaller: Stage) -> None:
    """Put a stage of smaller batches in the place of the next one, in the plan, the recipe and the run's records."""
    progress, run = session.progress, session.run_folder
    index = progress.stage
    session.checkpoints.wait()
    load_weights(run.checkpoint(progress.step), session.model)
    old = progress.recipe["stages"][index]
    new = {**old, "batch_size": smaller.batch_size, "accumulate": smaller.accumulate}
    stages = list(session.plan.stages)
    stages[index] = smaller
    session.plan = replace(session.plan, stages=tuple(stages))
    progress.recipe = {**progress.recipe, "stages": [*progress.recipe["stages"]]}
    progress.recipe["stages"][index] = new
    keys = ("batch_size", "accumulate")
    changes = {f"stages.{index}.{key}": (old.get(key), new[key]) for key in keys}
    text = recipe_text(progress.recipe)
    record_change(run, "out of memory", progress.step, changes, recipe=text)
    commit.write_text(run.recipe, text)
    images = quantity(smaller.batch_size, "image")
    session.sinks.warn(
        f"{smaller.name}: a step does not fit into memory; continuing with {images} at a time, "
        f"{smaller.accumulate} times before each step, so that a step has as many images as before"
    )


def _out_of_memory(session: Session, stage: Stage, batch_size: int) -> OutOfMemoryError:
    path = session.run_folder.path
    smaller = in_smaller_batches(stage, batch_size)
    advice = "a smaller `--image-size` or a smaller `--model` for a new run"
    if smaller is not None:
        keys = {f"stages.{stage.name}.{key}": getattr(smaller, key) for key in ("batch_size", "accumulate")}
        sets = " ".join(f"--set {key}={value} --allow-change {key}" for key, value in keys.items())
        advice = f"`regraft resume {typed_path(path)} {sets}` to continue with smaller batches, as many images a step"
    return OutOfMemoryError(
        f"There is not enough memory for {quantity(batch_size, 'image')} at a time in the stage {stage.name!r} of "
        f"{str(path)!r}.",
        "room for the activations of one batch",
        advice,
    )


def _with_last_good_state(session: Session, error: DivergedError) -> DivergedError:
    """Return the same error, with the last good state before it and the command to resume from there."""
    run, progress = session.run_folder, session.progress
    with suppress(RegraftError):
        session.checkpoints.wait()
    last = (run.read(run.last) or {}).get("checkpoint", "none")
    stage = session.plan.stages[progress.stage]
    key = f"stages.{stage.name}.lr"
    change = f"--set {key}={learning_rate(stage) / 10:g} --allow-change {key}"
    if isinstance(stage.lr, Mapping):
        key = f"stages.{stage.name}.clip_norm"
        change = f"--set {key}=1.0 --allow-change {key}"
    best = "" if progress.best is None else f", the best epoch's in {run.weights(progress.best.step).name}"
    return DivergedError(
        error.what,
        error.expected,
        f"{error.next_step}: `regraft resume {typed_path(run.path)} {change}` continues from the last good state",
        details=[*error.details, f"the last good state is in {str(run.checkpoints / last)!r}{best}"],
    )


def _next_stage(session: Session) -> Stage | None:
    """Return the stage to go on with or to begin; None when the last one has ended."""
    progress, stages = session.progress, session.plan.stages
    if progress.stage_ended:
        if progress.stage + 1 >= len(stages):
            return None
        progress.enter_next_stage()
    return stages[progress.stage]
