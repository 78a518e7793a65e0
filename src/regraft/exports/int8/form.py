"""A sealed file in int8, kept only where its answers are as good; layers that cost too much stay floats."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch

from regraft.errors import SettingsError, WeightsError
from regraft.evaluation.metrics.paired import difference_interval
from regraft.evaluation.trust.conformal import nonconformity
from regraft.exports.int8.accuracy import MOST_DROP, MOST_LIKELY_DROP, Answers, Drop, answers
from regraft.exports.int8.images import Images, images_of
from regraft.exports.int8.quantise import WAYS, Way, layers_of, quantised, ranges_of
from regraft.exports.running.session import SealedSession
from regraft.exports.seal import Seal
from regraft.exports.sealed_run import SealedRun, with_metadata

__all__ = ["in_int8"]

Pixels = npt.NDArray[np.uint8]
_AT_ONCE = 16
_MOST_RANKED_ON = 32  # images that tell which layers cost most
_log = logging.getLogger("regraft")


@dataclass(frozen=True, eq=False)
class _Floats:
    """The file in floats: its graph, what it says of itself, and of the images that choose a way."""

    model: onnx.ModelProto
    seal: Seal
    said: npt.NDArray[np.floating]
    images: Images

    def session(self, model: onnx.ModelProto) -> SealedSession:
        """Return another graph with the same metadata, opened."""
        return _opened(with_metadata(model, self.seal))


def in_int8(file: SealedRun, run: str | Path, calibrate: str | Path | None) -> SealedRun:
    """Return a sealed file with its convolutions and linear layers in 8-bit integers.

    Ranges come from training images; which way of finding them and of scaling is taken, from other training images.
    How many answers are lost is measured on the run's validation images, both files on the same ones.

    Args:
        file: In floats, proven.
        run: Where its images are listed.
        calibrate: A folder of labelled images that take their place.

    Raises:
        SettingsError: The network names pixels; or `run` lists no images and no folder was named.
        DataError: The images are gone.
        WeightsError: More than 0.3 points of accuracy are lost, or it cannot be told with 95 % confidence that at most
            one is.
    """
    if file.seal.output == "segmentation":
        raise SettingsError("int8 is for networks that name images, and this one names pixels.", "", "leave it out")
    images = images_of(run, file.seal, calibrate)
    _require_enough(len(images.paths))
    model = onnx.load_model_from_string(file.data)
    floats = _Floats(model, file.seal, _said(_opened(file.data), images.compared), images)
    before = answers(_opened(file.data), images)
    ranges = {kind: ranges_of(model, _batches(images.fitted), kind) for kind in dict.fromkeys(w.ranges for w in WAYS)}
    errors = {way: _error(floats, quantised(model, ranges[way.ranges], way)) for way in WAYS}
    way = min(WAYS, key=lambda one: errors[one])
    _log.info("int8: %s differs least, by %.2g on average", way, errors[way])
    found = _first_that_holds(floats, before, way, ranges[way.ranges])
    return _sealed(file, floats, way, found, before)


@dataclass(frozen=True, eq=False)
class _Found:
    """An int8 form whose answers are as good."""

    model: onnx.ModelProto
    in_floats: tuple[str, ...]
    drop: Drop
    after: Answers


def _first_that_holds(floats: _Floats, before: Answers, way: Way, ranges: Any) -> _Found:
    """Return the form with the fewest layers in floats, of 0, 1, 2, 4 ... up to half of them, that loses little."""
    names = layers_of(floats.model)
    costly: list[str] = []
    num, drop = 0, None
    while num <= len(names) // 2:
        if num and not costly:
            _log.info("int8: %s; looking for the layers that cost most", drop)
            costly = _by_cost(floats, way, ranges, names)
        in_floats = tuple(costly[:num])
        model = quantised(floats.model, ranges, way, in_floats)
        after = answers(floats.session(model), floats.images)
        drop = Drop.between(before, after)
        if drop.is_small:
            return _Found(model, in_floats, drop, after)
        num = max(1, 2 * num)
    raise WeightsError(
        f"int8 loses too much, even with {len(costly) and num // 2} of {len(names)} layers in floats: {drop}.",
        _PROMISE,
        "export it in floats, without --int8",
    )


_PROMISE = (
    f"a drop of at most {100 * MOST_DROP:.1f} points, and with 95 % confidence of at most {100 * MOST_LIKELY_DROP:.0f}"
)


def _require_enough(num: int) -> None:
    """Raise where so few images could show nothing, even if both files gave the same answers."""
    highest = difference_interval(0, 0, num)[1] if num else 1.0
    if highest > MOST_LIKELY_DROP:
        raise WeightsError(
            f"{num} images cannot show how little int8 loses: if it lost nothing on them, it could still lose up to "
            f"{100 * highest:.1f} points elsewhere (with 95 % confidence).",
            _PROMISE,
            "name more labelled images with `--calibrate FOLDER`, or export it in floats",
        )


def _by_cost(floats: _Floats, way: Way, ranges: Any, names: Sequence[str]) -> list[str]:
    """Return the layers, the one first that alone in int8 changes the probabilities most."""
    cost = {}
    for place, name in enumerate(names):
        others = [other for other in names if other != name]
        cost[name] = _error(floats, quantised(floats.model, ranges, way, others), _MOST_RANKED_ON)
        _log.debug("int8: layer %d/%d: %s", place + 1, len(names), name)
    return sorted(names, key=lambda name: -cost[name])


def _error(floats: _Floats, model: onnx.ModelProto, most: int | None = None) -> float:
    """Return by how much probabilities differ, on average over the images that choose."""
    chosen = floats.images.compared[:most]
    return float(np.abs(_said(floats.session(model), chosen) - floats.said[: len(chosen)]).mean())


def _sealed(file: SealedRun, floats: _Floats, way: Way, found: _Found, before: Answers) -> SealedRun:
    """Return the file with what is to be known of it."""
    drop = found.drop
    probes = np.stack(file.contents)
    one, other = (_said(session, probes).argmax(1) for session in (_opened(file.data), floats.session(found.model)))
    verified = {
        "opset": file.seal.verified["opset"],
        "int8_way": str(way),
        "int8_num_images": drop.num,
        "accuracy_fp32": drop.before,
        "accuracy_int8": drop.after,
        "accuracy_drop_interval": list(drop.interval),
        "num_probes": len(probes),
        "same_class": int((one == other).sum()),
        "layers_in_floats": list(found.in_floats),
    }
    seal = replace(file.seal, verified=verified)
    if seal.nonconformity is not None:  # what sets promise is of the probabilities that this file gives
        labels = floats.images.labels[before.places]
        scores = nonconformity(found.after.probabilities, labels.astype(np.int64)) if floats.images.own else None
        missing = {"sets": "its limit was found in floats, and the images of --calibrate are not the run's own"}
        seal = replace(
            seal,
            nonconformity=None if scores is None else scores.astype(np.float32),
            notes={**seal.notes, **(missing if scores is None else {})},
        )
    return replace(file, data=with_metadata(found.model, seal), seal=seal)


def _said(session: SealedSession, images: Pixels) -> npt.NDArray[np.floating]:
    return np.concatenate([session.run(part, resize=False)["probabilities"] for part in _batches(images)])


def _batches(images: Pixels) -> list[Pixels]:
    return [images[place : place + _AT_ONCE] for place in range(0, len(images), _AT_ONCE)]


def _opened(data: bytes) -> SealedSession:
    return SealedSession(data, threads=torch.get_num_threads())
