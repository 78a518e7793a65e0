"""An open HDF5 file, walked by names: hard links only, so that nothing leads out of the file."""

from __future__ import annotations

from dataclasses import dataclass

from regraft.errors import WeightsError
from regraft.weights.limits import MAX_DEPTH
from regraft.weights.readers.hdf5.format.file_bytes import LinkError
from regraft.weights.readers.hdf5.format.objects import Objects
from regraft.weights.readers.hdf5.hdf5_image import Hdf5Image
from regraft.weights.readers.hdf5.hdf5_sizes import DatasetSizes
from regraft.weights.readers.hdf5.hdf5_values import StoredArray, stored_array
from regraft.weights.readers.spelling import natural

__all__ = ["Node", "Tree", "VisitCount"]

_MAX_OBJECTS = 500_000
_MAX_PARTS = 10_000


@dataclass(frozen=True)
class Node:
    """An object of the file: its path, and where its header is."""

    path: str
    address: int


class VisitCount:
    """How often objects of a file were looked at: more often than it can have objects means a cycle."""

    def __init__(self, image: Hdf5Image) -> None:
        self._image = image
        self._num_visits = 0

    def add(self) -> None:
        self._num_visits += 1
        if self._num_visits > _MAX_OBJECTS:
            raise self._image.refused("it", f"has more than {_MAX_OBJECTS} objects, or contains a cycle")


class Tree:
    """The groups, attributes and arrays of an open file."""

    def __init__(self, image: Hdf5Image, objects: Objects) -> None:
        self._image = image
        self._objects = objects
        self._visits = VisitCount(image)
        self._sizes = DatasetSizes(image)

    @property
    def root(self) -> Node:
        return Node("", self._objects.root)

    def has(self, group: Node, name: str) -> bool:
        return name in self._objects.groups.members(group.address)

    def has_attribute(self, node: Node, name: str) -> bool:
        return self._objects.attributes.values(node.address, name) is not None

    def names(self, group: Node) -> list[str]:
        """Return member names in natural order (HDF5's own order is alphabetical)."""
        return sorted(self._objects.groups.members(group.address), key=natural)

    def group(self, parent: Node, path: str) -> Node:
        """Return a group below another one; layer names may hold slashes.

        Raises:
            WeightsError: It is missing, no group, or reached over a link.
        """
        found = self._follow(parent, path)
        if not self._objects.groups.is_group(found.address):
            raise self._image.damaged(f"{found.path!r} is not a group")
        return found

    def is_group(self, parent: Node, name: str) -> bool:
        return self._objects.groups.is_group(self._follow(parent, name).address)

    def array(self, parent: Node, path: str) -> StoredArray:
        """Return a numeric dataset.

        Raises:
            WeightsError: It is missing, damaged, not numeric, stored elsewhere, or declares more than it holds.
        """
        node = self._follow(parent, path)
        if self._objects.groups.is_group(node.address):
            raise self._image.damaged(f"{node.path!r} is a group, not a dataset")
        where = f"dataset {node.path!r}"
        try:
            info = self._objects.datasets.info(node.address)
        except LinkError as error:
            raise self._image.refused(where, str(error)) from error
        if info.dtype is None:
            raise self._image.refused(where, "is not numeric")
        return stored_array(self._image, info, info.dtype, self._sizes.accept(info, info.dtype, where))

    def text(self, node: Node, name: str) -> str | None:
        """Return a string attribute, or None where there is none."""
        values = self._objects.attributes.values(node.address, name)
        return values[0] if values and len(values) == 1 and isinstance(values[0], str) else None

    def texts(self, node: Node, name: str) -> list[str] | None:
        """Return a list of strings, put together again where Keras split it in `name0`, `name1`, ... (64,512 bytes
        each).
        """
        values = self._objects.attributes.values(node.address, name)
        if values is not None:
            return self._texts(values, name)
        parts: list[str] = []
        for index in range(_MAX_PARTS):
            values = self._objects.attributes.values(node.address, f"{name}{index}")
            if values is None:
                return parts if index else None
            parts += self._texts(values, name)
        raise self._image.refused(f"attribute {name!r}", "has too many parts")

    def number(self, node: Node, name: str) -> int | None:
        """Return an integer attribute, or None."""
        values = self._objects.attributes.values(node.address, name)
        return values[0] if values and len(values) == 1 and isinstance(values[0], int) else None

    def path_of(self, group: Node, name: str) -> str:
        """Return the whole path of a member, without a leading slash."""
        return f"{group.path}/{name}".lstrip("/")

    def too_deep(self, path: str) -> WeightsError:
        return self._image.refused(f"the path {path[:80]!r}", "is too deep (or contains a cycle)")

    def _texts(self, values: list[str] | list[int], name: str) -> list[str]:
        texts = [value for value in values if isinstance(value, str)]
        if len(texts) != len(values):
            raise self._image.damaged(f"the attribute {name!r} holds something else than names")
        return texts

    def _follow(self, parent: Node, path: str) -> Node:
        parts = path.split("/")
        if len(parts) > MAX_DEPTH:
            raise self.too_deep(path)
        found = parent
        for part in parts:
            found = self._member(found, part)
        return found

    def _member(self, group: Node, name: str) -> Node:
        self._visits.add()
        if name in ("", ".", "..") or "\0" in name:
            raise self._image.refused(f"the path to {name!r} in {group.path!r}", "is not a plain path")
        members = self._objects.groups.members(group.address)
        if name not in members:
            raise self._image.damaged(f"it names {name!r} in {group.path!r}, which does not exist")
        address = members[name]
        if address is None:
            raise self._image.refused(f"{name!r} in {group.path!r}", "is a link, and may lead out of the file")
        return Node(self.path_of(group, name), address)
