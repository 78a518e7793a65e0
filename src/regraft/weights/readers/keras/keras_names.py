"""From the lists of a legacy Keras file to (layer, role): every spelling of a weight name since Keras 1.

`conv1/kernel:0`, `conv1_2/kernel:0` (the layer built a second time), `sequential/head/kernel` (Keras 3), `conv1_W_1:0`
(Keras 1), and the flat list of a nested model, whose inner names are the layers. An inner layer keeps its own name as
long as that is unique in the file, and is called `outer/inner` otherwise.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from regraft.weights.readers.hdf5.hdf5_values import StoredArray
from regraft.weights.readers.keras.keras_graph import GraphLayer
from regraft.weights.readers.keras.keras_layers import class_in_name, kernel_role, roles_by_position
from regraft.weights.readers.keras.keras_order import creation_order
from regraft.weights.readers.spelling import natural, role_of, split_word

__all__ = ["Layers", "Named", "Stored", "inner_layers"]

_MODEL_PREFIX = re.compile(r"(sequential|functional|model)(_\d+)?")
_NUMBER = re.compile(r"_\d+$")
# Keras 0 numbered the tensors of a layer, kernels first; by their ranks.
_NUMBERED: dict[tuple[int, ...], tuple[str | None, ...]] = {
    (2,): ("kernel",),
    (2, 1): ("kernel", "bias"),
    (1, 1, 1, 1): ("gamma", "beta", "mean", "variance"),
}


@dataclass(frozen=True)
class Stored:
    """A tensor as the file lists it: the top-level layer, the name in that layer's list, the path, the numbers."""

    outer: str
    name: str
    path: str
    array: StoredArray


@dataclass(frozen=True)
class Named:
    """A tensor with its layer and its role."""

    stored: Stored
    layer: str
    role: str | None
    kind: str | None = None


@dataclass(frozen=True)
class Layers:
    """All tensors of a file by layer, in the order of creation where that is `ordered`."""

    tensors: list[Named]
    ordered: bool
    notes: list[str]


def inner_layers(stored: Sequence[Stored], model: GraphLayer | None) -> Layers:
    """Name the layer and the role of each tensor.

    Args:
        stored: The tensors as listed.
        model: The file's own description, if it has one.
    """
    groups: dict[str, list[Stored]] = {}
    for one in stored:
        groups.setdefault(one.outer, []).append(one)
    described = {child.name: child for child in model.children} if model else {}
    named: list[Named] = []
    unproven: list[str] = []
    for outer, members in groups.items():
        group, certain = _named_group(outer, members, described.get(outer))
        named += group
        if not certain:
            unproven.append(outer)
    notes = [
        f"The order of the layers inside {outer!r} depends on which were trainable when it was saved; "
        "only names distinguish them."
        for outer in unproven
    ]
    return Layers(_unique(named), not unproven, notes)


def _named_group(outer: str, members: list[Stored], described: GraphLayer | None) -> tuple[list[Named], bool]:
    """Return the tensors of one top-level layer, and whether their order is proven."""
    places = [_place(one.name) for one in members]
    labels = _labels(outer, [prefix for prefix, _ in places], described)
    kinds = {layer.name: layer.kind for layer in (described.flat() if described and described.is_model else ())}
    if described and not described.is_model:
        kinds = dict.fromkeys(labels, described.kind) if len(set(labels)) == 1 else {}
    named = [
        Named(one, label, role, kinds.get(label) or class_in_name(label))
        for one, label, (_, role) in zip(members, labels, places, strict=True)
    ]
    named = _settled(named)
    if described and described.is_model and set(labels) <= set(kinds):
        order, certain = list(kinds), True
    else:
        order, certain = creation_order([(one.layer, one.role, one.stored.array.shape) for one in named])
        if not certain and all(class_in_name(layer) for layer in order):  # conv2d_7: numbers count creations
            order, certain = sorted(order, key=natural), True
    rank = {layer: at for at, layer in enumerate(order)}
    return sorted(named, key=lambda one: rank[one.layer]), certain


