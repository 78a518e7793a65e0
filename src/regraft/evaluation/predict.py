"""Files in, class names out: the model folder's own program, one row for each input, nothing faked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from PIL.Image import Image
from torch import fx, nn

from regraft.compute.numerics import Numerics, choose_numerics
from regraft.compute.program import inference_program, program_batch_size
from regraft.data.cache.stream import DecodedBatch, DecodedStream
from regraft.data.decode.decode import PixelProgram
from regraft.data.decode.memory import MemoryImage
from regraft.data.inputs import list_inputs
from regraft.errors import SettingsError
from regraft.evaluation.tta.auto import views_asked_for
from regraft.machine.prefetch import Prefetch, thread_pool
from regraft.models.describe.info import ModelInfo, info_of
from regraft.models.describe.inputs import Normaliser
from regraft.models.describe.outputs import DEFAULT_THRESHOLD, decide, threshold_names
from regraft.models.describe.outputs import probabilities as probabilities_of
from regraft.models.describe.views import Views, require_views, views_of
from regraft.models.keras.layer import KerasLayer
from regraft.models.store.folder import loaded_model
from regraft.summary import Summary

__all__ = ["Asked", "Inputs", "Prediction", "Predictor", "predict", "predictor_for"]

_Input = str | Path | npt.NDArray[np.uint8] | Image | bytes
Inputs = _Input | Iterable[_Input]
Asked = Views | Literal["auto"]


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
    """

    path: str
    prediction: str | None
    probability: float | None
    probabilities: dict[str, float]
    error: str | None = None
    labels: tuple[str, ...] | None = None

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
        """Return plain data; `labels` is there for multi-label models alone."""
        values = dict(self.__dict__)
        labels = values.pop("labels")
        return values if labels is None else {**values, "labels": list(labels)}


