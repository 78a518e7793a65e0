"""`train`: a model, a plan and a data set in; a run folder with a model that predicts out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from regraft import commit
from regraft.data.cache import CACHES, CacheMode, PixelCache, decode_all
from regraft.data.check import check
from regraft.data.dataset import DataSet
from regraft.data.leaks import with_leaks
from regraft.data.preprocess import Preprocessing
from regraft.errors import DataError, OutOfMemoryError, RegraftError, SettingsError, StoppedError
from regraft.evaluate.probes import NUM_PROBES, make_probes
from regraft.models.folder import write_model
from regraft.models.info import info_of, settings_of
from regraft.models.inputs import Normaliser
from regraft.models.numerics import Numerics, choose_numerics, require_precision
from regraft.plan.length import image_work
from regraft.plan.make import Plan
from regraft.plan.stages import Stage
from regraft.run.folder import RunFolder, create_run
from regraft.train.callbacks import Callback, Callbacks
from regraft.train.engine import Engine
from regraft.train.features import FeatureCache
from regraft.train.fit import check_fit, undefined_notes
from regraft.train.loggers import DEFAULT_LOGGERS, build_loggers, require_loggers
from regraft.train.loop import run_stages, stage_work
from regraft.train.memory import is_out_of_memory
from regraft.train.records import plain, write_records
from regraft.train.resumption import require_same_images, take_up
from regraft.train.saver import Saver
from regraft.train.schedule import mode_of
from regraft.train.session import Session, stopped
from regraft.train.sinks import Sinks
from regraft.train.sizes import keep_room, size_of, take_size
from regraft.train.state import Best, Progress, checkpoint_bytes, load_weights
from regraft.train.stop import StopFlag

__all__ = ["train"]

_DECODE_WORK = 0.2  # of one pass of an image through the network


def train(
    model: nn.Module,
    plan: Plan,
    data: DataSet,
    *,
    out: str | Path | None = None,
    seed: int = 0,
    batch_size: int = 32,
    monitor: str = "val_loss",
    mode: str | None = None,
    numerics: Numerics | None = None,
    save_steps: int | None = None,
    cache: CacheMode = "auto",
    feature_cache: FeatureCache = "auto",
    log: Sequence[str] = DEFAULT_LOGGERS,
    callbacks: Sequence[Callback] = (),
    show: bool = True,
    resume: bool = False,
    allow_change: Sequence[str] = (),
) -> RunFolder:
    """Train a model by a plan; every epoch is saved, and a run that is stopped goes on to the same bits.

    Args:
        model: An adapted model (`rg.adapt`): it has class names and preprocessing. A copy of it is not made.
        plan: What trains in which stage (`rg.make_plan`).
        data: The photos (`rg.open_data`); its class names are the model's, in any order of folders.
        out: The run folder; None makes `runs/<data>-<n>`.
        seed: Of order, augmentation and dropout, each a function of it.
        batch_size: Images a step, where a stage does not say.
        monitor: Which metric of an epoch selects the best: val_loss, train_loss, or another that the model's output
            gives: val_top1, val_balanced_accuracy, val_auc, val_map ... (`regraft.models.outputs.monitors`).
        mode: `min` or `max`; None knows it from the metric's name.
        numerics: Device, precision, layout, threads; None chooses for this machine.
        save_steps: Save after every so many steps too.
        cache: Where decoded pixels are kept: `ram`, `disk`, `off`, or `auto` by what there is. The result is the same.
        feature_cache: `auto` computes what the frozen part makes of an unchanging image once and keeps it, where there
            is room; `off` computes it again for each batch; both end in the same bits. A number K shows K views of each
            augmented image in turn and keeps those: the same bits from K = epochs on.
        log: Loggers by name: `tensorboard`, or a tracker that accelerate knows (`wandb`, `mlflow`, ...). One that fails
            is named, and the run goes on without it.
        callbacks: Who is told what happens (`rg.Callback`).
        show: Whether to write progress to stderr.
        resume: Go on with the run that `out` holds.
        allow_change: Keys of settings that may differ from those of the run that is resumed, such as `stages.1.lr`.

    Raises:
        SettingsError: Settings that do not fit together, an `out` that exists, a resumed run with other settings.
        DataError: Too few readable images, other classes than the model's.
        DivergedError: A loss or a gradient is not finite; the last good state is saved.
        StorageError: The disk is full or read-only.
        StoppedError: Ctrl-C or SIGTERM; the state is saved.
    """
    check_fit(model, data, plan, monitor)
    Normaliser(_preprocessing(model))  # refuses channels that photos do not have
    _check_caches(cache, feature_cache)
    told = Callbacks(callbacks)
    if not resume:
        require_loggers(log)
    numerics = numerics or choose_numerics()
    if resume and out is None:
        raise SettingsError("Nothing to resume was named.", "Expected `out`, the run's folder.", "Pass `out`.")
    for stage in plan:
        require_precision(numerics.device, stage.precision or numerics.precision)
    keep_room(model, plan)
    engine = Engine(numerics)
    told = told if engine.is_main else Callbacks()
    model = engine.synchronise_norms(model)
    run = RunFolder(Path(str(out))) if resume else engine.from_main(lambda: create_run(out, data.name))
    engine.from_main(lambda: _require_space(run, checkpoint_bytes(model, plan.trainable)))
    recipe = plain(
        {
            **settings_of(model, seed=seed),
            "data": {
                **data.settings(),
                "batch_size": batch_size,
                "preprocess": info_of(model).preprocessing,
                "cache": cache,
            },
            "seed": seed,
            "monitor": monitor,
            "mode": mode or mode_of(monitor),
            **plan.settings(),
            "numerics": numerics.to_dict(),
            "save_steps": save_steps,
            "log": list(log),
            "feature_cache": feature_cache if isinstance(feature_cache, str) else {"views": feature_cache},
        }
    )
    with (
        run.locked() if engine.is_main else nullcontext(),
        Sinks(run, show=show, write=engine.is_main) as sinks,
        StopFlag() as stop,
        _told_in_status(run, sinks, engine),
        told,
        Saver(run) as saver,
    ):
        progress = engine.from_main(
            lambda: (
                _begin(run, model, saver, recipe)
                if not resume
                else take_up(
                    run,
                    recipe,
                    allow_change=allow_change,
                    num_images=len(data.train),
                    batch_size=batch_size,
                    say=sinks.line,
                )
            )
        )
        if engine.is_main:
            told.add_loggers(build_loggers(run, log), sinks.warn)
        for warning in () if resume else plan.warnings:
            sinks.warn(f"warning: {warning}")
        sinks.plan(_DECODE_WORK * (len(data.train) + len(data.val)) + _stages_work(plan, model, data, batch_size))
        data, pixels = _decode(run, data, model, engine, sinks, stop, cache=cache, resume=resume)
        labels = {name: split.labels for name, split in data.splits.items()}
        normaliser = Normaliser(_preprocessing(model), engine.device)
        engine.from_main(lambda: require_same_images(run, progress, pixels))
        load_weights(run.checkpoint(progress.step), model)
        sinks.skip(_work_done(progress, plan, model, data, batch_size))
        session = Session(
            model=model,
            plan=plan,
            run_folder=run,
            pixels=pixels,
            labels=labels,
            class_names=data.class_names,
            normaliser=normaliser,
            engine=engine,
            sinks=sinks,
            saver=saver,
            stop=stop,
            seed=seed,
            batch_size=batch_size,
            monitor=monitor,
            mode=mode or mode_of(monitor),
            precision=numerics.precision,
            save_steps=save_steps,
            progress=progress,
            callbacks=told,
            feature_cache=feature_cache,
            palette=None if data.class_table is None else data.class_table.palette,
        )
        saver.told = lambda: told.tell("on_checkpoint", session)
        told.load_state(progress.callbacks)
        told.tell("on_run_start", session)
        session.raise_failure()
        best = run_stages(session)
        if engine.is_main:
            take_size(model, next(stage.size for stage in plan if stage.name == best.stage))
            _write_model(run, model, pixels["val"].sized(_preprocessing(model).pixels.size), best, data, recipe)
        told.tell("on_run_end", session)
        session.raise_failure()
        sinks.status("finished", step=progress.step, best={**_best(best), "monitor": monitor, "mode": session.mode})
        sinks.line(
            f"model written to {run.model} (best: stage {best.stage}, epoch {best.epoch}, {monitor} {best.value:.4f})"
        )
    return run


def _check_caches(cache: str, feature_cache: FeatureCache) -> None:
    if cache not in CACHES:
        raise SettingsError(f"Unknown cache {cache!r}.", f"Expected one of: {', '.join(CACHES)}.", "Set `cache: auto`.")
    views = feature_cache if isinstance(feature_cache, int) and not isinstance(feature_cache, bool) else 0
    if feature_cache not in ("off", "auto") and views < 1:
        raise SettingsError(
            f"The feature cache is {feature_cache!r}.",
            "Expected `off`, `auto`, or a number of views of each augmented image, at least 1.",
            "Set `feature_cache: auto`.",
        )


def _preprocessing(model: nn.Module) -> Preprocessing:
    return Preprocessing.from_dict(info_of(model).preprocessing or {})


def _decode(
    run: RunFolder,
    data: DataSet,
    model: nn.Module,
    engine: Engine,
    sinks: Sinks,
    stop: StopFlag,
    *,
    cache: CacheMode,
    resume: bool,
) -> tuple[DataSet, dict[str, PixelCache]]:
    total = sum(len(split) for split in data.splits.values())
    wanted = {name: split for name, split in data.splits.items() if name != "test"}
    without_test = replace(data, splits=wanted)

    seen = 0

    def on_progress(done: int, of: int) -> None:
        nonlocal seen
        if stop.requested and engine.num_processes == 1:  # several stop together, at the first step
            raise stopped(run, stop)
        sinks.advance(_DECODE_WORK * (done - seen), f"decoding {done}/{of} images")
        seen = done

    decoded, pixels = decode_all(
        without_test,
        _preprocessing(model).pixels,
        cache=cache,
        threads=engine.numerics.threads,
        progress=on_progress,
        say=sinks.line,
    )
    listed = engine.from_main(lambda: resume and run.splits.exists())
    if listed and decoded.quarantined != without_test.quarantined:
        changed = sorted({item.path for item in decoded.quarantined} - {item.path for item in data.quarantined})
        raise DataError(
            f"{len(changed)} images that this run was trained on cannot be read any more; the first is {changed[0]!r}.",
            "A resumed run needs the same images, so that it ends in the same result.",
            "Put the files back, or train again into a new folder.",
        )
    complete = replace(decoded, splits={**data.splits, **decoded.splits})
    if listed and engine.is_main and run.read(run.splits)["source"] != complete.to_dict()["source"]:
        commit.write_json(run.splits, complete.to_dict())  # the photos were moved
    if not listed and engine.is_main:
        complete = with_leaks(complete, {name: (part.paths, part.digests) for name, part in pixels.items()})
        commit.write_json(run.splits, complete.to_dict())
        for finding in check(complete):
            if finding.level == "warning":
                sinks.warn(f"warning: {finding.text}")
        sinks.line(
            f"data: {total} images, {len(data.class_names)} classes, "
            + ", ".join(f"{name} {len(split)}" for name, split in complete.splits.items())
        )
        for note in undefined_notes(model, complete):
            sinks.line(f"note: {note}")
    return decoded, pixels


def _stages_work(stages: Iterable[Stage], model: nn.Module, data: DataSet, batch_size: int) -> float:
    size = size_of(model)
    return sum(stage_work(stage, size, len(data.train), len(data.val), batch_size) for stage in stages)


def _work_done(progress: Progress, plan: Plan, model: nn.Module, data: DataSet, batch_size: int) -> float:
    """The work of the stages, and of the epochs of the present one, that a resumed run has behind it."""
    stage = plan.stages[progress.stage]
    if progress.stage_ended:
        return _stages_work(plan.stages[: progress.stage + 1], model, data, batch_size)
    before = _stages_work(plan.stages[: progress.stage], model, data, batch_size)
    if stage.optimizer == "lbfgs":
        return before
    num_images = progress.epoch * (len(data.train) + len(data.val)) + progress.num_images
    return before + image_work(stage, size_of(model)) * num_images


def _require_space(run: RunFolder, num_bytes: int) -> None:
    """Room for what the run has yet to write; what a resumed one holds already will be replaced."""
    held = sum(file.stat().st_size for file in run.checkpoints.rglob("*") if file.is_file())
    commit.require_space(run.path, max(num_bytes - held, 0))


def _begin(run: RunFolder, model: nn.Module, saver: Saver, recipe: Mapping[str, Any]) -> Progress:
    """Write what a new run begins with."""
    run.sweep()
    progress = Progress(recipe=dict(recipe))
    saver.save(model, None, progress)  # where the run began, whatever the weights came from
    saver.wait()
    write_records(run, recipe, model)
    return progress


def _write_model(
    run: RunFolder, model: nn.Module, val: PixelCache, best: Best, data: DataSet, recipe: Mapping[str, Any]
) -> None:
    info_of(model).thresholds = dict(best.thresholds)
    info_of(model).colours = None if data.class_table is None else data.class_table.colours
    model = model.cpu().to(memory_format=torch.contiguous_format).eval()
    images = np.stack([val.row(row) for row in range(min(NUM_PROBES, len(val)))])
    probes = make_probes(model, images, Normaliser(_preprocessing(model)))
    facts = {
        "training data": f"{data.name}, {len(data.train)} images",
        f"best {recipe['monitor']} (validation, also used for selection)": f"{best.value:.4f}",
        "stages": ", ".join(stage["name"] for stage in recipe["stages"]),
    }
    write_model(run.model, model, probes=probes, facts=facts)


def _best(best: Best) -> dict[str, Any]:
    return {"stage": best.stage, "epoch": best.epoch, "value": best.value, "step": best.step}


@contextmanager
def _told_in_status(run: RunFolder, sinks: Sinks, engine: Engine) -> Iterator[None]:
    """How a run ended stands in status.json; errors of torch that a user can do something about become regraft's."""
    try:
        yield
    except StoppedError as error:
        sinks.status("stopped", message=error.what)
        raise
    except (RuntimeError, MemoryError) as error:
        lost = engine.lost(error) if isinstance(error, RuntimeError) else None
        if lost is not None:
            _try_status(sinks, lost.what)
            raise lost from error
        if not is_out_of_memory(error):
            _try_status(sinks, f"{type(error).__name__}: {error}")
            raise
        _try_status(sinks, "out of memory")
        raise _out_of_memory(run) from error
    except (RegraftError, KeyboardInterrupt) as error:
        _try_status(sinks, str(error) or type(error).__name__)
        raise


def _try_status(sinks: Sinks, message: str) -> None:
    try:
        sinks.status("failed", message=message)
    except RegraftError:  # the disk is what failed: the first error tells
        logging.getLogger("regraft").debug("status.json could not be written")


def _out_of_memory(run: RunFolder) -> OutOfMemoryError:
    return OutOfMemoryError(
        f"There is not enough memory for a step of the run {str(run.path)!r}.",
        "Expected room for the activations of one batch.",
        "Type `--set data.batch_size=8`, a smaller `--image-size`, or a smaller `--model`.",
    )
