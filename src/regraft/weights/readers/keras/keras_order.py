"""In which order the layers of a nested Keras model were created, as far as a legacy HDF5 file tells.

Keras writes a nested model as one list, trainable weights first: T (trainable, layer by layer), then N (the others,
layer by layer). Moving statistics are never trainable: a trainable batch norm has a part in both, which ties them.
Where the flags leave two orders possible, the answer is "not certain", and nothing may be matched by position.
Source: `_legacy_weights` in keras/src/legacy/saving/legacy_h5_format.py.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["creation_order"]

_STATISTICS = ("mean", "variance")
_MAX_IMAGE_CHANNELS = 4

Entry = tuple[str, str | None, tuple[int, ...]]


def creation_order(entries: Sequence[Entry]) -> tuple[list[str], bool]:
    """Return layers in the order of their creation.

    Args:
        entries: (layer, role, shape) of each tensor, in file order.

    Returns:
        The layers, and whether the file proves that order (else it is a guess: the order of first appearance).
    """
    layers = list(dict.fromkeys(layer for layer, _, _ in entries))
    if len(layers) < 2:
        return layers, True
    stems = {layer for layer, role, shape in entries if _reads_image(role, shape)}
    stems = stems if len(stems) == 1 else set()
    parts = _parts(entries)
    split = {layer for layer, ranges in parts.items() if len(ranges) > 1}
    if any(len(ranges) > 2 for ranges in parts.values()):
        return layers, False
    first_statistic = next((at for at, (_, role, _) in enumerate(entries) if role in _STATISTICS), len(entries))
    if not split:
        before = [layer for layer in layers if parts[layer][0][1] <= first_statistic]
        certain = first_statistic < len(entries) and (not before or (len(before) == 1 and before[0] in stems))
        return layers, certain
    return _merged(layers, parts, split, stems, first_statistic)


def _reads_image(role: str | None, shape: tuple[int, ...]) -> bool:
    return role == "kernel" and len(shape) == 4 and shape[2] <= _MAX_IMAGE_CHANNELS


def _parts(entries: Sequence[Entry]) -> dict[str, list[tuple[int, int]]]:
    """Return the ranges of adjacent entries that belong to each layer."""
    parts: dict[str, list[tuple[int, int]]] = {}
    for at, (layer, _, _) in enumerate(entries):
        ranges = parts.setdefault(layer, [])
        if ranges and ranges[-1][1] == at:
            ranges[-1] = (ranges[-1][0], at + 1)
        else:
            ranges.append((at, at + 1))
    return parts


def _merged(
    layers: list[str],
    parts: dict[str, list[tuple[int, int]]],
    split: set[str],
    stems: set[str],
    first_statistic: int,
) -> tuple[list[str], bool]:
    end_of_trainable = max(parts[layer][0][1] for layer in split)
    start_of_others = min(first_statistic, *(parts[layer][1][0] for layer in split))
    trainable = [layer for layer in layers if parts[layer][0][0] < end_of_trainable]
    between = [
        layer for layer in layers if end_of_trainable <= parts[layer][0][0] and parts[layer][0][1] <= start_of_others
    ]
    others = [layer for layer in layers if parts[layer][-1][1] > start_of_others]
    others.sort(key=lambda layer: parts[layer][-1][0])
    if end_of_trainable > start_of_others or (between and not ({*trainable[:1], *between[:1]} & stems)):
        return layers, False
    if between and trainable[0] in stems:
        trainable += between
    else:
        others = between + others
    return _woven(layers, trainable, others, split)


def _woven(layers: list[str], trainable: list[str], others: list[str], split: set[str]) -> tuple[list[str], bool]:
    """Return both lists merged at the layers that occur in both, and whether the order is certain."""
    left, right = _gaps(trainable, split), _gaps(others, split)
    if [anchor for _, anchor in left] != [anchor for _, anchor in right]:
        return layers, False
    certain = all(not a or not b for (a, _), (b, _) in zip(left, right, strict=True))
    order: list[str] = []
    for (a, anchor), (b, _) in zip(left, right, strict=True):
        order += [*b, *a, *([anchor] if anchor else [])]
    return order, certain


def _gaps(order: list[str], split: set[str]) -> list[tuple[list[str], str]]:
    gaps: list[tuple[list[str], str]] = [([], "")]
    for layer in order:
        if layer in split:
            gaps[-1] = (gaps[-1][0], layer)
            gaps.append(([], ""))
        else:
            gaps[-1][0].append(layer)
    return gaps
