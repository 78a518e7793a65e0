"""What a run is asked for, and whether it can be carried out: checked before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from regraft import commit
from regraft.compute.numerics import Numerics, choose_numerics, require_precision
from regraft.data.dataset import DataSet
from regraft.errors import SettingsError
from regraft.models.describe.info import preprocessing_of, settings_of
from regraft.models.describe.inputs import Normaliser
from regraft.models.describe.outputs import output_of
from regraft.plan.imbalance import adjusted_plan
from regraft.plan.make import Plan
from regraft.run.folder import RunFolder, create_run
from regraft.training.callbacks import Callback, Callbacks
from regraft.training.checkpoint.late import MOST_LATE
from regraft.training.checkpoint.records import plain
from regraft.training.checkpoint.state import checkpoint_bytes
from regraft.training.engine import Engine
from regraft.training.limits.stage_sizes import keep_room
from regraft.training.loggers.registry import require_loggers
from regraft.training.options import RunOptions
from regraft.training.preflight.compatibility import check_filled, check_fit

__all__ = ["Prepared", "ResumeRequest", "RunRequest", "prepare"]


@dataclass(frozen=True)
class ResumeRequest:
    """What a run is resumed with.

    Attributes:
        allow_change: Keys of settings that may differ from those of the run, such as `stages.1.lr`.
        stored: The run's own settings of `model`, `head` and `data`; None describes the model and the data given.
    """

    allow_change: Sequence[str] = ()
    stored: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class RunRequest:
    """A run as it is asked for.

    Attributes:
        model: An adapted model.
        plan: What trains in which stage.
        data: The images.
        options: How it is carried out.
        out: The run folder; None makes `runs/<data>-<n>`.
        callbacks: Whom to notify.
        show: Whether to write progress to stderr.
        resume: How to go on with the run that `out` holds; None begins a new one.
        chosen: What was chosen for the plan and why, a line each, for the log and the head of recipe.yaml.
    """

    model: nn.Module
    plan: Plan
    data: DataSet
    options: RunOptions
    out: str | Path | None = None
    callbacks: Sequence[Callback] = ()
    show: bool = True
    resume: ResumeRequest | None = None
    chosen: Sequence[str] = ()


@dataclass(frozen=True)
class Prepared:
    """A run that can be carried out.

    Attributes:
        request: What was asked for.
        model: The model, as this process trains it.
        run: The run folder; a new one is empty.
        engine: What computes, and which processes share the run.
        callbacks: Whom this process notifies.
        settings: The whole run as plain data, every `auto` resolved: what recipe.yaml holds.
        unfilled: Sentences on layers that stay frozen with random weights.
    """

    request: RunRequest
    model: nn.Module
    run: RunFolder
    engine: Engine
    callbacks: Callbacks
    settings: dict[str, Any]
    unfilled: Sequence[str]


def prepare(request: RunRequest) -> Prepared:
    """Check a run, choose what it computes with, and make its folder where it is a new one.

    Raises:
        SettingsError: Settings that do not fit together, an `out` that exists.
        WeightsError: A stage keeps layers frozen that weights were meant to fill and did not.
        DataError: Other classes than the model's.
        StorageError: The disk is full or read-only.
    """
    request = _with_adjustments(request)
    model, plan, data, options = request.model, request.plan, request.data, request.options
    check_fit(model, data, plan, options.monitor, options.batch_size)
    Normaliser(preprocessing_of(model))  # refuses channels that images do not have
    # A resumed run has its weights in its checkpoint.
    unfilled = [] if request.resume is not None else check_filled(model, plan)
    callbacks = Callbacks(request.callbacks)
    if request.resume is None:
        require_loggers(options.log)
    elif request.out is None:
        raise SettingsError("Nothing to resume was named.", "`out`, the run's folder", "pass `out`")
    numerics = options.numerics or choose_numerics()
    for stage in plan:
        require_precision(numerics.device, stage.precision or numerics.precision)
    keep_room(model, plan)
    engine = Engine(numerics)
    model = engine.synchronise_norms(model)
    run = _folder(request, engine)
    late = MOST_LATE if any(stage.soup for stage in plan) else 0
    engine.from_main(lambda: _require_space(run, checkpoint_bytes(model, plan.trainable, late)))
    settings = _settings(request, numerics)
    return Prepared(request, model, run, engine, callbacks if engine.is_main else Callbacks(), settings, unfilled)


def _with_adjustments(request: RunRequest) -> RunRequest:
    """Return the request with a number for each `logit_adjustment: auto`, by the images of each class."""
    data = request.data
    plan, lines = adjusted_plan(
        request.plan, output_of(request.model), np.asarray(data.train.labels), tuple(data.class_names)
    )
    return replace(request, plan=plan, chosen=(*request.chosen, *lines))


def _folder(request: RunRequest, engine: Engine) -> RunFolder:
    if request.resume is not None:
        return RunFolder(Path(str(request.out)))
    return engine.from_main(lambda: create_run(request.out, request.data.name))


def _require_space(run: RunFolder, num_bytes: int) -> None:
    """Require room for what the run has yet to write; what a resumed one holds already will be replaced."""
    held = sum(file.stat().st_size for file in run.checkpoints.rglob("*") if file.is_file())
    commit.require_space(run.path, max(num_bytes - held, 0))


def _settings(request: RunRequest, numerics: Numerics) -> dict[str, Any]:
    """Return the whole run as plain data.

    Stages, numerics and options are the settings that it goes by. The network and the data are those that the run's
    own recipe names; a new run's are described here, once.
    """
    options, stored = request.options, request.resume.stored if request.resume is not None else None
    if stored is None:
        stored = {**settings_of(request.model, seed=options.seed), "data": request.data.settings()}
    own = options.settings(numerics)
    data = {
        **stored["data"],
        "batch_size": options.batch_size,
        "preprocess": preprocessing_of(request.model).to_dict(),  # with room for the largest stage
        "cache": options.cache,
    }
    before = ("seed", "monitor", "mode")
    return plain(
        {
            "model": stored["model"],
            "head": stored["head"],
            "data": data,
            **{key: own.pop(key) for key in before},
            **request.plan.settings(),
            **own,
        }
    )
