"""The two containers of torch.save: pickles with storages beside them, in a zip or in one stream.

Members of the zip must be stored, not compressed: torch writes them so, and then no file can unfold into more memory
than its own size. Storages stay on the disk until a tensor is asked for.
"""

from __future__ import annotations

import io
import mmap
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from regraft.errors import WeightsError
from regraft.weights.unpickle import Global, unpickle

__all__ = ["Content", "Storage", "damaged", "read_legacy", "read_zip"]

_MAX_MEMBERS = 200_000
_MAX_PICKLE_BYTES = 512 * 1024**2
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
    """The unpickled root of a file, and who wrote it."""

    root: Any
    producer: str


@dataclass(eq=False)
class Storage:
    """A run of numbers in the file; where it starts may become known only after the pickle was read.

    Attributes:
        path: The file.
        dtype: Its dtype's name.
        num_items: How many numbers it holds.
        start: Its first byte in the file.
        big_endian: Whether its bytes are in big-endian order.
        crc: Its CRC-32 as the zip states it, checked once when it is first read, or None.
        base: Where a storage that is a view begins in the storage below it, in items.
    """

    path: Path
    dtype: str
    num_items: int
    start: int | None = None
    big_endian: bool = False
    crc: int | None = None
    base: int = 0
    num_view_items: int | None = None
    _bytes: NDArray[np.uint8] | None = field(default=None, repr=False)

    @property
    def num_bytes(self) -> int:
        return self.num_items * _ITEM_SIZES[self.dtype]

    def check_window(self, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: str) -> None:
        """Refuse a tensor that reaches outside its storage, or that is larger than it (a stride of 0)."""
        if dtype not in _ITEM_SIZES:
            raise ValueError(f"the dtype {dtype!r} holds no plain numbers")
        if len(shape) != len(strides) or offset < 0 or min((*shape, *strides, 0)) < 0:
            raise ValueError(f"a tensor of shape {shape} with strides {strides} at offset {offset}")
        itemsize = _ITEM_SIZES[dtype]
        num_values = 1
        for length in shape:
            num_values *= length
        reach = offset + 1 + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
        if num_values and max(reach, num_values) * itemsize > self.num_bytes:
            raise ValueError(
                f"a tensor of shape {shape} and strides {strides} needs {max(reach, num_values) * itemsize} bytes, "
                f"its storage holds {self.num_bytes}"
            )

    def window(self, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """The numbers of one tensor, mapped from the file where its layout allows it (read-only)."""
        raw = self._map()
        kind = np.dtype("uint16" if dtype == "bfloat16" else dtype).newbyteorder(">" if self.big_endian else "<")
        flat = raw[: raw.size // kind.itemsize * kind.itemsize].view(kind)[self.base + offset :]
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
            raise damaged(str(self.path), "a tensor refers to a storage that the file does not hold")
        with self.path.open("rb") as stream:
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        if self.start + self.num_bytes > len(mapped):
            raise damaged(str(self.path), "it became shorter while it was read")
        self._bytes = np.frombuffer(mapped, np.uint8, self.num_bytes, self.start)
        if self.crc is not None and zlib.crc32(self._bytes.data) != self.crc:
            raise damaged(str(self.path), "the checksum of a storage is wrong")
        return self._bytes


def read_zip(path: Path, *, calls: Mapping[str, Callable[..., Any]]) -> Content:
    """Read the zip container of torch >= 1.6 and of TorchScript."""
    where = str(path)
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as stream:
            members = _members(archive, where)
            pickle_name = _pickle_name(members, where)
            folder = pickle_name.removesuffix("data.pkl")
            big_endian = _small_text(archive, members, folder + "byteorder") == "big"
            data = archive.read(members[pickle_name])
            storages: dict[str, Storage] = {}

            def persistent(identity: Any) -> Storage:
                dtype, storage_key, num_items, _ = _storage_identity(identity)
                if storage_key not in storages:
                    member = members.get(f"{folder}data/{storage_key}")
                    if member is None:
                        raise ValueError(f"the storage {storage_key!r} is not in the file")
                    storages[storage_key] = storage = Storage(path, dtype, num_items, big_endian=big_endian)
                    if storage.num_bytes > member.file_size:
                        raise ValueError(
                            f"the storage {storage_key!r} should hold {storage.num_bytes} bytes, it holds "
                            f"{member.file_size}"
                        )
                    storage.start = _data_offset(stream, member, where)
                    storage.crc = member.CRC if storage.num_bytes == member.file_size and member.CRC else None
                return storages[storage_key]

            root = unpickle(io.BytesIO(data), where, calls=calls, persistent=persistent)
    except (zipfile.BadZipFile, zlib.error, OSError, NotImplementedError, EOFError) as error:
        raise damaged(where, str(error) or "its zip directory is damaged") from error
    except (ValueError, struct.error, UnicodeDecodeError) as error:
        raise damaged(where, str(error)) from error
    is_script = any(name.startswith(folder + "code/") for name in members)
    return Content(root, "torch.jit" if is_script else "torch")


def _members(archive: zipfile.ZipFile, where: str) -> dict[str, zipfile.ZipInfo]:
    infos = archive.infolist()
    if len(infos) > _MAX_MEMBERS:
        raise damaged(where, f"its zip directory names {len(infos)} members")
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        if info.filename in members:
            raise damaged(where, f"two members of the zip are called {info.filename!r}")
        is_data = not info.filename.partition("/")[2].startswith(("code/", "extra/", ".data/"))
        if is_data and (info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size):
            raise damaged(where, f"the member {info.filename!r} is compressed, which torch never does")
        members[info.filename] = info
    return members


def _pickle_name(members: Mapping[str, zipfile.ZipInfo], where: str) -> str:
    names = [name for name in members if name.split("/")[-1] == "data.pkl" and name.count("/") <= 1]
    if len(names) != 1:
        raise damaged(where, f"it holds {len(names)} files data.pkl")
    if members[names[0]].file_size > _MAX_PICKLE_BYTES:
        raise damaged(where, f"its data.pkl has {members[names[0]].file_size} bytes")
    return names[0]


def _small_text(archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], name: str) -> str:
    info = members.get(name)
    return archive.read(info).decode("latin1").strip() if info and info.file_size < 64 else ""


def _data_offset(stream: IO[bytes], member: zipfile.ZipInfo, where: str) -> int:
    """Where a stored member's bytes begin: behind its local header, which must agree with the directory."""
    stream.seek(member.header_offset)
    header = stream.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise damaged(where, f"the header of {member.filename!r} is not where the zip directory says")
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    if stream.read(name_length).decode("utf-8", "replace") != member.filename:
        raise damaged(where, f"the header and the zip directory name {member.filename!r} differently")
    start: int = member.header_offset + 30 + name_length + extra_length
    stream.seek(0, io.SEEK_END)
    if start + member.file_size > stream.tell():
        raise damaged(where, f"the member {member.filename!r} reaches behind the end of the file")
    return start


def _storage_identity(identity: Any) -> tuple[str, str, int, Any]:
    """(dtype, key, number of items, view) of a persistent id ('storage', class, key, location, items[, view])."""
    if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] not in ("storage", b"storage"):
        raise ValueError(f"the reference {str(identity)[:80]!r} is not to a storage")
    cls = identity[1].name if isinstance(identity[1], Global) else str(identity[1])
    dtype = _STORAGE_DTYPES.get(cls.rpartition(".")[2])
    if dtype is None or int(identity[4]) < 0:
        raise ValueError(f"a storage of the kind {cls!r} with {identity[4]} items")
    return dtype, str(identity[2]), int(identity[4]), identity[5] if len(identity) > 5 else None


