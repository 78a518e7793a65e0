"""The objects of one HDF5 file: its groups, attributes and datasets, over the same bytes and headers."""

from __future__ import annotations

from regraft.weights.readers.hdf5.format.attributes import Attributes
from regraft.weights.readers.hdf5.format.datasets import Datasets
from regraft.weights.readers.hdf5.format.file_bytes import FileBytes
from regraft.weights.readers.hdf5.format.groups import Groups
from regraft.weights.readers.hdf5.format.headers import ObjectHeaders
from regraft.weights.readers.hdf5.format.superblock import read_superblock

__all__ = ["Objects"]


class Objects:
    """Objects of one HDF5 file by the address of their header.

    Attributes:
        is_classic: Whether the superblock is that of the classic layout.
        root: The address of the first group.
    """

    def __init__(self, view: memoryview) -> None:
        file = FileBytes(view)
        superblock = read_superblock(file)
        file.base = superblock.base
        headers = ObjectHeaders(file)
        self.is_classic, self.root = superblock.is_classic, superblock.root
        self.groups = Groups(file, headers)
        self.attributes = Attributes(file, headers)
        self.datasets = Datasets(file, headers)
