"""MXNet's symbols (`net-symbol.json`) as a graph: which layers use which parameters, and how they are set.

Operators are names here, nothing of them is run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regraft.weights.limits import budget, is_own_file, load_json
from regraft.weights.readers.byte_range import open_source
from regraft.weights.readers.spelling import split_word

__all__ = ["Symbol", "read_symbol"]

_MAX_BYTES = 64 << 20
_NUMBER = re.compile(r"\d{1,9}")
_SETTINGS = {"stride": "strides", "dilate": "dilations"}
_KERNELS = {"Convolution": "kernel", "Deconvolution": "transpose_kernel", "FullyConnected": "kernel"}
_EPS = 1e-3  # MXNet's default


@dataclass(frozen=True)
class Symbol:
    """A network: its graph as plain data, the role of each parameter, and the gammas that are fixed at 1."""

    graph: dict[str, Any]
    roles: Mapping[str, str | None] = field(default_factory=dict)
    fixed: frozenset[str] = frozenset()


def read_symbol(path: Path, parameters: set[str]) -> Symbol | None:
    """Return the symbol in a file, or None where there is none that can be read.

    Args:
        path: The file.
        parameters: The names of the arrays that it may use.
    """
    if not is_own_file(path) or path.stat().st_size > _MAX_BYTES:
        return None
    source = open_source(path)
    try:
        nodes = load_json(bytes(source.read(0, source.size).data), "its symbol")["nodes"]
        return _symbol(nodes, parameters)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return None


def _symbol(nodes: list[dict[str, Any]], parameters: set[str]) -> Symbol:
    names = [str(node["name"]) for node in nodes]
    known: dict[str, str | None] = {}
    fixed: set[str] = set()
    found: list[dict[str, Any]] = []
    for node in nodes:
        budget().step(4)
        kind, name = node["op"], str(node["name"])
        if kind == "null":
            continue
        inputs = [names[entry[0]] for entry in node["inputs"]]
        used = [one for one in inputs if one in parameters]
        given = node.get("attrs") or node.get("attr") or node.get("param") or {}
        roles = {one: _role(kind, one, given) for one in used}
        known = {**roles, **known}
        is_fixed = kind == "BatchNorm" and str(given.get("fix_gamma", "True")) in ("True", "1")
        fixed |= {one for one, role in roles.items() if is_fixed and role == "gamma"}
        weights = {role or one: one for one, role in roles.items()}
        values = [one for one in inputs if one not in used]
        found.append({"name": name, "inputs": values, "outputs": [name], "weights": weights, **_settings(kind, given)})
    return Symbol({"source": "mxnet", "wired": True, "nodes": found}, known, frozenset(fixed))


def _role(kind: str, name: str, given: Mapping[str, Any]) -> str | None:
    role = split_word(name)[1]
    if role != "kernel":
        return role
    is_depthwise = kind == "Convolution" and str(given.get("num_group", "1")) == str(given.get("num_filter")) != "1"
    return "depthwise_kernel" if is_depthwise else _KERNELS.get(kind, role)


def _settings(kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return type and settings of a node, as ONNX would spell them."""
    if kind == "Convolution":
        attributes = {new: _pair(given.get(old), 1) for old, new in _SETTINGS.items()}
        return {"type": "Conv", "attributes": {**attributes, "pads": [*_pair(given.get("pad"), 0)] * 2}}
    if kind == "BatchNorm":
        return {"type": "BatchNormalization", "attributes": {"epsilon": float(given.get("eps", _EPS))}}
    if kind == "Pooling":
        return {"type": "MaxPool" if given.get("pool_type", "max") == "max" else "AveragePool", "attributes": {}}
    return {"type": kind, "attributes": {}}


def _pair(text: Any, default: int) -> list[int]:
    """Return the two numbers of a setting such as `(2, 2)`."""
    numbers = [int(number) for number in _NUMBER.findall(str(text))] if text is not None else []
    return numbers if len(numbers) == 2 else [default, default]
