"""The instructions of pickles: for each code, what it does to the machine.

Source: the instruction descriptions in CPython's Lib/pickletools.py.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

from regraft.weights.readers.pickle.pickle_containers import SET_BYTES, filled, keys
from regraft.weights.readers.pickle.pickle_machine import Machine
from regraft.weights.readers.pickle.pickled import PickleError, Stub

__all__ = ["INSTRUCTIONS"]

_BYTE, _SHORT, _INT = struct.Struct("<B"), struct.Struct("<H"), struct.Struct("<i")
_WORD, _LONG, _FLOAT = struct.Struct("<I"), struct.Struct("<Q"), struct.Struct(">d")


def _skipped(size: int) -> Callable[[Machine], None]:
    def step(machine: Machine) -> None:
        machine.source.skip(size)

    return step


def _binary_float(machine: Machine) -> None:
    source = machine.source
    machine.stack.append(_FLOAT.unpack_from(source.view, source.at)[0])
    source.at += 8


def _drop_items(machine: Machine) -> None:
    machine.items()


# --- containers ---------------------------------------------------------------------------------------------------


def _empty_set(machine: Machine) -> None:
    machine.budget.hold(SET_BYTES)
    machine.stack.append(set())


def _append(machine: Machine) -> None:
    item = machine.pop()
    _extend(machine, [item])


def _extend(machine: Machine, items: list[Any]) -> None:
    target = machine.stack[-1]
    if isinstance(target, list):
        target.extend(items)
    elif not isinstance(target, Stub):  # the items of a list subclass hold settings, never weights
        raise PickleError("its pickle is malformed")


def _add_items(machine: Machine, items: list[Any]) -> None:
    target = machine.stack[-1]
    if isinstance(target, set):
        target.update(keys(machine.budget, items))


def _set_item(machine: Machine) -> None:
    value, key = machine.pop(), machine.pop()
    _set_items(machine, [key, value])


def _set_items(machine: Machine, items: list[Any]) -> None:
    target = machine.stack[-1]
    if isinstance(target, dict):
        filled(machine.budget, target, items)
    elif isinstance(target, Stub):
        target.state.update(filled(machine.budget, {}, items))
    else:
        raise PickleError("its pickle is malformed")


# --- the memo -----------------------------------------------------------------------------------------------------


def _put(machine: Machine, index: int) -> None:
    machine.memo[index] = machine.stack[-1]


def _get(machine: Machine, index: int) -> None:
    machine.stack.append(machine.memo[index])


# --- names, calls, objects ----------------------------------------------------------------------------------------


def _global(machine: Machine) -> None:
    machine.stack.append(_named(machine))


def _named(machine: Machine) -> Any:
    module = machine.source.line().decode()
    return machine.objects.name(module, machine.source.line().decode())


def _stack_global(machine: Machine) -> None:
    name, module = machine.pop(), machine.pop()
    machine.stack.append(machine.objects.name(module, name))


def _reduce(machine: Machine) -> None:
    args, function = machine.pop(), machine.pop()
    machine.stack.append(machine.objects.call(function, args))


def _new(machine: Machine) -> None:
    args, cls = machine.pop(), machine.pop()
    machine.stack.append(machine.objects.new(cls, args))


def _new_with_keywords(machine: Machine) -> None:
    machine.pop()
    _new(machine)


def _inst(machine: Machine) -> None:
    cls = _named(machine)
    machine.stack.append(machine.objects.new(cls, machine.items()))


def _obj(machine: Machine) -> None:
    cls, *args = machine.items()
    machine.stack.append(machine.objects.new(cls, args))


def _build(machine: Machine) -> None:
    state, target = machine.pop(), machine.stack[-1]
    machine.objects.build(target, state)


INSTRUCTIONS: Mapping[int, Callable[[Machine], None]] = {
    0x80: _skipped(1),  # PROTO
    0x95: _skipped(8),  # FRAME
    ord("0"): Machine.drop,
    ord("1"): _drop_items,
    ord("2"): lambda m: m.stack.append(m.stack[-1]),
    ord("("): Machine.mark,
    ord("N"): lambda m: m.stack.append(None),
    0x88: lambda m: m.stack.append(True),
    0x89: lambda m: m.stack.append(False),
    ord("I"): lambda m: m.stack.append(m.source.whole()),
    ord("L"): lambda m: m.stack.append(m.source.whole()),
    ord("J"): lambda m: m.stack.append(m.source.number(_INT)),
    ord("K"): lambda m: m.stack.append(m.source.number(_BYTE)),
    ord("M"): lambda m: m.stack.append(m.source.number(_SHORT)),
    0x8A: lambda m: m.stack.append(m.source.long(m.source.number(_BYTE))),
    0x8B: lambda m: m.stack.append(m.source.long(m.source.number(_INT))),
    ord("F"): lambda m: m.stack.append(float(m.source.short_line())),
    ord("G"): _binary_float,
    ord("S"): lambda m: m.stack.append(m.source.quoted()),
    ord("T"): lambda m: m.stack.append(m.source.string(m.source.number(_INT))),
    ord("U"): lambda m: m.stack.append(m.source.string(m.source.number(_BYTE))),
    ord("B"): lambda m: m.stack.append(m.source.raw(m.source.number(_WORD))),
    ord("C"): lambda m: m.stack.append(m.source.raw(m.source.number(_BYTE))),
    0x8E: lambda m: m.stack.append(m.source.raw(m.source.number(_LONG))),
    0x96: lambda m: m.stack.append(m.source.raw(m.source.number(_LONG))),
    ord("V"): lambda m: m.stack.append(m.source.text_line()),
    ord("X"): lambda m: m.stack.append(m.source.text(m.source.number(_WORD))),
    0x8C: lambda m: m.stack.append(m.source.text(m.source.number(_BYTE))),
    0x8D: lambda m: m.stack.append(m.source.text(m.source.number(_LONG))),
    ord("]"): lambda m: m.stack.append([]),
    ord("l"): lambda m: m.stack.append(m.items()),
    ord("a"): _append,
    ord("e"): lambda m: _extend(m, m.items()),
    ord(")"): lambda m: m.stack.append(()),
    ord("t"): lambda m: m.stack.append(tuple(m.items())),
    0x85: lambda m: m.stack.append(m.some(1)),
    0x86: lambda m: m.stack.append(m.some(2)),
    0x87: lambda m: m.stack.append(m.some(3)),
    ord("}"): lambda m: m.stack.append({}),
    ord("d"): lambda m: m.stack.append(filled(m.budget, {}, m.items())),
    ord("s"): _set_item,
    ord("u"): lambda m: _set_items(m, m.items()),
    0x8F: _empty_set,
    0x90: lambda m: _add_items(m, m.items()),
    0x91: lambda m: m.stack.append(frozenset(keys(m.budget, m.items()))),
    ord("p"): lambda m: _put(m, int(m.source.short_line())),
    ord("q"): lambda m: _put(m, m.source.number(_BYTE)),
    ord("r"): lambda m: _put(m, m.source.number(_WORD)),
    0x94: lambda m: _put(m, len(m.memo)),
    ord("g"): lambda m: _get(m, int(m.source.short_line())),
    ord("h"): lambda m: _get(m, m.source.number(_BYTE)),
    ord("j"): lambda m: _get(m, m.source.number(_WORD)),
    ord("c"): _global,
    0x93: _stack_global,
    ord("R"): _reduce,
    0x81: _new,
    0x92: _new_with_keywords,
    ord("i"): _inst,
    ord("o"): _obj,
    ord("b"): _build,
    ord("Q"): lambda m: m.stack.append(m.objects.referred(m.pop())),
    ord("P"): lambda m: m.stack.append(m.objects.referred(m.source.line().decode())),
}
