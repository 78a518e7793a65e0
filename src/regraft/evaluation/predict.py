"""Files in, class names out: what is asked of a model, and its answers, one row for each input."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
from PIL.Image import Image
from torch import nn

from regraft.compute.numerics import Numerics
from regraft.data.inputs import list_inputs
from regraft.errors import SettingsError
from regraft.evaluation.predictor import Predictor
from regraft.evaluation.results.observed import Observed
from regraft.evaluation.results.prediction import Prediction
from regraft.evaluation.tta.auto import views_asked_for
from regraft.evaluation.tta.sets import scores_in_views
from regraft.models.describe.info import info_of
from regraft.models.describe.views import Views, require_views
from regraft.models.store.folder import loaded_model

__all__ = ["Asked", "Inputs", "Observed", "Prediction", "Predictor", "predict", "scores_for", "views_for"]

_Input = str | Path | npt.NDArray[np.uint8] | Image | bytes
Inputs = _Input | Iterable[_Input]
Asked = Views | Literal["auto"]


def views_for(
    path: str | Path | None,
    model: nn.Module,
    numerics: Numerics | None,
    tta: Asked | str | None,
    checkpoint: str | None = None,
) -> Views | None:
    """Return the views that a `Predictor` is to take; where they are `auto`, those that validation images ask for.

    Args:
        path: Where the model was loaded from; None where that is not known.
        model: That model.
        numerics: As for `Predictor`.
        tta: The views.
        checkpoint: That was loaded.

    Raises:
        SettingsError: There are no such views; or `auto` of something that is no run.
        DataError: `auto`, and no validation image can be read.
    """
    if tta != "auto":
        require_views(tta)
        return cast("Views | None", tta)
    if path is None:
        raise SettingsError(
            "`tta='auto'` was set for a model that is loaded already.",
            "the path of a run, whose validation images choose the views",
            "name the run, or the views: flip, crops or multi",
        )
    of_all = Predictor(model, numerics, tta="multi")
    precision = of_all.numerics.inference
    return views_asked_for(
        path,
        info_of(model),
        lambda paths: (observed.views for observed in of_all.observe(paths)),
        checkpoint=checkpoint,
        precision=precision,
    )


def scores_for(
    path: str | Path | None, model: nn.Module, numerics: Numerics | None, views: Views | None
) -> npt.NDArray[np.floating] | None:
    """Return what sets of classes are limited by where images are seen in several views; None for the image alone.

    The run's validation images are looked at in these views, which takes a pass over them.

    Args:
        path: Where the model was loaded from; None where that is not known.
        model: That model.
        numerics: As for `Predictor`.
        views: Of each image.

    Raises:
        SettingsError: It was not loaded from a run.
        DataError: None of its validation images can be read.
    """
    info = info_of(model)
    if views is None or path is None or info.output == "multilabel":
        return None
    predictor = Predictor(model, numerics, tta=views)
    return scores_in_views(path, info, lambda paths: (observed.views for observed in predictor.observe(paths)))


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
) -> list[Prediction]:
    """Predict the class, or the labels, of images by torch, as `regraft.predict` says.

    Raises:
        SettingsError: There is no model there, or it has no thresholds where one is given, or keeps nothing that
            `sets` and `reject` take; or an input is no image.
        DataError: There is no such file or folder.
    """
    loaded = loaded_model(model, checkpoint)
    paths, _ = list_inputs(inputs)
    of = None if isinstance(model, nn.Module) else model
    views = views_for(of, loaded, numerics, tta, checkpoint)
    scores = None if sets is None else scores_for(of, loaded, numerics, views)
    predictor = Predictor(loaded, numerics, threshold=threshold, tta=views, sets=sets, reject=reject, scores=scores)
    return list(predictor.predict(paths))