def read_legacy(path: Path, *, calls: Mapping[str, Callable[..., Any]]) -> Content:
    """Read the stream container of torch < 1.6: five pickles, then every storage with its length before it."""
    where = str(path)
    storages: dict[str, Storage] = {}

    def persistent(identity: Any) -> Any:
        if isinstance(identity, tuple) and identity and identity[0] == "module":
            return identity[1]  # ('module', class, source file, source text): a container that carried its source
        dtype, key, num_items, view = _storage_identity(identity)
        whole = storages.setdefault(key, Storage(path, dtype, num_items))
        if view is None:
            return whole
        view_key, base, view_items = view
        part = Storage(path, dtype, int(view_items), base=0)
        part_of[id(part)] = (part, whole, int(base))
        storages.setdefault(f"{key}/{view_key}", part)
        return part

    part_of: dict[int, tuple[Storage, Storage, int]] = {}
    try:
        with path.open("rb") as stream:
            magic = unpickle(stream, where)
            if magic != 0x1950A86A20F9469CFC6C:
                raise ValueError("it is a plain pickle, not a file of torch.save")
            protocol = unpickle(stream, where)
            system = unpickle(stream, where)
            if protocol != 1001 or not isinstance(system, dict):
                raise ValueError(f"the protocol {protocol!r} of its container is unknown")
            big_endian = system.get("little_endian", sys.byteorder == "little") is False
            root = unpickle(stream, where, calls=calls, persistent=persistent)
            keys = unpickle(stream, where)
            _place_storages(stream, keys, storages, big_endian, where)
    except (ValueError, struct.error, OSError) as error:
        raise damaged(where, str(error)) from error
    for part, whole, base in part_of.values():
        if base < 0 or whole.start is None or base + part.num_items > whole.num_items:
            raise damaged(where, "a view reaches outside its storage")
        part.start = whole.start + base * _ITEM_SIZES[whole.dtype]
        part.big_endian = big_endian
    return Content(root, "torch (older than 1.6)")


def _place_storages(
    stream: IO[bytes], keys: Any, storages: Mapping[str, Storage], big_endian: bool, where: str
) -> None:
    position = stream.tell()
    size = stream.seek(0, io.SEEK_END)
    if not isinstance(keys, list):
        raise ValueError("the list of its storages is missing")
    for key in keys:
        storage = storages.get(str(key))
        if storage is None:
            raise ValueError(f"the storage {key!r} belongs to no tensor")
        stream.seek(position)
        (num_items,) = struct.unpack(">q" if big_endian else "<q", stream.read(8))
        if num_items != storage.num_items or position + 8 + storage.num_bytes > size:
            raise damaged(where, f"the storage {key!r} should hold {storage.num_items} items and does not")
        storage.start, storage.big_endian = position + 8, big_endian
        position += 8 + storage.num_bytes


def damaged(where: str, why: str) -> WeightsError:
    """The error for a file that is not, or no longer, what torch.save writes."""
    return WeightsError(
        f"The PyTorch file {where!r} cannot be read: {why}.",
        "A whole file as torch.save writes it was expected.",
        "Copy or download the file again, and compare its size or checksum with the original.",
    )
