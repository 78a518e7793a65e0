"""The code of a frozen TorchScript module as a list of calls: what it does with its constants, and in which order.

A frozen module has no names: `torch.conv2d(x, CONSTANTS.c0, CONSTANTS.c1, [2, 2])` tells which constants make a layer,
what each is in it, and how it strides. The code is read from front to back, once, and never run. Constants that are
equal are one, so a constant may be a part of several layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from regraft.weights.limits import budget
from regraft.weights.readers.archive import Archive

__all__ = ["ConstantUse", "constant_uses"]

_MAX_CODE = 32 << 20
_CALL_BYTES = 600  # in memory
_TOKEN = re.compile(
    r"CONSTANTS\.c(?P<constant>\d{1,7})|(?P<call>[A-Za-z_][\w.]{0,200})\(|(?P<name>[A-Za-z_][\w.]{0,200})"
    r"|(?P<number>-?\d[\d.e+-]{0,30})|(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<sign>[,=\n])"
)
_BRANCHES = re.compile(r"^ *(if|for|while) ", re.MULTILINE)
_NO_VALUES = ("None", "True", "False", "self", "return")
_CONVOLUTIONS = ("_convolution", *(f"conv{way}{axes}d" for way in ("", "_transpose") for axes in (1, 2, 3)))
# For each function, what its arguments are by place.
_ROLES: dict[str, dict[int, str]] = {
    **{name: {1: "kernel", 2: "bias"} for name in _CONVOLUTIONS},
    "linear": {1: "kernel", 2: "bias"},
    "batch_norm": {1: "gamma", 2: "beta", 3: "mean", 4: "variance"},
    "layer_norm": {2: "gamma", 3: "beta"},
    "group_norm": {2: "gamma", 3: "beta"},
    "prelu": {1: "alpha"},
}
_EPSILONS = {"batch_norm": 7, "layer_norm": 4, "group_norm": 4}
_TYPES = {"batch_norm": "BatchNormalization", "layer_norm": "LayerNormalization", "group_norm": "GroupNormalization"}


@dataclass(frozen=True)
class ConstantUse:
    """One constant as a part of one layer."""

    number: int
    layer: str
    role: str


@dataclass(frozen=True)
class _Constant:
    number: int


@dataclass(frozen=True)
class _Value:
    """What a call gives, or a name that stands for an input."""

    name: str


@dataclass
class _Call:
    """One call: what is called, with what; `function` is empty for a list."""

    function: str
    arguments: list[Any] = field(default_factory=list)


def constant_uses(
    archive: Archive, shapes: Sequence[tuple[int, ...] | None]
) -> tuple[list[ConstantUse], dict[str, Any] | None]:
    """Return what the layers of a frozen module use, in the order in which they run, and the module as a graph.

    Args:
        archive: The zip file of the module.
        shapes: The shapes of the constants; None for those that are no tensors.
    """
    uses: list[ConstantUse] = []
    nodes: list[dict[str, Any]] = []
    texts = list(_code(archive))
    for text in texts:
        for number, call in enumerate(_calls(text)):
            found = _roles(call, shapes)
            layer = f"{call.function.strip('_')}_{min(found.values())}" if found else ""
            uses += [ConstantUse(constant, layer, role) for role, constant in found.items()]
            nodes.append(_node(call, number, layer, found))
    num_functions = sum(text.count("def ") for text in texts)
    is_plain = num_functions == 1 and not any(map(_BRANCHES.search, texts))
    return uses, {"source": "torchscript", "wired": True, "nodes": nodes} if is_plain else None


def _code(archive: Archive) -> Iterator[str]:
    """Yield the sources of the module, as long as they are no longer than those of real networks."""
    total = 0
    for name, member in archive.members.items():
        if name.partition("/")[2].startswith("code/") and name.endswith(".py"):
            total += member.size
            if total > _MAX_CODE:
                return
            budget().hold(2 * member.size)
            yield archive.read(member).decode("utf-8", "replace")


def _calls(text: str) -> Iterator[_Call]:
    """Yield the calls of the code in the order in which they run; what a call gives is called `%` and its number."""
    spent = budget()
    known: dict[str, Any] = {}
    open_calls: list[_Call] = []
    targets: list[str] = []
    value: Any = None
    count = 0
    for token in _TOKEN.finditer(text):
        spent.step()
        kind, word = token.lastgroup, token[0]
        if kind in ("call", "open"):
            spent.hold(_CALL_BYTES)
            open_calls.append(_Call(token["call"].removeprefix("torch.") if token["call"] else ""))
            value = None
        elif kind == "close" and open_calls:
            call = open_calls.pop()
            call.arguments.append(value)
            if call.function:
                yield call
                value = _Value(f"%{count}")
                count += 1
            else:
                value = call.arguments
        elif word == "," and open_calls:
            open_calls[-1].arguments.append(value)
            value = None
        elif word == "=" and not open_calls:
            targets, value = [value.name] if isinstance(value, _Value) else [], None
        elif word == "\n" and not open_calls:
            known |= dict.fromkeys(targets, value)
            targets, value = [], None
        elif kind == "constant":
            value = _Constant(int(token["constant"]))
        elif kind == "number":
            value = _number(word)
        elif kind == "name" and word not in _NO_VALUES:
            value = known.get(word, _Value(word)) if "." not in word else None
        elif kind == "name":
            value = {"True": True, "False": False}.get(word)


def _number(word: str) -> float | int | None:
    try:
        return float(word) if any(sign in word for sign in ".e") else int(word)
    except ValueError:
        return None


def _roles(call: _Call, shapes: Sequence[tuple[int, ...] | None]) -> dict[str, int]:
    """Return the constants of a call by what they are in its layer."""
    found: dict[str, int] = {}
    for place, role in _ROLES.get(call.function, {}).items():
        given = call.arguments[place] if place < len(call.arguments) else None
        if isinstance(given, _Constant) and given.number < len(shapes):
            found[_exact(role, call, shapes[given.number])] = given.number
    return found


def _exact(role: str, call: _Call, shape: tuple[int, ...] | None) -> str:
    """Return the role of a kernel by what the call says of transposing, and by its shape."""
    if role != "kernel" or call.function == "linear":
        return role
    if "transpose" in call.function or (call.function == "_convolution" and call.arguments[6:7] == [True]):
        return "transpose_kernel"
    is_depthwise = shape is not None and len(shape) == 4 and shape[1] == 1 < shape[0]
    return "depthwise_kernel" if is_depthwise else role


def _node(call: _Call, number: int, layer: str, found: dict[str, int]) -> dict[str, Any]:
    """Return a call as a node of a graph, with the settings that ONNX would have."""
    inputs = [value.name for value in _flat(call.arguments) if isinstance(value, _Value)]
    kind, attributes = call.function, {}
    if call.function in ("conv2d", "_convolution") and "transpose_kernel" not in found:
        kind, attributes = "Conv", _convolution(call.arguments)
    elif call.function in _TYPES:
        kind, eps = _TYPES[call.function], call.arguments[_EPSILONS[call.function] :][:1]
        attributes = {"epsilon": eps[0]} if eps and isinstance(eps[0], float) else {}
    elif "max_pool" in call.function or "avg_pool" in call.function:
        kind = "MaxPool" if "max_pool" in call.function else "AveragePool"
    elif call.function in ("constant_pad_nd", "pad"):
        kind, attributes = "Pad", _pads(call.arguments)
    weights = {role: f"{layer}.{role}" for role in found}
    return {"name": layer, "type": kind, "inputs": inputs, "outputs": [f"%{number}"], "attributes": attributes,
            "weights": weights}  # fmt: skip


def _flat(arguments: Sequence[Any]) -> Iterator[Any]:
    for value in arguments:
        if isinstance(value, list):
            yield from (inner for inner in value if not isinstance(inner, list))
        else:
            yield value


def _convolution(arguments: Sequence[Any]) -> dict[str, Any]:
    """Return stride, padding and dilation: arguments 3 to 5 of both spellings of a convolution."""
    given = dict(zip(("strides", "pads", "dilations"), arguments[3:6], strict=False))
    attributes = {name: value for name, value in given.items() if _is_pair(value)}
    if "pads" in attributes:
        attributes["pads"] = [*attributes["pads"], *attributes["pads"]]
    elif "pads" in given:  # `same`, or a number that is computed
        attributes["auto_pad"] = "UNKNOWN"
    return attributes


def _pads(arguments: Sequence[Any]) -> dict[str, Any]:
    """Return the amounts of a padding: left, right, above, below, as ONNX has them for four axes."""
    given = arguments[1] if len(arguments) > 1 else None
    if not isinstance(given, list) or len(given) != 4 or not all(type(amount) is int for amount in given):
        return {"pads": None}
    left, right, above, below = given
    return {"pads": [0, 0, above, left, 0, 0, below, right]}


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(number) is int for number in value)
