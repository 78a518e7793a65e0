"""The pickles in `.npy` files: arrays, scalars and plain containers, nothing else.

The machine is that of `regraft.weights.readers.pickle.unpickle`; here are the names of NumPy that it may build
something for. Plain containers apart, any other name is an error. Array bytes are not copied: an array remembers where
in the file they are.
Source: `array_reduce` and `array_setstate` of NumPy.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from regraft.weights.limits import budget, check_shape, shown
from regraft.weights.readers.byte_range import ByteRange, SourceFile
from regraft.weights.readers.pickle.pickled import OBJECT_BYTES
from regraft.weights.readers.pickle.unpickle import Global, PickleError, Raw, Stub, Words
from regraft.weights.readers.pickle.unpickle import unpickle as unpickle_one

__all__ = ["Array", "PickleError", "Scalar", "fill", "is_array", "lenient_calls", "plain_dtype", "unpickle"]

_CODE = re.compile(r"[<>|=]?([fiubcOSUV?]\d{0,9}|[mM]8(\[\w{1,4}\])?)")


@dataclass
class _Type:
    """A NumPy dtype under construction."""

    dtype: np.dtype[Any]


@dataclass
class Array:
    """An array: its numbers as a byte range of the file (or bytes), or its objects."""

    shape: tuple[int, ...] = ()
    dtype: np.dtype[Any] = np.dtype("O")  # noqa: RUF009 -- dtypes are immutable
    fortran: bool = False
    data: Raw | bytes | None = None
    items: list[Any] | None = None

    def values(self, source: SourceFile, start: int = 0) -> ByteRange | bytes:
        """Return the byte range of the numbers in the file, or the bytes themselves (of small or text-mode pickles).

        Args:
            source: The file.
            start: Where in it the bytes begin that the pickle was read from.
        """
        if isinstance(self.data, Raw):
            return ByteRange(source, start + self.data.start, self.data.size)
        return self.data or b""


class Scalar(Array):
    """A NumPy scalar: an array of no axes."""


def unpickle(view: memoryview, start: int) -> Any:
    """Read the one pickle that begins at `start` and ends the file.

    Raises:
        PickleError: It is damaged, or wants anything but arrays and plain containers.
    """
    content, end = unpickle_one(view, start, words=_WORDS)
    if end != len(view):
        raise PickleError(f"{len(view) - end} bytes follow its pickle")
    return content


def is_array(value: Any) -> bool:
    """Return whether it is an array of numbers, and no scalar."""
    return type(value) is Array and value.data is not None and value.dtype.kind in "fiub"


def lenient_calls() -> dict[str, Any]:
    """Return the calls that make arrays, for files that hold more than arrays: what is none becomes a stub."""
    return {name: _lenient(name, call) for name, call in _CALLS.items()}


def _lenient(name: str, call: Any) -> Any:
    def make(*args: Any) -> Any:
        budget().hold(OBJECT_BYTES)
        try:
            return call(*args)
        except (PickleError, TypeError):
            return Stub(name, args)

    return make


def fill(target: Any, state: Any) -> bool:
    """Do what `__setstate__` of dtypes and arrays does, where it is one of numbers; False for anything else."""
    try:
        return _fill(target, state)
    except PickleError:
        return True  # an array of records: stays empty, which no tensor is


def _array(cls: Any, *_: Any) -> Array:
    if cls != Global("numpy.ndarray"):
        raise PickleError("its pickle builds an array in a way that NumPy does not: refused")
    return Array()


def _dtype(code: Any, *_: Any) -> _Type:
    dtype = plain_dtype(code.decode("latin1") if isinstance(code, bytes) else code)
    if dtype.kind not in "fiubOSU":
        raise PickleError(f"its pickle holds the dtype {dtype}, which is not numeric")
    return _Type(dtype)


def plain_dtype(code: Any) -> np.dtype[Any]:
    """Return the dtype that a short code stands for (`<f4`, `U8`); NumPy's own parser of dtypes knows a language of its
    own.

    Raises:
        PickleError: It is none of numbers, texts, dates or objects.
    """
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        raise PickleError(f"it holds the unknown dtype {shown(code)}")
    try:
        return np.dtype(code)
    except (TypeError, ValueError) as error:
        raise PickleError(f"it holds the unknown dtype {code!r}") from error


def _scalar(of: Any, data: Any = b"") -> Array:
    return _filled(Scalar(), (), _kind(of), False, data)


def _buffer(data: Any, of: Any, shape: Any, order: Any) -> Array:
    return _filled(Array(), shape, _kind(of), order == "F", data)


def _kind(of: Any) -> np.dtype[Any]:
    if not isinstance(of, _Type):
        raise PickleError("its pickle holds an array without a dtype")
    return of.dtype


def _fill(target: Any, state: Any) -> bool:
    """Do what `__setstate__` of dtypes and arrays does."""
    if isinstance(target, _Type) and isinstance(state, tuple) and len(state) >= 3:
        target.dtype = _ordered(target.dtype, state)
    elif isinstance(target, Array) and isinstance(state, tuple) and len(state) == 5:
        _, shape, of, fortran, data = state
        _filled(target, shape, _kind(of), fortran is True or fortran == 1, data)
    else:
        return False
    return True


def _ordered(dtype: np.dtype[Any], state: tuple[Any, ...]) -> np.dtype[Any]:
    order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
    if order not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
        raise PickleError("its pickle holds a dtype with fields")
    if order == ">":
        return dtype.newbyteorder(">")
    return dtype.newbyteorder("<") if order == "<" else dtype


def _filled(array: Array, shape: Any, dtype: np.dtype[Any], fortran: bool, data: Any) -> Array:
    if not isinstance(shape, tuple):
        raise PickleError("its pickle holds an array without a shape")
    count = math.prod(check_shape(shape))
    if array.data is not None or array.items is not None:
        raise PickleError("its pickle fills an array twice")
    array.shape, array.dtype, array.fortran = shape, dtype, fortran
    if dtype.kind == "O":
        if not isinstance(data, list) or len(data) != count:
            raise PickleError("its pickle holds an array of objects whose length differs from its shape")
        array.items = data
        return array
    if isinstance(data, str):  # Python 2's strings are bytes
        data = data.encode("latin1")
    size = data.size if isinstance(data, Raw) else len(data) if isinstance(data, bytes) else -1
    if size != count * dtype.itemsize:
        raise PickleError(f"its pickle declares an array of {shown(count)} values and holds {size} bytes")
    array.data = data
    return array


_CALLS = {
    f"{module}.{name}": call
    for call, modules, name in (
        (_array, ("numpy.core.multiarray", "numpy._core.multiarray"), "_reconstruct"),
        (_scalar, ("numpy.core.multiarray", "numpy._core.multiarray"), "scalar"),
        (_buffer, ("numpy.core.numeric", "numpy._core.numeric"), "_frombuffer"),
        (_dtype, ("numpy",), "dtype"),
    )
    for module in modules
}
_WORDS = Words(calls=_CALLS, fill=_fill, names=frozenset([*_CALLS, "numpy.ndarray"]))
