"""HDF5 files walked with care: hard links only, nothing outside the file, sizes checked before anything is read.

HDF5 can point a dataset at bytes of another file (external storage, virtual datasets, external and soft links), declare
shapes that it does not hold, and load compression plug-ins. A weights file needs none of that, so all of it is refused.
The HDF5 library is not used: `format` parses the classic layout, and values are read by byte range.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from regraft.weights.readers.byte_range import own_copy
from regraft.weights.readers.hdf5.format.file_bytes import FormatError, LinkError, NotClassicError
from regraft.weights.readers.hdf5.format.objects import Objects
from regraft.weights.readers.hdf5.format.superblock import SIGNATURE, STARTS
from regraft.weights.readers.hdf5.hdf5_filters import LZF
from regraft.weights.readers.hdf5.hdf5_image import Hdf5Image
from regraft.weights.readers.hdf5.hdf5_rewrite import rewritten
from regraft.weights.readers.hdf5.hdf5_tree import Tree, VisitCount

__all__ = ["classic", "is_classic", "is_hdf5", "opened"]

_DAMAGE = (FormatError, struct.error, LookupError, ValueError, TypeError, ArithmeticError, MemoryError, RecursionError)


def is_hdf5(head: bytes) -> bool:
    """Return whether a file starts with an HDF5 superblock (at 0, or behind a user block of 512, 1024 or 2048
    bytes).
    """
    return any(head[start : start + 8] == SIGNATURE for start in STARTS)


@contextmanager
def opened(image: Hdf5Image) -> Iterator[Tree]:
    """Open a file for reading.

    Raises:
        WeightsError: The file is cut, damaged or hostile.
    """
    with _parsed(image) as objects:
        yield Tree(image, objects)


def classic(image: Hdf5Image) -> Hdf5Image:
    """Return the file, or a copy in the classic layout where it has the newer one.

    Raises:
        WeightsError: As `opened`.
    """
    if is_classic(image):
        return image
    copy, folder = rewritten(image.source.path, image.start, image.length)
    source = own_copy(copy)
    return Hdf5Image(source, 0, source.size, image.path, folder)


def is_classic(image: Hdf5Image) -> bool:
    """Return whether the file is in the layout that is read here, not by h5py; each of its objects is touched once.

    Raises:
        WeightsError: As `opened`.
    """
    with _parsed(image) as objects:
        if not objects.is_classic:
            return False
        visits = VisitCount(image)
        seen, todo = {objects.root}, [objects.root]
        try:
            while todo:
                visits.add()
                for address in _touched(objects, todo.pop()):
                    if address not in seen:
                        seen.add(address)
                        todo.append(address)
        except NotClassicError:
            return False
        return True


def _touched(objects: Objects, address: int) -> list[int]:
    """Return the members of a group, and nothing of a dataset, once all that is parsed of it is known to be classic."""
    objects.attributes.values(address, "")
    if objects.groups.is_group(address):
        return [child for child in objects.groups.members(address).values() if child is not None]
    try:
        chunks = objects.datasets.info(address).chunks
    except (LinkError, FormatError):  # an error only for the one who reads it
        return []
    if chunks and any(code == LZF for code, _ in chunks.filters):
        raise NotClassicError("lzf")
    return []


@contextmanager
def _parsed(image: Hdf5Image) -> Iterator[Objects]:
    with ExitStack() as stack:
        try:
            yield Objects(image.view(stack))
        except NotClassicError as error:
            raise image.refused("it", f"has {error}, which no copy of it could avoid") from error
        except LinkError as error:
            raise image.refused("a part of it", str(error)) from error
        except _DAMAGE as error:
            raise image.damaged(error) from error
