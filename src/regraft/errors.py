"""Every error that regraft raises on purpose, and the exit code that the command line ends with.

    RegraftError              1   something inside regraft went wrong
    ├── SettingsError         2   usage, recipe, selectors, model names
    ├── DataError             3   data sets and images
    │   └── DecodeError       3   one image that cannot be read (quarantined by most callers)
    ├── WeightsError          4   weight files and matches
    ├── DivergedError         5   a loss or a gradient that is not finite
    ├── OutOfMemoryError      6   the device or the machine has no memory left
    ├── StorageError          7   disk full, read-only, unreadable checkpoint
    ├── LostProcessError      1   another process of a run on several has ended
    └── StoppedError  129 / 130 / 143   stopped by SIGHUP / SIGINT / SIGTERM, the state is saved

Each one says what happened and where; what was expected and what to try, where that helps.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "DataError",
    "DecodeError",
    "DivergedError",
    "LostProcessError",
    "OutOfMemoryError",
    "RegraftError",
    "SettingsError",
    "StoppedError",
    "StorageError",
    "WeightsError",
    "did_you_mean",
    "nearest",
    "require_type",
]


class RegraftError(Exception):
    """The root of regraft's errors.

    It is shown as one line of what happened; below it, where they help, the single mistakes, what was expected, and
    what to try.

    Args:
        what: What happened, and where (the file, the key, the layer): a sentence.
        expected: What was expected instead; empty where `what` says it.
        next_step: What to try, best a command that can be pasted; empty where nothing is left to try.
        details: Further lines, one for each single mistake, when there are several.
    """

    exit_code = 1

    def __init__(self, what: str, expected: str = "", next_step: str = "", *, details: Sequence[str] = ()) -> None:
        self.what = what
        self.expected = expected
        self.next_step = next_step
        self.details = tuple(details)
        super().__init__(what, expected, next_step)

    def __str__(self) -> str:
        hints = {"expected": self.expected, "try": self.next_step}
        shown = [f"  {name}: {hint}" for name, hint in hints.items() if hint]
        return "\n".join([self.what, *(f"  - {line}" for line in self.details), *shown])


class SettingsError(RegraftError):
    """A command, a recipe or an argument that cannot be carried out."""

    exit_code = 2


class DataError(RegraftError):
    """A data set that cannot be used as it is."""

    exit_code = 3


class DecodeError(DataError):
    """One image file that holds no image that regraft may read."""


class WeightsError(RegraftError):
    """A weight file that cannot be read, or that does not fit the model."""

    exit_code = 4


class DivergedError(RegraftError):
    """Training met a loss or a gradient that is not finite."""

    exit_code = 5


class OutOfMemoryError(RegraftError):
    """The device, or the machine, has no memory left."""

    exit_code = 6


class StorageError(RegraftError):
    """Something could not be written to, or read back from, the disk."""

    exit_code = 7


class LostProcessError(RegraftError):
    """Another process of a run on several processes has ended; what was saved is whole."""


class StoppedError(RegraftError):
    """The run was stopped by a signal, after its state was saved."""

    def __init__(self, what: str, expected: str = "", next_step: str = "", *, exit_code: int) -> None:
        super().__init__(what, expected, next_step)
        self.exit_code = exit_code


def nearest(word: str, choices: Sequence[str], *, limit: int = 3) -> str:
    """Return the choices most like `word`, quoted and joined for an error text; empty when none is near."""
    import difflib

    close = difflib.get_close_matches(word, choices, n=limit, cutoff=0.5)
    return ", ".join(repr(choice) for choice in close)


def did_you_mean(word: str, choices: Sequence[str]) -> str:
    """Return the end of a sentence about a word that is none of the choices: those most like it, or a full stop."""
    near = nearest(word, choices)
    return f"; did you mean {near}?" if near else "."


def require_type(value: object, kinds: type | tuple[type, ...], argument: str, instead: str) -> None:
    """Refuse an argument of another type, before something deep inside stumbles over it.

    Args:
        value: What was given.
        kinds: What it may be an instance of.
        argument: Its name.
        instead: What to type.

    Raises:
        SettingsError: It is none of these.
    """
    if not isinstance(value, kinds):
        names = [kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,))]
        raise SettingsError(
            f"`{argument}` is a {type(value).__name__}: {value!r:.200}.", f"{' or '.join(names)}", instead
        )
