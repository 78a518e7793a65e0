"""From numbered variables of a Keras 3 file to layers, roles and an order.

The class of a layer is in its path (`conv2d_3`) when it stands in a list of layers, in its automatic name, or in the
model's description; numbers count the layers of a class in the order of the model.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from regraft.weights.file import SourceTensor
from regraft.weights.readers.hdf5.hdf5_values import StoredArray
from regraft.weights.readers.keras.keras_graph import GraphLayer
from regraft.weights.readers.keras.keras_layers import axes_of, class_in_name, roles_by_position
from regraft.weights.readers.spelling import natural, role_of

__all__ = ["Variable", "VariableLayer", "VariableLayers", "layered", "source_tensors"]

_LISTS = ("layers", "_layer_checkpoint_dependencies")
_NUMBERED = re.compile(r"^(?P<kind>.*?)(?:_(?P<number>\d+))?$")


@dataclass(frozen=True)
class Variable:
    """One dataset: its `vars` group, the path of its layer, its key there, its numbers, the layer names around it."""

    group: str
    path: str
    key: str
    array: StoredArray
    names: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.group}/{self.key}"


@dataclass(frozen=True)
class VariableLayer:
    """The variables of one layer."""

    path: str
    label: str
    kind: str | None
    described: GraphLayer | None
    variables: list[Variable]

    @property
    def roles(self) -> tuple[str | None, ...]:
        if all(variable.key.isdecimal() for variable in self.variables):
            shapes = [variable.array.shape for variable in self.variables]
            config = self.described.config if self.described else None
            return roles_by_position(self.kind, shapes, config, layer=f"{self.path} {self.label}")
        return tuple(role_of(variable.key) for variable in self.variables)


@dataclass(frozen=True)
class VariableLayers:
    """All layers of a file, and whether their order is the model's."""

    layers: list[VariableLayer]
    ordered: bool
    notes: list[str]


def layered(variables: Sequence[Variable], model: GraphLayer | None) -> VariableLayers:
    """Group variables by layer, name the layers, and put them in order.

    Args:
        variables: All variables, in natural order of their paths.
        model: The model's description (config.json), if there is one.
    """
    by_path: dict[str, list[Variable]] = {}
    for variable in variables:
        by_path.setdefault(variable.path, []).append(variable)
    for members in by_path.values():
        members.sort(key=lambda variable: natural(variable.key))
    described = _described(set(by_path), model)
    notes = _contradictions(by_path, described)
    if notes:
        described = {}
    labels = _labels(by_path, described)
    layers = [
        VariableLayer(path, labels[path], _kind(path, members, described.get(path)), described.get(path), members)
        for path, members in by_path.items()
    ]
    return _in_order(layers, model, notes)


def source_tensors(found: VariableLayers) -> dict[str, SourceTensor]:
    """Return the tensors by their path in the file."""
    tensors: dict[str, SourceTensor] = {}
    for layer in found.layers:
        for variable, role in zip(layer.variables, layer.roles, strict=True):
            array = variable.array
            tensors[variable.name] = SourceTensor(
                variable.name, array.shape, array.dtype, layer.label, array.load, role, axes_of(role, array.shape)
            )
    return tensors


def _kind(path: str, members: list[Variable], described: GraphLayer | None) -> str | None:
    """Return the class, from the description, from a list in the path, or from an automatic name."""
    if described:
        return described.kind
    parts = path.split("/")
    in_path = class_in_name(parts[-1])
    if len(parts) > 1 and parts[-2] in _LISTS:
        return in_path
    in_name = class_in_name(members[0].names[-1]) if members[0].names else None
    # An attribute may be called `normalization` and be a batch norm: its shapes tell.
    return in_name or (None if in_path == "normalization" else in_path)


def _labels(by_path: dict[str, list[Variable]], described: dict[str, GraphLayer]) -> dict[str, str]:
    """Return a name for each layer, unique in the file: its own, with the models around it where two would be equal."""
    chains = {path: _chain(path, members, described.get(path)) for path, members in by_path.items()}
    owners = Counter(chain[-1] for chain in chains.values())
    labels = {path: chain[-1] if owners[chain[-1]] == 1 else "/".join(chain) for path, chain in chains.items()}
    again = Counter(labels.values())
    return {path: label if again[label] == 1 else _plain(path) for path, label in labels.items()}


