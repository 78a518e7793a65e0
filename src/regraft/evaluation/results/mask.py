"""What a model says of the pixels of one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["MaskPrediction", "palette_of"]

Mask = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class MaskPrediction:
    """What a model says of the pixels of one image.

    Attributes:
        path: The image, as it was given.
        mask: uint8 (H, W), the size of the upright image: positions in the class names; None when it cannot be read.
        shares: The share of the pixels that each class has, by name, in the model's order.
        confidence: The mean probability of the classes that were named.
        error: Why the image cannot be read, else None.
    """

    path: str
    mask: Mask | None
    shares: dict[str, float]
    confidence: float | None
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, without the mask."""
        return {name: value for name, value in self.__dict__.items() if name != "mask"}


def palette_of(colours: Sequence[Sequence[int]]) -> Mask:
    """Return red, green and blue of each value of a mask, uint8 (256, 3)."""
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[: len(colours)] = np.array(colours, dtype=np.uint8).reshape(-1, 3)
    return palette
