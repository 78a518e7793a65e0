"""A prediction with what the network gave."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from regraft.evaluation.results.prediction import Prediction

__all__ = ["Observed"]


class Observed(NamedTuple):
    """A prediction with what the network gave.

    Attributes:
        prediction: What is said of the input.
        logits: (views, num_logits), raw, the image's own first; None where the input cannot be read.
        views: (views, classes), the probabilities of each view.
        features: (d,), what the head reads of the image itself; None where it was not taken along.
    """

    prediction: Prediction
    logits: npt.NDArray[np.float32] | None
    views: npt.NDArray[np.floating] | None
    features: npt.NDArray[np.float32] | None = None