class Predictor:
    """A loaded model, ready to predict many inputs.

    Args:
        model: From `load_model`: it has class names and preprocessing.
        numerics: Device, precision of inference, layout, threads; None chooses for this machine.
        threshold: From which probability on a name is given, for models that have thresholds; None takes the stored.
        tta: Views of each image whose mean probabilities count (`views_of`); None looks at the image alone.

    Raises:
        SettingsError: The model has no class names, or no thresholds where one is given; or there are no such views.
    """

    def __init__(
        self,
        model: nn.Module,
        numerics: Numerics | None = None,
        *,
        threshold: float | None = None,
        tta: Views | None = None,
    ) -> None:
        info = info_of(model)
        if info.class_names is None or info.preprocessing is None:
            raise SettingsError(
                "The model has no class names or no preprocessing.",
                "predictions are names, made from files",
                "load it with `rg.load_model(PATH)`",
            )
        if info.output == "segmentation":
            raise SettingsError(
                "The model names the class of every pixel, not of an image.",
                "a model that classifies images",
                "use `rg.predict_masks(MODEL, IMAGES)`, or type `regraft predict`",
            )
        self.class_names: Sequence[str] = info.class_names
        self.output = info.output
        self.thresholds = _thresholds(info, threshold)
        require_views(tta)
        self.tta = tta
        self.numerics = (numerics or choose_numerics()).for_inference
        preprocessing = info.preprocessing
        self.pixels: PixelProgram = preprocessing.pixels
        self._normaliser = Normaliser(preprocessing, self.numerics.device)
        self._program = inference_program(model, self.numerics, program_batch_size(self.numerics))

    def predict(self, paths: Iterable[str | MemoryImage] | DecodedStream) -> Iterator[Prediction]:
        """Yield one prediction for each path, in order; files are decoded a few batches ahead.

        Args:
            paths: Files and images in memory, or the stream of those that are being decoded already, in the model's
                own program.
        """
        for prediction, _ in self.predict_views(paths):
            yield prediction

    def predict_views(
        self, paths: Iterable[str | MemoryImage] | DecodedStream
    ) -> Iterator[tuple[Prediction, npt.NDArray[np.floating] | None]]:
        """Yield what `predict` does, each with the probabilities (views, classes) behind it, the image's own first."""
        stream = paths if isinstance(paths, DecodedStream) else self._stream(paths)
        try:
            for batch, probabilities in self._computed(_regrouped(stream, self._program.batch_size)):
                for row, (path, reason) in enumerate(zip(batch.paths, batch.reasons, strict=True)):
                    views = None if reason else probabilities[:, row]
                    yield self._prediction(path, None if views is None else views.mean(0), reason), views
        finally:
            stream.close()

    def _stream(self, paths: Iterable[str | MemoryImage]) -> DecodedStream:
        return DecodedStream(
            paths,
            self.pixels,
            batch_size=self._program.batch_size,
            threads=self.numerics.threads,
            allocate=self._normaliser.allocate,
        )

    def probabilities(self, images_NHWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.floating]:
        """Return pixels uint8 (N, H, W, channels) of the model's image size -> probabilities (views, N, classes)."""
        found: list[npt.NDArray[np.floating]] = []
        for view in views_of(self._normaliser.pixels(images_NHWC), self.tta):
            (logits,) = self._program(self._normaliser(view))
            found.append(probabilities_of(self.output, logits.float()).cpu().numpy())
        return np.stack(found)

    def _computed(self, stream: Iterable[DecodedBatch]) -> Iterator[tuple[DecodedBatch, npt.NDArray[np.floating]]]:
        """Yield each batch with its probabilities, in order; on a CPU several are computed at once.

        A batch on one processor each is faster than one batch after the other on all of them: nobody waits for the
        others at the end of every layer, and decoding goes on between.
        """
        coming = iter(stream)
        first = list(islice(coming, self._most_at_once))
        at_once = max(1, len(first))
        threads = max(1, self.numerics.threads // at_once)
        try:
            with thread_pool(at_once, "predict", torch.set_num_threads, (threads,)) as pool:
                computed = Prefetch(
                    lambda batch: (batch, pool.submit(self.probabilities, batch.images)),
                    chain(first, coming),
                    at_once + 1,
                )
                for batch, probabilities in computed:
                    yield batch, probabilities.result()
        finally:
            torch.set_num_threads(self.numerics.threads)

    @property
    def _most_at_once(self) -> int:
        """Batches to compute at once: only of a graph of plain layers, whose calls know nothing of each other."""
        module = self._program.module
        is_plain = isinstance(module, fx.GraphModule) and not any(isinstance(m, KerasLayer) for m in module.modules())
        return self.numerics.threads if is_plain and self.numerics.device == "cpu" else 1

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


def _regrouped(stream: DecodedStream, batch_size: int) -> Iterator[DecodedBatch]:
    """Yield the same files in batches of this size, which is a multiple of the stream's."""
    coming = iter(stream)
    while parts := list(islice(coming, max(1, batch_size // stream.batch_size))):
        if len(parts) == 1:
            yield parts[0]
            continue
        paths, reasons = (list(chain.from_iterable(part[place] for part in parts)) for place in (0, 2))
        yield DecodedBatch(paths, np.concatenate([part.images for part in parts]), reasons)


def _thresholds(info: ModelInfo, threshold: float | None) -> dict[str, float]:
    """Return the threshold of each name that has one."""
    names = threshold_names(info.output, info.class_names or ())
    if threshold is None:
        return {name: info.thresholds.get(name, DEFAULT_THRESHOLD) for name in names}
    if not names or not 0 <= threshold <= 1:
        raise SettingsError(
            f"A threshold of {threshold:g} was given"
            + (", and this model names the most probable class." if not names else "."),
            "a share from 0 to 1, for a model with the output binary or multilabel",
            "leave the threshold out",
        )
    return dict.fromkeys(names, threshold)


def predictor_for(
    path: str | Path | None,
    model: nn.Module,
    numerics: Numerics | None,
    *,
    threshold: float | None = None,
    checkpoint: str | None = None,
    tta: Asked | str | None = None,
) -> Predictor:
    """Return a model ready to predict; where views are `auto`, with those that the run's validation images ask for.

    Args:
        path: Where the model was loaded from; None where that is not known.
        model: That model.
        numerics: As for `Predictor`.
        threshold: As for `Predictor`.
        checkpoint: That was loaded.
        tta: The views.

    Raises:
        SettingsError: As `Predictor`; or `auto` of something that is no run.
        DataError: `auto`, and no validation image can be read.
    """
    if tta != "auto":
        require_views(tta)
        return Predictor(model, numerics, threshold=threshold, tta=cast("Views | None", tta))
    if path is None:
        raise SettingsError(
            "`tta='auto'` was set for a model that is loaded already.",
            "the path of a run, whose validation images choose the views",
            "name the run, or the views: flip, crops or multi",
        )
    of_all = Predictor(model, numerics, tta="multi")
    precision = of_all.numerics.inference
    views = views_asked_for(
        path,
        info_of(model),
        lambda paths: (views for _, views in of_all.predict_views(paths)),
        checkpoint=checkpoint,
        precision=precision,
    )
    return Predictor(model, numerics, threshold=threshold, tta=views)


def predict(
    model: str | Path | nn.Module,
    inputs: Inputs,
    *,
    numerics: Numerics | None = None,
    threshold: float | None = None,
    checkpoint: str | None = None,
    tta: Asked | None = None,
) -> list[Prediction]:
    """Predict the class, or the labels, of images: one row for each input, in input order.

    Args:
        model: A run folder, a model folder, or a model from `load_model`.
        inputs: An image file, a folder (its images, recursive, sorted), a pattern such as `photos/*.jpg`; an image in
            memory: a NumPy array of uint8 (height, width, channels) with red first, a PIL image, or the bytes of a
            file; a batch (images, height, width, channels); or several of these. What is in memory goes through the
            program of files.
        numerics: Device, precision of inference, layout, threads; None chooses for this machine.
        threshold: From which probability on a name is given, for models that have thresholds; None takes the stored.
        checkpoint: Of a run folder, another network than the one it has chosen, as for `load_model`.
        tta: Test-time augmentation: the mean of the probabilities of several views of each image. `flip`: the image
            and its mirror image; `crops`: the image, its corners and its centre; `multi`: these six, each with its
            mirror image. `auto`: of these what the run's validation images gain by, if they do.

    Raises:
        SettingsError: There is no model there, or it has no thresholds where one is given; or an input is no image.
        DataError: There is no such file or folder. Unreadable images are rows with an `error`.
    """
    loaded = loaded_model(model, checkpoint)
    paths, _ = list_inputs(inputs)
    of = None if isinstance(model, nn.Module) else model
    predictor = predictor_for(of, loaded, numerics, threshold=threshold, checkpoint=checkpoint, tta=tta)
    return list(predictor.predict(paths))
