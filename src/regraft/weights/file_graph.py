"""The network that a file describes (Keras configuration, ONNX nodes, Caffe layers), as what feeds each of its layers.

Everything is read as data. Layers without weights are looked through; a pooling on the way is remembered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from regraft.weights.file import WeightFile

__all__ = ["FileGraph", "file_graph"]

_MAX_DEPTH = 32
_POOLS = {
    "MaxPooling2D": "max", "AveragePooling2D": "avg", "MaxPool": "max", "AveragePool": "avg",
    "MAX": "max", "AVE": "avg",
}  # fmt: skip


@dataclass(frozen=True)
class Given:
    """What reaches a point of the network: the nearest layers with weights, and the poolings on the way."""

    layers: frozenset[str] = frozenset()
    pools: frozenset[str] = frozenset()

    def __or__(self, other: Given) -> Given:
        return Given(self.layers | other.layers, self.pools | other.pools)


@dataclass
class FileGraph:
    """For each layer of the file: its inputs ("" is the image), the poolings before it, and its settings."""

    inputs: dict[str, frozenset[str]] = field(default_factory=dict)
    pools: dict[str, frozenset[str]] = field(default_factory=dict)
    attributes: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, layer: str, given: Given, attributes: Mapping[str, Any]) -> Given:
        """Note a layer with weights; returns what it gives."""
        self.inputs[layer] = self.inputs.get(layer, frozenset()) | (given.layers - {layer})
        self.pools[layer] = self.pools.get(layer, frozenset()) | given.pools
        self.attributes.setdefault(layer, {}).update(attributes)
        return Given(frozenset([layer]))


def file_graph(weights: WeightFile) -> FileGraph | None:
    """The file's own graph by the names of its layers, or None where it has none that can be read."""
    described = weights.graph
    if not described:
        return None
    try:
        if "nodes" in described:
            return _from_nodes(weights, described) if described.get("wired", True) else None
        return _from_keras(weights, described)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError):
        return None  # a description of a kind that is not known says nothing; the other rules go on


# --- ONNX and Caffe: nodes with named inputs and outputs ----------------------------------------------------------


def _from_nodes(weights: WeightFile, described: Mapping[str, Any]) -> FileGraph:
    graph = FileGraph()
    values: dict[str, Given] = {}
    image = Given(frozenset([""]))
    for node in described["nodes"]:
        given = Given()
        for name in node["inputs"]:
            if name in values:
                given |= values[name]
            elif name not in weights.tensors:
                given |= image
        owners = {weights.tensors[name].layer for name in node["weights"].values() if name in weights.tensors}
        pool = _POOLS.get(node["attributes"].get("pool") or node["type"])
        made = Given(given.layers, given.pools | {pool}) if pool else given
        for owner in sorted(owners):
            made = graph.add(owner, given, _plain_attributes(node["attributes"]))
        for name in node["outputs"]:
            values[name] = made
    return graph


def _plain_attributes(given: Mapping[str, Any]) -> dict[str, Any]:
    """Stride, padding and epsilon in torch's words."""
    found: dict[str, Any] = {}
    stride = given.get("strides", given.get("stride"))
    if isinstance(stride, list) and len(stride) == 2:
        found["stride"] = tuple(stride)
    pads = given.get("pads", given.get("pad"))
    if isinstance(pads, list) and len(pads) in (2, 4) and (len(pads) == 2 or pads[:2] == pads[2:]):
        found["padding"] = tuple(pads[:2])
    eps = given.get("epsilon", given.get("eps"))
    if isinstance(eps, float):
        found["eps"] = eps
    return found


# --- Keras: model_config and config.json --------------------------------------------------------------------------


def _from_keras(weights: WeightFile, described: Mapping[str, Any]) -> FileGraph | None:
    walker = _KerasWalker(weights)
    walker.model(described, "", Given(frozenset([""])), 0)
    return walker.graph if walker.graph.inputs else None


