"""What a cache asks of the way from a file to one row: images have one way, masks another."""

from __future__ import annotations

from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

__all__ = ["RowProgram"]

Pixels = npt.NDArray[np.uint8]


class RowProgram(Protocol):
    """How a file becomes one row of uint8 numbers; equal programs give equal rows."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a row."""

    @property
    def stored(self) -> tuple[int, int] | None:
        """Height and width of a first resize; None where there is one resize."""

    @property
    def first(self) -> Self:
        """The program without its second resize: what a cache holds."""

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of a row: `size`, and the channels where there are several."""

    def sized(self, size: tuple[int, int]) -> Self:
        """Return the same program with another final size."""

    def to_dict(self) -> dict[str, Any]:
        """Return all that decides about a row beside the file's contents, as plain data."""

    def fetch(self, path: str) -> bytes | str:
        """Return the contents that a row is made of, or the reason as text why there are none."""

    def read(self, data: bytes) -> Pixels | str:
        """Return the row of these contents, or the reason as text why there is none."""

    def finish(self, pixels: Pixels) -> Pixels:
        """Return the result of the program from that of its first resize."""
