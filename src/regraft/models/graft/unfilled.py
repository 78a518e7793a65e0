"""Which layers still hold the random weights that they were built with, because nothing has filled them."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from torch import nn

from regraft.models.describe.info import ModelInfo, info_of
from regraft.models.describe.trace import plain

__all__ = ["note_initial", "unfilled_layers", "was_given_weights"]

_FIRST_VALUES = 16  # of a kernel: enough to tell whether it was drawn or loaded


def note_initial(model: nn.Module, info: ModelInfo) -> None:
    """Note the first values of each kernel as they were drawn, so that it shows whether anything replaces them.

    Args:
        model: A network just built, with random weights.
        info: Its description, which keeps the note.
    """
    noted = {name: _first_values(parameter) for name, parameter in _kernels(model)}
    info.origin.initial = {name: values for name, values in noted.items() if len(set(values)) > 1}  # not constants


def unfilled_layers(model: nn.Module, names: Collection[str]) -> tuple[str, ...]:
    """Return layers that no weights file, no checkpoint and no `load_state_dict` has filled, as far as that can be
    known.

    Of a network that regraft built, they are those whose kernels are what they were when it was built. Of any other
    module, whose values may come from anywhere, they are those that its match report left empty, where the report
    filled none of these parameters.

    Args:
        model: The network.
        names: Full names of the parameters that are asked about.
    """
    info, current = info_of(model), dict(_kernels(plain(model)))
    initial = info.origin.initial
    if initial is None:
        return _layers(_left_by_match(info, names))
    return _layers(
        name for name in current if name in names and name in initial and _first_values(current[name]) == initial[name]
    )


def was_given_weights(model: nn.Module, layer: str) -> bool:
    """Return whether weights that should have filled this layer were put into the model: a match that did not leave
    it out.
    """
    origin = info_of(model).origin
    if origin.match is None:
        return origin.weights != "none"
    return not any(name.rpartition(".")[0] == layer for name in origin.match["dropped_targets"])


def _left_by_match(info: ModelInfo, names: Collection[str]) -> list[str]:
    match = info.origin.match
    if match is None or any(entry["target"] in names for entry in match["matched"]):
        return []
    left = {*match["missing"], *(entry["target"] for entry in match["wrong_shape"])}
    left.update(name for group in match["ambiguous"] for name in group["targets"])
    return [name for name in names if name in left]


def _kernels(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, value) for name, value in model.named_parameters() if value.ndim > 1 and not value.is_meta]


def _first_values(parameter: nn.Parameter) -> tuple[float, ...]:
    return tuple(parameter.detach().reshape(-1)[:_FIRST_VALUES].tolist())


def _layers(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.rpartition(".")[0] for name in names))
