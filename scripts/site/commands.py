"""The page of the site that lists every command, from the commands themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import typer.main

from regraft.cli.front.groups import GROUPS
from regraft.cli.main import app

_FIRST = """# Commands

What `regraft VERB --help` prints. Every command also takes `--quiet` (`-q`)
and `--debug`; [the command line](../command-line.md) has completion and exit codes.
"""


def page() -> str:
    """The page: a section for each group, a part for each verb."""
    commands: dict[str, Any] = dict(typer.main.get_group(app).commands)
    parts = [_FIRST]
    for group, verbs in GROUPS.items():
        parts.append(f"## {group}\n")
        parts += [_part(verb, commands[verb], examples) for verb, examples in verbs.items() if verb in commands]
    return "\n".join(parts)


def _part(verb: str, command: Any, examples: tuple[str, str]) -> str:
    text = "\n".join([f"### regraft {verb}\n", inspect.cleandoc(command.help), "\n```sh", *examples, "```\n"])
    rows = "".join(f"| {name} | {_escaped(told)} |\n" for name, told in _rows(command))
    return text + (f"\n| | |\n|---|---|\n{rows}" if rows else "")


def _rows(command: Any) -> Iterator[tuple[str, str]]:
    for parameter in command.params:
        if "--help" in parameter.opts:
            continue
        is_argument = parameter.param_type_name == "argument"
        name = parameter.name.upper() if is_argument else ", ".join(parameter.opts)
        needed = " Required." if parameter.required and not is_argument else ""
        default = parameter.default
        plain = isinstance(default, (str, int, float)) and not isinstance(default, bool)
        given = f" Default: `{default}`." if plain and "default" not in (parameter.help or "") else ""
        yield f"`{name}`", f"{parameter.help or ''}{needed}{given}"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("\n", " ")
