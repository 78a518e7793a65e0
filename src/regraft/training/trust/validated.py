"""What a delivered network keeps of its validation images: temperature, sets of classes, what looks unknown."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from regraft import commit
from regraft.evaluation.predict import Predictor
from regraft.evaluation.trust.conformal import nonconformity
from regraft.evaluation.trust.nearest import KnownImages, keep_known_images
from regraft.evaluation.trust.novelty import Evidence, fit_detector
from regraft.evaluation.trust.reliability import reliability
from regraft.evaluation.trust.temperatures import FEWEST, fit_calibration
from regraft.models.describe.calibration import Calibration
from regraft.models.describe.info import ModelInfo, info_of
from regraft.models.describe.outputs import probabilities as probabilities_of
from regraft.models.describe.trust import Trust
from regraft.training.loop.session import Session
from regraft.training.trust.kept import kept_evidence, rows_to_train, rows_to_validate
from regraft.training.trust.pixels import know_pixels
from regraft.wording import percent

__all__ = ["know_itself"]

_AT_ONCE = 128  # images
_CLOSE = 0.01  # relative difference of two vectors that rounding explains


def know_itself(session: Session, model: nn.Module) -> None:
    """Store with a network what validation images say of it: temperature, sets of classes, what looks unknown.

    A network with too few validation images keeps its raw probabilities and nothing else; one of masks, a temperature.

    Args:
        session: A run at its end.
        model: The network that it delivers.
    """
    commit.remove_file(session.run_folder.neighbours)  # they are of the network before, where a run went on
    info, num = info_of(model), len(session.pixels["val"])
    if info.output == "segmentation":
        know_pixels(session, model)
        return
    if num < FEWEST:
        session.sinks.line(f"probabilities are raw: {num} validation images, and a temperature takes {FEWEST}")
        return
    predictor = Predictor(model, session.engine.numerics, features=True)
    rows, kept = rows_to_validate(num), _kept(session, predictor)
    val, labels = kept["val"] if kept else _evidence(session, predictor, "val", rows), session.labels["val"][rows]
    calibration = fit_calibration(info.output, val.logits, torch.from_numpy(labels))
    if calibration is None:
        return
    info.calibration = calibration
    session.sinks.line(_told(info.output, calibration, val.logits, labels))
    notes: dict[str, str] = {}
    some = rows_to_train(session.labels["train"])
    train = _of_training(session, predictor, some, kept, notes)
    is_lacking = train is None and predictor.gives_features
    detector = None if is_lacking else fit_detector(train or val, val)[0]
    info.trust = Trust(_nonconformity(info, calibration, val, notes), detector, notes)
    if train is not None and session.labels["train"].ndim == 1:
        _keep(session, some, train)


def _nonconformity(info: ModelInfo, calibration: Calibration, val: Evidence, notes: dict[str, str]) -> Tensor | None:
    if info.output == "multilabel":
        notes["sets"] = "an image may have several labels, and sets are of classes of which one is true"
        return None
    shares = probabilities_of(info.output, calibration(val.logits, info.output)).numpy()
    return torch.from_numpy(nonconformity(shares, val.labels.numpy())).float()


def _kept(session: Session, predictor: Predictor) -> dict[str, Evidence]:
    """Return what the last stage kept of its images, if it is what the network gives: its first image is looked at."""
    kept = kept_evidence(session.run_folder.evidence)
    if not kept or not predictor.gives_features:
        return {}
    first, ours = _evidence(session, predictor, "val", np.arange(1)), kept["val"].of(torch.arange(1))
    pairs = ((first.features, ours.features), (first.logits, ours.logits))
    is_same = all(a.shape == b.shape and float((a - b).norm()) <= _CLOSE * float(b.norm()) for a, b in pairs)
    return kept if is_same else {}


def _of_training(
    session: Session,
    predictor: Predictor,
    rows: npt.NDArray[np.int64],
    kept: dict[str, Evidence],
    notes: dict[str, str],
) -> Evidence | None:
    """Return what the network gives for some training images; None where it has no features that tell them apart."""
    if not predictor.gives_features:
        return None
    if len(rows) < FEWEST:
        notes["reject"] = f"there were {len(rows)} training images"
        return None
    train = kept["train"] if kept else _evidence(session, predictor, "train", rows)
    if not bool(torch.isfinite(train.features).all()) or float(train.features.std()) == 0:
        notes["reject"] = "its features are the same for all training images, or are not finite"
        return None
    return train


def _keep(session: Session, rows: npt.NDArray[np.int64], train: Evidence) -> None:
    """Write the features of these training images into the run's folder: errors are shown beside the nearest."""
    pixels, labels = session.pixels["train"], session.labels["train"]
    paths = tuple(str(pixels.paths[row]) for row in rows.tolist())
    of_rows = labels[rows].astype(np.int64)
    known = KnownImages(paths, of_rows, train.features.float().numpy(), len(labels))
    keep_known_images(session.run_folder.neighbours, known)


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
