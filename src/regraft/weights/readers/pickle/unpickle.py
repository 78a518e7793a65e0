"""A data-only reader of pickles: it rebuilds plain containers, imports nothing and calls nothing.

Python's own unpickler imports and calls what the pickle names. This one walks the instructions over the bytes of the
file: `pickle_instructions` is the table of them, `pickle_objects` says what becomes of names, objects and calls.
"""

from __future__ import annotations

import struct
from typing import Any

from regraft.weights.limits import LimitError, shown
from regraft.weights.readers.pickle.pickle_instructions import INSTRUCTIONS
from regraft.weights.readers.pickle.pickle_machine import Machine
from regraft.weights.readers.pickle.pickled import Global, PickleError, Raw, RefusedCallError, Stub, Words

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
        return machine.run(INSTRUCTIONS), machine.source.at
    except (PickleError, LimitError):
        raise
    except RecursionError as error:
        raise PickleError("its pickle is nested too deeply") from error
    except IndexError as error:
        raise PickleError("its pickle is truncated or malformed") from error
    except _DAMAGE as error:
        raise PickleError(f"its pickle is damaged ({shown(str(error))})") from error
