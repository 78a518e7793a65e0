"""NumPy's `.npz`: a zip of `.npy` arrays under their names, pickles excluded.

The order of the members means nothing (`np.savez` keeps the order of its arguments), so the file is not `ordered`.
Source: numpy/lib/_npyio_impl.py (`savez`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.errors import WeightsError
from regraft.weights.file import WeightFile
from regraft.weights.limits import MAX_CLASSES, MAX_NAME
from regraft.weights.readers.archive import Archive, Member, damaged, is_zip, open_archive
from regraft.weights.readers.byte_range import ByteRange, open_source
from regraft.weights.readers.numpy.array_names import NamedArray, named_tensors
from regraft.weights.readers.numpy.npy import Header, HeaderError, parse_header
from regraft.weights.readers.spelling import refuse_key

__all__ = ["FORMAT", "read", "sniff"]

FORMAT = "npz"
_SUFFIX = ".npy"
_LAST_SIGN = 0x10FFFF
_HEAD = 64 * 1024 + 12
_MAX_CLASS_BYTES = 64 * 2**20
_CLASS_NAMES = ("class_names", "classes", "labels")


def sniff(path: Path, head: bytes) -> bool:
    """Return whether it is a zip file whose members are `.npy` arrays."""
    if not is_zip(head):
        return False
    try:
        members = open_archive(open_source(path)).members
    except WeightsError:
        return path.suffix == ".npz"
    return path.suffix == ".npz" or (bool(members) and all(name.endswith(_SUFFIX) for name in members))


def read(path: Path, *, key: str | None = None) -> WeightFile:
    """Read the table of contents of an `.npz` file; values stay on the disk.

    Raises:
        WeightsError: Damaged, two arrays of one name, a pickled array, or a bomb.
    """
    refuse_key(path, key)
    archive = open_archive(open_source(path))
    arrays: list[NamedArray] = []
    notes: list[str] = []
    class_names: tuple[str, ...] | None = None
    for member in archive.members.values():
        name = member.name.removesuffix(_SUFFIX)
        if name == member.name:
            notes.append(f"The member {name!r} is not an array and was skipped.")
            continue
        header = _header(archive, member)
        if name in _CLASS_NAMES and _is_list_of_names(header):
            class_names = _strings(_Part(archive, member, header))
        elif header.dtype.kind in "fiub":
            arrays.append(_named(archive, member, header, name))
        else:
            notes.append(f"The array {name!r} has dtype {header.dtype}, which is not numeric, and was skipped.")
    return _weight_file(archive, arrays, notes, class_names)


def _is_list_of_names(header: Header) -> bool:
    few = header.shape[:1] <= (MAX_CLASSES,) and header.num_bytes <= _MAX_CLASS_BYTES
    return header.dtype.kind == "U" and len(header.shape) == 1 and few


def _strings(part: _Part) -> tuple[str, ...] | None:
    width = part.header.dtype.itemsize // 4
    if not width or width > MAX_NAME:
        return None
    signs = part.array(np.dtype("<u4"), (*part.header.shape, width))
    if signs.max(initial=0) > _LAST_SIGN or part.header.dtype.byteorder == ">":  # NumPy cannot even print those
        return None
    return tuple(str(one) for one in signs.view(part.header.dtype).reshape(-1))


def _weight_file(
    archive: Archive, arrays: list[NamedArray], notes: list[str], class_names: tuple[str, ...] | None
) -> WeightFile:
    path = archive.source.path
    if not arrays:
        raise WeightsError(
            f"{str(path)!r} is a zip archive without a single array of numbers.",
            "an .npz file with one .npy member for each tensor",
            "look for the file that holds the weights",
        )
    tensors, more = named_tensors(arrays)
    return WeightFile(
        path=path,
        format=FORMAT,
        producer="numpy",
        tensors=tensors,
        ordered=False,
        class_names=class_names,
        notes=(*notes, *more),
    )


def _header(archive: Archive, member: Member) -> Header:
    try:
        header = parse_header(archive.head(member, min(_HEAD, member.size)))
    except HeaderError as error:
        raise damaged(archive.source, f"{member.name!r} is not an array: {error}") from error
    if header.dtype.hasobject:
        raise WeightsError(
            f"{str(archive.source.path)!r} is refused: its member {member.name!r} is a pickle, which may run code.",
            "an .npz of weights holds plain arrays of numbers",
            "save it again without object arrays, or as .safetensors",
        )
    if header.size + header.num_bytes != member.size:
        raise damaged(
            archive.source,
            f"{member.name!r} declares {header.num_bytes} bytes of values and holds {member.size - header.size}",
        )
    return header


@dataclass(frozen=True)
class _Part:
    """The values of one member, compared with its checksum when they are read."""

    archive: Archive
    member: Member
    header: Header

    def array(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        if self.member.deflated:
            content = np.frombuffer(self.archive.read(self.member), np.uint8)[self.header.size :]
            return content.view(dtype).reshape(shape).astype(dtype.newbyteorder("="))
        self.archive.check(self.member)
        span = ByteRange(self.archive.source, self.member.start + self.header.size, self.header.num_bytes)
        return span.array(dtype, shape)


def _named(archive: Archive, member: Member, header: Header, name: str) -> NamedArray:
    values = _Part(archive, member, header)
    return NamedArray(tuple(name.split("/")), header.shape, header.dtype, values, header.fortran)
