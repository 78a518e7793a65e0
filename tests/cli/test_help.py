"""`regraft --help` sorts the verbs by what they are for; each verb's help has two examples that can be typed."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
import typer.main
from tests.conftest import Cli

from regraft.cli.front.groups import GROUPS
from regraft.cli.main import app

VERBS: dict[str, Any] = dict(typer.main.get_group(app).commands)
EXAMPLES = [line for verbs in GROUPS.values() for examples in verbs.values() for line in examples]


def test_every_verb_stands_in_one_group_in_the_order_of_the_help() -> None:
    assert list(VERBS) == [verb for verbs in GROUPS.values() for verb in verbs]
    assert list(GROUPS) == ["Train", "Look", "Use", "Share", "Weights"]


def test_the_help_shows_the_groups(cli: Cli) -> None:
    shown = cli("--help").out
    assert [shown.index(f"─ {group} ─") for group in GROUPS] == sorted(shown.index(f"─ {group} ─") for group in GROUPS)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verbs_help_ends_with_its_examples(verb: str, cli: Cli) -> None:
    shown = cli(verb, "--help")
    assert shown.code == 0
    assert "…" not in shown.out, "a word is cut off"
    examples = [line.strip() for line in shown.out.partition("Examples:")[2].splitlines() if "regraft" in line]
    assert len(examples) == len(set(examples)) == 2
    assert examples[0].startswith(f"regraft {verb}")


@pytest.mark.parametrize("line", EXAMPLES)
def test_examples_name_options_that_exist(line: str) -> None:
    words = shlex.split(line.partition(" > ")[0])
    assert words[0] == "regraft"
    command = VERBS[words[1]]
    with command.make_context(words[1], words[2:], resilient_parsing=False) as context:
        assert context.params is not None
