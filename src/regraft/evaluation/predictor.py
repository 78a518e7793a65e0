"""A model that is ready to predict: the model folder's own program, one row for each input, nothing faked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import fx, nn

from regraft.compute.numerics import Numerics, choose_numerics
from regraft.compute.program import inference_program, program_batch_size
from regraft.data.cache.stream import DecodedBatch, DecodedStream
from regraft.data.decode.decode import PixelProgram
from regraft.data.decode.memory import MemoryImage
from regraft.data.decode.preprocess import Preprocessing
from regraft.errors import SettingsError
from regraft.evaluation.results.observed import Observed
from regraft.evaluation.results.prediction import Prediction, prediction_of, unreadable
from regraft.evaluation.trust.features import featured_program
from regraft.evaluation.trust.judge import Judge, Verdict
from regraft.machine.prefetch import Prefetch, thread_pool
from regraft.models.describe.info import ModelInfo, info_of, named
from regraft.models.describe.inputs import Normaliser
from regraft.models.describe.outputs import DEFAULT_THRESHOLD, threshold_names
from regraft.models.describe.outputs import probabilities as probabilities_of
from regraft.models.describe.views import Views, require_views, views_of
from regraft.models.keras.layer import KerasLayer

__all__ = ["Predictor"]


class _Computed(NamedTuple):
    """A batch that went through the network."""

    logits: npt.NDArray[np.float32]
    views: npt.NDArray[np.floating]
    probabilities: npt.NDArray[np.floating]
    verdicts: Sequence[Verdict] | None
    features: npt.NDArray[np.float32] | None


class Predictor:
    """A loaded model, ready to predict many inputs.

    Args:
        model: From `load_model`: it has class names and preprocessing.
        numerics: Device, precision of inference, layout, threads; None chooses for this machine.
        threshold: From which probability on a name is given, for models that have thresholds; None takes the stored.
        tta: Views of each image whose mean probabilities count (`views_of`); None looks at the image alone.
        sets: Also give sets of classes that hold the true one in this share of the images.
        reject: Whether images that are like none of training and validation are `unknown`.
        features: Whether to take the features that the head reads along, where the network has any.
        scores: What sets are limited by: `nonconformity` of validation images that were seen in these views; None takes
            what the model keeps of the images alone.

    Raises:
        SettingsError: The model has no class names, or no thresholds where one is given, or does not keep what `sets`
            or `reject` take; or there are no such views.
    """

    def __init__(
        self,
        model: nn.Module,
        numerics: Numerics | None = None,
        *,
        threshold: float | None = None,
        tta: Views | None = None,
        sets: float | None = None,
        reject: bool = False,
        features: bool = False,
        scores: npt.NDArray[np.floating] | None = None,
    ) -> None:
        info = info_of(model)
        self.class_names, preprocessing = _required(info)
        self.output = info.output
        self.calibration = info.calibration
        self.thresholds = _thresholds(info, threshold)
        _require_scores(tta, sets, scores)
        self.tta = tta
        self.numerics = (numerics or choose_numerics()).for_inference
        self.pixels: PixelProgram = preprocessing.pixels
        self._normaliser = Normaliser(preprocessing, self.numerics.device)
        self._judge = Judge(info, sets=sets, reject=reject, scores=scores) if sets is not None or reject else None
        num = program_batch_size(self.numerics)
        featured = featured_program(model, self.numerics, num) if features or reject else None
        self._program = featured or inference_program(model, self.numerics, num)
        self.gives_features = featured is not None

    def predict(self, paths: Iterable[str | MemoryImage] | DecodedStream) -> Iterator[Prediction]:
        """Yield one prediction for each path, in order; files are decoded a few batches ahead.

        Args:
            paths: Files and images in memory, or the stream of those that are being decoded already, in the model's
                own program.
        """
        for observed in self.observe(paths):
            yield observed.prediction

    def observe(self, paths: Iterable[str | MemoryImage] | DecodedStream) -> Iterator[Observed]:
        """Yield what `predict` does, each with the logits and probabilities of its views, the image's own first."""
        for _, observed in self.observe_batches(paths):
            yield from observed

    def observe_batches(
        self, paths: Iterable[str | MemoryImage] | DecodedStream
    ) -> Iterator[tuple[DecodedBatch, list[Observed]]]:
        """Yield what `observe` does by batches, each with its pixels; those of an unreadable image are zeros."""
        stream = paths if isinstance(paths, DecodedStream) else self._stream(paths)
        try:
            for batch, computed in self._computed(_regrouped(stream, self._program.batch_size)):
                yield batch, [self._observed(batch, computed, row) for row in range(len(batch.paths))]
        finally:
            stream.close()

    def _observed(self, batch: DecodedBatch, computed: _Computed, row: int) -> Observed:
        path, reason = batch.paths[row], batch.reasons[row]
        if reason:
            return Observed(unreadable(self.output, path, reason), None, None)
        said = _prediction(self, path, computed, row)
        features = None if computed.features is None else computed.features[row].reshape(-1)
        return Observed(said, computed.logits[:, row], computed.views[:, row], features)

    def predict_pixels(self, images_NHWC: npt.NDArray[np.uint8]) -> list[Prediction]:
        """Return the predictions for pixels uint8 (N, H, W, channels) that went through the model's program."""
        computed = self._compute(images_NHWC)
        return [_prediction(self, f"images[{row}]", computed, row) for row in range(len(images_NHWC))]

    def _stream(self, paths: Iterable[str | MemoryImage]) -> DecodedStream:
        return DecodedStream(
            paths,
            self.pixels,
            batch_size=self._program.batch_size,
            threads=self.numerics.threads,
            allocate=self._normaliser.allocate,
        )

    def run(self, images_NHWC: npt.NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return pixels uint8 (N, H, W, channels) of the model's image size -> raw logits and features, on the device.

        Both are fp32; without `gives_features` the features are None.
        """
        return self._run(self._normaliser.pixels(images_NHWC))

    def _run(self, pixels_NCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        outputs = self._program(self._normaliser(pixels_NCHW))
        return outputs[-1].float(), outputs[0].float() if self.gives_features else None

    def _compute(self, images_NHWC: npt.NDArray[np.uint8]) -> _Computed:
        raw: list[npt.NDArray[np.float32]] = []
        shares: list[npt.NDArray[np.floating]] = []
        features = None
        for place, view in enumerate(views_of(self._normaliser.pixels(images_NHWC), self.tta)):
            logits, given = self._run(view)
            calibrated = logits if self.calibration is None else self.calibration(logits, self.output)
            raw.append(logits.cpu().numpy())
            shares.append(probabilities_of(self.output, calibrated).cpu().numpy())
            features = given if place == 0 else features  # of the image itself
        views = np.stack(shares)
        probabilities: npt.NDArray[np.floating] = views.mean(0)
        known = None if features is None else features.cpu().numpy()
        verdicts = None if self._judge is None else self._judge(probabilities, raw[0], known)
        return _Computed(np.stack(raw), views, probabilities, verdicts, known)

    def _computed(self, stream: Iterable[DecodedBatch]) -> Iterator[tuple[DecodedBatch, _Computed]]:
        """Yield each batch with what it gave, in order; on a CPU several are computed at once.

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
                    lambda batch: (batch, pool.submit(self._compute, batch.images)),
                    chain(first, coming),
                    at_once + 1,
                )
                for batch, result in computed:
                    yield batch, result.result()
        finally:
            torch.set_num_threads(self.numerics.threads)

    @property
    def _most_at_once(self) -> int:
        """Batches to compute at once: only of a graph of plain layers, whose calls know nothing of each other."""
        module = self._program.module
        is_plain = isinstance(module, fx.GraphModule) and not any(isinstance(m, KerasLayer) for m in module.modules())
        return self.numerics.threads if is_plain and self.numerics.device == "cpu" else 1


