"""The start of an HDF5 file: its version, where its addresses count from, and its first group."""

from __future__ import annotations

from dataclasses import dataclass

from regraft.weights.readers.hdf5.format.file_bytes import UNDEFINED, FileBytes, FormatError

__all__ = ["SIGNATURE", "STARTS", "Superblock", "read_superblock"]

SIGNATURE = b"\x89HDF\r\n\x1a\n"
STARTS = (0, 512, 1024, 2048)  # behind a user block, where there is one


@dataclass(frozen=True)
class Superblock:
    """Whether the file can be in the classic layout; of versions 0 and 1 also the base and the address of the root."""

    is_classic: bool
    base: int = 0
    root: int = 0


def read_superblock(file: FileBytes) -> Superblock:
    """Read the superblock.

    Raises:
        FormatError: There is none, or the file is shorter than it says.
    """
    start = next((at for at in STARTS if bytes(file.view[at : at + 8]) == SIGNATURE), None)
    if start is None:
        raise FormatError("its signature is missing")
    version = file.unpack("B", start + 8)[0]
    sizes = file.unpack("BB", start + 13)
    is_classic = version < 2 and sizes == (8, 8)
    if version > 1:
        base, _, end = file.unpack("<QQQ", start + 12)
        _require_end(file, base, end)
        return Superblock(is_classic)
    at = start + (24 if version == 0 else 28)
    base, _, end = file.unpack("<QQQ", at)
    _require_end(file, base, end)
    return Superblock(is_classic, base, file.unpack("<QQ", at + 32)[1])


def _require_end(file: FileBytes, base: int, end: int) -> None:
    if end != UNDEFINED and base + end > len(file.view) and end > len(file.view):
        raise FormatError(f"it should have {end} bytes and has {len(file.view)}")
