"""Files in, names out, by a sealed file: the same reading and the same rows as those of the run itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from regraft.data.cache.stream import DecodedStream
from regraft.data.class_table import default_colours
from regraft.data.decode.decode import decode_or_reason
from regraft.data.decode.memory import MemoryImage, read_source
from regraft.data.decode.upright import upright_size
from regraft.errors import SettingsError
from regraft.evaluation.results.mask import MaskPrediction, palette_of
from regraft.evaluation.results.prediction import Prediction, prediction_of, unreadable
from regraft.evaluation.trust.conformal import candidates, score_limit
from regraft.exports.running.session import SealedSession

__all__ = ["SealedMaskPredictor", "SealedPredictor"]

_BATCH = 8  # images: what a CPU computes at once


class SealedPredictor:
    """A sealed file that names images, ready to predict many.

    Args:
        file: Its path.
        threshold: From which probability on a name is given, for files that have thresholds; None takes the stored.
        sets: Also give sets of classes that hold the true one in this share of the images.
        reject: Whether images that are like none of training and validation are `unknown`.
        threads: None takes all processors.

    Raises:
        SettingsError: The file does not keep what `sets` or `reject` take, or has no thresholds; or onnxruntime is not
            installed.
        StorageError: The file is damaged, or regraft did not write it.
    """

    def __init__(
        self,
        file: str | Path | SealedSession,
        *,
        threshold: float | None = None,
        sets: float | None = None,
        reject: bool = False,
        threads: int | None = None,
    ) -> None:
        self.session = file if isinstance(file, SealedSession) else SealedSession(file, threads=threads)
        seal = self.session.seal
        if seal.output == "segmentation":
            raise SettingsError("The file names the class of every pixel, not of an image.", "", "`regraft predict`")
        self.class_names: Sequence[str] = seal.class_names
        self.output = seal.output
        self.thresholds = _thresholds(self.session, threshold)
        self._limit: float | None = None
        if sets is not None:
            if seal.nonconformity is None:
                raise _not_kept("--sets", seal.notes.get("sets", ""))
            self._limit = score_limit(seal.nonconformity, sets)
        self._reject = reject
        if reject and "typicality" not in self.session.outputs:
            raise _not_kept("--reject", seal.notes.get("reject", ""))
        self._threads = threads

    def predict(self, paths: Iterable[str | MemoryImage]) -> Iterator[Prediction]:
        """Yield one prediction for each path, in order; files are decoded a few batches ahead."""
        stream = DecodedStream(paths, self.session.seal.preprocessing.pixels, batch_size=_BATCH, threads=self._threads)
        try:
            for batch in stream:
                given = self.session.run(batch.images, resize=False)
                for row, (path, reason) in enumerate(zip(batch.paths, batch.reasons, strict=True)):
                    if reason:
                        yield unreadable(self.output, path, reason)
                        continue
                    shares = given["probabilities"][row]
                    yield prediction_of(
                        path,
                        shares,
                        self.class_names,
                        self.output,
                        self.thresholds,
                        candidates=None if self._limit is None else candidates(shares, self._limit),
                        typicality=float(given["typicality"][row]) if self._reject else None,
                    )
        finally:
            stream.close()


class SealedMaskPredictor:
    """A sealed file that names the class of every pixel, ready to predict many images.

    Args:
        file: Its path.
        threads: None takes all processors.

    Raises:
        SettingsError: onnxruntime is not installed, or there is no such file.
        StorageError: The file is damaged, or regraft did not write it.
    """

    def __init__(self, file: str | Path | SealedSession, *, threads: int | None = None) -> None:
        self.session = file if isinstance(file, SealedSession) else SealedSession(file, threads=threads)
        seal = self.session.seal
        self.class_names: Sequence[str] = seal.class_names
        self.palette = palette_of(seal.colours or default_colours(self.class_names))

    def predict(self, paths: Iterable[str | MemoryImage]) -> Iterator[MaskPrediction]:
        """Yield one prediction for each image, in order."""
        for source in paths:
            yield self._prediction(source)

    def _prediction(self, source: str | MemoryImage) -> MaskPrediction:
        path, data = str(source), read_source(source)
        size = data if isinstance(data, str) else upright_size(data)
        if isinstance(size, str) or isinstance(data, str):
            return MaskPrediction(path, None, {}, None, str(size))
        pixels = decode_or_reason(data, self.session.seal.preprocessing.pixels)
        if isinstance(pixels, str):
            return MaskPrediction(path, None, {}, None, pixels)
        given = self.session.run(pixels[None], resize=False, size=size)
        mask = given["mask"][0]
        counts = np.bincount(mask.ravel(), minlength=len(self.class_names)) / mask.size
        shares = dict(zip(self.class_names, counts.tolist(), strict=True))
        return MaskPrediction(path, mask, shares, float(given["confidence"][0]))


def _thresholds(session: SealedSession, threshold: float | None) -> dict[str, float]:
    stored = dict(session.seal.thresholds)
    if threshold is None:
        return stored
    if not stored:
        raise SettingsError(
            f"A threshold of {threshold:g} was given, and this model names the most probable class.",
            "a share from 0 to 1, for a model with the output binary or multilabel",
            "leave the threshold out",
        )
    return dict.fromkeys(stored, threshold)


def _not_kept(option: str, reason: str) -> SettingsError:
    return SettingsError(
        f"{option} was asked for, and this file keeps nothing to judge images by" + (f": {reason}." if reason else "."),
        "an export of a run that keeps it",
        f"leave the option out, or ask the run: `regraft predict RUN {option}`",
    )
