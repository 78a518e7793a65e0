"""The two containers of torch.save: pickles with storages beside them, in a zip or in one stream.

Members of the zip must be stored, not compressed: torch writes them so, and then no file can unfold into more memory
than its own size. Storages stay on the disk until a tensor is asked for.
"""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.errors import WeightsError
from regraft.weights.limits import budget, shown
from regraft.weights.readers.archive import Archive, open_archive
from regraft.weights.readers.byte_range import SourceFile
from regraft.weights.readers.pickle.unpickle import Global, PickleError, RefusedCallError, Words, unpickle

__all__ = ["Content", "Storage", "damaged", "in_words", "read_legacy", "read_zip"]

Fill = Callable[[Any, Any], bool]

_MAX_ITEMS = 2**56
_STORAGE_BYTES = 600  # what a storage takes in memory
_ITEM_SIZES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "int16": 2, "int8": 1,
    "uint8": 1, "bool": 1, "complex64": 8, "complex128": 16, "uint16": 2, "uint32": 4, "uint64": 8,
}  # fmt: skip
_STORAGE_DTYPES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool", "UntypedStorage": "uint8", "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}  # fmt: skip


@dataclass
class Content:
    """The unpickled root of a file, who wrote it, and where its pickle begins."""

    root: Any
    producer: str
    pickle_start: int = 0


