"""What a heat map of one image says, and how it looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from regraft.errors import DataError
from regraft.explanation.colours import overlaid
from regraft.explanation.seen import Seen
from regraft.summary import Summary

__all__ = ["Explanation"]

Pixels = npt.NDArray[np.uint8]
_SMALLEST, _LARGEST = 256, 512  # longest side of a drawn image, in pixels
_GAP = 8  # between the image and its map


@dataclass(frozen=True, repr=False, eq=False)
class Explanation(Summary):
    """Where in an image a network finds what speaks for a class.

    Attributes:
        path: The image, as it was given; `image` and `images[0]` ... where it is in memory.
        prediction: What the model says of the image, as `predict` does; of masks the class with the most pixels. None
            where the image cannot be read.
        class_name: The class that is explained; None where the image cannot be read.
        probability: Its probability; of masks the mean over the pixels that it was given.
        places: float32 (h, w): what each place of the network's last map adds to the class's logit, less the mean of
            all logits where they go through a softmax; below 0 where it speaks against the class. None where there is
            no map.
        seen: The image, and the part of it that the network saw.
        error: Why there is no map, else None.
    """

    path: str
    prediction: str | None
    class_name: str | None
    probability: float | None
    places: npt.NDArray[np.float32] | None = None
    seen: Seen | None = None
    error: str | None = None

    @property
    def peak(self) -> tuple[float, float] | None:
        """Where most speaks for the class, as (x, y) in pixels of the upright image; None where nothing does."""
        if self.places is None or self.seen is None or self.places.max() <= 0:
            return None
        row, column = np.unravel_index(int(self.places.argmax()), self.places.shape)
        return self.seen.view.point(int(row), int(column), (self.places.shape[0], self.places.shape[1]))

    def heat(self, size: tuple[int, int] | None = None) -> npt.NDArray[np.float32]:
        """Return the heat map over the whole upright image, float32 (H, W): 1 where most speaks for the class, 0 where
        nothing does, or the network did not look.

        Args:
            size: Height and width of the result; None takes those of the image.

        Raises:
            DataError: There is no map.
        """
        places, seen = self._drawable()
        size = size or seen.view.size
        if self.peak is None:
            return np.zeros(size, np.float32)
        return seen.view.spread(places.clip(min=0) / places.max(), size).clip(0, 1)

    def overlay(self, longest: int | None = None) -> Pixels:
        """Return the image, and beside it its heat map over the image in grey, uint8 (H, 2 W + 8, 3).

        Args:
            longest: The longer side of each, in pixels; None takes the image's own, at least 256 and at most 512.

        Raises:
            DataError: There is no map, or the image cannot be read any more.
        """
        image, heat = self.panels(longest)
        gap = np.full((len(image), _GAP, 3), 255, np.uint8)
        return np.concatenate([image, gap, heat], axis=1)

    def panels(self, longest: int | None = None) -> tuple[Pixels, Pixels]:
        """Return the two parts of `overlay`, each uint8 (H, W, 3)."""
        _, seen = self._drawable()
        sides = seen.view.size
        scale = (longest or min(max(*sides, _SMALLEST), _LARGEST)) / max(sides)
        size = max(1, round(sides[0] * scale)), max(1, round(sides[1] * scale))
        image = seen.image(size)
        return image, overlaid(image, self.heat(size), seen.view.covers(size))

    def facts(self) -> dict[str, object]:
        """Return the path, the class with its probability and the hottest point; or the path and the error."""
        if self.error is not None:
            return {"path": self.path, "error": self.error}
        shown = "" if self.probability is None else f" {self.probability:.4f}"
        return {"path": self.path, "class": f"{self.class_name}{shown}", "peak": self.peak}

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, without the map."""
        return {
            "path": self.path,
            "prediction": self.prediction,
            "class": self.class_name,
            "probability": self.probability,
            "peak": None if self.peak is None else [round(value, 1) for value in self.peak],
            "error": self.error,
        }

    def _drawable(self) -> tuple[npt.NDArray[np.float32], Seen]:
        if self.places is None or self.seen is None:
            raise DataError(f"There is no heat map of {self.path!r}: it {self.error or 'has no places'}.")
        return self.places, self.seen
