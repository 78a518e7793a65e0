"""`predict` and `predict_masks`: a run, a model or an exported file, whichever engine computes it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from regraft.data.inputs import list_inputs, list_named
from regraft.errors import SettingsError
from regraft.evaluation.results.mask import MaskPrediction
from regraft.evaluation.results.prediction import Prediction
from regraft.exports.engines.engine import Wish, exported_session, is_export
from regraft.exports.running.predictor import SealedMaskPredictor, SealedPredictor
from regraft.exports.running.session import SealedSession

if TYPE_CHECKING:
    from torch import nn

    from regraft.compute.numerics import Numerics
    from regraft.evaluation.predict import Asked, Inputs
    from regraft.models.segment.tiles import TTA

__all__ = ["predict", "predict_masks"]

Engine = Literal["auto", "onnx", "torch"]


def predict(
    model: str | Path | nn.Module,
    inputs: Inputs,
    *,
    numerics: Numerics | None = None,
    threshold: float | None = None,
    sets: float | None = None,
    reject: bool = False,
    checkpoint: str | None = None,
    tta: Asked | None = None,
    engine: Engine = "auto",
) -> list[Prediction]:
    """Predict the class, or the labels, of images: one row for each input, in input order.

    Args:
        model: A run folder, a model folder, a model from `load_model`, or a file that `export` wrote, which
            onnxruntime runs without torch.
        inputs: An image file, a folder (its images, recursive, sorted), a pattern such as `photos/*.jpg`; an image in
            memory: a NumPy array of uint8 (height, width, channels) with red first, a PIL image, or the bytes of a
            file; a batch (images, height, width, channels); or several of these. What is in memory goes through the
            program of files.
        numerics: Device, precision of inference, layout, threads; None chooses for this machine. An exported file is
            computed in fp32 on the CPU, and reads the threads alone.
        threshold: From which probability on a name is given, for models that have thresholds; None takes the stored.
        sets: Also give each image a set of classes; this share of the sets, such as 0.9, holds the true class.
        reject: Call images `unknown` that look like none of those that the model was trained for.
        checkpoint: Of a run folder, another network than the one it has chosen, as for `load_model`.
        tta: Test-time augmentation: the mean of the probabilities of several views of each image. `flip`: the image
            and its mirror image; `crops`: the image, its corners and its centre; `multi`: these six, each with its
            mirror image. `auto`: of these what the run's validation images gain by, if they do.
        engine: `torch`; `onnx`: onnxruntime, with an export that is made and proven once and kept in the cache;
            `auto`: such an export where there is one, torch is not imported yet, and few images are named.

    Raises:
        SettingsError: There is no model there, or it has no thresholds where one is given, or keeps nothing that
            `sets` and `reject` take; or an input is no image; or the engine does not do what is asked for.
        DataError: There is no such file or folder. Unreadable images are rows with an `error`.
        StorageError: An exported file is damaged, or was changed.
    """
    judged: dict[str, Any] = {"threshold": threshold, "sets": sets, "reject": reject}
    session = _session(model, inputs, numerics, engine, {"checkpoint": checkpoint, "tta": tta})
    if session is None:
        from regraft.evaluation.predict import predict as by_torch

        return by_torch(model, inputs, numerics=numerics, checkpoint=checkpoint, tta=tta, **judged)
    threads = None if numerics is None else numerics.threads
    predictor = SealedPredictor(session, threads=threads, **judged)
    return list(predictor.predict(list_inputs(inputs)[0]))


def predict_masks(
    model: str | Path | nn.Module,
    inputs: Inputs,
    *,
    numerics: Numerics | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    tta: TTA | None = None,
    checkpoint: str | None = None,
    engine: Engine = "auto",
) -> list[MaskPrediction]:
    """Return the class of each pixel of images: one row for each input, in input order, with its mask.

    Args:
        model: A run folder, a model folder, a model from `load_model`, or a file that `export` wrote.
        inputs: As for `predict`: files, folders, patterns, and images in memory.
        numerics: Device, precision of inference, layout, threads; None chooses for this machine.
        tile: Look at the image's own pixels, in tiles of this side; None looks at the size of the training.
        overlap: How many pixels neighbouring tiles share; None takes a quarter of their side.
        tta: `flip` takes the mean of the probabilities of an image and its mirror image.
        checkpoint: Of a run folder, another network than the one it has chosen, as for `load_model`.
        engine: As for `predict`.

    Raises:
        SettingsError: There is no model there, or it is none for segmentation; or an input is no image; or the engine
            does not do what is asked for.
        DataError: There is no such file or folder. Unreadable images are rows with an `error`.
        StorageError: An exported file is damaged, or was changed.
    """
    of_torch = {"checkpoint": checkpoint, "tta": tta, "tile": tile, "overlap": overlap}
    session = _session(model, inputs, numerics, engine, of_torch)
    if session is None:
        from regraft.evaluation.masks import predict_masks as by_torch

        return by_torch(model, inputs, numerics=numerics, tile=tile, overlap=overlap, tta=tta, checkpoint=checkpoint)
    return list(SealedMaskPredictor(session).predict(list_inputs(inputs)[0]))


def _session(
    model: str | Path | nn.Module,
    inputs: Inputs,
    numerics: Numerics | None,
    engine: str,
    of_torch: Mapping[str, object],
) -> SealedSession | None:
    """Return what onnxruntime is to compute, opened; None for torch."""
    threads = None if numerics is None else numerics.threads
    given = [name for name, value in of_torch.items() if value is not None]
    if is_export(model):
        if given or engine == "torch":
            what = " and ".join(f"`{name}`" for name in given) or "The engine torch"
            raise SettingsError(
                f"{what} was asked for, and {str(model)!r} is an export, which looks at the whole image once.",
                "a run's folder",
                "leave it out",
            )
        return SealedSession(str(model), threads=threads)
    if not isinstance(model, str | Path):
        if engine == "onnx":
            raise SettingsError("The engine onnx takes a run, and the model is loaded already.", "a run's folder", "")
        return None
    asked = None if numerics is None or (numerics.device, numerics.inference) == ("cpu", "fp32") else numerics
    wish = Wish(engine, threads, lambda: _number(inputs), {**of_torch, "numerics": asked})
    return exported_session(model, wish)


def _number(inputs: Inputs) -> int | None:
    """Return how many images are named, where that can be told without reading them."""
    if isinstance(inputs, str | os.PathLike):
        return len(list_named([os.fspath(inputs)])[0])
    return len(inputs) if isinstance(inputs, list | tuple) else None