def _required(info: ModelInfo) -> tuple[Sequence[str], Preprocessing]:
    """Return the class names and the preprocessing of a model that names images."""
    required = named(info)
    if info.output == "segmentation":
        raise SettingsError(
            "The model names the class of every pixel, not of an image.",
            "a model that classifies images",
            "use `rg.predict_masks(MODEL, IMAGES)`, or type `regraft predict`",
        )
    return required


def _require_scores(tta: Views | None, sets: float | None, scores: npt.NDArray[np.floating] | None) -> None:
    """Require views that there are; with sets, also what limits these."""
    require_views(tta)
    if tta is not None and sets is not None and scores is None:
        raise SettingsError(
            "Sets of classes were asked for with views of each image, and what limits them was found on images alone.",
            "a run, whose validation images are looked at in these views",
            "name the run, or leave the sets or the views out",
        )


def _prediction(predictor: Predictor, path: str, computed: _Computed, row: int) -> Prediction:
    verdict = Verdict(None, None) if computed.verdicts is None else computed.verdicts[row]
    return prediction_of(
        path,
        computed.probabilities[row],
        predictor.class_names,
        predictor.output,
        predictor.thresholds,
        candidates=verdict.candidates,
        typicality=verdict.typicality,
    )


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
        stored = {name: info.thresholds.get(name, DEFAULT_THRESHOLD) for name in names}
        return stored if info.calibration is None else info.calibration.thresholds(stored)
    if not names or not 0 <= threshold <= 1:
        raise SettingsError(
            f"A threshold of {threshold:g} was given"
            + (", and this model names the most probable class." if not names else "."),
            "a share from 0 to 1, for a model with the output binary or multilabel",
            "leave the threshold out",
        )
    return dict.fromkeys(names, threshold)
