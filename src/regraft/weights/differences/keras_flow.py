"""The network that a Keras configuration describes (`model_config`, `config.json`), as what feeds each layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from regraft.weights.differences.file_flow import FileGraph, Given, Pads
from regraft.weights.file import WeightFile

__all__ = ["keras_flow"]

_MAX_DEPTH = 32
_POOLS = {"MaxPooling2D": "max", "AveragePooling2D": "avg"}


def keras_flow(weights: WeightFile, described: Mapping[str, Any]) -> FileGraph | None:
    """Return the flow of a Keras model, or None where no layer of it has weights in the file."""
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
        """Return the state at the output of one model."""
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
        if kind in _POOLS:
            return given.pooled(_POOLS[kind])
        if kind == "ZeroPadding2D":
            return given.padded(_zero_padding(config.get("padding")))
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
    """Yield the layers whose outputs a call takes: ["name", 0, 0, {}] (Keras 1 and 2) or a tensor's keras_history
    (3).
    """
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
    dilation = config.get("dilation_rate")
    if isinstance(dilation, list) and len(dilation) == 2:
        found["dilation"] = tuple(dilation)
    padding = config.get("padding", config.get("border_mode"))
    if padding in ("same", "valid"):
        found["pads"] = "same" if padding == "same" else (0, 0, 0, 0)
    if isinstance(config.get("epsilon"), float):
        found["eps"] = config["epsilon"]
    return found


def _zero_padding(given: Any) -> Pads | None:
    """Return `((above, below), (left, right))`, or shorter."""
    rows, columns = given if isinstance(given, list) and len(given) == 2 else (given, given)
    (above, below), (left, right) = (side if isinstance(side, list) else (side, side) for side in (rows, columns))
    pads = above, left, below, right
    return pads if all(isinstance(side, int) for side in pads) else None
