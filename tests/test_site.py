"""The pages of the site that are written from the code list all of it; links that leave docs/ become text."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import typer.main

import regraft
from regraft.cli.main import app

ROOT = Path(__file__).parents[1]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("mkdocs")
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "site"))
    for name in ("hooks", "commands", "python_names"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("hooks")


def test_every_command_and_option_is_listed(site: ModuleType) -> None:
    page = site.WRITTEN["reference/commands.md"]()
    for verb, command in typer.main.get_group(app).commands.items():
        part = page.partition(f"### regraft {verb}\n")[2].partition("\n### ")[0]
        for parameter in command.params:
            if "--help" not in parameter.opts:
                assert any(f"`{name}" in part for name in (*parameter.opts, parameter.name.upper())), (verb, parameter)


def test_every_public_name_is_listed(site: ModuleType) -> None:
    page = site.WRITTEN["reference/python.md"]()
    assert sorted(line.removeprefix("::: regraft.") for line in page.splitlines() if ":::" in line) == regraft.__all__


def test_links_that_leave_the_pages_become_text(site: ModuleType) -> None:
    class Page:
        class file:  # noqa: N801
            src_uri = "howto/page.md"

    text = "[a](../data.md#x) [b](../../benchmarks/README.md#y) ![c](../../x.png) [`d`](../../src)"
    assert site.on_page_markdown(text, Page) == "[a](../data.md#x) b ![c](../../x.png) `d`"
