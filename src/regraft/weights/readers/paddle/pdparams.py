"""PaddlePaddle's `.pdparams`: a pickle of NumPy arrays, with the name of the parameter beside each.

Convolutions lie as in torch, kernels of dense layers (inputs, outputs) the other way round. `paddle.save` of a state
dict puts the parameters' names (`linear_0.w_0`) into a table; nested in another dict, each tensor is a pair of name and
array. bfloat16 comes as uint16.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.weights.file import SourceTensor, WeightFile
from regraft.weights.readers.byte_range import SourceFile
from regraft.weights.readers.numpy.array_names import NamedArray
from regraft.weights.readers.numpy.numpy_pickle import Array, is_array
from regraft.weights.readers.numpy.pkl import is_pickle, read_pickle, refused
from regraft.weights.readers.pickle.weight_sets import Leaves, choose_set, collect

__all__ = ["FORMAT", "read", "sniff"]

FORMAT = "pdparams"
_NAMES = "StructuredToParameterName@@"
_SPLIT = "UnpackBigParamInfor@@"
_LOOKED_AT = 4 << 20  # the table of names is the last entry
_ROLES = {"_mean": "mean", "_variance": "variance"}


@dataclass(frozen=True)
class _Parameter:
    """One array, and what PaddlePaddle calls the parameter (empty where the file does not say)."""

    array: Array
    name: str = ""


def sniff(path: Path, head: bytes) -> bool:
    """Return whether it is a pickle with PaddlePaddle's table of names, or one that is called like its files."""
    if not path.is_file() or not is_pickle(head):
        return False
    if path.suffix == ".pdparams":
        return True
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - _LOOKED_AT))
        return _NAMES.encode() in stream.read(_LOOKED_AT)


def read(path: Path, *, key: str | None = None) -> WeightFile:
    """Read the arrays of a file of `paddle.save`.

    Raises:
        WeightsError: A pickle that calls something, a damaged or hostile file, no array, no such key.
    """
    root, source = read_pickle(path)
    parts = Leaves(str(path), lambda value: _parameter(value) is not None, lambda why: refused(source, why))
    chosen, notes = choose_set(root, key, parts)
    if isinstance(chosen, Mapping) and _SPLIT in chosen:
        raise refused(source, "its large arrays are split into parts; save it with `paddle.save(..., protocol=4)`")
    names = chosen.get(_NAMES) if isinstance(chosen, Mapping) else None
    found = {name: _named(value, name, names) for name, value in collect(chosen, parts).items()}
    if not found:
        raise refused(source, "it holds no array of numbers")
    return WeightFile(
        path=path,
        format=FORMAT,
        producer="paddlepaddle",
        tensors={name: _tensor(name, parameter, source) for name, parameter in found.items()},
        notes=tuple(notes),
    )


def _parameter(value: Any) -> _Parameter | None:
    if is_array(value):
        return _Parameter(value)
    is_pair = isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str) and is_array(value[1])
    return _Parameter(value[1], value[0]) if is_pair else None


def _named(value: Any, name: str, names: Any) -> _Parameter:
    given = names.get(name) if isinstance(names, Mapping) else None
    found = _parameter(value) or _Parameter(value)
    return _Parameter(found.array, given) if isinstance(given, str) else found


def _tensor(name: str, parameter: _Parameter, source: SourceFile) -> SourceTensor:
    array = parameter.array
    stored = NamedArray((name,), array.shape, array.dtype, array.values(source), array.fortran)
    is_half = array.dtype.kind == "u" and array.dtype.itemsize == 2
    layer, _, leaf = name.rpartition(".")
    role, axes = _ROLES.get(leaf), None
    if parameter.name.startswith("conv2d_transpose") and len(array.shape) == 4:
        role, axes = "transpose_kernel", "IOHW"
    elif leaf == "weight" and len(array.shape) == 2 and not parameter.name.startswith("embedding"):
        role, axes = "kernel", "IO"
    load: Callable[[], NDArray[Any]] = _widened(stored.load) if is_half else stored.load
    return SourceTensor(name, array.shape, "bfloat16" if is_half else array.dtype.name, layer, load, role, axes)


def _widened(load: Callable[[], NDArray[Any]]) -> Callable[[], NDArray[Any]]:
    return lambda: (load().astype(np.uint32) << np.uint32(16)).view(np.float32)
