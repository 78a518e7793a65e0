"""Names, calls and objects of a pickle, none of them real.

A name becomes a `Global`, an object of a class an inert `Stub` with its state, and a *call* is carried out only where
the reader's `Words` have a handler for that very name, or where it makes a plain container.
"""

from __future__ import annotations

from typing import Any

from regraft.weights.limits import Budget, shown
from regraft.weights.readers.pickle.pickle_containers import CONTAINERS, ENTRY_BYTES
from regraft.weights.readers.pickle.pickled import OBJECT_BYTES, Global, PickleError, RefusedCallError, Stub, Words

__all__ = ["PickleObjects"]

# Classes whose objects are made by a call and are harmless as inert stubs: settings beside the weights.
_INERT = frozenset(
    ["argparse.Namespace", "types.SimpleNamespace", "decimal.Decimal", "fractions.Fraction", "uuid.UUID"]
    + [f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")]
    + [f"pathlib.{name}" for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")]
    + [f"pathlib._local.{name}" for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")]
)


class PickleObjects:
    """What becomes of names, calls and states under a reader's words."""

    def __init__(self, words: Words, budget: Budget) -> None:
        self._words = words
        self._budget = budget
        self._names: dict[str, Global] = {}

    def name(self, module: Any, name: Any) -> Global:
        if not isinstance(module, str) or not isinstance(name, str):
            raise PickleError("its pickle is malformed")
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        whole = f"{module}.{name}"
        if whole not in self._names:
            allowed = self._words.names
            if allowed is not None and whole not in allowed and whole not in CONTAINERS:
                raise PickleError(f"its pickle asks for {shown(whole)}, which is not part of an array: refused")
            self._budget.hold(OBJECT_BYTES + len(whole))
            self._names[whole] = Global(whole)
        return self._names[whole]

    def call(self, function: Any, args: Any) -> Any:
        name = _name_of(function)
        if not isinstance(args, tuple | list):
            raise PickleError("its pickle is malformed")
        handler = self._words.calls.get(name)
        if handler is not None:
            return handler(*args)
        make = CONTAINERS.get(name)
        if make is not None:
            return make(self._budget, *args)
        if name in _INERT and self._words.names is None:
            return Stub(name, tuple(args))
        raise RefusedCallError(name[:200])

    def new(self, cls: Any, args: Any) -> Any:
        """Return an object of a class, which is not made but stands as a stub."""
        name = _name_of(cls)
        if name in CONTAINERS or self._words.names is not None:
            return self.call(cls, args)
        return Stub(name, tuple(args) if isinstance(args, tuple | list) else ())

    def build(self, target: Any, state: Any) -> None:
        """Give an object its state."""
        if self._words.fill is not None and self._words.fill(target, state):
            return
        if self._words.names is not None:
            raise PickleError("its pickle sets the state of something that is not part of an array: refused")
        if not isinstance(target, Stub):
            return  # attributes of a plain container, such as the `_metadata` of a state dict: nothing of ours
        slots = None
        if isinstance(state, tuple) and len(state) == 2 and not isinstance(state[0], str):
            state, slots = state
        for part in (state, slots):
            if isinstance(part, dict):
                self._budget.hold(ENTRY_BYTES * len(part))
                target.state.update({key: value for key, value in part.items() if isinstance(key, str)})

    def referred(self, identity: Any) -> Any:
        """Return the object of a persistent id."""
        if self._words.persistent is None:
            raise PickleError("its pickle refers to data outside itself")
        return self._words.persistent(identity)


def _name_of(function: Any) -> str:
    return function.name if isinstance(function, Global) else type(function).__name__
