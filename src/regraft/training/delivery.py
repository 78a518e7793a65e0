"""The end of a run: the model folder, the final status, and why this network was chosen."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from regraft import commit
from regraft.data.dataset import DataSet
from regraft.evaluation.probes import NUM_PROBES, make_probes
from regraft.evaluation.rounding import measure_rounding
from regraft.evaluation.tasks import main_of, told
from regraft.models.describe.info import info_of, preprocessing_of
from regraft.models.describe.inputs import Normaliser
from regraft.models.store.folder import write_model
from regraft.run.invocation import typed_path
from regraft.run.records import CANDIDATES, network_name, read_metrics
from regraft.training.checkpoint.state import Best, Progress
from regraft.training.limits.stage_sizes import take_size
from regraft.training.loop.choice import better_epoch, lead_of
from regraft.training.loop.session import Session
from regraft.training.trust.validated import know_itself
from regraft.wording import quantity

__all__ = ["publish"]


def publish(session: Session, best: Best, settings: Mapping[str, Any], data: DataSet) -> None:
    """Write the model folder of a run that has trained, and say what it holds.

    Args:
        session: A run at its end; its model has the weights of the best epoch.
        best: That epoch.
        settings: The whole run as plain data.
        data: The images that it was given.

    Raises:
        StorageError: The disk is full or read-only.
    """
    model, run, sinks = session.model, session.run_folder, session.sinks
    if session.engine.is_main:
        take_size(model, next(stage.size for stage in session.plan if stage.name == best.stage))
        _write_model(session, best, settings, data)
        commit.remove_file(run.architecture)  # model/ says it from here on
    session.callbacks.tell("on_run_end", session)
    session.checkpoints.raise_failure()
    epoch = {"stage": best.stage, "epoch": best.epoch, "value": best.value, "step": best.step}
    epoch |= {key: value for key in ("share", "soup") if (value := best.to_dict().get(key)) is not None}
    chosen = {**epoch, "monitor": session.monitor, "mode": session.mode}
    sinks.status("finished", step=session.progress.step, best=chosen, **_rounding(session))
    for line in _account(session, best):
        sinks.line(line)


def _write_model(session: Session, best: Best, settings: Mapping[str, Any], data: DataSet) -> None:
    info = info_of(session.model)
    info.thresholds, info.calibration, info.trust = dict(best.thresholds), None, None
    info.colours = None if data.class_table is None else data.class_table.colours
    model = session.model.cpu().to(memory_format=torch.contiguous_format).eval()
    preprocessing = preprocessing_of(model)
    val = session.pixels["val"].sized(preprocessing.pixels.size)
    images = np.stack([val.row(row) for row in range(min(NUM_PROBES, len(val)))])
    probes = make_probes(model, images, Normaliser(preprocessing))
    know_itself(session, model)
    commit.remove_file(session.run_folder.evidence)
    facts = {
        "training data": f"{data.name}, {quantity(len(session.labels['train']), 'image')}",
        f"best {session.monitor} (validation, also used for selection)": f"{best.value:.4f}",
        "stages": ", ".join(stage["name"] for stage in settings["stages"]),
    }
    write_model(session.run_folder.model, model, probes=probes, facts=facts)


def _rounding(session: Session) -> dict[str, Any]:
    """Return the number of validation predictions that change in an inference precision below fp32, for status.json."""
    numerics = session.engine.numerics
    if numerics.inference == "fp32" or not session.engine.is_main:
        return {}
    rounding = measure_rounding(session.model, session.pixels["val"].paths, numerics)
    session.sinks.line(str(rounding))
    return {"rounding": rounding.to_dict()}


def _account(session: Session, best: Best) -> Iterator[str]:
    """Yield lines for people: the model, by how much the next best lost, and how to take the last stage's instead.

    Args:
        session: A run at its end.
        best: The epoch whose network was chosen.
    """
    run, progress, monitor, mode = session.run_folder, session.progress, session.monitor, session.mode
    yield f"model written to {run.model} (best: {network_name(best.to_dict())}, {monitor} {best.value:.4f})"
    records = [record for record in read_metrics(run.metrics) if record.get("kind") in ("epoch", *CANDIDATES)]
    second = _second(progress, best, records, monitor, mode)
    if second is not None:
        names = [stage.name for stage in session.plan]
        is_later = names.index(second.stage) > names.index(best.stage)
        yield f"chosen by {monitor}; next best: {_against(best, second, mode, is_later=is_later)}"
    last = next((other for other in progress.bests if other.stage == session.plan.stages[-1].name), None)
    if last is not None and last.stage != best.stage:
        yield (
            f"delivered is stage {best.stage} ({_figures(best, records, monitor)}), not the last stage {last.stage} "
            f"({_figures(last, records, monitor)}); to take that one: "
            f"`regraft predict {typed_path(session.run_folder.path)} IMAGES --checkpoint {shlex.quote(last.stage)}`"
        )


def _second(
    progress: Progress, best: Best, records: Sequence[Mapping[str, Any]], monitor: str, mode: str
) -> Best | None:
    """Return an epoch of the same stage with a better value; else the best of another stage, or the second-best
    epoch.
    """
    lowest = progress.lowest
    if lowest is not None and lowest.stage == best.stage and lowest.epoch != best.epoch:
        return lowest
    others = [other for other in progress.bests if other.stage != best.stage]
    if not others:
        others = [
            Best(
                *(best.step, best.stage, int(record["epoch"]), float(record[monitor])),
                share=record.get("share"),
                soup=record.get("soup", []),
            )
            for record in records
            if record.get(monitor) is not None and _place(record) != _place(best.to_dict())
        ]
    second: Best | None = None
    for other in others:
        second = better_epoch(second, other, mode)
    return second


def _against(best: Best, second: Best, mode: str, *, is_later: bool) -> str:
    """Return the figures of a network that was not chosen beside those of the one that was.

    Args:
        best: The one that was.
        second: The other.
        mode: `min` or `max`.
        is_later: Whether the other one is of a later stage.
    """
    lead = second.value - best.value if mode == "min" else best.value - second.value
    text = f"{network_name(second.to_dict())}, {second.value:.4f}, {_behind(lead)}"
    known = lead_of(best, second)
    if known is None:
        return text
    text += f" (95 % interval over the validation images: {known.low:+.4f} to {known.high:+.4f})"
    if is_later and lead <= 0:
        return f"{text}, by less than a standard error of so few images, so the earlier one is kept"
    return text if lead > 0 else f"{text}, within their noise, so the later one is taken"


def _behind(lead: float) -> str:
    return f"{lead:.4f} behind" if lead >= 0 else f"{-lead:.4f} ahead"


def _place(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what tells a network of the run from all others."""
    return tuple(record.get(key) for key in ("stage", "epoch", "share", "soup"))


def _figures(epoch: Best, records: Sequence[Mapping[str, Any]], monitor: str) -> str:
    """Return the monitored value of an epoch, and its main metric where that is another, as text."""
    record = next((record for record in records if _place(record) == _place(epoch.to_dict())), {})
    main = main_of(record)
    beside = "" if main in (None, monitor) else f", {main} {told(str(main), record[str(main)])}"
    return f"{monitor} {epoch.value:.4f}{beside}"
