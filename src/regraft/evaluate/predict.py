"""Files in, class names out: the model folder's own program, one row for each input, nothing faked."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from regraft.data.decode import PixelProgram, decode_or_reason
from regraft.data.preprocess import Preprocessing
from regraft.data.sources.walk import find_pictures
from regraft.errors import DataError, SettingsError
from regraft.models.folder import load_model
from regraft.models.info import ModelInfo, info_of
from regraft.models.inputs import Normaliser
from regraft.models.numerics import Numerics, choose_numerics
from regraft.models.outputs import DEFAULT_THRESHOLD, decide, threshold_names
from regraft.models.outputs import probabilities as probabilities_of
from regraft.models.program import inference_program

__all__ = ["Prediction", "Predictor", "list_inputs", "predict"]

_AHEAD = 4  # batches that are decoded while one is computed


@dataclass(frozen=True)
class Prediction:
    """What a model says of one input.

    Attributes:
        path: The input, as it was given.
        prediction: The name of the most probable class, of two classes the one on this side of the stored threshold,
            of labels all that reach theirs, as `a|b`; None when the input cannot be read.
        probability: Its probability; None of labels, which may be many.
        probabilities: The probability of every class, by name, in the model's order.
        error: Why the input cannot be read, else None.
        labels: The names of the labels, the most probable first; None for a model that gives one class.
    """

    path: str
    prediction: str | None
    probability: float | None
    probabilities: dict[str, float]
    error: str | None = None
    labels: tuple[str, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data; `labels` is there for multi-label models alone."""
        values = dict(self.__dict__)
        labels = values.pop("labels")
        return values if labels is None else {**values, "labels": list(labels)}


class _Pending(NamedTuple):
    paths: list[str]
    images: npt.NDArray[np.uint8]
    reasons: list[Future[str | None]]


class Predictor:
    """A loaded model, ready to predict many inputs.

    Args:
        model: From `load_model`: it has class names and preprocessing.
        numerics: Device, precision, layout, threads; None chooses for this machine.
        threshold: From which probability on a name is given, for models that have thresholds; None takes the stored.

    Raises:
        SettingsError: The model has no class names, or no thresholds where one is given.
    """

    def __init__(self, model: nn.Module, numerics: Numerics | None = None, *, threshold: float | None = None) -> None:
        info = info_of(model)
        if info.class_names is None or info.preprocessing is None:
            raise SettingsError(
                "The model has no class names or no preprocessing.",
                "Predictions are names, made from files.",
                "Load it with `rg.load_model(PATH)`.",
            )
        self.class_names: Sequence[str] = info.class_names
        self.output = info.output
        self.thresholds = _thresholds(info, threshold)
        self.numerics = numerics or choose_numerics()
        preprocessing = Preprocessing.from_dict(info.preprocessing)
        self.pixels: PixelProgram = preprocessing.pixels
        self._normaliser = Normaliser(preprocessing, self.numerics.device)
        batch_size = 16 if torch.device(self.numerics.device).type == "cpu" else 128
        self._program = inference_program(model, self.numerics, batch_size)

    def predict(self, paths: Iterable[str]) -> Iterator[Prediction]:
        """One prediction for each path, in order; files are decoded a few batches ahead."""
        for batch, probabilities, reasons in self._batches(paths):
            for row, (path, reason) in enumerate(zip(batch, reasons, strict=True)):
                yield self._prediction(path, None if reason else probabilities[row], reason)

    def probabilities(self, images_NHWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.floating]:
        """Pixels uint8 (N, H, W, channels) of the model's image size -> probabilities (N, classes)."""
        inputs = self._normaliser(self._normaliser.pixels(images_NHWC))
        (logits,) = self._program(inputs)
        result: npt.NDArray[np.floating] = probabilities_of(self.output, logits.float()).cpu().numpy()
        return result

    def _batches(self, paths: Iterable[str]) -> Iterator[tuple[list[str], npt.NDArray[np.floating], list[str | None]]]:
        size, coming = self._program.batch_size, iter(paths)
        waiting: deque[_Pending] = deque()
        pool = ThreadPoolExecutor(self.numerics.threads, thread_name_prefix="regraft-decode")
        try:
            while True:
                while len(waiting) < _AHEAD and (part := list(islice(coming, size))):
                    waiting.append(self._begin(part, pool))
                if not waiting:
                    return
                batch = waiting.popleft()
                reasons = [reason.result() for reason in batch.reasons]
                # While this batch is computed, which lets other threads run, the next ones are decoded.
                yield batch.paths, self.probabilities(batch.images), reasons
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _begin(self, paths: list[str], pool: ThreadPoolExecutor) -> _Pending:
        images = self._normaliser.allocate((len(paths), *self.pixels.size, self.pixels.num_channels))
        return _Pending(paths, images, [pool.submit(self._decode, path, images[row]) for row, path in enumerate(paths)])

    def _decode(self, path: str, pixels: npt.NDArray[np.uint8]) -> str | None:
        """Fill in the pixels of a file; where it cannot be read, zeros, and the reason."""
        result = decode_or_reason(path, self.pixels)
        pixels[...] = 0 if isinstance(result, str) else result
        return result if isinstance(result, str) else None

    def _prediction(self, path: str, probabilities: npt.NDArray[np.floating] | None, reason: str | None) -> Prediction:
        many = self.output == "multilabel"
        if probabilities is None:
            return Prediction(path, None, None, {}, reason, () if many else None)
        chosen = decide(self.output, probabilities, self.class_names, self.thresholds)
        values = probabilities.tolist()
        named = dict(zip(self.class_names, values, strict=True))
        if many:
            labels = tuple(self.class_names[place] for place in sorted(chosen, key=lambda place: -values[place]))
            return Prediction(path, "|".join(labels), None, named, labels=labels)
        return Prediction(path, self.class_names[chosen[0]], values[chosen[0]], named)


