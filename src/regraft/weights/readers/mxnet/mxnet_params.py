"""MXNet's `.params` (of Module, Gluon and `mx.nd.save`): a list of arrays, then their names.

Arrays lie as in torch. A symbol beside it (`net-symbol.json` for `net-0000.params`) is the file's own graph, and says
which batch normalisations keep their gamma at 1 (`fix_gamma`), whatever the file holds for it.
Source of the layout: `NDArray::Save` and `NDArray::Load` of MXNet (src/ndarray/ndarray.cc).
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.errors import WeightsError
from regraft.weights.file import SourceTensor, WeightFile
from regraft.weights.limits import budget, check_name, check_shape, shown
from regraft.weights.readers.byte_range import ByteRange, SourceFile, open_source
from regraft.weights.readers.mxnet.mxnet_symbol import Symbol, read_symbol
from regraft.weights.readers.spelling import refuse_key, split_word

__all__ = ["FORMAT", "read", "sniff"]

FORMAT = "mxnet_params"
_MAGIC = struct.pack("<2Q", 0x112, 0)
_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
_DTYPES = {
    0: "float32", 1: "float64", 2: "float16", 3: "uint8", 4: "int32", 5: "int8", 6: "int64", 7: "bool", 8: "int16",
    9: "uint16", 10: "uint32", 11: "uint64", 12: "bfloat16",
}  # fmt: skip
_ARRAY_BYTES = 600
_MIN_BYTES = 8  # of an array in the file
_EPOCH = re.compile(r"(?P<prefix>.+)-\d{4}\.params")


class _ParamsError(ValueError):
    """Bytes that are no list of arrays."""


@dataclass(frozen=True)
class _Array:
    """One array; no span when it is empty."""

    shape: tuple[int, ...]
    dtype: str
    span: ByteRange

    def load(self) -> NDArray[Any]:
        if self.dtype == "bfloat16":
            stored = self.span.array(np.dtype("<u2"), self.shape)
            return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return self.span.array(np.dtype(self.dtype).newbyteorder("<"), self.shape)


def sniff(path: Path, head: bytes) -> bool:
    """Return whether the first bytes are those of a list of MXNet's arrays."""
    return path.is_file() and head.startswith(_MAGIC)


def read(path: Path, *, key: str | None = None) -> WeightFile:
    """Read the table of contents of a file of arrays, and the symbol beside it.

    Raises:
        WeightsError: A damaged or hostile file, sparse arrays, arrays without names.
    """
    refuse_key(path, key)
    source = open_source(path)
    notes: list[str] = []
    try:
        with source.mapped() as view:
            arrays = _named(_Reader(view, source))
    except struct.error as error:
        raise _damaged(path, "it is truncated") from error
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    if not any(array.shape for array in arrays.values()):
        raise _damaged(path, "it holds no array with a name")
    found = _EPOCH.fullmatch(path.name)
    symbol = read_symbol(path.with_name(f"{found['prefix']}-symbol.json"), set(arrays)) if found else None
    if symbol is not None and symbol.fixed:
        notes.append(f"{len(symbol.fixed)} gammas are 1, as their symbol says (fix_gamma)")
    elif symbol is None and any(name.endswith("_gamma") for name in arrays):
        notes.append("without the symbol beside it, no gamma is known to be fixed at 1 (fix_gamma)")
    return WeightFile(
        path=path,
        format=FORMAT,
        producer="mxnet",
        tensors={name: _tensor(name, array, symbol) for name, array in arrays.items()},
        graph=symbol.graph if symbol is not None else None,
        notes=tuple(notes),
    )


class _Reader:
    """Reads numbers and arrays from front to back."""

    def __init__(self, view: memoryview, source: SourceFile) -> None:
        self.view, self.source, self.at = view, source, len(_MAGIC)

    def numbers(self, form: str) -> tuple[int, ...]:
        values = struct.unpack_from(f"<{form}", self.view, self.at)
        self.at += struct.calcsize(f"<{form}")
        return values

    def count(self, width: int) -> int:
        """Read how many items follow, each of some bytes at least."""
        (count,) = self.numbers("Q")
        if count * width > len(self.view) - self.at:
            raise _ParamsError(f"it declares {count} items and has {len(self.view) - self.at} bytes left")
        return count

    def array(self) -> _Array | None:
        """Read one array; None for an empty one."""
        budget().step(8)
        budget().hold(_ARRAY_BYTES)
        (magic,) = self.numbers("I")
        if magic in (_V2, _V3):
            (kind,) = self.numbers("i")
            if kind != 0:
                raise _ParamsError("it holds a sparse array")
        (rank,) = self.numbers("i") if magic in (_V1, _V2, _V3) else (magic,)
        if rank < 0 or (rank == 0 and magic != _V3):
            return None
        if rank > 32:
            raise _ParamsError(f"it holds an array of {rank} axes")
        shape = check_shape(list(self.numbers(f"{rank}{'q' if magic in (_V1, _V2, _V3) else 'I'}")))
        _, _, flag = self.numbers("3i")
        dtype = _DTYPES.get(flag)
        if dtype is None:
            raise _ParamsError(f"it holds an array of the unknown type {flag}")
        size = math.prod(shape) * (2 if dtype == "bfloat16" else np.dtype(dtype).itemsize)
        start = self.at
        if size > len(self.view) - start:
            raise _ParamsError(f"an array of shape {shape} needs {size} bytes, {len(self.view) - start} are left")
        self.at += size
        return _Array(shape, dtype, ByteRange(self.source, start, size))

    def text(self) -> str:
        budget().step()
        size = self.count(1)
        text = bytes(self.view[self.at : self.at + min(size, 1 << 16)])
        self.at += size
        try:
            name = text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _ParamsError("it holds a name that is not UTF-8") from error
        check_name(name)
        return name


def _named(reader: _Reader) -> dict[str, _Array]:
    arrays = [reader.array() for _ in range(reader.count(_MIN_BYTES))]
    names = [reader.text() for _ in range(reader.count(_MIN_BYTES))]
    if reader.at != len(reader.view):
        raise _ParamsError(f"{len(reader.view) - reader.at} bytes follow its names")
    if len(names) != len(arrays):
        raise _ParamsError(f"it holds {len(arrays)} arrays and {len(names)} names")
    found: dict[str, _Array] = {}
    for name, array in zip(names, arrays, strict=True):
        plain = name.removeprefix("arg:").removeprefix("aux:")
        if plain in found:
            raise _ParamsError(f"two arrays are named {shown(plain)}")
        if array is not None:
            found[plain] = array
    return found


def _tensor(name: str, array: _Array, symbol: Symbol | None) -> SourceTensor:
    layer, role = split_word(name)
    load: Callable[[], NDArray[Any]] = array.load
    if symbol is not None:
        role = symbol.roles.get(name, role)
        if name in symbol.fixed:
            load = _ones(array)
    return SourceTensor(name, array.shape, array.dtype, layer, load, role)


def _ones(array: _Array) -> Callable[[], NDArray[Any]]:
    return lambda: np.ones_like(array.load())


def _damaged(path: Path, why: str) -> WeightsError:
    return WeightsError(
        f"The MXNet file {str(path)!r} cannot be read: {why}.",
        "a whole file of `save_parameters`, `export` or `mx.nd.save` with named arrays",
        "copy or download the file again, and compare its size or checksum with the original",
    )
