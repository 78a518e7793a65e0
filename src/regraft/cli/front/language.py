"""The help and the errors of the command line in the language that a person asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from regraft.errors import RegraftError
from regraft.language.choice import chosen_language
from regraft.language.translate import translated

__all__ = ["apart", "asked_language", "error_text", "translated_help"]

_FLAG = "--lang"
_WORDS = (  # of the help, by their names in the library that prints it
    *("ARGUMENTS_PANEL_TITLE", "OPTIONS_PANEL_TITLE", "COMMANDS_PANEL_TITLE"),
    *("DEFAULT_STRING", "REQUIRED_LONG_STRING"),
)


def asked_language(arguments: Sequence[str]) -> str | None:
    """Return what `--lang` says, wherever it stands before `--`; None where it is not there."""
    own, _ = apart(arguments, ())
    return own[-1].removeprefix(f"{_FLAG}=") if own else None


def apart(arguments: Sequence[str], flags: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split off the command's own options, which may stand after the verb too: these flags, and `--lang CODE`."""
    own: list[str] = []
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word in flags or word.startswith(f"{_FLAG}="):
            own.append(word)
        elif word == _FLAG:
            own += [word, *([value] if (value := next(words, None)) is not None else [])]
        else:
            rest.append(word)
    return own, rest


def error_text(error: RegraftError) -> str:
    """Return an error as it is shown: what happened, what was expected, what to try."""
    if chosen_language() == "en":
        return f"error: {error}"
    hints = {"expected": error.expected, "try": error.next_step}
    shown = [f"  {translated(name)}: {translated(hint)}" for name, hint in hints.items() if hint]
    first = f"{translated('error')}: {translated(error.what)}"
    return "\n".join([first, *(f"  - {line}" for line in error.details), *shown])


@contextmanager
def translated_help(command: Any) -> Iterator[Any]:
    """Give a command line whose help, and that of its verbs, is in the chosen language."""
    from typer import rich_utils

    for part in (command, *command.commands.values()):
        part.help = translated(part.help or "")
        part.epilog = translated(part.epilog) if part.epilog else part.epilog
        part.rich_help_panel = translated(part.rich_help_panel) if part.rich_help_panel else part.rich_help_panel
        for parameter in part.params:
            parameter.help = translated(parameter.help) if getattr(parameter, "help", None) else None
    before: dict[str, Any] = {name: getattr(rich_utils, name) for name in (*_WORDS, "Table")}
    meanwhile = {name: translated(before[name]) for name in _WORDS} | {"Table": _folding(before["Table"])}
    try:
        for name, value in meanwhile.items():
            setattr(rich_utils, name, value)
        yield command
    finally:
        for name, value in before.items():
            setattr(rich_utils, name, value)


def _folding(table: Any) -> Any:
    """Return a kind of table that breaks a line anywhere: Chinese has no blanks to break it at."""

    class Folding(table):  # type: ignore[misc]
        def add_row(self, *cells: Any, **how: Any) -> None:
            super().add_row(*cells, **how)
            for column in self.columns:
                column.overflow = "fold"

    return Folding
