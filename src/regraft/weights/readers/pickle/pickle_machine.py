"""The machine under `unpickle`: what its instructions work on, and the loop that carries them out.

Work and memory come from the file's `Budget`; long byte strings are not copied, they stay a range of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from regraft.weights.limits import LimitError, budget
from regraft.weights.readers.pickle.pickle_bytes import PickleBytes
from regraft.weights.readers.pickle.pickle_objects import PickleObjects
from regraft.weights.readers.pickle.pickled import PickleError, Words

__all__ = ["Machine"]

_MARK = object()


class Machine:
    """The bytes, the stack, the memo, and the objects that the names stand for."""

    __slots__ = ("budget", "memo", "objects", "source", "stack")

    def __init__(self, view: memoryview, start: int, words: Words) -> None:
        self.budget = budget()
        self.source = PickleBytes(view, start, self.budget)
        self.objects = PickleObjects(words, self.budget)
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, instructions: Mapping[int, Callable[[Machine], None]]) -> Any:
        source, view = self.source, self.source.view
        for count in range(self.budget.steps_left):
            code = view[source.at]
            source.at += 1
            if code == 0x2E:  # STOP
                self.budget.step(count)
                return self._result()
            step = instructions.get(code)
            if step is None:
                raise PickleError(f"its pickle uses the instruction {bytes([code])!r}, which weights files never need")
            step(self)
        raise LimitError("its pickle has more instructions than a network of its size needs")

    def _result(self) -> Any:
        if len(self.stack) != 1 or self.stack[0] is _MARK:
            raise PickleError("its pickle does not leave exactly one value")
        return self.stack[0]

    def mark(self) -> None:
        self.stack.append(_MARK)

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise PickleError("its pickle is malformed")
        return value

    def drop(self) -> None:
        """Drop the uppermost value, or mark."""
        self.stack.pop()

    def items(self) -> list[Any]:
        """Pop everything above the last mark, and the mark."""
        stack = self.stack
        at = len(stack) - 1
        while stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise PickleError("its pickle lacks a mark")
        above = stack[at + 1 :]
        del stack[at:]
        return above

    def some(self, count: int) -> tuple[Any, ...]:
        items = tuple(self.stack[-count:])
        if len(items) < count or _MARK in items:
            raise PickleError("its pickle is malformed")
        del self.stack[-count:]
        return items
