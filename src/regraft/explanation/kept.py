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
from regraft.explanation.images import explained_as
from regraft.explanation.record import Explanation
from regraft.models.store.folder import load_model
from regraft.report.evidence import Record, gather
from regraft.run.folder import RunFolder

__all__ = ["keep_heat_maps"]

_NUM_WRONG, _NUM_RIGHT = 8, 4
_SIDE, _GAP, _QUALITY = 176, 4, 82
_log = logging.getLogger("regraft")


def keep_heat_maps(run: RunFolder, split: str) -> int:
    """Write the heat maps of an evaluated split, at most twelve, and return how many there are.

    There are none of masks, of networks that have no map of places, and of modules that the run's folder cannot build.

    Raises:
        StorageError: They cannot be written.
    """
    evidence = gather(run.path)
    evaluated = next((each for each in evidence.evaluated if each.split == split), None)
    if evaluated is None or evaluated.metrics.get("output") == "segmentation":
        return 0
    rows = [*evaluated.worst[:_NUM_WRONG], *evaluated.right[:_NUM_RIGHT]]
    root = str(evidence.splits.get("source") or "")
    try:
        model, names = load_model(run.path), [_named(row) for row in rows]
        found = explained_as(model, stored_numerics(run), [_file(root, row) for row in rows], names)
        images = {str(row["path"]): _entry(row, own) for row, own in zip(rows, found, strict=True)}
    except (SettingsError, KeyError, ValueError) as error:  # a row that names no class of the model
        _log.debug("no heat maps for the report: %s", error)
        return 0
    kept = {path: entry for path, entry in images.items() if entry}
    commit.write_json(run.heat_maps(split), {"images": kept})
    return len(kept)


def _file(root: str, row: Record) -> str:
    return str(Path(root, str(row["path"])))


def _named(row: Record) -> str:
    """Return the class to explain: the predicted one, of several labels the first, of none the most probable."""
    if not isinstance(row.get("labels"), list):
        return str(row["prediction"])
    shares: dict[str, float] = row["probabilities"]
    return str(row["labels"][0] if row["labels"] else max(shares, key=lambda name: shares[name]))


def _entry(row: Record, own: Explanation) -> dict[str, Any]:
    """Return what is kept of one map; nothing where there is none."""
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
    share = row["probabilities"][own.class_name]
    return {"prediction": row["prediction"], "class": own.class_name, "probability": share, "jpeg": jpeg}