def _place(name: str) -> tuple[str, str | None]:
    """Return prefix (a path of layers) and role of a listed name."""
    prefix, slash, word = name.rpartition("/")
    if slash:
        return prefix, role_of(word)
    if re.fullmatch(r"param_\d+", name):
        return "", None
    layer, role = split_word(name)
    return (layer, role) if role else ("", None)


def _labels(outer: str, prefixes: list[str], described: GraphLayer | None) -> list[str]:
    if described and described.is_model:
        inner = {layer.name for layer in described.flat()}
        return [_described_label(prefix, outer, inner) for prefix in prefixes]
    if len(set(prefixes)) == 1 and (described or _is_own_name(outer, prefixes[0])):
        return [outer] * len(prefixes)
    labels = [_inner_label(outer, prefix) for prefix in prefixes]
    copies = {_NUMBER.search(label).group() if _NUMBER.search(label) else "" for label in labels}  # type: ignore[union-attr]
    if len(copies) == 1 and "" not in copies and len(set(labels)) > 2:
        return [_NUMBER.sub("", label) for label in labels]
    return labels


def _is_own_name(outer: str, prefix: str) -> bool:
    return prefix in ("", outer) or prefix.endswith("/" + outer) or _NUMBER.sub("", prefix) == outer


def _described_label(prefix: str, outer: str, inner: set[str]) -> str:
    """Return the inner layer that the description knows under this prefix."""
    for candidate in (prefix, _inner_label(outer, prefix), prefix.rpartition("/")[2]):
        for spelled in (candidate, _NUMBER.sub("", candidate)):
            if spelled in inner:
                return spelled
    return _inner_label(outer, prefix)


def _inner_label(outer: str, prefix: str) -> str:
    """Return a prefix without the models around the layer (`sequential/head` is `head`)."""
    parts = prefix.split("/")
    if outer in parts[:-1]:
        at = parts.index(outer)
        # A layer made of layers (`lstm/lstm_cell`) keeps its own name in front; a model's name is dropped.
        return "/".join(parts[at + 1 :]) if len(parts) - at > 2 else "/".join(parts[at:])
    while len(parts) > 1 and _MODEL_PREFIX.fullmatch(parts[0]):
        parts = parts[1:]
    return "/".join(parts) or outer


def _settled(named: list[Named]) -> list[Named]:
    """Return roles that need the whole layer: which kernel is meant, and Keras 0.3's numbers."""
    layers: dict[str, list[Named]] = {}
    for one in named:
        layers.setdefault(one.layer, []).append(one)
    settled = {layer: _settled_layer(members) for layer, members in layers.items()}
    return [settled[one.layer].pop(0) for one in named]


def _settled_layer(members: list[Named]) -> list[Named]:
    if all(re.fullmatch(r"param_\d+", one.stored.name) for one in members):
        ranks = [len(one.stored.array.shape) for one in members]
        roles: tuple[str | None, ...] = _NUMBERED.get(tuple(min(rank, 2) for rank in ranks), (None,) * len(ranks))
        return [replace(one, role=role) for one, role in zip(members, roles, strict=True)]
    if all(one.role is None for one in members):
        roles = roles_by_position(members[0].kind, [one.stored.array.shape for one in members])
        return [replace(one, role=role) for one, role in zip(members, roles, strict=True)]
    biases = [one.stored.array.shape for one in members if one.role == "bias" and len(one.stored.array.shape) == 1]
    num_biases = biases[0][0] if len(biases) == 1 else None
    return [
        replace(one, role=kernel_role(one.layer, one.kind, one.stored.array.shape, num_biases))
        if one.role == "kernel"
        else one
        for one in members
    ]


def _unique(named: list[Named]) -> list[Named]:
    """Qualify the layers that two top-level layers share by name."""
    owners = Counter(layer for layer, _ in {(one.layer, one.stored.outer) for one in named})
    return [
        replace(one, layer=f"{one.stored.outer}/{one.layer}")
        if owners[one.layer] > 1 and one.layer != one.stored.outer
        else one
        for one in named
    ]
