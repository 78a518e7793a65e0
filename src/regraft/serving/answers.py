"""Bytes of images in, rows of JSON out, by a sealed file: the same decoding and the same rows as `regraft predict`."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from regraft.data.decode.decode import decode_or_reason
from regraft.data.decode.image_file import opened_or_reason
from regraft.data.decode.upright import upright_size
from regraft.evaluation.results.prediction import prediction_of
from regraft.evaluation.trust.conformal import candidates, most_coverage, score_limit
from regraft.exports.running.session import SealedSession
from regraft.serving.problem import Problem

__all__ = ["Answers", "Decoded"]

_COVERAGE = 0.9  # of sets, where the file keeps enough scores and nothing else was asked for


@dataclass(frozen=True, eq=False)
class Decoded:
    """An image of the network's size, uint8 (h, w, C), with height and width of the file upright."""

    pixels: npt.NDArray[np.uint8]
    size: tuple[int, int]


class Answers:
    """A sealed file that answers a server's requests.

    Args:
        session: The file, opened.
        pixels: The most that an image may have.
        sets: The share of images whose set is to hold the true class; None takes 0.9, where the file keeps enough.
        reject: Whether images that are like none of training and validation are `unknown`.

    Raises:
        SettingsError: The scores that the file keeps cannot promise this share.
    """

    def __init__(self, session: SealedSession, pixels: int, *, sets: float | None = None, reject: bool = False) -> None:
        self.session, self.seal = session, session.seal
        self._pixels, self._reject = pixels, reject
        scores = self.seal.nonconformity
        if sets is None and scores is not None and most_coverage(len(scores)) >= _COVERAGE:
            sets = _COVERAGE
        self._limit = None if sets is None or scores is None else score_limit(scores, sets)

    def decode(self, data: bytes) -> Decoded:
        """Return an image.

        Raises:
            Problem: It cannot be read, or has too many pixels.
        """
        size = opened_or_reason(data, lambda image: image.size, deep=True)
        if isinstance(size, str):
            raise Problem(422, "unreadable_image", f"The image cannot be read: {size}.")
        if size[0] * size[1] > self._pixels:
            said = f"The image has {size[0]} x {size[1]} pixels, and {self._pixels:,} are the most."
            raise Problem(413, "too_many_pixels", said)
        upright = upright_size(data) if self.seal.output == "segmentation" else size
        pixels = decode_or_reason(data, self.seal.preprocessing.pixels)
        if isinstance(pixels, str) or isinstance(upright, str):
            reason = pixels if isinstance(pixels, str) else upright
            raise Problem(422, "unreadable_image", f"The image cannot be read: {reason}.")
        return Decoded(pixels, upright)

    def rows(self, images: Sequence[Decoded]) -> list[dict[str, Any]]:
        """Return what is said of each image."""
        if self.seal.output == "segmentation":
            return [self._mask_row(image) for image in images]
        given = self.session.run(np.stack([image.pixels for image in images]), resize=False)
        typicality = given.get("typicality")
        return [
            self._row(shares, None if typicality is None else float(typicality[place]))
            for place, shares in enumerate(given["probabilities"])
        ]

    def _row(self, shares: npt.NDArray[np.floating], typicality: float | None) -> dict[str, Any]:
        found = prediction_of(
            "",
            shares,
            self.seal.class_names,
            self.seal.output,
            self.seal.thresholds,
            candidates=None if self._limit is None else candidates(shares, self._limit),
            typicality=typicality if self._reject else None,
        )
        row = {key: value for key, value in found.to_dict().items() if key not in ("path", "error")}
        return {**row, **({} if typicality is None else {"typicality": typicality})}

    def _mask_row(self, image: Decoded) -> dict[str, Any]:
        given = self.session.run(image.pixels[None], resize=False, size=image.size)
        mask = given["mask"][0]
        names = self.seal.class_names
        counts = np.bincount(mask.ravel(), minlength=len(names)) / mask.size
        stream = io.BytesIO()
        Image.fromarray(mask).save(stream, "PNG")
        return {
            "shares": dict(zip(names, counts.tolist(), strict=True)),
            "confidence": float(given["confidence"][0]),
            "mask_png": base64.b64encode(stream.getvalue()).decode("ascii"),
        }
