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
from regraft.weights.readers.archive import Archive, Member, damaged, is_zip, open_archive
from regraft.weights.readers.array_names import NamedArray, named_tensors
from regraft.weights.readers.npy import Header, HeaderError, parse_header
from regraft.weights.readers.span import Span, open_source
from regraft.weights.readers.spelling import refuse_key

__all__ = ["FORMAT", "read", "sniff"]

FORMAT = "npz"
_SUFFIX = ".npy"
_HEAD = 64 * 1024 + 12
_CLASS_NAMES = ("class_names", "classes", "labels")


def sniff(path: Path, head: bytes) -> bool:
    """A zip whose members are `.npy` arrays."""
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
            notes.append(f"The member {name!r} is no array and was left out.")
            continue
        header = _header(archive, member)
        if header.dtype.kind == "U" and len(header.shape) == 1 and name in _CLASS_NAMES:
            class_names = _strings(_Part(archive, member, header))
        elif header.dtype.kind in "fiub":
            arrays.append(_named(archive, member, header, name))
        else:
            notes.append(f"The array {name!r} holds {header.dtype}, no numbers, and was left out.")
    return _weight_file(archive, arrays, notes, class_names)


def _strings(part: _Part) -> tuple[str, ...] | None:
    try:
        return tuple(str(one) for one in part.array(part.header.dtype, part.header.shape))
    except ValueError:  # code points that no text has
        return None


def _weight_file(
    archive: Archive, arrays: list[NamedArray], notes: list[str], class_names: tuple[str, ...] | None
) -> WeightFile:
    path = archive.source.path
    if not arrays:
        raise WeightsError(
            f"{str(path)!r} is a zip archive without a single array of numbers.",
            "An .npz file with one .npy member for each tensor was expected.",
            "Look for the file that holds the weights.",
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
        raise damaged(archive.source, f"{member.name!r} is no array: {error}") from error
    if header.dtype.hasobject:
        raise WeightsError(
            f"{str(archive.source.path)!r} is refused: its member {member.name!r} is a pickle, which may run code.",
            "An .npz of weights holds plain arrays of numbers.",
            "Save it again without object arrays, or as .safetensors.",
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
        span = Span(self.archive.source, self.member.start + self.header.size, self.header.num_bytes)
        return span.array(dtype, shape)


def _named(archive: Archive, member: Member, header: Header, name: str) -> NamedArray:
    values = _Part(archive, member, header)
    return NamedArray(tuple(name.split("/")), header.shape, header.dtype, values, header.fortran)
