"""`graft`: applies a match report to a model, all of it or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from regraft.errors import WeightsError, require_type
from regraft.models.describe.info import ModelInfo, info_of, is_under, set_info
from regraft.models.describe.trace import plain
from regraft.models.graft.adjust import adjust_layers, adjustments_of
from regraft.weights.axes import convert
from regraft.weights.report import Match, MatchReport
from regraft.wording import quantity

__all__ = ["graft"]

_NUMPY_OF = {torch.float64: np.float64, torch.int64: np.int64, torch.int32: np.int32, torch.bool: np.bool_}


def graft(
    model: nn.Module,
    report: MatchReport,
    *,
    require: str | None = "backbone",
    adjust: bool = False,
    allow_nonfinite: bool = False,
) -> nn.Module:
    """Put the matched values into the model, in place, and return the model.

    Too little is an error: a file for another network leaves the model as it was. Every tensor is read and converted
    before the first one is put in: where anything fails, the model stays byte for byte what it was. Parameters keep
    their identity, device, dtype and `requires_grad`.

    Args:
        model: The module that was matched.
        report: What `match_weights` decided.
        require: What the report must fill, as in `MatchReport.require`: `backbone` (everything up to the last feature
            map), `all`, or `any` (at least one tensor); None takes whatever it matched, be it nothing.
        adjust: Whether strides and epsilons that the report found to differ are changed to the file's.
        allow_nonfinite: Whether values that are NaN or infinite, or variances below 0, are let through.

    Raises:
        WeightsError: What is required is missing, of a wrong shape or ambiguous; a value that no weight can have, a
            file that changed, a model that is not the one matched.
    """
    require_type(model, nn.Module, "model", 'make one with `rg.build_model("resnet18")`')
    require_type(report, MatchReport, "report", "make one with `rg.match_weights(weights, model)`")
    if require is not None:
        report.require(require, adjust=adjust)
    tensors = dict(plain(model).state_dict(keep_vars=True))
    _check_same_model(tensors, report)
    staged: dict[str, torch.Tensor] = {}
    problems: list[str] = []
    for match in report.matched:
        array = _values(match, tensors[match.target])
        problem = None if allow_nonfinite else _problem(match, array)
        if problem:
            problems.append(problem)
        staged[match.target] = torch.from_numpy(array)
    if problems:
        raise WeightsError(
            f"{str(report.file)!r} holds values that cannot be weights, so none of it was put into the model.",
            "finite numbers, and variances that are not negative",
            "look for an earlier checkpoint: this one was saved after the training had diverged, or was damaged",
            details=problems,
        )
    with torch.no_grad():
        for name, values in staged.items():
            _put(tensors[name], values)
    info = info_of(model)
    info.origin = replace(
        info.origin,
        weights=str(report.file),
        match=report.to_dict(),
        match_options=dict(report.options),
        new_layers=_still_new(model, info, report),
    )
    if adjust and (changes := adjustments_of(report)):
        adjust_layers(plain(model), changes)
        info.args["adjusted"] = changes  # so that the network is built again as it is now
    set_info(model, info)
    return model


def _still_new(model: nn.Module, info: ModelInfo, report: MatchReport) -> tuple[str, ...]:
    """Return layers with random weights: those that were and that nothing filled, and norms that have seen no image
    yet.

    The latter were left out on request, as where the weights of VGG16 go into a VGG16 with batch normalisation.
    """
    filled = {match.target for match in report.matched}
    empty = [name for name in report.parts if name not in filled]
    before = [prefix for prefix in info.new_layers if any(is_under(name, (prefix,)) for name in empty)]
    left_out = dict.fromkeys(name.rpartition(".")[0] for name in report.dropped_targets)
    norms = [name for name in left_out if _is_fresh(plain(model).get_submodule(name))]
    return (*before, *(name for name in norms if not is_under(name, before)))


def _is_fresh(module: nn.Module) -> bool:
    """Return whether a norm's moving statistics are those that it was made with."""
    mean, variance = getattr(module, "running_mean", None), getattr(module, "running_var", None)
    if not isinstance(mean, torch.Tensor) or not isinstance(variance, torch.Tensor):
        return False
    return not bool(mean.any()) and bool((variance == 1).all())


def _check_same_model(tensors: Mapping[str, Any], report: MatchReport) -> None:
    strange = [match.target for match in report.matched if match.target not in tensors]
    if strange:
        raise WeightsError(
            f"The report matches {quantity(len(strange), 'tensor')} that the model does not have "
            f"({', '.join(strange[:4])}).",
            "the model that the report was made for",
            "match the file to this model: `match_weights(weights, model)`",
        )


def _values(match: Match, target: torch.Tensor) -> NDArray[Any]:
    dtype = _NUMPY_OF.get(target.dtype, np.float32)
    array = convert([source.load() for source in match.sources], match.steps, dtype)
    if array.shape != tuple(target.shape):
        raise WeightsError(
            f"{match.target} has the shape {tuple(target.shape)}, its match gives {array.shape}.",
            "the model that the report was made for",
            "match the file to this model: `match_weights(weights, model)`",
        )
    return array


def _problem(match: Match, array: NDArray[Any]) -> str | None:
    if array.dtype.kind != "f" or not array.size:
        return None
    with np.errstate(all="ignore"):
        total = float(np.add.reduce(array, axis=None))
    if not np.isfinite(total):
        num_bad = int(array.size - np.isfinite(array).sum())
        if num_bad:
            return (
                f"{match.target} <- {match.sources[0].name}: {quantity(num_bad, 'value is', 'values are')} NaN or "
                "infinite"
            )
    if match.target.endswith("running_var") and float(array.min()) < 0:
        return f"{match.target} <- {match.sources[0].name}: {int((array < 0).sum())} variances are negative"
    return None


def _put(target: torch.Tensor, values: torch.Tensor) -> None:
    same = target.device == values.device and target.dtype == values.dtype and target.is_contiguous()
    if same and target._base is None and target.untyped_storage().nbytes() == target.nbytes:
        target.data = values  # no second copy of the whole model
    else:
        target.copy_(values)