class _KerasWalker:
    """Walks a Keras configuration, nested models included."""

    def __init__(self, weights: WeightFile) -> None:
        self.graph = FileGraph()
        self._names = {name.partition("#")[0] for name in weights.layers}
        self._separable = {
            name
            for name, tensors in weights.layers.items()
            if {"depthwise_kernel", "pointwise_kernel"} <= {tensor.role for tensor in tensors}
        }
        tails: dict[str, list[str]] = {}
        for name in self._names:
            tails.setdefault(name.rpartition("/")[2], []).append(name)
        self._by_tail = {tail: names[0] for tail, names in tails.items() if len(names) == 1}

    def model(self, entry: Mapping[str, Any], path: str, given: Given, depth: int) -> Given:
        """One model: what comes out of it."""
        if depth > _MAX_DEPTH:
            raise ValueError("models are nested too deeply")
        config = entry["config"]
        layers = config if isinstance(config, list) else config["layers"]
        if isinstance(config, Mapping) and any(layer.get("inbound_nodes") for layer in layers):
            return self._functional(config, layers, path, given, depth)
        for layer in layers:
            given = self._layer(layer, path, given, depth)
        return given

    def _functional(self, config: Mapping[str, Any], layers: Any, path: str, given: Given, depth: int) -> Given:
        made: dict[str, Given] = {}
        waiting = list(layers)
        while waiting:
            later = []
            for layer in waiting:
                name = layer.get("name") or layer["config"]["name"]
                calls = layer.get("inbound_nodes") or []
                givers = [list(_references(call)) for call in calls]
                if any(giver not in made for call in givers for giver in call):
                    later.append(layer)
                    continue
                reached = given if not calls else Given()
                for giver in (giver for call in givers for giver in call):
                    reached |= made[giver]
                made[name] = self._layer(layer, path, reached, depth)
            if len(later) == len(waiting):
                raise ValueError("the description is not connected")
            waiting = later
        outputs = [name for name in _references([config.get("output_layers", [])]) if name in made]
        result = Given()
        for name in outputs or list(made)[-1:]:
            result |= made[name]
        return result

    def _layer(self, entry: Mapping[str, Any], path: str, given: Given, depth: int) -> Given:
        config, kind = entry["config"], entry["class_name"]
        name = entry.get("name") or (config.get("name") if isinstance(config, Mapping) else "") or ""
        if isinstance(config, list) or isinstance(config.get("layers"), list):
            return self.model(entry, f"{path}{name}/", given, depth + 1)
        if kind in ("TimeDistributed", "Bidirectional"):
            raise ValueError("a wrapper layer has no counterpart in an image network")
        pool = _POOLS.get(kind)
        if pool:
            return Given(given.layers, given.pools | {pool})
        layer = self._known(path, name)
        if layer is None:
            return given
        attributes = _keras_attributes(config)
        if layer in self._separable:
            given = self.graph.add(f"{layer}#depthwise", given, attributes)
            return self.graph.add(f"{layer}#pointwise", given, {})
        return self.graph.add(layer, given, attributes)

    def _known(self, path: str, name: str) -> str | None:
        full = path + name
        for start in range(full.count("/") + 1):
            shorter = "/".join(full.split("/")[start:])
            if shorter in self._names:
                return shorter
        return self._by_tail.get(name)


def _references(call: Any, depth: int = 0) -> Iterator[str]:
    """The layers whose outputs a call takes: ["name", 0, 0, {}] (Keras 1 and 2) or a tensor's keras_history (3)."""
    if depth > _MAX_DEPTH:
        raise ValueError("a call is nested too deeply")
    if isinstance(call, list):
        if len(call) >= 3 and isinstance(call[0], str) and isinstance(call[1], int):
            yield call[0]
            if len(call) > 3:
                yield from _references(call[3], depth + 1)
        else:
            for item in call:
                yield from _references(item, depth + 1)
    elif isinstance(call, Mapping):
        history = call.get("keras_history")
        if isinstance(history, list) and history and isinstance(history[0], str):
            yield history[0]
        else:
            for item in call.values():
                yield from _references(item, depth + 1)


def _keras_attributes(config: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    strides = config.get("strides", config.get("subsample"))
    if isinstance(strides, int):
        strides = [strides, strides]
    if isinstance(strides, list) and len(strides) == 2 and all(isinstance(step, int) for step in strides):
        found["stride"] = tuple(strides)
    padding = config.get("padding", config.get("border_mode"))
    if padding in ("same", "valid"):
        found["padding"] = padding
    if isinstance(config.get("epsilon"), float):
        found["eps"] = config["epsilon"]
    return found
