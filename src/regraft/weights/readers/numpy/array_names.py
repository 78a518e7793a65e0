"""Named NumPy arrays (`.npy` dicts, `.npz`) as tensors: layer, role and axes from names, shapes and biases.

These formats fix no layout. It is given where the file proves it: the length of a layer's bias is the number of its
outputs, so it tells whether a kernel has them last (HWIO, IO: TensorFlow and its converters) or first (OIHW, OI).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from regraft.weights.file import SourceTensor
from regraft.weights.readers.keras.keras_layers import axes_of
from regraft.weights.readers.spelling import role_of, split_word

__all__ = ["NameClashError", "NamedArray", "Values", "named_tensors"]

_OUTPUTS_FIRST = {4: "OIHW", 2: "OI"}
_CHANNELS = ("bias", "gamma", "beta", "mean", "variance")


class Values(Protocol):
    """Where an array's bytes are."""

    def array(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]: ...


class NameClashError(ValueError):
    """Two arrays of one name; readers turn it into a `WeightsError` that names the file."""


@dataclass(frozen=True)
class NamedArray:
    """One array of a file: the path of its keys, what it declares, where its bytes are."""

    path: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    values: Values | bytes
    fortran: bool = False

    @property
    def name(self) -> str:
        return "/".join(self.path)

    def load(self) -> NDArray[Any]:
        """Return the values, in C order and the machine's byte order."""
        shape = self.shape[::-1] if self.fortran else self.shape
        if isinstance(self.values, bytes):
            loaded = np.frombuffer(self.values, self.dtype).reshape(shape).astype(self.dtype.newbyteorder("="))
        else:
            loaded = self.values.array(self.dtype, shape)
        return np.ascontiguousarray(loaded.T) if self.fortran and loaded.ndim > 1 else loaded


@dataclass(frozen=True)
class _Place:
    layer: str
    role: str | None


def named_tensors(arrays: Sequence[NamedArray]) -> tuple[dict[str, SourceTensor], list[str]]:
    """Return the arrays as tensors by name, and notes on their layout.

    Args:
        arrays: All arrays of the file.

    Raises:
        NameClashError: Two arrays have one name.
    """
    lists = _list_layers(arrays)
    places = {array.name: _place(array, lists) for array in arrays}
    if len(places) != len(arrays):
        raise NameClashError("two of its arrays have the same name")
    places = _as_norms(arrays, places)
    outputs_first, notes = _outputs_first(arrays, places)
    tensors = {
        array.name: SourceTensor(
            array.name,
            array.shape,
            array.dtype.name,
            places[array.name].layer,
            _loader(array),
            places[array.name].role,
            _axes(array.shape, places[array.name].role, outputs_first),
        )
        for array in arrays
    }
    return tensors, notes


def _loader(array: NamedArray) -> Callable[[], NDArray[Any]]:
    return array.load


def _list_layers(arrays: Sequence[NamedArray]) -> dict[tuple[str, ...], list[NamedArray]]:
    """Read layers that are lists: [weights, biases]."""
    lists: dict[tuple[str, ...], list[NamedArray]] = {}
    for array in arrays:
        if len(array.path) > 1 and array.path[-1].isdecimal():
            lists.setdefault(array.path[:-1], []).append(array)
    return lists


def _place(array: NamedArray, lists: dict[tuple[str, ...], list[NamedArray]]) -> _Place:
    members = lists.get(array.path[:-1])
    if members and array.path[-1].isdecimal():
        return _Place("/".join(array.path[:-1]), _list_role(array, members))
    if len(array.path) > 1 and role_of(array.path[-1]):
        return _Place("/".join(array.path[:-1]), role_of(array.path[-1]))
    layer, role = split_word(array.name)
    return _Place(layer, role)


def _list_role(array: NamedArray, members: list[NamedArray]) -> str | None:
    first, rest = members[0], members[1:]
    is_layer = len(first.shape) >= 2 and len(rest) <= 1 and all(_fits(first.shape, other.shape) for other in rest)
    if not is_layer:
        return None
    return "kernel" if array is first else "bias"


def _fits(kernel: tuple[int, ...], bias: tuple[int, ...]) -> bool:
    return len(bias) == 1 and bias[0] in (kernel[0], kernel[-1])


def _as_norms(arrays: Sequence[NamedArray], places: dict[str, _Place]) -> dict[str, _Place]:
    """Return the places with the roles of batch norms: in a layer with statistics, gamma and beta."""
    norms = {place.layer for place in places.values() if place.role in ("mean", "variance")}
    renamed = {"kernel": "gamma", "bias": "beta"}
    return {
        array.name: _Place(place.layer, renamed[place.role])
        if place.layer in norms and place.role in renamed and len(array.shape) == 1
        else place
        for array in arrays
        for place in (places[array.name],)
    }


def _outputs_first(arrays: Sequence[NamedArray], places: dict[str, _Place]) -> tuple[bool | None, list[str]]:
    """Return whether kernels have their outputs first, as the biases of the file prove; None when they do not."""
    biases = {
        places[array.name].layer: array.shape[0]
        for array in arrays
        if places[array.name].role == "bias" and len(array.shape) == 1
    }
    votes = set()
    for array in arrays:
        place = places[array.name]
        if place.role == "kernel" and len(array.shape) in _OUTPUTS_FIRST and place.layer in biases:
            first, last = (array.shape[end] == biases[place.layer] for end in (0, -1))
            if first != last:
                votes.add(first)
    if len(votes) == 2:
        return None, ["Some kernels have their outputs first, others last: no layout is assumed."]
    return (votes.pop(), []) if votes else (None, [])


def _axes(shape: tuple[int, ...], role: str | None, outputs_first: bool | None) -> str | None:
    if role in _CHANNELS:
        return axes_of(role, shape)
    if role == "kernel" and outputs_first:
        return _OUTPUTS_FIRST.get(len(shape))
    return axes_of(role, shape) if outputs_first is False else None
