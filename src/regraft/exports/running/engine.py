"""What runs a sealed file: onnxruntime or OpenVINO, by the file's suffix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy.typing as npt

__all__ = ["Engine", "was_interrupted"]


class Engine(Protocol):
    """A sealed file, opened.

    Attributes:
        metadata: What the file says of itself, as texts by key.
        widths: How many numbers it gives for each image, by the name of the output; None where that depends on it.
        network: The hash of what it computes, without its metadata.
        resizes: Whether it takes images of any size; one that does not takes those of the network's.
    """

    metadata: Mapping[str, str]
    widths: Mapping[str, int | None]
    network: str
    resizes: bool

    def run(self, feeds: Mapping[str, Any]) -> list[npt.NDArray[Any]]:
        """Return what it gives, in the order of `widths`."""


def was_interrupted(error: BaseException | None) -> bool:
    """Return whether Ctrl-C is what began an error: modules in C say that they failed to import instead."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt) or "KeyboardInterrupt" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
