"""A data-only reader of pickles: it rebuilds plain containers, imports nothing and calls nothing.

Python's own unpickler imports and calls what the pickle names. This one walks the instructions over the bytes of the
file; `Machine` says what becomes of names, objects and calls. The table of instructions stands here.
Source: the instruction descriptions in CPython's Lib/pickletools.py.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from regraft.weights.limits import LimitError, shown
from regraft.weights.readers.pickle.pickle_machine import (
    Global,
    Machine,
    PickleError,
    Raw,
    RefusedCallError,
    Stub,
    Words,
)

__all__ = ["Global", "PickleError", "Raw", "RefusedCallError", "Stub", "Words", "unpickle"]

_NO_WORDS = Words()
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, MemoryError, struct.error, SyntaxError)


def unpickle(view: memoryview, start: int = 0, *, words: Words = _NO_WORDS) -> tuple[Any, int]:
    """Read one pickle as data.

    Args:
        view: The bytes of the file.
        start: Where the pickle begins.
        words: What its names stand for.

    Returns:
        The value, and where the pickle ends.

    Raises:
        RefusedCallError: It calls something.
        PickleError: It is damaged, or holds more than data.
        LimitError: It asks for more work or memory than any real file.
    """
    machine = Machine(view, start, words)
    try:
        return machine.run(_STEPS), machine.at
    except (PickleError, LimitError):
        raise
    except RecursionError as error:
        raise PickleError("its pickle is nested too deeply") from error
    except IndexError as error:
        raise PickleError("its pickle is truncated or malformed") from error
    except _DAMAGE as error:
        raise PickleError(f"its pickle is damaged ({shown(str(error))})") from error


_BYTE, _SHORT, _INT = struct.Struct("<B"), struct.Struct("<H"), struct.Struct("<i")
_WORD, _LONG, _FLOAT = struct.Struct("<I"), struct.Struct("<Q"), struct.Struct(">d")


def _binary_float(machine: Machine) -> None:
    machine.stack.append(_FLOAT.unpack_from(machine.view, machine.at)[0])
    machine.at += 8


def _skipped(size: int) -> Callable[[Machine], None]:
    def step(machine: Machine) -> None:
        machine.skip(size)

    return step


def _reduce(machine: Machine) -> None:
    args, function = machine.pop(), machine.pop()
    machine.stack.append(machine.call(function, args))


def _new(machine: Machine) -> None:
    args, cls = machine.pop(), machine.pop()
    machine.new(cls, args)


def _new_with_keywords(machine: Machine) -> None:
    machine.pop()
    _new(machine)


def _inst(machine: Machine) -> None:
    cls = machine.named()
    machine.new(cls, machine.items())


def _obj(machine: Machine) -> None:
    cls, *args = machine.items()
    machine.new(cls, args)


def _stack_global(machine: Machine) -> None:
    name, module = machine.pop(), machine.pop()
    machine.stack.append(machine.name(module, name))


def _set_item(machine: Machine) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


def _append(machine: Machine) -> None:
    item = machine.pop()
    machine.append([item])


_STEPS: dict[int, Callable[[Machine], None]] = {
    0x80: _skipped(1),  # PROTO
    0x95: _skipped(8),  # FRAME
    ord("0"): Machine.drop,
    ord("1"): Machine.drop_items,
    ord("2"): lambda m: m.stack.append(m.stack[-1]),
    ord("("): Machine.mark,
    ord("N"): lambda m: m.stack.append(None),
    0x88: lambda m: m.stack.append(True),
    0x89: lambda m: m.stack.append(False),
    ord("I"): Machine.whole,
    ord("L"): Machine.whole,
    ord("J"): lambda m: m.stack.append(m.number(_INT)),
    ord("K"): lambda m: m.stack.append(m.number(_BYTE)),
    ord("M"): lambda m: m.stack.append(m.number(_SHORT)),
    0x8A: lambda m: m.long(m.number(_BYTE)),
    0x8B: lambda m: m.long(m.number(_INT)),
    ord("F"): lambda m: m.stack.append(float(m.short_line())),
    ord("G"): _binary_float,
    ord("S"): Machine.quoted,
    ord("T"): lambda m: m.string(m.number(_INT)),
    ord("U"): lambda m: m.string(m.number(_BYTE)),
    ord("B"): lambda m: m.raw(m.number(_WORD)),
    ord("C"): lambda m: m.raw(m.number(_BYTE)),
    0x8E: lambda m: m.raw(m.number(_LONG)),
    0x96: lambda m: m.raw(m.number(_LONG)),
    ord("V"): lambda m: m.text(m.line(), "raw-unicode-escape"),
    ord("X"): lambda m: m.text(m.take(m.number(_WORD))),
    0x8C: lambda m: m.text(m.take(m.number(_BYTE))),
    0x8D: lambda m: m.text(m.take(m.number(_LONG))),
    ord("]"): lambda m: m.stack.append([]),
    ord("l"): lambda m: m.stack.append(m.items()),
    ord("a"): _append,
    ord("e"): lambda m: m.append(m.items()),
    ord(")"): lambda m: m.stack.append(()),
    ord("t"): lambda m: m.stack.append(tuple(m.items())),
    0x85: lambda m: m.stack.append(m.some(1)),
    0x86: lambda m: m.stack.append(m.some(2)),
    0x87: lambda m: m.stack.append(m.some(3)),
    ord("}"): lambda m: m.stack.append({}),
    ord("d"): Machine.full_dict,
    ord("s"): _set_item,
    ord("u"): lambda m: m.set_items(m.items()),
    0x8F: Machine.empty_set,
    0x90: lambda m: m.add(m.items()),
    0x91: Machine.full_frozenset,
    ord("p"): lambda m: m.put(int(m.short_line())),
    ord("q"): lambda m: m.put(m.number(_BYTE)),
    ord("r"): lambda m: m.put(m.number(_WORD)),
    0x94: lambda m: m.put(len(m.memo)),
    ord("g"): lambda m: m.get(int(m.short_line())),
    ord("h"): lambda m: m.get(m.number(_BYTE)),
    ord("j"): lambda m: m.get(m.number(_WORD)),
    ord("c"): lambda m: m.stack.append(m.named()),
    0x93: _stack_global,
    ord("R"): _reduce,
    0x81: _new,
    0x92: _new_with_keywords,
    ord("i"): _inst,
    ord("o"): _obj,
    ord("b"): Machine.build,
    ord("Q"): lambda m: m.refer(m.pop()),
    ord("P"): lambda m: m.refer(m.line().decode()),
}
