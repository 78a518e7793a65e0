"""What limits sets of classes where images are seen in several views: the run's validation images, seen in the same."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from regraft.errors import DataError
from regraft.evaluation.labelled_rows import own_rows
from regraft.evaluation.trust.conformal import nonconformity
from regraft.evaluation.tta.auto import validated_run
from regraft.evaluation.tta.choice import Rows
from regraft.models.describe.info import ModelInfo

__all__ = ["scores_in_views"]

_MOST = 2000  # validation images, evenly over the split
_log = logging.getLogger("regraft")


def scores_in_views(
    path: str | Path, info: ModelInfo, predicted: Callable[[Sequence[str]], Rows]
) -> npt.NDArray[np.floating]:
    """Return `nonconformity` of a run's validation images, by the mean of their views.

    Args:
        path: The run's folder.
        info: What is known of its model, which gives each image one class.
        predicted: Gives for each of these images the probabilities of its views, None where it cannot be read.

    Raises:
        SettingsError: It is no run with validation images that its model did not train on.
        DataError: None of them can be read.
    """
    run = validated_run(path, "what limits sets is found on a run's validation images, seen in the same views", "sets")
    rows = own_rows(run, info.class_names or (), multilabel=False, split="val")
    some = np.unique(np.linspace(0, len(rows.paths) - 1, min(_MOST, len(rows.paths))).round().astype(np.int64))
    _log.info("sets: looking at %d validation images of the run in these views", len(some))
    found = list(predicted([rows.paths[row] for row in some.tolist()]))
    good = [place for place, views in enumerate(found) if views is not None]
    if not good:
        raise DataError(
            "None of the run's validation images can be read, and they limit the sets.",
            "the validation images where the run found them",
            "put the files back, or leave --sets or --tta out",
        )
    means = np.stack([views.mean(0) for views in found if views is not None])
    return nonconformity(means, np.asarray(rows.labels, np.int64)[some[good]])
