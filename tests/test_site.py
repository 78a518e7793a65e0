"""The pages of the site that are written from the code list all of it; links that leave docs/ become text; it
searches without a server.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import typer.main

import regraft
from regraft.cli.main import app
from tests.browser import browser

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


@pytest.mark.slow
def test_a_page_opened_from_the_disk_searches_and_asks_no_host(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    with browser() as page:
        build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
        subprocess.run(build, cwd=ROOT, check=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
        page.open((tmp_path / "site" / "howto" / "alexnet.html").as_uri())
        page.wait("document.querySelector('[data-md-component=search-query]') !== null")
        page.value("document.querySelector('[data-md-toggle=search]').click()")
        typed = "f = document.querySelector('[data-md-component=search-query]'); f.value = 'freeze'; f.focus();"
        page.value(typed + "f.dispatchEvent(new Event('input', {bubbles: true})); true")
        results = "[...document.querySelectorAll('.md-search-result__link')].map(one => one.href)"
        page.wait(f"{results}.length > 3", 60)
        assert any("freeze-some-layers" in link for link in page.value(results))
        assert [address for address in page.requests if not address.startswith(("file:", "data:", "about:"))] == []
        assert page.problems == []
