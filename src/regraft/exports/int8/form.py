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

from regraft.errors import WeightsError
from regraft.evaluation.labelled_rows import MaskRows, Rows
from regraft.evaluation.metrics.paired import difference_interval
from regraft.evaluation.trust.conformal import nonconformity
from regraft.exports.int8.accuracy import MOST_DROP, MOST_LIKELY_DROP, Answers, Drop, Measured, answers
from regraft.exports.int8.images import Images, images_of
from regraft.exports.int8.masks import FEWEST, mask_answers
from regraft.exports.int8.quantise import WAYS, Way, layers_of, quantised, ranges_of
from regraft.exports.running.session import SealedSession
from regraft.exports.seal import Seal
from regraft.exports.sealed_run import SealedRun, with_metadata

__all__ = ["in_int8"]

Pixels = npt.NDArray[np.uint8]
Said = npt.NDArray[Any]  # probabilities (N, classes), or masks (N, h, w)
_AT_ONCE = 16
_PIXELS_AT_ONCE = 800_000  # whose activations are all in memory while ranges are found
_MOST_RANKED_ON = 32  # images that tell which layers cost most
_MOST_MASKS_RANKED_ON = 8
_log = logging.getLogger("regraft")


@dataclass(frozen=True, eq=False)
class _Floats:
    """The file in floats: its graph, what it says of itself, and of the images that choose a way."""

    model: onnx.ModelProto
    seal: Seal
    said: Said
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
        SettingsError: `run` lists no images and no folder was named.
        DataError: The images are gone.
        WeightsError: More than 0.3 points of accuracy (of masks: of mean IoU or of pixel accuracy) are lost, or it
            cannot be told with 95 % confidence that at most one is.
    """
    images = images_of(run, file.seal, calibrate)
    _require_enough(images.rows)
    model = onnx.load_model_from_string(file.data)
    floats = _Floats(model, file.seal, _said(_opened(file.data), images.compared), images)
    before = _measured(_opened(file.data), images.rows)
    ranges = {kind: ranges_of(model, _batches(images.fitted), kind) for kind in dict.fromkeys(w.ranges for w in WAYS)}
    errors = {way: _error(floats, quantised(model, ranges[way.ranges], way)) for way in WAYS}
    way = min(WAYS, key=lambda one: errors[one])
    _log.info("int8: %s differs least, by %.2g on average", way, errors[way])
    found = _first_that_holds(floats, before, way, ranges[way.ranges])
    return _sealed(file, floats, way, found)


@dataclass(frozen=True, eq=False)
class _Found:
    """An int8 form whose answers are as good."""

    model: onnx.ModelProto
    in_floats: tuple[str, ...]
    drops: list[Drop]
    after: Measured


def _first_that_holds(floats: _Floats, before: Measured, way: Way, ranges: Any) -> _Found:
    """Return the form with the fewest layers in floats, of 0, 1, 2, 4 ... up to half of them, that loses little."""
    names = layers_of(floats.model)
    costly: list[str] = []
    num, lost = 0, ""
    while num <= len(names) // 2:
        if num and not costly:
            _log.info("int8: %s; looking for the layers that cost most", lost)
            costly = _by_cost(floats, way, ranges, names)
        in_floats = tuple(costly[:num])
        model = quantised(floats.model, ranges, way, in_floats)
        after = _measured(floats.session(model), floats.images.rows)
        drops = before.drops(after)
        if all(drop.is_small for drop in drops):
            return _Found(model, in_floats, drops, after)
        num, lost = max(1, 2 * num), "; ".join(map(str, drops))
    raise WeightsError(
        f"int8 loses too much, even with {len(costly) and num // 2} of {len(names)} layers in floats: {lost}.",
        _PROMISE,
        "export it in floats, without --int8",
    )


_PROMISE = (
    f"a drop of at most {100 * MOST_DROP:.1f} points, and with 95 % confidence of at most {100 * MOST_LIKELY_DROP:.0f}"
)


def _require_enough(rows: Rows | MaskRows) -> None:
    """Raise where so few images could show nothing, even if both files gave the same answers."""
    num = len(rows.paths)
    if isinstance(rows, MaskRows):
        if num < FEWEST:
            raise WeightsError(
                f"{num} images with masks cannot show how little int8 loses: the interval of its loss takes {FEWEST}.",
                _PROMISE,
                "name more images with masks with `--calibrate FOLDER`, or export it in floats",
            )
        return
    highest = difference_interval(0, 0, num)[1] if num else 1.0
    if highest > MOST_LIKELY_DROP:
        raise WeightsError(
            f"{num} images cannot show how little int8 loses: if it lost nothing on them, it could still lose up to "
            f"{100 * highest:.1f} points elsewhere (with 95 % confidence).",
            _PROMISE,
            "name more labelled images with `--calibrate FOLDER`, or export it in floats",
        )


def _measured(session: SealedSession, rows: Rows | MaskRows) -> Measured:
    """Return what a file says of the images that are measured."""
    return mask_answers(session, rows) if isinstance(rows, MaskRows) else answers(session, rows.paths, rows.labels)


def _by_cost(floats: _Floats, way: Way, ranges: Any, names: Sequence[str]) -> list[str]:
    """Return the layers, the one first that alone in int8 changes the answers most."""
    most = _MOST_MASKS_RANKED_ON if floats.seal.output == "segmentation" else _MOST_RANKED_ON
    cost = {}
    for place, name in enumerate(names):
        others = [other for other in names if other != name]
        cost[name] = _error(floats, quantised(floats.model, ranges, way, others), most)
        _log.debug("int8: layer %d/%d: %s", place + 1, len(names), name)
    return sorted(names, key=lambda name: -cost[name])


def _error(floats: _Floats, model: onnx.ModelProto, most: int | None = None) -> float:
    """Return by how much probabilities differ on average, or the share of pixels that do, on the images that choose."""
    chosen = floats.images.compared[:most]
    return float(_apart(_said(floats.session(model), chosen), floats.said[: len(chosen)]).mean())


def _apart(one: Said, other: Said) -> Said:
    """Return the differences of probabilities, or whether pixels have another class."""
    is_mask = one.dtype.kind != "f"
    apart: Said = one != other if is_mask else np.abs(one - other)
    return apart


def _sealed(file: SealedRun, floats: _Floats, way: Way, found: _Found) -> SealedRun:
    """Return the file with what is to be known of it."""
    probes = np.stack(file.contents)
    one, other = (_said(session, probes) for session in (_opened(file.data), floats.session(found.model)))
    same = (
        {"largest_mask_difference": float(_apart(one, other).mean((1, 2)).max())}
        if file.seal.output == "segmentation"
        else {"same_class": int((one.argmax(1) == other.argmax(1)).sum())}
    )
    verified = {
        "opset": file.seal.verified["opset"],
        "int8_way": str(way),
        "int8_num_images": found.drops[0].num,
        **{key: value for drop in found.drops for key, value in drop.to_dict().items()},
        "num_probes": len(probes),
        **same,
        "layers_in_floats": list(found.in_floats),
    }
    seal = replace(file.seal, verified=verified)
    rows, after = floats.images.rows, found.after
    if seal.nonconformity is not None and isinstance(after, Answers) and isinstance(rows, Rows):
        labels = rows.labels[after.places]  # what sets promise is of the probabilities that this file gives
        scores = nonconformity(after.probabilities, labels.astype(np.int64)) if floats.images.own else None
        missing = {"sets": "its limit was found in floats, and the images of --calibrate are not the run's own"}
        seal = replace(
            seal,
            nonconformity=None if scores is None else scores.astype(np.float32),
            notes={**seal.notes, **(missing if scores is None else {})},
        )
    return replace(file, data=with_metadata(found.model, seal), seal=seal)


def _said(session: SealedSession, images: Pixels) -> Said:
    name = "mask" if "mask" in session.outputs else "probabilities"
    return np.concatenate([session.run(part, resize=False)[name] for part in _batches(images)])


def _batches(images: Pixels) -> list[Pixels]:
    num = min(_AT_ONCE, max(1, _PIXELS_AT_ONCE // (images.shape[1] * images.shape[2])))
    return [images[place : place + num] for place in range(0, len(images), num)]


def _opened(data: bytes) -> SealedSession:
    return SealedSession(data, threads=torch.get_num_threads())
