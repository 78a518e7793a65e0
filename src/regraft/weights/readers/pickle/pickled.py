"""What a pickle becomes when it is read as data, and what its reader makes of the names in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from regraft.weights.limits import budget

__all__ = ["OBJECT_BYTES", "Call", "Global", "PickleError", "Raw", "RefusedCallError", "Stub", "Words"]

OBJECT_BYTES = 300  # that an object takes in memory

Call = Callable[..., Any]


class PickleError(ValueError):
    """A pickle that is damaged, or wants more than data; the text goes on after the name of the file."""


class RefusedCallError(PickleError):
    """A pickle that calls something: `called` says what."""

    def __init__(self, called: str) -> None:
        super().__init__(f"its pickle calls {called!r}, which regraft never does: no code from a file is executed")
        self.called = called


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

    def __post_init__(self) -> None:
        budget().hold(OBJECT_BYTES)


@dataclass(frozen=True)
class Raw:
    """A long byte string, where it lies."""

    start: int
    size: int


@dataclass(frozen=True)
class Words:
    """What the names in a pickle stand for.

    Attributes:
        calls: Handlers by full name (`torch._utils._rebuild_tensor_v2`) for the calls that are allowed.
        persistent: What to make of a persistent id (`('storage', ...)`); None when there is none.
        fill: Gives an object its state; False when it is no object of the reader's.
        names: The only names that may occur at all; None when others become stubs.
    """

    calls: Mapping[str, Call] = field(default_factory=dict)
    persistent: Callable[[Any], Any] | None = None
    fill: Callable[[Any, Any], bool] | None = None
    names: frozenset[str] | None = None