def _chain(path: str, members: list[Variable], described: GraphLayer | None) -> tuple[str, ...]:
    """Return names from the outermost model to the layer."""
    names = members[0].names
    parts = tuple(_plain(path).split("/"))
    if names and class_in_name(names[-1]) and not class_in_name(parts[-1]):
        return parts  # an attribute (`self.stem`) says more than the number of a session (`conv2d_17`)
    if names:
        return (*parts[:-1], names[-1]) if len(names) == 1 else names
    return (*parts[:-1], described.name) if described else parts


def _plain(path: str) -> str:
    return "/".join(part for part in path.split("/") if part not in _LISTS) or "model"


def _described(paths: set[str], model: GraphLayer | None) -> dict[str, GraphLayer]:
    """Return the description of each layer path."""
    if model is None:
        return {}
    return dict(_assigned(sorted(paths, key=natural), "", model))


def _assigned(paths: list[str], prefix: str, model: GraphLayer) -> Iterator[tuple[str, GraphLayer]]:
    for container in _LISTS:
        start = f"{prefix}{container}/"
        names = dict.fromkeys(path[len(start) :].split("/", 1)[0] for path in paths if path.startswith(start))
        for name, layer in _pairs(list(names), model.children):
            if layer.is_model:
                yield from _assigned(paths, f"{start}{name}/", layer)
            else:
                yield f"{start}{name}", layer


def _pairs(names: list[str], children: Sequence[GraphLayer]) -> Iterator[tuple[str, GraphLayer]]:
    """Return numbered names and described layers of one model, class by class.

    Keras numbers the layers of a class from 0 in the model's order; Keras 2.12 skips numbers: there the rank counts.
    """
    listed: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        found = _NUMBERED.match(name)
        if found:
            listed.setdefault(found["kind"], []).append((int(found["number"] or 0), name))
    for kind, numbered in listed.items():
        layers = [child for child in children if child.kind == kind]
        numbered.sort()
        if len(layers) == len(numbered):
            yield from zip((name for _, name in numbered), layers, strict=True)
        else:
            yield from ((name, layers[number]) for number, name in numbered if number < len(layers))


def _contradictions(by_path: dict[str, list[Variable]], described: dict[str, GraphLayer]) -> list[str]:
    for path, layer in described.items():
        names = by_path[path][0].names if path in by_path else ()
        if names and names[-1] != layer.name:
            return [
                f"config.json calls the layer at {path!r} {layer.name!r}, the weights call it {names[-1]!r}: "
                "config.json was not used for names and order."
            ]
    return []


def _in_order(layers: list[VariableLayer], model: GraphLayer | None, notes: list[str]) -> VariableLayers:
    if model is not None and all(layer.described for layer in layers):
        rank = {id(described): at for at, described in enumerate(model.flat())}
        return VariableLayers(sorted(layers, key=lambda layer: rank[id(layer.described)]), True, notes)
    created = _by_creation(layers)
    if created is not None:
        layers = created
    ordered = created is not None or all(_is_numbered(layer.path) for layer in layers)
    kinds = {layer.kind for layer in layers}
    if ordered and len(kinds) > 1:
        notes.append("The file keeps the order of layers within each class, not between classes (conv2d_3, dense_1).")
    if not ordered:
        notes.append(
            "Layers are stored under attribute names, in alphabetical order: the order of the model is unknown."
        )
    return VariableLayers(layers, ordered, notes)


def _is_numbered(path: str) -> bool:
    parts = path.split("/")
    return all(part in _LISTS for part in parts[0::2]) and len(parts) % 2 == 0


def _by_creation(layers: list[VariableLayer]) -> list[VariableLayer] | None:
    """Return the layers in the order of their automatic names' numbers, when all have such names (`conv2d_7`)."""
    own = [(layer.variables[0].names or ("",))[-1] for layer in layers]
    if not all(class_in_name(name) for name in own) or len(set(own)) != len(own):
        return None
    return [layer for _, layer in sorted(zip(own, layers, strict=True), key=lambda pair: natural(pair[0]))]
