"""Dicts, sets and lists made from what a pickle gives, within the budget of the file.

A key of a dict is a plain value or counts by identity, so nothing is ever hashed or compared through all its depth.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from regraft.weights.limits import Budget, shown
from regraft.weights.readers.pickle.pickled import Call, Global, PickleError, Stub

__all__ = ["CONTAINERS", "ENTRY_BYTES", "SET_BYTES", "filled", "keys"]

# Bytes that a part takes in memory.
ENTRY_BYTES, SET_BYTES = 100, 216
_PLAIN = (str, int, float, bool, bytes, type(None))


def filled(budget: Budget, target: dict[Any, Any], items: list[Any]) -> dict[Any, Any]:
    """Return the dict, with these keys and values in turn."""
    if len(items) % 2:
        raise PickleError("its pickle has a dict key without a value")
    budget.hold(ENTRY_BYTES * len(items) // 2)
    for at in range(0, len(items), 2):
        key = _key(items[at])
        if key in target:
            raise PickleError(f"its pickle has the duplicate key {shown(key)}")
        target[key] = items[at + 1]
    return target


def keys(budget: Budget, items: Any) -> Iterator[Any]:
    """Return the hashable stand-ins of a new set's items, within the file's budget."""
    return map(_key, _sized(budget, items, ENTRY_BYTES, SET_BYTES))


def _key(value: Any) -> Any:
    """Return a hashable stand-in for a key: itself where it is plain, else a stub that equals nothing but itself."""
    kind = type(value)
    if kind is str:
        return value
    if kind is int and value.bit_length() > 64:
        return Stub("int")
    if kind in _PLAIN or kind is Global:
        return value
    if kind is tuple and len(value) <= 8 and all(type(part) in _PLAIN for part in value):
        return value
    return value if isinstance(value, Stub) else Stub(kind.__name__)


def _pairs(budget: Budget, pairs: Any) -> dict[Any, Any]:
    """Return a new dict from a dict, or from pairs."""
    if isinstance(pairs, dict):
        budget.hold(ENTRY_BYTES * len(pairs))
        return dict(pairs)
    flat: list[Any] = []
    for pair in _sized(budget, pairs, ENTRY_BYTES):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise PickleError("its pickle builds a dict from something other than pairs")
        flat += pair
    return filled(budget, {}, flat)


def _sized(budget: Budget, items: Any, width: int = 8, empty: int = 0) -> Any:
    if not isinstance(items, list | tuple | set | frozenset | dict):
        raise PickleError(f"its pickle builds a container from {shown(items)}")
    budget.hold(empty + width * len(items))
    return items


def _encoded(budget: Budget, text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise PickleError("its pickle encodes something in a way that NumPy does not: refused")
    budget.hold(len(text))
    return text.encode("latin1")


# The calls that make plain values: by name, what makes one from the arguments.
CONTAINERS: Mapping[str, Call] = {
    "collections.OrderedDict": lambda budget, pairs=(): _pairs(budget, pairs),
    "collections.defaultdict": lambda budget, factory=None, pairs=(): _pairs(budget, pairs),
    "collections.Counter": lambda budget, pairs=(): _pairs(budget, pairs),
    "builtins.dict": lambda budget, pairs=(): _pairs(budget, pairs),
    "builtins.list": lambda budget, items=(): list(_sized(budget, items)),
    "builtins.tuple": lambda budget, items=(): tuple(_sized(budget, items)),
    "builtins.set": lambda budget, items=(): set(keys(budget, items)),
    "builtins.frozenset": lambda budget, items=(): frozenset(keys(budget, items)),
    "builtins.complex": lambda budget, real=0.0, imag=0.0: complex(real, imag),
    "_codecs.encode": lambda budget, text, encoding="latin1": _encoded(budget, text, encoding),
}
