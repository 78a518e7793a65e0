"""Which training images look most like a wrongly named image to the network, by the features that its head reads.

A run keeps the features of some of its training images. The pass that predicts gives those of the image, so that
nothing passes the network again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from regraft import commit

__all__ = ["KnownImages", "Nearest", "keep_known_images", "known_images"]

_NUM_NEAREST = 3  # of each class
_MOST_OF_PAIR = 12  # errors of two classes, the surest; the others are counted in the rows
_FACTS = "images"
_LARGEST = 256 << 20  # bytes
_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class KnownImages:
    """Training images whose features a run keeps.

    Attributes:
        paths: Their files.
        labels: int64 (N,), class numbers.
        features: float32 (N, d), of length 1.
        num_training_images: Those of the run, with the ones whose features are not kept.
    """

    paths: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    features: npt.NDArray[np.float32]
    num_training_images: int

    def nearest(
        self, features: npt.NDArray[np.floating], label: int, *, other_than: str = ""
    ) -> list[tuple[str, float]]:
        """Return the images of a class that are nearest to an image, with their cosine similarities, nearest first.

        Args:
            features: (d,), of the image.
            label: The class.
            other_than: The image's own path, where it may be one of these.
        """
        rows = [row for row in np.flatnonzero(self.labels == label).tolist() if self.paths[row] != other_than]
        similar = self.features[rows] @ _unit(features[None])[0]
        order = np.argsort(-similar, kind="stable")[:_NUM_NEAREST].tolist()
        return [(self.paths[rows[place]], round(float(similar[place]), 4)) for place in order]


def keep_known_images(path: Path, known: KnownImages) -> None:
    """Write the images to a file, features in half precision. Raises StorageError."""
    tensors: dict[str, npt.NDArray[Any]] = {"features": known.features.astype(np.float16), "labels": known.labels}
    facts = json.dumps({"paths": known.paths, "num_training_images": known.num_training_images}, sort_keys=True)
    commit.write_bytes(path, save(tensors, metadata={_FACTS: facts}))  # one entry: several would have no order


def known_images(path: Path) -> KnownImages | str:
    """Return the images that a run keeps, or why there are none, as the end of a sentence."""
    if not path.is_file():
        return (
            "the run keeps no features of its training images; it does where it has 20 validation images or more and "
            "its network classifies by a linear layer"
        )
    try:
        if path.stat().st_size > _LARGEST:
            return f"{path.name} is too large to be one that regraft wrote"
        with safe_open(path, "numpy") as stored:
            facts = json.loads((stored.metadata() or {})[_FACTS])
            features, labels = stored.get_tensor("features"), stored.get_tensor("labels")
        paths = tuple(map(str, facts["paths"]))
        num = int(facts["num_training_images"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        return f"{path.name} is damaged ({type(error).__name__})"
    if features.ndim != 2 or labels.shape != (len(paths),) or len(features) != len(paths):
        return f"{path.name} is damaged: its parts are of different numbers of images"
    return KnownImages(paths, labels.astype(np.int64), _unit(features), num)


class Said(Protocol):
    """What is predicted of an image."""

    @property
    def path(self) -> str: ...
    @property
    def prediction(self) -> str | None: ...
    @property
    def probability(self) -> float | None: ...


class Nearest:
    """Collects the errors of a split, each with its nearest training images.

    Args:
        known: The training images, or why there are none.
        class_names: The model's.
    """

    def __init__(self, known: KnownImages | str, class_names: Sequence[str]) -> None:
        self._known = known
        self._places = {name: place for place, name in enumerate(class_names)}
        self._found: dict[tuple[str, str], list[tuple[float, str, dict[str, Any]]]] = {}

    def look(self, said: Said, features: npt.NDArray[np.floating] | None, truth: object) -> None:
        """Take a predicted image with its features (d,) and its true class; one that is right is left out."""
        known = self._known
        if isinstance(known, str) or said.prediction is None:
            return
        if features is None or features.shape != known.features.shape[1:]:
            self._known = "the network does not give the features beside its predictions"
            return
        if said.prediction == truth or said.prediction not in self._places or not isinstance(truth, str):
            return
        if not np.isfinite(features).all():
            return
        taken, true = (
            known.nearest(features, self._places[name], other_than=said.path) for name in (said.prediction, truth)
        )
        errors = self._found.setdefault((truth, said.prediction), [])
        errors.append((said.probability or 0.0, said.path, {"taken": taken, "true": true}))
        if len(errors) > 2 * _MOST_OF_PAIR:
            self._found[truth, said.prediction] = _surest(errors)

    def to_dict(self) -> dict[str, Any]:
        """Return the surest errors of each two classes by path, or why there are none."""
        if isinstance(self._known, str):
            return {"reason": self._known}
        surest = [error for errors in self._found.values() for error in _surest(errors)]
        return {
            "num_kept": len(self._known.paths),
            "num_training_images": self._known.num_training_images,
            "images": {path: near for _, path, near in surest},
        }


def _surest(errors: list[tuple[float, str, dict[str, Any]]]) -> list[tuple[float, str, dict[str, Any]]]:
    return sorted(errors, key=lambda error: (-error[0], error[1]))[:_MOST_OF_PAIR]


def _unit(features: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Return features at length 1; those of length 0 as they are."""
    wide = features.astype(np.float32)
    unit: npt.NDArray[np.float32] = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), _TINY)
    return unit
