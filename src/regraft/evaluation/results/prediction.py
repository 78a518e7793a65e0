"""What a model says of one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from regraft.models.describe.decide import chosen_places
from regraft.summary import Summary

__all__ = ["KNOWN_SHARE", "UNKNOWN", "Prediction", "prediction_of", "unreadable"]

UNKNOWN = "unknown"
KNOWN_SHARE = 0.95  # of validation images that are not called unknown


@dataclass(frozen=True, repr=False)
class Prediction(Summary):
    """What a model says of one input.

    Attributes:
        path: The input, as it was given; `image` and `images[0]` ... where it is in memory.
        prediction: The name of the most probable class, of two classes the one on this side of the stored threshold,
            of labels all that reach theirs, as `a|b`; None when the input cannot be read.
        probability: Its probability; None of labels, which may be many.
        probabilities: The probability of every class, by name, in the model's order.
        error: Why the input cannot be read, else None.
        labels: The names of the labels, the most probable first; None for a model that gives one class.
        candidates: The classes that hold the true one as often as was asked for, the most probable first; None where
            no sets were asked for.
        typicality: The share of validation images that look at least as strange to the network; None where that was
            not asked for. The prediction is `unknown` where it is 0.05 or less.
    """

    path: str
    prediction: str | None
    probability: float | None
    probabilities: dict[str, float]
    error: str | None = None
    labels: tuple[str, ...] | None = None
    candidates: tuple[str, ...] | None = None
    typicality: float | None = None

    def facts(self) -> dict[str, object]:
        """Return the path, the prediction and the five most probable classes; or the path and the error."""
        if self.error is not None:
            return {"path": self.path, "error": self.error}
        likely = sorted(self.probabilities.items(), key=lambda pair: -pair[1])[:5]
        return {
            "path": self.path,
            "prediction": self.prediction,
            "probabilities": ", ".join(f"{name} {value:.4f}" for name, value in likely),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain data; `labels`, `candidates` and `typicality` are there where they were asked for."""
        values = dict(self.__dict__)
        rest = {name: values.pop(name) for name in ("labels", "candidates", "typicality")}
        given = {name: value for name, value in rest.items() if value is not None}
        return {**values, **{name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}}


def unreadable(output: str, path: str, reason: str) -> Prediction:
    """Return the row of an input that cannot be read."""
    return Prediction(path, None, None, {}, reason, () if output == "multilabel" else None)


def prediction_of(
    path: str,
    probabilities: npt.NDArray[np.floating],
    class_names: Sequence[str],
    output: str,
    thresholds: Mapping[str, float],
    *,
    candidates: Sequence[int] | None = None,
    typicality: float | None = None,
) -> Prediction:
    """Return what a row of probabilities says.

    Args:
        path: The input.
        probabilities: (C,).
        class_names: In their order.
        output: A key of `regraft.models.describe.outputs.OUTPUTS`.
        thresholds: Of each name that has one, in the order of the names.
        candidates: Positions of the classes in the input's set, the most probable first; None without sets.
        typicality: The share of validation images that look at least as strange; None where that was not asked for.
    """
    chosen = chosen_places(probabilities, class_names, thresholds)
    values = probabilities.tolist()
    named = dict(zip(class_names, values, strict=True))
    is_unknown = typicality is not None and typicality <= 1 - KNOWN_SHARE
    beside: dict[str, Any] = {
        "candidates": None if candidates is None else tuple(class_names[place] for place in candidates),
        "typicality": typicality,
    }
    if output == "multilabel":
        labels = tuple(class_names[place] for place in sorted(chosen, key=lambda place: -values[place]))
        labels = () if is_unknown else labels
        return Prediction(path, UNKNOWN if is_unknown else "|".join(labels), None, named, None, labels, **beside)
    if is_unknown:
        return Prediction(path, UNKNOWN, None, named, **beside)
    return Prediction(path, class_names[chosen[0]], values[chosen[0]], named, **beside)
