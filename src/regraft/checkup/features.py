"""Features of all images of a data set, by a network that was pretrained on others."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from regraft.checkup.rows import Rows
from regraft.compute.numerics import Numerics
from regraft.data.dataset import DataSet, Split
from regraft.data.decode_all import decode_all
from regraft.errors import RegraftError
from regraft.models.describe.info import preprocessing_of
from regraft.models.surgery.surgery import adapt
from regraft.models.zoo.build import build_model
from regraft.ranking.candidates import candidates_of
from regraft.ranking.features import Backbone
from regraft.settings.model import DEFAULT_MODEL
from regraft.training.engine import Engine

__all__ = ["Described", "describe"]

_log = logging.getLogger("regraft")
NO_NETWORK = "none"


class Described(NamedTuple):
    """The features of images.

    Attributes:
        network: Whose they are.
        rows: Which images they are of.
        features: Of each of these, float32 (rows, D).
    """

    network: str
    rows: npt.NDArray[np.int64]
    features: npt.NDArray[np.float32]


def describe(rows: Rows, good: npt.NDArray[np.int64], network: str | None, numerics: Numerics) -> Described | str:
    """Return the features of the readable images, or why there are none.

    Args:
        rows: All images.
        good: Those that can be read.
        network: A name, `NAME@FILE` or `NAME@none`; `none` computes no features; None takes the default network where
            its weights can be had.
        numerics: What to compute with.

    Raises:
        RegraftError: The network was named, and cannot be had.
    """
    if network == NO_NETWORK:
        return "no network was to be used"
    if len(good) < 2:
        return "there are fewer than two readable images"
    try:
        (candidate, *_) = candidates_of([network or DEFAULT_MODEL])
        model = build_model(candidate.name, weights=candidate.weights)
    except RegraftError as error:
        if network is not None:
            raise
        return f"the default network could not be had ({error.what})"
    model = adapt(model, classes=2)
    images = _as_one(rows, good)
    checked, caches = decode_all(images, preprocessing_of(model).pixels, say=_log.debug)
    pixels = caches["train"]
    found = Backbone(model, Engine(numerics)).features(pixels, checked.train.labels)
    return Described(candidate.label, good[pixels.good], found.features.astype(np.float32))


def _as_one(rows: Rows, good: npt.NDArray[np.int64]) -> DataSet:
    """Return the readable images as one split of one class: what they are called does not matter here."""
    split = Split([rows.paths[row] for row in good.tolist()], np.zeros(len(good), dtype=np.int64))
    return replace(rows.data, class_names=("image",), splits={"train": split}, quarantined=(), class_table=None)