@dataclass(eq=False)
class Storage:
    """A run of numbers in the file; where it starts may become known only after the pickle was read.

    Attributes:
        source: The file.
        dtype: Its dtype's name.
        num_items: How many numbers it holds.
        start: Its first byte in the file.
        big_endian: Whether its bytes are in big-endian order.
        crc: Its CRC-32 as the zip states it, checked once when it is first read, or None.
    """

    source: SourceFile
    dtype: str
    num_items: int
    start: int | None = None
    big_endian: bool = False
    crc: int | None = None
    _bytes: NDArray[np.uint8] | None = field(default=None, repr=False)

    @property
    def num_bytes(self) -> int:
        return self.num_items * _ITEM_SIZES[self.dtype]

    def check_window(self, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: str) -> None:
        """Refuse a tensor that reaches outside its storage, or that is larger than it (a stride of 0)."""
        if dtype not in _ITEM_SIZES:
            raise PickleError(f"it holds the dtype {shown(dtype)}, which is not numeric")
        if len(shape) != len(strides) or offset < 0 or min((*shape, *strides, 0)) < 0:
            raise PickleError(f"it holds a tensor of shape {shape} with strides {strides} at offset {shown(offset)}")
        itemsize = _ITEM_SIZES[dtype]
        num_values = 1
        for length in shape:
            num_values *= length
        reach = offset + 1 + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
        if num_values and max(reach, num_values) * itemsize > self.num_bytes:
            raise PickleError(
                f"a tensor of shape {shape} and strides {strides} needs {shown(max(reach, num_values) * itemsize)} "
                f"bytes, its storage holds {self.num_bytes}"
            )

    def window(self, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """Return the numbers of one tensor, mapped from the file where its layout allows it (read-only)."""
        raw = self._map()
        kind = np.dtype("uint16" if dtype == "bfloat16" else dtype).newbyteorder(">" if self.big_endian else "<")
        flat = raw[: raw.size // kind.itemsize * kind.itemsize].view(kind)[offset:]
        if 0 in shape:
            return np.zeros(shape, kind.newbyteorder("="))
        steps = tuple(stride * kind.itemsize for stride in strides)
        array: NDArray[Any] = np.lib.stride_tricks.as_strided(flat, shape, steps, writeable=False)
        if dtype == "bfloat16":
            return (array.astype(np.uint32) << 16).view(np.float32)
        if kind.byteorder != "|" and kind != kind.newbyteorder("="):
            return array.astype(kind.newbyteorder("="))
        return array

    def _map(self) -> NDArray[np.uint8]:
        if self._bytes is not None:
            return self._bytes
        if self.start is None:
            raise damaged(str(self.source.path), "a tensor refers to a storage that the file does not hold")
        with self.source.mapped() as mapped:
            if self.start + self.num_bytes > len(mapped):
                raise damaged(str(self.source.path), "it was truncated while it was read")
            self._bytes = np.frombuffer(mapped, np.uint8, self.num_bytes, self.start)
        if self.crc is not None and zlib.crc32(self._bytes.data) != self.crc:
            raise damaged(str(self.source.path), "the checksum of a storage is wrong")
        return self._bytes


def read_zip(source: SourceFile, *, calls: Mapping[str, Callable[..., Any]], fill: Fill, name: str = "data") -> Content:
    """Read the zip container of torch >= 1.6 and of TorchScript.

    Args:
        source: The file, or the part of one.
        calls: What the pickle may call.
        fill: Gives an object of the pickle its state.
        name: The pickle in it, and the folder of its storages: `data`, or `constants` of TorchScript.
    """
    where = str(source.path)
    archive = open_archive(source)
    members = archive.members
    pickle_name = _pickle_name(archive, name)
    folder = pickle_name.removesuffix(f"{name}.pkl")
    big_endian = _small_text(archive, folder + "byteorder") == "big"
    storages: dict[str, Storage] = {}

    def persistent(identity: Any) -> Storage:
        dtype, storage_key, num_items, _ = _storage_identity(identity)
        if storage_key not in storages:
            member = members.get(f"{folder}{name}/{storage_key}")
            if member is None:
                raise PickleError(f"the storage {shown(storage_key)} is not in the file")
            budget().hold(_STORAGE_BYTES)
            storages[storage_key] = storage = Storage(source, dtype, num_items, member.start, big_endian)
            if storage.num_bytes > member.size:
                raise PickleError(
                    f"the storage {shown(storage_key)} should hold {shown(storage.num_bytes)} bytes, it holds "
                    f"{member.size}"
                )
            storage.crc = member.crc if storage.num_bytes == member.size and member.crc else None
        return storages[storage_key]

    words = Words(calls, persistent, fill)
    with source.mapped() as view, in_words(where):
        root, _ = unpickle(archive.view(members[pickle_name], view), words=words)
    is_script = any(name.startswith(folder + "code/") for name in members)
    return Content(root, "torch.jit" if is_script else "torch", members[pickle_name].start)


@contextmanager
def in_words(where: str) -> Iterator[None]:
    """Raise what a pickle does not hold, or holds and may not, as an error of the file."""
    try:
        yield
    except RefusedCallError as error:
        raise WeightsError(
            f"The pickle in {where!r} calls {shown(error.called)}, which regraft does not do: no code of a file is "
            "ever run.",
            "a file that holds tensors in plain containers",
            "where the file comes from a source that you trust, load it there and save its `state_dict()` as "
            ".safetensors; otherwise delete it",
        ) from error
    except (ValueError, struct.error) as error:
        raise damaged(where, str(error)) from error


def _pickle_name(archive: Archive, word: str) -> str:
    where = str(archive.source.path)
    for name, member in archive.members.items():
        is_data = not name.partition("/")[2].startswith(("code/", "extra/", ".data/"))
        if is_data and member.deflated:
            raise damaged(where, f"the member {shown(name)} is compressed, which torch.save never does")
    names = [name for name in archive.members if name.split("/")[-1] == f"{word}.pkl" and name.count("/") <= 1]
    if len(names) != 1:
        raise damaged(where, f"it holds {len(names)} files {word}.pkl")
    return names[0]


def _small_text(archive: Archive, name: str) -> str:
    member = archive.members.get(name)
    return archive.read(member).decode("latin1").strip() if member and member.size < 64 else ""


def _storage_identity(identity: Any) -> tuple[str, str, int, Any]:
    """Return (dtype, key, number of items, view) of a persistent id ('storage', class, key, location, items[,
    view]).
    """
    if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] not in ("storage", b"storage"):
        raise PickleError(f"its pickle refers to {shown(identity)}, which is not a storage")
    cls, key, num_items = identity[1], identity[2], identity[4]
    kind = cls.name.rpartition(".")[2] if isinstance(cls, Global) else ""
    dtype = _STORAGE_DTYPES.get(kind)
    if dtype is None or type(num_items) is not int or not 0 <= num_items < _MAX_ITEMS:
        raise PickleError(f"it holds a storage of the kind {shown(kind)} with {shown(num_items)} items")
    if type(key) not in (str, int):
        raise PickleError(f"it holds a storage with the key {shown(key)}")
    return dtype, str(key), num_items, identity[5] if len(identity) > 5 else None


def read_legacy(source: SourceFile, *, calls: Mapping[str, Callable[..., Any]], fill: Fill) -> Content:
    """Read the stream container of torch < 1.6: five pickles, then every storage with its length before it."""
    where = str(source.path)
    storages: dict[str, Storage] = {}

    def persistent(identity: Any) -> Any:
        if isinstance(identity, tuple) and identity and identity[0] == "module":
            return identity[1]  # ('module', class, source file, source text): a container that carried its source
        dtype, key, num_items, view = _storage_identity(identity)
        budget().hold(_STORAGE_BYTES)
        whole = storages.setdefault(key, Storage(source, dtype, num_items))
        if view is None:
            return whole
        if not isinstance(view, tuple) or len(view) != 3 or not all(type(number) is int for number in view[1:]):
            raise PickleError("it holds a view of a storage without an offset")
        _, base, view_items = view
        if view_items < 0:
            raise PickleError("it holds a view of negative size")
        part = Storage(source, dtype, view_items)
        part_of.append((part, whole, base))
        return part

    part_of: list[tuple[Storage, Storage, int]] = []
    with source.mapped() as view, in_words(where):
        magic, at = unpickle(view)
        if magic != 0x1950A86A20F9469CFC6C:
            raise PickleError("it is a plain pickle, not a file of torch.save")
        protocol, at = unpickle(view, at)
        system, at = unpickle(view, at)
        if protocol != 1001 or not isinstance(system, dict):
            raise PickleError(f"the protocol {shown(protocol)} of its container is unknown")
        big_endian = system.get("little_endian", sys.byteorder == "little") is False
        root, at = unpickle(view, at, words=Words(calls, persistent, fill))
        keys, at = unpickle(view, at)
        _place_storages(view, at, keys, storages, big_endian)
    for part, whole, base in part_of:
        if base < 0 or whole.start is None or base + part.num_items > whole.num_items:
            raise damaged(where, "a view reaches outside its storage")
        part.start = whole.start + base * _ITEM_SIZES[whole.dtype]
        part.big_endian = big_endian
    return Content(root, "torch (older than 1.6)")


def _place_storages(
    view: memoryview, position: int, keys: Any, storages: Mapping[str, Storage], big_endian: bool
) -> None:
    if not isinstance(keys, list):
        raise PickleError("the list of its storages is missing")
    for key in keys:
        storage = storages.get(key) if isinstance(key, str) else None
        if storage is None:
            raise PickleError(f"the storage {shown(key)} belongs to no tensor")
        (num_items,) = struct.unpack_from(">q" if big_endian else "<q", view, position)
        if num_items != storage.num_items or position + 8 + storage.num_bytes > len(view):
            raise PickleError(f"the storage {shown(key)} should hold {storage.num_items} items and does not")
        storage.start, storage.big_endian = position + 8, big_endian
        position += 8 + storage.num_bytes


def damaged(where: str, why: str) -> WeightsError:
    """Return the error for a file that is not, or no longer, what torch.save writes."""
    return WeightsError(
        f"The PyTorch file {where!r} cannot be read: {why}.",
        "a whole file as torch.save writes it",
        "copy or download the file again, and compare its size or checksum with the original",
    )
