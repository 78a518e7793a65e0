"""`train`: a model, a plan and a data set in; a run folder with a model that predicts out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from torch import nn

from regraft.data.dataset import DataSet
from regraft.errors import SettingsError, nearest, require_type
from regraft.plan.make import Plan
from regraft.run.folder import RunFolder
from regraft.training.callbacks import Callback
from regraft.training.delivery import publish
from regraft.training.loop.loop import run_stages
from regraft.training.open_session import open_session
from regraft.training.options import RunKeywords, RunOptions
from regraft.training.prepare import ResumeRequest, RunRequest, prepare
from regraft.training.trust.kept import EvidenceKeeper

__all__ = ["carry_out", "train"]


def train(
    model: nn.Module,
    plan: Plan,
    data: DataSet,
    *,
    out: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    show: bool = True,
    resume: bool = False,
    allow_change: Sequence[str] = (),
    **options: Unpack[RunKeywords],
) -> RunFolder:
    """Train a model by a plan; every epoch is saved, and a run that is stopped can be resumed bit-exactly.

    Args:
        model: An adapted model (`rg.adapt`): it has class names and preprocessing. A copy of it is not made.
        plan: What trains in which stage (`rg.make_plan`).
        data: The images (`rg.open_data`); its class names are the model's, in any order of folders.
        out: The run folder; None makes `runs/<data>-<n>`.
        callbacks: Callbacks to notify (`rg.Callback`).
        show: Whether to write progress to stderr.
        resume: Go on with the run that `out` holds.
        allow_change: Keys of settings that may differ from those of the run that is resumed, such as `stages.1.lr`.
        **options: `seed` (0), of order, augmentation and dropout, each a function of it.

            `batch_size` (32): images a step, where a stage does not say.

            `monitor`: the metric of an epoch that selects the best. The default, val_calibrated_loss, is the validation
            loss at the best temperature, which compares epochs whatever their stages minimised; val_loss, train_loss,
            or another that the model's output gives: val_top1, val_auc, val_map ...
            (`regraft.models.describe.outputs.monitors`). `mode`, `min` or `max`, is known from the metric's name.

            `numerics`: device, precision, layout, threads; None chooses for this machine.

            `save_steps`: save after every so many steps too.

            `cache`: where decoded pixels are kept: `ram`, `disk`, `off`, or `auto` by what there is. The result is the
            same.

            `feature_cache`: `auto` computes what the frozen part makes of an unchanging image once and keeps it, where
            there is room; `off` computes it again for each batch; both end in the same bits. A number K cycles through
            K views of each augmented image and keeps those: the same bits from K = epochs on.

            `log`: loggers by name: `tensorboard`, or a tracker that accelerate knows (`wandb`, `mlflow`, ...). One that
            fails is named, and the run goes on without it.

    Raises:
        SettingsError: Settings that do not fit together, an `out` that exists, a resumed run with other settings.
        WeightsError: A stage keeps layers frozen that weights were meant to fill and did not.
        DataError: Too few readable images, other classes than the model's.
        DivergedError: A loss or a gradient is not finite; the last good state is saved.
        StorageError: The disk is full or read-only.
        StoppedError: Ctrl-C, SIGTERM or SIGHUP; the state is saved.
    """
    unknown = [name for name in options if name not in RunOptions.__dataclass_fields__]
    if unknown:
        near = nearest(unknown[0], [*RunOptions.__dataclass_fields__, "out", "callbacks", "show", "resume"])
        raise SettingsError(f"`train` has no option {unknown[0]!r}{f'; did you mean {near}?' if near else '.'}")
    resumed = ResumeRequest(allow_change) if resume else None
    return carry_out(RunRequest(model, plan, data, RunOptions(**options), out, callbacks, show, resumed))


def carry_out(request: RunRequest) -> RunFolder:
    """Carry out a run as it is asked for; raises what `train` does."""
    require_type(request.model, nn.Module, "model", 'make one with `rg.build_model("resnet18")` and `rg.adapt`')
    require_type(request.plan, Plan, "plan", "make one with `rg.make_plan(model, [rg.Stage(...)])`")
    require_type(request.data, DataSet, "data", 'open it with `rg.open_data("DATA")`')
    prepared = prepare(replace(request, callbacks=(EvidenceKeeper(), *request.callbacks)))
    with open_session(prepared) as session:
        best = run_stages(session)
        publish(session, best, prepared.settings, request.data)
    return prepared.run
