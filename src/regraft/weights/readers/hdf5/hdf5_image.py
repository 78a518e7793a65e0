"""Where the bytes of an HDF5 file are, and the words for what is wrong with it."""

from __future__ import annotations

import re
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from regraft.errors import WeightsError
from regraft.weights.readers.archive import Archive, Member
from regraft.weights.readers.byte_range import SourceFile, own_copy
from regraft.weights.readers.hdf5.format.file_bytes import FormatError

__all__ = ["Hdf5Image"]


@dataclass(frozen=True)
class Hdf5Image:
    """Where the bytes of an HDF5 file are: a whole file, or a part of one.

    `named` is the file that the user gave; `folder` keeps a copy alive that was made of it.
    """

    source: SourceFile
    start: int
    length: int
    named: Path | None = None
    folder: tempfile.TemporaryDirectory[str] | None = None

    @classmethod
    def whole(cls, source: SourceFile) -> Hdf5Image:
        return cls(source, 0, source.size)

    @classmethod
    def of_member(cls, archive: Archive, member: Member) -> Hdf5Image:
        """Return a member of a zip file, once its checksum holds; a deflated one is inflated into a file of its own.

        Raises:
            WeightsError: It is damaged.
        """
        if not member.deflated:
            archive.check(member)
            return cls(archive.source, member.start, member.size)
        folder = tempfile.TemporaryDirectory(prefix="regraft-hdf5-")
        inflated = Path(folder.name) / "inflated.h5"
        with inflated.open("wb") as stream:
            for piece in archive.pieces(member):
                stream.write(piece)
        return cls(own_copy(inflated), 0, member.size, archive.source.path, folder)

    @property
    def path(self) -> Path:
        return self.named or self.source.path

    def view(self, stack: ExitStack) -> memoryview:
        """Map the bytes until the stack is closed.

        Raises:
            FormatError: The file is shorter than it was.
        """
        whole = stack.enter_context(self.source.mapped())
        if self.start + self.length > len(whole):
            raise FormatError("it ends before its last part")
        return stack.enter_context(whole[self.start : self.start + self.length])

    def mentions(self, word: bytes) -> bool:
        """Return whether a word stands anywhere in the file: a cheap guess at what it is."""
        with ExitStack() as stack:
            return re.search(re.escape(word), self.view(stack)) is not None

    def damaged(self, why: object) -> WeightsError:
        reason = (str(why).splitlines() or [""])[0][:200] or type(why).__name__
        return WeightsError(
            f"{str(self.path)!r} is truncated or damaged: {reason}.",
            "a whole HDF5 file",
            "download or copy it again, and compare its size with the original's",
        )

    def refused(self, what: str, why: str) -> WeightsError:
        return WeightsError(
            f"{str(self.path)!r} is refused: {what} {why}.",
            "a weights file holds its own numbers, in plain groups and datasets",
            "do not use it unless you know who made it; if you do, write it again with Keras",
        )
