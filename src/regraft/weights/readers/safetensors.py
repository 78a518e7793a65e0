"""safetensors files, alone or sharded with an index.

The header is JSON and small, the tensors are a mapped window of the file. Everything is checked before anything is
believed: sizes, order, no overlap, no gap, nothing behind the last tensor.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.errors import WeightsError
from regraft.weights.file import SourceTensor, WeightFile
from regraft.weights.limits import check_shape, load_json, shown
from regraft.weights.readers.byte_range import SourceFile, open_source
from regraft.weights.readers.shards import read_shards

__all__ = ["FORMAT", "read", "sniff"]

FORMAT = "safetensors"

_MAX_HEADER_BYTES = 100_000_000
_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool", "U16": "uint16", "U32": "uint32", "U64": "uint64",
}  # fmt: skip
_INDEX_SUFFIX = ".safetensors.index.json"


def sniff(path: Path, head: bytes) -> bool:
    """Return whether it is a safetensors file, an index of shards, or a folder with one of them."""
    if path.is_dir():
        return _in_folder(path) is not None
    if path.name.endswith(_INDEX_SUFFIX):
        return True
    if len(head) < 9:
        return False
    (length,) = struct.unpack("<Q", head[:8])
    return head[8:9] == b"{" and (head[9:10] in b'"} \n\t' or path.suffix == ".safetensors") and 2 <= length < 2**63


def read(path: Path, *, key: str | None = None) -> WeightFile:
    """Read the header(s); the tensors are mapped when they are asked for.

    Raises:
        WeightsError: A damaged or hostile header, a missing shard, a name that two shards hold.
    """
    path = (_in_folder(path) or path) if path.is_dir() else path
    if key is not None:
        raise WeightsError(
            f"{str(path)!r} holds only one set of weights; there is no set {key!r} in it.",
            "a key belongs to files with several sets (PyTorch checkpoints)",
            "leave out the key",
        )
    if path.name.endswith(_INDEX_SUFFIX):
        tensors, shards = read_shards(path, lambda shard: _read_file(shard)[0])
        metadata: dict[str, Any] = {"shards": shards}
    else:
        tensors, metadata = _read_file(path)
    if not tensors:
        raise _damaged(path, "it holds no tensor")
    framework = metadata.get("format", "")
    return WeightFile(
        path=path,
        format=FORMAT,
        producer=framework if framework in ("pt", "tf", "flax", "np", "mlx") else "",
        tensors=tensors,
        # The writer sorts by dtype and name: the file's order says nothing about the layers.
        ordered=False,
        class_names=_class_names(metadata.get("class_names")),
        notes=(f"{len({*metadata.get('shards', ())})} shards",) if "shards" in metadata else (),
    )


def _class_names(text: Any) -> tuple[str, ...] | None:
    """Return the names that regraft writes into a model folder's weights: a JSON list; anything else is none."""
    try:
        names = load_json(text, "its list of class names") if isinstance(text, str) else None
    except ValueError:
        return None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names)


def _in_folder(folder: Path) -> Path | None:
    found = sorted(folder.glob("*" + _INDEX_SUFFIX)) or [
        path for path in [folder / "model.safetensors"] if path.is_file()
    ]
    return found[0] if len(found) == 1 else None


def _read_file(path: Path) -> tuple[dict[str, SourceTensor], dict[str, Any]]:
    source = open_source(path)
    size = source.size
    length = int(source.read(0, 8).view("<u8")[0]) if size >= 8 else -1
    if not 2 <= length <= min(_MAX_HEADER_BYTES, size - 8):
        raise _damaged(path, f"its header claims {length} bytes, the file has {size}")
    header = _parse_header(path, bytes(source.read(8, length).data))
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise _damaged(path, "its metadata is not a mapping")
    start = 8 + length
    entries = [_entry(path, name, value, size - start) for name, value in header.items()]
    _check_cover(path, entries, size - start)
    tensors = {
        name: SourceTensor(
            name=name,
            shape=shape,
            dtype=dtype,
            layer=name.rpartition(".")[0],
            load=_Window(source, start + begin, shape, dtype),
        )
        for name, dtype, shape, begin, _ in entries
    }
    return tensors, metadata


def _parse_header(path: Path, data: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) != len(pairs):
            raise ValueError("duplicate name in the header")
        return table

    try:
        header = load_json(data, "its header", pairs=unique)
    except ValueError as error:
        raise _damaged(path, f"its header is not readable ({error})") from error
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a mapping")
    return header


def _entry(path: Path, name: str, value: Any, num_data_bytes: int) -> tuple[str, str, tuple[int, ...], int, int]:
    try:
        shape = check_shape(value["shape"])
        begin, end = value["data_offsets"]
        dtype = _DTYPES[value["dtype"]]
        whole = all(type(number) is int and number >= 0 for number in (begin, end))
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f"the entry {shown(name)} cannot be understood ({error})") from error
    num_bytes = 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize
    for length in shape if whole else ():
        num_bytes *= length
    if not whole or end - begin != num_bytes or end > num_data_bytes:
        raise _damaged(
            path,
            f"the tensor {name!r} of shape {list(shape)} and dtype {dtype} cannot lie at bytes {begin} to {end} of "
            f"{num_data_bytes}",
        )
    return name, dtype, shape, begin, end


def _check_cover(path: Path, entries: list[tuple[str, str, tuple[int, ...], int, int]], num_bytes: int) -> None:
    position = 0
    for name, _, _, begin, end in sorted(entries, key=lambda entry: entry[3:]):
        if begin != position:
            raise _damaged(path, f"the tensor {name!r} overlaps another one, or leaves a gap")
        position = end
    if position != num_bytes:
        raise _damaged(path, f"{num_bytes - position} bytes after the last tensor belong to no tensor")


class _Window:
    """Loads one tensor: a mapped, read-only window of the file."""

    def __init__(self, source: SourceFile, start: int, shape: tuple[int, ...], dtype: str) -> None:
        self.source, self.start, self.shape, self.dtype = source, start, shape, dtype

    def __call__(self) -> NDArray[Any]:
        kind = np.dtype("<u2") if self.dtype == "bfloat16" else np.dtype(self.dtype).newbyteorder("<")
        num_values = int(np.prod(self.shape, dtype=np.int64))
        if num_values == 0:
            return np.zeros(self.shape, kind if self.dtype != "bfloat16" else np.float32)
        with self.source.mapped() as mapped:
            array: NDArray[Any] = np.frombuffer(mapped, kind, num_values, self.start).reshape(self.shape)
        return (array.astype(np.uint32) << 16).view(np.float32) if self.dtype == "bfloat16" else array


def _damaged(path: Path, why: str) -> WeightsError:
    return WeightsError(
        f"The safetensors file {str(path)!r} cannot be read: {why}.",
        "a whole file, as the safetensors library writes it",
        "copy or download the file again, and compare its size or checksum with the original",
    )
