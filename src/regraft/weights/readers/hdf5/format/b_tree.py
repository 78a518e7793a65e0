"""B-trees of version 1, which list the members of a group and the pieces of a chunked dataset."""

from __future__ import annotations

from collections.abc import Iterator

from regraft.weights.readers.hdf5.format.file_bytes import UNDEFINED, FileBytes, FormatError

__all__ = ["CHUNK_TREE", "GROUP_TREE", "leaves"]

GROUP_TREE, CHUNK_TREE = 0, 1
_MAX_DEPTH = 32


def leaves(file: FileBytes, tree: int, kind: int, key_size: int, depth: int = 0) -> Iterator[tuple[int, int]]:
    """Yield children of the lowest level of a B-tree, and where their keys are."""
    if tree == UNDEFINED:
        return
    at = tree + file.base
    file.expect(b"TREE", at)
    node_kind, level, count = file.unpack("<BBH", at + 4)
    if node_kind != kind or depth > _MAX_DEPTH:
        raise FormatError("a tree is damaged")
    for index in range(count):
        key = at + 24 + index * (key_size + 8)
        child = file.unpack("<Q", key + key_size)[0]
        if level:
            yield from leaves(file, child, kind, key_size, depth + 1)
        else:
            yield child, key
