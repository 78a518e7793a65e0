"""A data-only reader of pickles: it rebuilds plain containers and calls nothing.

Python's own unpickler imports and calls what the pickle names. This one walks the opcodes itself. A name in the
pickle becomes a `Global`, an object of a class becomes an inert `Stub` that holds its state, and a *call* is
carried out only where the caller of `unpickle` passed a handler for that very name; any other call is an error.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from regraft.errors import WeightsError

__all__ = ["Global", "Stub", "unpickle"]

# A pickle of names and shapes is small: the largest checkpoints with optimizer state stay below a million opcodes.
MAX_OPCODES = 20_000_000

Call = Callable[..., Any]


@dataclass(frozen=True)
class Global:
    """A name that the pickle asks for, not imported."""

    name: str


@dataclass(eq=False)
class Stub:
    """An object of a class that is not rebuilt: the class's name, and its state as plain data."""

    name: str
    args: tuple[Any, ...] = ()
    state: dict[str, Any] = field(default_factory=dict)

    def __hash__(self) -> int:
        return id(self)


class _Mark:
    """The position of an opened bracket on the stack."""


_MARK = _Mark()

_CONTAINERS: dict[str, Call] = {
    "collections.OrderedDict": lambda pairs=(): dict(pairs),
    "collections.defaultdict": lambda factory=None, pairs=(): dict(pairs),
    "collections.Counter": lambda pairs=(): dict(pairs),
    "builtins.dict": lambda pairs=(): dict(pairs),
    "builtins.list": lambda items=(): list(items),
    "builtins.tuple": lambda items=(): tuple(items),
    "builtins.set": lambda items=(): _hashable_set(items),
    "builtins.frozenset": lambda items=(): _hashable_set(items),
    "builtins.complex": lambda real=0.0, imag=0.0: complex(real, imag),
    "builtins.bytearray": lambda data=b"", *_: data if isinstance(data, bytes) else b"",
    "_codecs.encode": lambda text, encoding="latin1": text.encode("latin1") if encoding == "latin1" else b"",
}
# Classes whose objects are made by a call and are harmless as inert stubs: settings beside the weights.
_INERT = frozenset(
    ["argparse.Namespace", "types.SimpleNamespace", "decimal.Decimal", "fractions.Fraction", "uuid.UUID"]
    + [f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")]
    + [f"pathlib.{name}" for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")]
    + [f"pathlib._local.{name}" for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")]
)


def unpickle(
    stream: IO[bytes],
    where: str,
    *,
    calls: Mapping[str, Call] | None = None,
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """Read one pickle from the stream as data; the stream is left behind its end.

    Args:
        stream: A readable, positioned binary stream.
        where: The file's name, for errors.
        calls: Handlers by full name (`torch._utils._rebuild_tensor_v2`) for the calls that are allowed.
        persistent: What to make of a persistent id (`('storage', ...)`).

    Raises:
        WeightsError: A call that is not allowed, or a damaged pickle.
    """
    machine = _Machine(where, {**_CONTAINERS, **(calls or {})}, persistent)
    try:
        return machine.run(stream)
    except WeightsError:
        raise
    except RecursionError as error:
        raise _damaged(where, "it is nested too deeply") from error
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, EOFError, OverflowError, MemoryError) as error:
        raise _damaged(where, str(error) or type(error).__name__) from error


class _Machine:
    """The stack, the memo and the handlers of one pickle."""

    def __init__(self, where: str, calls: Mapping[str, Call], persistent: Callable[[Any], Any] | None) -> None:
        self.where = where
        self.calls = calls
        self.persistent = persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, stream: IO[bytes]) -> Any:
        for count, (opcode, arg, _) in enumerate(pickletools.genops(stream)):
            if count > MAX_OPCODES:
                raise _damaged(self.where, f"it has more than {MAX_OPCODES} instructions")
            name = opcode.name
            if name == "STOP":
                return self.stack.pop()
            if name in _LITERALS:
                self.stack.append(arg)
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name]())
            else:
                handler = _HANDLERS.get(name)
                if handler is None:
                    raise _damaged(self.where, f"the instruction {name} has no place in a weights file")
                handler(self, arg)
        raise _damaged(self.where, "it ends before its STOP")

    def items(self) -> list[Any]:
        """Pop everything above the last mark, and the mark."""
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise ValueError("a bracket is closed that was never opened")
        above = self.stack[at + 1 :]
        del self.stack[at:]
        return above

    def call(self, function: Any, args: Any) -> Any:
        name = function.name if isinstance(function, Global) else type(function).__name__
        if name in self.calls:
            return self.calls[name](*args)
        if name in _INERT:
            return Stub(name, tuple(args))
        raise WeightsError(
            f"The pickle in {self.where!r} calls {name!r}, which regraft does not do: no code of a file is ever run.",
            "A file that holds tensors in plain containers was expected.",
            "Where the file comes from a source that you trust, load it there and save its `state_dict()` as "
            ".safetensors; otherwise delete it.",
        )

    def new(self, cls: Any, args: Any) -> Any:
        name = cls.name if isinstance(cls, Global) else type(cls).__name__
        return self.calls[name](*args) if name in _CONTAINERS else Stub(name, tuple(args))

    def build(self, target: Any, state: Any) -> None:
        if not isinstance(target, Stub):
            return  # attributes of a plain container, such as the `_metadata` of a state dict: nothing of ours
        slots = None
        if isinstance(state, tuple) and len(state) == 2 and not isinstance(state[0], str):
            state, slots = state
        for part in (state, slots):
            if isinstance(part, dict):
                target.state.update({str(key): value for key, value in part.items()})


