"""The network that a file describes (Keras configuration, ONNX nodes, Caffe layers), as what feeds each of its layers.

Everything is read as data. Layers without weights are looked through; poolings and paddings on the way are remembered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from regraft.weights.differences.file_flow import FileGraph, Given, Pads
from regraft.weights.differences.keras_flow import keras_flow
from regraft.weights.file import WeightFile

__all__ = ["FileGraph", "file_graph"]

_POOLS = {"MaxPool": "max", "AveragePool": "avg", "MAX": "max", "AVE": "avg"}
_EPS = 1e-5  # of ONNX's normalisations that do not say theirs
_NORMS = ("BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization")
_AUTO_PADS = {"SAME_UPPER": "same", "VALID": (0, 0, 0, 0)}


def file_graph(weights: WeightFile) -> FileGraph | None:
    """Return the file's own graph by the names of its layers, or None where it has none that can be read."""
    described = weights.graph
    if not described:
        return None
    try:
        if "nodes" in described:
            return _from_nodes(weights, described) if described.get("wired", True) else None
        return keras_flow(weights, described)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError):
        return None  # a description of a kind that is not known says nothing; the other rules go on


def _from_nodes(weights: WeightFile, described: Mapping[str, Any]) -> FileGraph:
    """Read ONNX and Caffe: nodes with named inputs and outputs."""
    graph = FileGraph()
    values: dict[str, Given] = {}
    image = Given(frozenset([""]))
    for node in described["nodes"]:
        given = Given()
        for name in node["inputs"]:
            if name in values:
                given |= values[name]
            elif name and name not in weights.tensors:  # an input that is left out has no name
                given |= image
        owners = {weights.tensors[name].layer for name in node["weights"].values() if name in weights.tensors}
        made = _through(node, given, weights)
        for owner in sorted(owners):
            made = graph.add(owner, given, _plain_attributes(node))
        for name in node["outputs"]:
            values[name] = made
    return graph


def _through(node: Mapping[str, Any], given: Given, weights: WeightFile) -> Given:
    """Return the state behind a node without weights."""
    pool = _POOLS.get(node["attributes"].get("pool") or node["type"])
    if pool:
        return given.pooled(pool)
    return given.padded(_pads_of(node, weights)) if node["type"] == "Pad" else given


def _pads_of(node: Mapping[str, Any], weights: WeightFile) -> Pads | None:
    """Return the amounts of ONNX's `Pad`, from its attribute or a tensor of the file; None where they are unknown."""
    pads = node["attributes"].get("pads")
    if pads is None and len(node["inputs"]) in (2, 3) and node["inputs"][1] in weights.tensors:
        tensor = weights.tensors[node["inputs"][1]]
        pads = tensor.load().tolist() if tensor.shape == (8,) else None
    if not isinstance(pads, list) or len(pads) != 8 or node["attributes"].get("mode", "constant") != "constant":
        return None
    return int(pads[2]), int(pads[3]), int(pads[6]), int(pads[7])


def _plain_attributes(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return stride, dilation, padding and epsilon, as `FileGraph` spells them."""
    given = node["attributes"]
    is_conv = node["type"] == "Conv"  # whose settings have defaults
    found: dict[str, Any] = {}
    for name, spelled in (("stride", ("strides", "stride")), ("dilation", ("dilations", "dilation"))):
        value = next((given[one] for one in spelled if one in given), [1, 1] if is_conv else None)
        if isinstance(value, list) and len(value) == 2:
            found[name] = tuple(value)
    pads = _own_pads(given, is_conv=is_conv)
    if pads is not None:
        found["pads"] = pads
    eps = given.get("epsilon", given.get("eps", _EPS if node["type"] in _NORMS else None))
    if isinstance(eps, float):
        found["eps"] = eps
    return found


def _own_pads(given: Mapping[str, Any], *, is_conv: bool) -> Any:
    """Return ONNX's `auto_pad` or `pads` (before each axis, then behind), Caffe's `pad` (height and width)."""
    if given.get("auto_pad", "NOTSET") not in ("NOTSET", ""):
        return _AUTO_PADS.get(given["auto_pad"])
    pads = given.get("pads", [0, 0, 0, 0] if is_conv else None)
    if isinstance(pads, list) and len(pads) == 4:
        return tuple(pads)
    pad = given.get("pad")
    return (*pad, *pad) if isinstance(pad, list) and len(pad) == 2 else None
