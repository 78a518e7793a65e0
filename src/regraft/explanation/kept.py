"""Heat maps of a split's worst errors and of a few right images, kept in the run's folder for its report."""

from __future__ import annotations

import base64
import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from regraft import commit
from regraft.errors import DataError, SettingsError
from regraft.evaluation.evaluate import stored_numerics
from regraft.explanation.explain import explained
from regraft.explanation.images import explained_as
from regraft.explanation.record import Explanation
from regraft.models.store.folder import load_model
from regraft.report.evidence import Evaluated, Record, gather
from regraft.report.gallery.heat_maps import NUM_RIGHT, NUM_WRONG
from regraft.run.folder import RunFolder

__all__ = ["keep_heat_maps"]

_NUM_WORST, _NUM_CLASSES = 3, 4  # images with masks, and classes of each
_SIDE, _GAP, _QUALITY = 176, 4, 82
_log = logging.getLogger("regraft")


def keep_heat_maps(run: RunFolder, split: str) -> int:
    """Write the heat maps of an evaluated split, at most twelve, and return how many there are.

    Of masks, these are of a few classes of the images with the lowest mean IoU. There are none of networks that have no
    map of places, and of modules that the run's folder cannot build.

    Raises:
        StorageError: They cannot be written.
    """
    evidence = gather(run.path)
    evaluated = next((each for each in evidence.evaluated if each.split == split), None)
    if evaluated is None:
        return 0
    find = _of_masks if evaluated.metrics.get("output") == "segmentation" else _of_images
    try:
        images = find(run, evaluated, str(evidence.splits.get("source") or ""))
    except (SettingsError, KeyError, ValueError) as error:  # a row that names no class of the model
        _log.debug("no heat maps for the report: %s", error)
        return 0
    kept = {path: entry for path, entry in images.items() if entry}
    commit.write_json(run.heat_maps(split), {"images": kept})
    return len(kept)


def _of_images(run: RunFolder, evaluated: Evaluated, root: str) -> dict[str, dict[str, Any]]:
    rows = [*evaluated.worst[:NUM_WRONG], *evaluated.right[:NUM_RIGHT]]
    model, names = load_model(run.path), [_named(row) for row in rows]
    found = explained_as(model, stored_numerics(run), [_file(root, row) for row in rows], names)
    return {str(row["path"]): _entry(own, row) for row, own in zip(rows, found, strict=True)}


def _of_masks(run: RunFolder, evaluated: Evaluated, root: str) -> dict[str, dict[str, Any]]:
    rows = evaluated.worst[:_NUM_WORST]
    found = explained(
        load_model(run.path), [_file(root, row) for row in rows], top=_NUM_CLASSES, numerics=stored_numerics(run)
    )
    images = {}
    for row, own in zip(rows, found, strict=True):
        entries = [entry for each in own if (entry := _entry(each, {}))]
        images[str(row["path"])] = {"miou": row["miou"], "classes": entries} if entries else {}
    return images


def _file(root: str, row: Record) -> str:
    return str(Path(root, str(row["path"])))


def _named(row: Record) -> str:
    """Return the class to explain: the predicted one, of several labels the first, of none the most probable."""
    if not isinstance(row.get("labels"), list):
        return str(row["prediction"])
    shares: dict[str, float] = row["probabilities"]
    return str(row["labels"][0] if row["labels"] else max(shares, key=lambda name: shares[name]))


def _entry(own: Explanation, row: Record) -> dict[str, Any]:
    """Return what is kept of one map, with what the row of its image says; nothing where there is none."""
    if own.error is not None:
        return {}
    try:
        image, heat = own.panels(_SIDE)
    except DataError:
        return {}
    stream = io.BytesIO()
    both = np.concatenate([image, np.full((len(image), _GAP, 3), 255, np.uint8), heat], axis=1)
    Image.fromarray(both).save(stream, "JPEG", quality=_QUALITY)
    jpeg = base64.b64encode(stream.getvalue()).decode("ascii")
    share = row["probabilities"][own.class_name] if row else own.probability
    return {"prediction": row.get("prediction"), "class": own.class_name, "probability": share, "jpeg": jpeg}
