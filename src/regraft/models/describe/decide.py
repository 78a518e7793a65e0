"""From probabilities to names. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["chosen_places"]


def chosen_places(
    values: npt.NDArray[np.floating], class_names: Sequence[str], thresholds: Mapping[str, float]
) -> tuple[int, ...]:
    """Return the predicted classes for one row of probabilities, as positions in the class names.

    The most probable class; of two classes the second one if its probability reaches its threshold, else the first;
    of labels all that reach theirs.

    Args:
        values: (C,).
        class_names: In their order.
        thresholds: Of each name that has one, in that order: none, of the second of two classes, or of all labels.
    """
    if not thresholds:
        return (int(values.argmax()),)
    offset = len(class_names) - len(thresholds)
    reached = tuple(
        offset + place for place, share in enumerate(thresholds.values()) if values[offset + place] >= share
    )
    return reached or tuple(range(offset))
