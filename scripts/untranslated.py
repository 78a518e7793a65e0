"""List what the command line says and src/regraft/language/chinese.txt lacks, and what that has and nobody says.

uv run python scripts/untranslated.py
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import typer.main

from regraft.cli.front.groups import GROUPS
from regraft.cli.main import app
from regraft.language.translate import catalogue

SOURCE = Path(__file__).parents[1] / "src" / "regraft"
_HINTS = {"require_type": 3, "stop_as_error": 1}  # where other functions than errors take what one could try
_OF_AN_ERROR = 2
_NO_ERRORS = ("KeyError", "FormatError", "_end")
_GAP = "{}"


def help_texts() -> Iterator[str]:
    """Every paragraph of every help, and the names of its groups."""
    command: Any = typer.main.get_command(app)
    for part in (command, *command.commands.values()):
        for text in (part.help, *(getattr(parameter, "help", None) for parameter in part.params)):
            yield from (" ".join(paragraph.split()) for paragraph in (text or "").split("\n\n") if paragraph)
    yield from GROUPS


def hints(trees: Sequence[ast.Module] | None = None) -> Iterator[str]:
    """What errors say that one could try, as written in the source: `{}` stands for what is filled in."""
    trees = trees or [ast.parse(path.read_text(encoding="utf-8")) for path in sorted(SOURCE.rglob("*.py"))]
    shared = _Names(node for tree in trees for node in tree.body)
    for tree in trees:
        names = shared | _Names(ast.walk(tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                yield from (text for given in _given(node) for text in names.texts(given) if _has_words(text))


def untranslated(texts: Iterable[str]) -> list[str]:
    """Those that the catalogue lacks, each once."""
    return [text for text in dict.fromkeys(texts) if " ".join(text.split()) not in catalogue()]


def _given(call: ast.Call) -> list[ast.expr]:
    """The argument of a call that says what one could try."""
    name = str(getattr(call.func, "id", getattr(call.func, "attr", "")))
    place = _HINTS.get(name, _OF_AN_ERROR if name.endswith("Error") and name not in _NO_ERRORS else None)
    if place is None:
        return []
    return [*call.args[place : place + 1], *(word.value for word in call.keywords if word.arg == "next_step")]


class _Names:
    """What strings and functions of a module are called, as far as they give texts."""

    def __init__(self, nodes: Iterable[ast.AST]) -> None:
        self.values: dict[str, list[ast.expr]] = {}
        for node in nodes:
            if isinstance(node, ast.FunctionDef):
                returned = [each.value for each in ast.walk(node) if isinstance(each, ast.Return) and each.value]
                self.values.setdefault(node.name, []).extend(returned)
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                self.values.setdefault(node.targets[0].id, []).append(node.value)

    def __or__(self, other: _Names) -> _Names:
        both = _Names(())
        both.values = self.values | other.values
        return both

    def texts(self, node: ast.expr, depth: int = 0) -> list[str]:
        """What an expression may come to; `{}` for what only a run knows."""
        if isinstance(node, ast.Constant):
            return [node.value] if isinstance(node.value, str) else []
        if isinstance(node, ast.JoinedStr):
            return ["".join(parts) for parts in itertools.product(*(self._part(part, depth) for part in node.values))]
        if isinstance(node, ast.IfExp):
            return [*self.texts(node.body, depth), *self.texts(node.orelse, depth)]
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            sides = [self.texts(side, depth) or [_GAP] for side in (node.left, node.right)]
            return ["".join(parts) for parts in itertools.product(*sides)]
        name = getattr(node, "id", None) or getattr(getattr(node, "func", None), "id", None)
        found = self.values.get(name, []) if name and depth < 2 else []  # type: ignore[arg-type]
        return [text for value in found for text in self.texts(value, depth + 1)]

    def _part(self, part: ast.expr, depth: int) -> list[str]:
        if isinstance(part, ast.FormattedValue):
            return (self.texts(part.value, depth) if isinstance(part.value, ast.IfExp) else []) or [_GAP]
        return self.texts(part, depth)


def _has_words(text: str) -> bool:
    """Whether there is something to translate: commands, names and numbers are the same everywhere."""
    return bool(re.search(r"[a-z]{2}", re.sub(r"`[^`]*`|\{\}|^pip install .*", "", text)))


def main() -> None:
    for title, texts in (("help", help_texts), ("try", hints)):
        missing = untranslated(texts())
        print(f"{title}: {len(missing)} of {len(set(texts()))} are not translated")
        print(*(f"  {text}" for text in missing), sep="\n")


if __name__ == "__main__":
    main()
