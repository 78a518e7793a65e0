"""A reference output: what the original network gives for one image settles what a weights file cannot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, permutations, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from regraft.data.decode.decode import decode
from regraft.errors import RegraftError, SettingsError, WeightsError
from regraft.models.graft.graft import graft
from regraft.models.graft.match import match_weights
from regraft.models.surgery.surgery import default_preprocessing
from regraft.weights.file import WeightFile
from regraft.weights.report import Ambiguity, MatchReport
from regraft.wording import quantity

__all__ = ["TOLERANCE", "Reference", "deviation", "read_reference", "settle"]

TOLERANCE = 1e-2  # other decoders and resizers move a logit by less, a wrong layer by far more
_MAX_TRIES = 48


class Reference(NamedTuple):
    """The input (1, 3, H, W), normalised, and what the original network gives for it: (classes,)."""

    images: Tensor
    output: NDArray[np.float32]


def read_reference(text: str, model: nn.Module) -> Reference:
    """Read `IMAGE=LOGITS.npy`; the image is an image, prepared as the model wants it, or an array as it is.

    Args:
        text: The two paths. An array (.npy) as the image has the shape (H, W, 3), (1, H, W, 3) or (1, 3, H, W).
        model: Whose preprocessing is used for an image.

    Raises:
        SettingsError: No such pair, or files that are none.
    """
    image, _, output = text.partition("=")
    if not image or not output:
        raise SettingsError(
            f"--check {text!r} is not a pair.",
            "IMAGE=LOGITS.npy: an image, and the original network's output for it",
            "for example `--check cat.jpg=logits.npy`",
        )
    values = _array(Path(output)).astype(np.float32).reshape(-1)
    images = _as_nchw(_array(Path(image))) if image.endswith(".npy") else _photo(Path(image), model)
    return Reference(torch.from_numpy(np.ascontiguousarray(images, np.float32)), values)


def deviation(model: nn.Module, reference: Reference) -> float:
    """Return the relative error against the reference: the largest difference over the largest absolute value.

    A reference that adds up to 1 and has no negative value is one of probabilities; the model's are compared with it.

    Raises:
        WeightsError: The model gives another number of outputs.
    """
    with torch.no_grad():
        logits = model.eval()(reference.images).reshape(-1)
    if logits.numel() != reference.output.size:
        raise WeightsError(
            f"The reference has {quantity(reference.output.size, 'number')}, the model gives {logits.numel()}.",
            "the output of the same network",
            "save all logits (or probabilities) of one image, or build the network with --num-classes",
        )
    wanted = torch.from_numpy(reference.output)
    are_probabilities = bool((wanted >= 0).all()) and abs(float(wanted.sum()) - 1) < 1e-3
    given = logits.softmax(0) if are_probabilities else logits
    return float((given - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12))


def settle(
    weights: WeightFile,
    model: nn.Module,
    report: MatchReport,
    reference: Reference,
    *,
    map: Mapping[str, str] | None = None,
    adjust: bool = False,
    **options: Any,
) -> MatchReport:
    """Try the assignments between which the file does not decide, and keep the one that gives the reference.

    The model is filled with one after the other; what it holds in the end is the last one tried.

    Raises:
        WeightsError: None of them gives the reference, or more than one does.
    """
    tries: list[tuple[float, MatchReport]] = []
    for candidate in islice(_candidates(weights, model, report, map or {}, options), _MAX_TRIES):
        if not candidate.ambiguous:
            try:
                tries.append((deviation(graft(model, candidate, require=None, adjust=adjust), reference), candidate))
            except RegraftError:
                continue
    tries.sort(key=lambda item: item[0])
    good = [item for item in tries if item[0] <= TOLERANCE]
    if len(good) != 1:
        best = f"; the best deviates by {tries[0][0]:.2g}" if tries else ""
        raise WeightsError(
            f"{len(good)} of the {len(tries)} possible assignments give the reference output{best}.",
            f"exactly one that gives it to {TOLERANCE:g}",
            "check that the image, its preprocessing and the output belong together, or name the pairs with --map",
        )
    return good[0][1]


def _candidates(
    weights: WeightFile, model: nn.Module, report: MatchReport, map: Mapping[str, str], options: Mapping[str, Any]
) -> Iterator[MatchReport]:
    """Yield reports on all that the file leaves open: each copy of a network, then each assignment of layers."""
    prefixes = dict.fromkeys(prefix for group in report.ambiguous for prefix in group.prefixes if prefix)
    for prefix in prefixes:
        chosen = {**options, "key": prefix}
        yield from _candidates(weights, model, match_weights(weights, model, map=map, **chosen), map, chosen)
    if prefixes or not report.ambiguous:
        yield from () if prefixes else (report,)
        return
    for pairs in _assignments(weights, report.ambiguous):
        yield match_weights(weights, model, map={**map, **pairs}, **options)


def _assignments(weights: WeightFile, groups: Sequence[Ambiguity]) -> Iterator[dict[str, str]]:
    """Yield all ways to pair the layers of each group: every order of the layers of the file."""
    choices = []
    for group in groups:
        targets = list(dict.fromkeys(name.rpartition(".")[0] for name in group.targets))
        sources = list(dict.fromkeys(weights.tensors[name].layer for name in group.sources))
        choices.append([dict(zip(targets, order, strict=True)) for order in permutations(sources, len(targets))])
    for chosen in product(*choices):
        yield {target: source for pairs in chosen for target, source in pairs.items()}


def _photo(path: Path, model: nn.Module) -> NDArray[np.float32]:
    preprocessing = default_preprocessing(model)
    pixels = decode(path, preprocessing.pixels).astype(np.float32) / 255
    pixels = pixels[:, :, ::-1] if preprocessing.channels == "BGR" else pixels
    normal = (pixels - np.asarray(preprocessing.mean, np.float32)) / np.asarray(preprocessing.std, np.float32)
    return np.asarray(normal.transpose(2, 0, 1)[None], np.float32)


def _array(path: Path) -> NDArray[Any]:
    try:
        values: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise SettingsError(
            f"{str(path)!r} is not an array ({type(error).__name__}: {error}).",
            "a .npy file of plain numbers",
            "save it with `numpy.save`",
        ) from error
    return values


def _as_nchw(values: NDArray[Any]) -> NDArray[Any]:
    values = values[None] if values.ndim == 3 else values
    if values.ndim != 4 or values.shape[0] != 1 or 3 not in (values.shape[1], values.shape[3]):
        raise SettingsError(
            f"The image array has the shape {values.shape}.",
            "(H, W, 3), (1, H, W, 3) or (1, 3, H, W)",
            "save one image",
        )
    return values if values.shape[1] == 3 else values.transpose(0, 3, 1, 2)