def _thresholds(info: ModelInfo, threshold: float | None) -> dict[str, float]:
    """The threshold of each name that has one."""
    names = threshold_names(info.output, info.class_names or ())
    if threshold is None:
        return {name: info.thresholds.get(name, DEFAULT_THRESHOLD) for name in names}
    if not names or not 0 <= threshold <= 1:
        raise SettingsError(
            f"A threshold of {threshold:g} was given"
            + (", and this model names the most probable class." if not names else "."),
            "Expected a share from 0 to 1, for a model with the output binary or multilabel.",
            "Leave the threshold out.",
        )
    return dict.fromkeys(names, threshold)


def predict(
    model: str | Path | nn.Module,
    inputs: str | Path | Iterable[str | Path],
    *,
    numerics: Numerics | None = None,
    threshold: float | None = None,
) -> list[Prediction]:
    """Predict the class, or the labels, of images: one row for each input, in input order.

    Args:
        model: A run folder, a model folder, or a model from `load_model`.
        inputs: An image file, a folder (its images, recursive, sorted), or several files.
        numerics: Device, precision, layout, threads; None chooses for this machine.
        threshold: From which probability on a name is given, for models that have thresholds; None takes the stored.

    Raises:
        SettingsError: There is no model there, or it has no thresholds where one is given.
        DataError: There is no such file or folder. Unreadable images are rows with an `error`.
    """
    loaded = model if isinstance(model, nn.Module) else load_model(model)
    paths, _ = list_inputs(inputs)
    return list(Predictor(loaded, numerics, threshold=threshold).predict(paths))


def list_inputs(inputs: str | Path | Iterable[str | Path]) -> tuple[list[str], dict[str, int]]:
    """The image files that `inputs` names, and how many other files were left out, by reason.

    Raises:
        DataError: A single input that does not exist, or a folder without images.
    """
    if not isinstance(inputs, (str, Path)):
        return [str(path) for path in inputs], {}
    path = Path(inputs)
    if path.is_dir():
        found, ignored = find_pictures(path)
        if not found:
            raise DataError(
                f"The folder {str(path)!r} holds no images.",
                "Expected at least one image file, at any depth.",
                "Check the path; hidden folders are not searched.",
            )
        return found, ignored
    if not path.exists():
        raise DataError(
            f"There is no file or folder {str(path)!r}.",
            "Expected an image, a folder of images, or - for paths on stdin.",
            "Check the spelling of the path.",
        )
    return [str(path)], {}