def _put(machine: _Machine, index: Any) -> None:
    machine.memo[index] = machine.stack[-1]


def _setitems(machine: _Machine) -> None:
    items = machine.items()
    target = machine.stack[-1]
    holder = target.state if isinstance(target, Stub) else target
    for key, value in _pairs(items):
        holder[key if not isinstance(key, (list, dict)) else str(key)] = value


def _pairs(items: list[Any]) -> Iterator[tuple[Any, Any]]:
    if len(items) % 2:
        raise ValueError("a dictionary with a key that has no value")
    return zip(items[::2], items[1::2], strict=True)


def _appends(machine: _Machine, items: list[Any]) -> None:
    target = machine.stack[-1]
    if isinstance(target, list):
        target.extend(items)
    elif not isinstance(target, Stub):  # the items of a list subclass hold settings, never weights
        raise ValueError(f"something is appended to a {type(target).__name__}")


def _setitem(machine: _Machine) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    machine.stack += [_MARK, key, value]
    _setitems(machine)


def _reduce(machine: _Machine) -> None:
    args, function = machine.stack.pop(), machine.stack.pop()
    machine.stack.append(machine.call(function, args))


def _newobj(machine: _Machine, *, keywords: bool = False) -> None:
    if keywords:
        machine.stack.pop()
    args, cls = machine.stack.pop(), machine.stack.pop()
    machine.stack.append(machine.new(cls, args))


def _build(machine: _Machine) -> None:
    state = machine.stack.pop()
    machine.build(machine.stack[-1], state)


def _persistent(machine: _Machine, identity: Any) -> None:
    if machine.persistent is None:
        raise ValueError("it refers to data outside itself")
    machine.stack.append(machine.persistent(identity))


def _stack_global(machine: _Machine) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.stack.append(_global(f"{module} {name}"))


def _inst(machine: _Machine, name: str) -> None:
    machine.stack.append(machine.new(_global(name), machine.items()))


def _obj(machine: _Machine) -> None:
    cls, *args = machine.items()
    machine.stack.append(machine.new(cls, args))


def _global(module_and_name: str) -> Global:
    module, _, name = module_and_name.partition(" ")
    module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
    return Global(f"{module}.{name}")


def _tuple_of(count: int) -> Callable[[_Machine, Any], None]:
    def make(machine: _Machine, _: Any) -> None:
        items = tuple(machine.stack[-count:])
        if len(items) < count:
            raise IndexError("the stack is too short")
        del machine.stack[-count:]
        machine.stack.append(items)

    return make


def _hashable_set(items: Any) -> Any:
    return {item if isinstance(item, (str, int, float, bytes, tuple)) else id(item) for item in items}


def _damaged(where: str, why: str) -> WeightsError:
    return WeightsError(
        f"The pickle in {where!r} cannot be read: {why}.",
        "A whole file written by torch.save or numpy.save was expected.",
        "Copy or download the file again, and compare its size or checksum with the original.",
    )


_LITERALS = frozenset(
    [
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    ]
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
    "MARK": lambda: _MARK,
}
_HANDLERS: dict[str, Callable[[_Machine, Any], object]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "POP": lambda machine, _: machine.stack.pop(),
    "POP_MARK": lambda machine, _: machine.items(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "PUT": _put,
    "BINPUT": _put,
    "LONG_BINPUT": _put,
    "MEMOIZE": lambda machine, _: _put(machine, len(machine.memo)),
    "GET": lambda machine, index: machine.stack.append(machine.memo[index]),
    "BINGET": lambda machine, index: machine.stack.append(machine.memo[index]),
    "LONG_BINGET": lambda machine, index: machine.stack.append(machine.memo[index]),
    "LIST": lambda machine, _: machine.stack.append(machine.items()),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.items())),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "DICT": lambda machine, _: machine.stack.append(dict(_pairs(machine.items()))),
    "SETITEM": lambda machine, _: _setitem(machine),
    "SETITEMS": lambda machine, _: _setitems(machine),
    "APPEND": lambda machine, _: _appends(machine, [machine.stack.pop()]),
    "APPENDS": lambda machine, _: _appends(machine, machine.items()),
    "ADDITEMS": lambda machine, _: machine.items(),
    "FROZENSET": lambda machine, _: machine.stack.append(_hashable_set(machine.items())),
    "GLOBAL": lambda machine, name: machine.stack.append(_global(name)),
    "STACK_GLOBAL": lambda machine, _: _stack_global(machine),
    "REDUCE": lambda machine, _: _reduce(machine),
    "NEWOBJ": lambda machine, _: _newobj(machine),
    "NEWOBJ_EX": lambda machine, _: _newobj(machine, keywords=True),
    "BUILD": lambda machine, _: _build(machine),
    "INST": _inst,
    "OBJ": lambda machine, _: _obj(machine),
    "BINPERSID": lambda machine, _: _persistent(machine, machine.stack.pop()),
    "PERSID": _persistent,
}
