"""What a delivered network keeps of its validation images: temperature, sets of classes, what looks unknown."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from regraft.evaluation.predict import Predictor
from regraft.evaluation.trust.conformal import nonconformity
from regraft.evaluation.trust.novelty import Evidence, fit_detector
from regraft.evaluation.trust.reliability import reliability
from regraft.evaluation.trust.temperatures import FEWEST, fit_calibration
from regraft.models.describe.calibration import Calibration
from regraft.models.describe.info import ModelInfo, info_of
from regraft.models.describe.outputs import probabilities as probabilities_of
from regraft.models.describe.trust import Detector, Trust
from regraft.training.loop.session import Session
from regraft.wording import percent

__all__ = ["know_itself"]

_AT_ONCE = 128  # images
_MOST_VAL = 10_000  # images, evenly over the split: more would say the same
_MOST_TRAIN = 1000  # images that the detector is fitted to


def know_itself(session: Session, model: nn.Module) -> None:
    """Store with a network what validation images say of it: temperature, sets of classes, what looks unknown.

    A network of masks, and one with too few validation images, keeps its raw probabilities and nothing else.

    Args:
        session: A run at its end.
        model: The network that it delivers.
    """
    info, num = info_of(model), len(session.pixels["val"])
    if info.output == "segmentation":
        return
    if num < FEWEST:
        session.sinks.line(f"probabilities are raw: {num} validation images, and a temperature takes {FEWEST}")
        return
    predictor = Predictor(model, session.engine.numerics, features=True)
    rows = np.unique(np.linspace(0, num - 1, min(_MOST_VAL, num)).round().astype(np.int64))
    val, labels = _evidence(session, predictor, "val", rows), session.labels["val"][rows]
    calibration = fit_calibration(info.output, val.logits, torch.from_numpy(labels))
    if calibration is None:
        return
    info.calibration = calibration
    session.sinks.line(_told(info.output, calibration, val.logits, labels))
    notes: dict[str, str] = {}
    info.trust = Trust(_nonconformity(info, calibration, val, notes), _detector(session, predictor, val, notes), notes)


def _nonconformity(info: ModelInfo, calibration: Calibration, val: Evidence, notes: dict[str, str]) -> Tensor | None:
    if info.output == "multilabel":
        notes["sets"] = "an image may have several labels, and sets are of classes of which one is true"
        return None
    shares = probabilities_of(info.output, calibration(val.logits, info.output)).numpy()
    return torch.from_numpy(nonconformity(shares, val.labels.numpy())).float()


def _detector(session: Session, predictor: Predictor, val: Evidence, notes: dict[str, str]) -> Detector | None:
    if not predictor.gives_features:
        return fit_detector(val, val)[0]
    rows = _some(session.labels["train"])
    if len(rows) < FEWEST:
        notes["reject"] = f"there were {len(rows)} training images"
        return None
    train = _evidence(session, predictor, "train", rows)
    if not bool(torch.isfinite(train.features).all()) or float(train.features.std()) == 0:
        notes["reject"] = "its features are the same for all training images, or are not finite"
        return None
    return fit_detector(train, val)[0]


def _some(labels: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Return some rows, evenly over each class."""
    if labels.ndim == 2:
        return np.unique(np.linspace(0, len(labels) - 1, min(_MOST_TRAIN, len(labels))).round().astype(np.int64))
    order = np.argsort(labels, kind="stable")
    places = np.unique(np.linspace(0, len(order) - 1, min(_MOST_TRAIN, len(order))).round().astype(np.int64))
    return np.sort(order[places])


def _evidence(session: Session, predictor: Predictor, split: str, rows: npt.NDArray[np.int64]) -> Evidence:
    """Return what the network gives for some images of a split, as they are validated."""
    pixels = session.pixels[split].sized(predictor.pixels.size)
    logits, features = [], []
    for start in range(0, len(rows), _AT_ONCE):
        part = rows[start : start + _AT_ONCE]
        images = np.empty((len(part), *pixels.program.row_shape), np.uint8)
        pixels.fill(part, images)
        raw, given = predictor.run(images)
        logits.append(raw.cpu())
        features.append(raw.new_zeros((len(part), 0)).cpu() if given is None else given.flatten(1).cpu())
    labels = session.labels[split][rows]
    several = labels.ndim == 2
    return Evidence(
        torch.cat(features),
        torch.cat(logits),
        torch.full((len(rows),), -1) if several else torch.from_numpy(labels.astype(np.int64)),
    )


def _told(output: str, calibration: Calibration, logits: Tensor, labels: npt.NDArray[np.integer]) -> str:
    """Return the temperature, and what it does to the validation images, as text."""
    if calibration.temperatures == (1.0,):
        return f"probabilities: the network's own; on {len(logits):,} validation images no temperature is surely better"
    before, after = (
        reliability(output, probabilities_of(output, scores).numpy(), labels)
        for scores in (logits, calibration(logits, output))
    )
    low, high = min(calibration.temperatures), max(calibration.temperatures)
    shown = f"{low:.3g}" if len(calibration.temperatures) == 1 else f"{low:.3g} to {high:.3g}, one for each class"
    return (
        f"probabilities: temperature {shown}, from {len(logits):,} validation images; "
        f"on them confidences are off by {percent(after['ece'])} on average, {percent(before['ece'])} without it"
    )
