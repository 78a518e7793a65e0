"""Keras tensors as `SourceTensor`s: axes, and the two old layouts that need care.

Keras 1 kept convolution kernels as OIHW ("th" ordering) or HWIO ("tf"), and does not say which. Theano computes true
convolutions: a kernel that was saved under it is turned by 180 degrees against every other framework's.
Source: `preprocess_weights_for_loading` and `_need_convert_kernel` in keras/engine/saving.py of Keras 2.3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.weights.file import SourceTensor
from regraft.weights.readers.keras.keras_layers import axes_of
from regraft.weights.readers.keras.keras_names import Named

__all__ = ["source_tensors"]

_MAX_WINDOW = 11


def source_tensors(
    named: Sequence[Named], *, keras_1: bool, backend: str | None
) -> tuple[dict[str, SourceTensor], list[str]]:
    """Return tensors by their path in the file, and notes on the layout.

    Args:
        named: The tensors with layer and role.
        keras_1: Whether the file is of Keras 1 or older (no version in it).
        backend: The backend that wrote it, if the file says so.
    """
    notes: list[str] = []
    conv_axes: str | None = "HWIO"
    if keras_1:
        conv_axes, notes = _keras_1_axes(named)
    turned = not keras_1 and backend == "theano"
    if turned:
        notes.append("Written under Theano, which rotates kernels by 180 degrees: they are rotated back when read.")
    return {one.stored.path: _tensor(one, conv_axes, turned=turned) for one in named}, notes


def _tensor(one: Named, conv_axes: str | None, *, turned: bool) -> SourceTensor:
    array = one.stored.array
    is_conv = one.role in ("kernel", "transpose_kernel") and len(array.shape) > 2
    axes = axes_of(one.role, array.shape)
    if one.role == "kernel" and len(array.shape) == 4:
        axes = conv_axes
    load = _turned(array.load, len(array.shape) - 2) if turned and is_conv else array.load
    return SourceTensor(one.stored.path, array.shape, array.dtype, one.layer, load, one.role, axes)


def _turned(load: Callable[[], NDArray[Any]], num_axes: int) -> Callable[[], NDArray[Any]]:
    return lambda: np.ascontiguousarray(np.flip(load(), axis=tuple(range(num_axes))))


def _keras_1_axes(named: Sequence[Named]) -> tuple[str | None, list[str]]:
    biases = {one.layer: one.stored.array.shape for one in named if one.role == "bias"}
    votes = {
        _layout(one.stored.array.shape, biases.get(one.layer))
        for one in named
        if one.role == "kernel" and len(one.stored.array.shape) == 4
    } - {None}
    if votes == {"OIHW"}:
        return "OIHW", [
            "Keras 1 with Theano-ordered kernels (OIHW). If it also ran on Theano, its kernels are turned by 180 "
            "degrees, and the file does not say so."
        ]
    if votes == {"HWIO"}:
        return "HWIO", []
    has_convs = any(one.role == "kernel" and len(one.stored.array.shape) == 4 for one in named)
    return None, ["Keras 1, and the shapes do not tell whether its kernels are OIHW or HWIO."] if has_convs else []


def _layout(shape: tuple[int, ...], bias: tuple[int, ...] | None) -> str | None:
    outer, inner = (shape[0], shape[3]) if bias is None else (shape[0] == bias[0], shape[3] == bias[0])
    if bias is not None and outer != inner:
        return "OIHW" if outer else "HWIO"
    first, last = max(shape[:2]) <= _MAX_WINDOW, max(shape[2:]) <= _MAX_WINDOW
    if first == last:
        return None
    return "HWIO" if first else "OIHW"
