"""List what the command line says and src/regraft/language/chinese.txt lacks, and what that has and nobody says.

uv run python scripts/untranslated.py
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from regraft.cli.front.groups import GROUPS
from regraft.cli.main import app
from regraft.language.translate import catalogue

SOURCE = Path(__file__).parents[1] / "src" / "regraft"
_ERRORS = ("Error", "_end")


def help_texts() -> Iterator[str]:
    """Every paragraph of every help, and the names of its groups."""
    command: Any = typer.main.get_command(app)
    for part in (command, *command.commands.values()):
        for text in (part.help, *(getattr(parameter, "help", None) for parameter in part.params)):
            yield from (" ".join(paragraph.split()) for paragraph in (text or "").split("\n\n") if paragraph)
    yield from GROUPS


def hints() -> Iterator[str]:
    """What errors say that one could try, as written in the source: `{}` stands for what is filled in."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _name(node.func).endswith(_ERRORS):
                given = node.args[2:3] or [word.value for word in node.keywords if word.arg == "next_step"]
                yield from (text for text in map(_template, given) if text)


def untranslated(texts: Iterator[str]) -> list[str]:
    """Those that the catalogue lacks, each once."""
    return [text for text in dict.fromkeys(texts) if text not in catalogue()]


def _name(function: ast.expr) -> str:
    return str(getattr(function, "id", getattr(function, "attr", "")))


def _template(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return ""


def main() -> None:
    for title, texts in (("help", help_texts), ("try", hints)):
        missing = untranslated(texts())
        print(f"{title}: {len(missing)} of {len(set(texts()))} are not translated")
        print(*(f"  {text}" for text in missing), sep="\n")


if __name__ == "__main__":
    main()
