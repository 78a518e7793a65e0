"""Open a run: lock its folder, decode its images, write its first state or load the one that it left off with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from torch import nn

from regraft import commit
from regraft.data.dataset import DataSet
from regraft.models.describe.info import preprocessing_of
from regraft.models.describe.inputs import Normaliser
from regraft.models.store.folder import model_config
from regraft.plan.make import Plan
from regraft.plan.run_warnings import run_warnings
from regraft.training.checkpoint.records import write_records
from regraft.training.checkpoint.resumption import Resumption, look_up, require_same_images, take_up
from regraft.training.checkpoint.saver import Saver
from regraft.training.checkpoint.state import Progress, load_weights
from regraft.training.checkpoint.stop import StopFlag
from regraft.training.images import Images
from regraft.training.limits.lone_image import require_company
from regraft.training.limits.stage_sizes import size_of
from regraft.training.loggers.registry import build_loggers
from regraft.training.loop.checkpoints import Checkpoints
from regraft.training.loop.session import Session
from regraft.training.loop.sinks import Sinks
from regraft.training.preflight.decoding import DECODE_WORK, decode_rows, list_rows, require_same_rows
from regraft.training.prepare import Prepared
from regraft.training.progress.phases import DECODING, Work
from regraft.training.run_status import noted_in_status, removed_if_refused
from regraft.training.run_work import RunWork

__all__ = ["open_session"]


@contextmanager
def open_session(prepared: Prepared) -> Iterator[Session]:
    """Open a context in which the run is held by this process; how it ends is noted in its folder.

    Raises:
        SettingsError: Settings of a resumed run differ that nobody allowed.
        DataError: Too few readable images; others than a resumed run began with.
        StorageError: The disk is full or read-only, or records are damaged.
        StoppedError: Ctrl-C, SIGTERM or SIGHUP; the state is saved.
    """
    run, engine, request = prepared.run, prepared.engine, prepared.request
    is_new = request.resume is None
    with ExitStack() as held:
        if engine.is_main:
            if is_new:
                held.enter_context(removed_if_refused(run))
            held.enter_context(run.locked())
        sinks = held.enter_context(Sinks(run, show=request.show, write=engine.is_main, held=not is_new))
        stop = held.enter_context(StopFlag())
        held.enter_context(noted_in_status(run, sinks, engine))
        callbacks = held.enter_context(prepared.callbacks)
        saver = held.enter_context(Saver(run))
        yield _session(prepared, sinks, Checkpoints(run, engine, saver, stop, callbacks, request.options.save_steps))


def _session(prepared: Prepared, sinks: Sinks, checkpoints: Checkpoints) -> Session:
    """Return the session, once its images are known to be those that it began with."""
    request, engine, run, model = prepared.request, prepared.engine, prepared.run, prepared.model
    plan, options, given = request.plan, request.options, request.data
    resumption = engine.from_main(lambda: _resumption(prepared))
    if resumption is None:
        progress = engine.from_main(lambda: _begin(prepared, checkpoints.saver))
        _warn(prepared, sinks)
    else:
        progress = resumption.progress
    size, num_images = size_of(model), len(given.train) + len(given.val)
    work = RunWork(size, given, options.batch_size, options.feature_cache)
    sinks.plan({DECODING: Work(DECODE_WORK * num_images, 1.0), **work.of(plan)})
    data, pixels = decode_rows(run, given, model, engine, sinks, checkpoints.stop, cache=options.cache)
    if resumption is not None:
        engine.from_main(lambda: require_same_rows(run, given, data))
    require_company(model, plan.stages, len(data.train), options.batch_size)  # of the images that can be read
    engine.from_main(lambda: require_same_images(progress, pixels))
    load_weights(run.checkpoint(progress.step), model)
    if resumption is not None:  # nothing can refuse it any more: from here on the run folder changes
        engine.from_main(lambda: take_up(run, resumption, sinks.line))
        sinks.release()
    engine.from_main(lambda: list_rows(run, given, data, model, pixels, sinks, resume=resumption is not None))
    for phase, units in replace(work, data=data).done(progress, plan).items():
        sinks.skip(units, phase)
    labels = {name: split.labels for name, split in data.splits.items()}
    palette = None if data.class_table is None else data.class_table.palette
    normaliser = Normaliser(preprocessing_of(model), engine.device)
    images = Images(pixels, labels, data.class_names, normaliser, palette, data.train.groups)
    return _notified(Session(model, plan, images, options, engine, sinks, checkpoints, progress))


def _notified(session: Session) -> Session:
    """Return the same session, after loggers and callbacks were notified of its start."""
    callbacks, checkpoints = session.callbacks, session.checkpoints
    if session.engine.is_main:
        callbacks.add_loggers(build_loggers(session.run_folder, session.options.log), session.sinks.warn)
    checkpoints.saver.told = lambda: callbacks.tell("on_checkpoint", session)
    callbacks.load_state(session.progress.callbacks)
    callbacks.tell("on_run_start", session)
    checkpoints.raise_failure()
    return session


def _resumption(prepared: Prepared) -> Resumption | None:
    """Return the resumption of a run that is resumed; None for a new one."""
    request = prepared.request
    if request.resume is None:
        return None
    return look_up(prepared.run, prepared.settings, request.resume.allow_change, len(request.data.train))


def _begin(prepared: Prepared, saver: Saver) -> Progress:
    """Write what a new run begins with."""
    run, model, request = prepared.run, prepared.model, prepared.request
    run.sweep()
    progress = Progress(recipe=dict(prepared.settings))
    saver.save(model, None, progress)  # where the run began, whatever the weights came from
    saver.wait()
    commit.write_json(run.architecture, _architecture(model, request.plan, request.data))
    write_records(run, prepared.settings, model, request.chosen)
    return progress


def _architecture(model: nn.Module, plan: Plan, data: DataSet) -> dict[str, Any]:
    """Return the config of the network, with each stage's image size, for predicting before the run has finished."""
    config = model_config(model)
    if data.class_table is not None:
        config["regraft"]["class_colours"] = [list(colour) for colour in data.class_table.colours]
    sizes = {stage.name: list(stage.size) for stage in plan if stage.size is not None}
    return {**config, "regraft": {**config["regraft"], "sizes": sizes}}


def _warn(prepared: Prepared, sinks: Sinks) -> None:
    request, options = prepared.request, prepared.request.options
    for line in request.chosen:
        sinks.line(line)
    found = run_warnings(request.plan, options.monitor, options.mode, len(request.data.train), options.batch_size)
    for warning in (*found, *prepared.unfilled):
        sinks.warn(f"warning: {warning}")
