"""The pages under docs/ do what they say: their Python and their commands run, and print what the pages show.

A page's blocks run in order, in a temporary folder with `photos/` (24 pictures of cats and dogs), in one namespace.
A `text` block shows lines of what the Python block before it printed. In a `console` block the lines behind a command
are lines of its output, in order; it fails if and only if one of them is an `error:`. `...` stands for lines that are
left out, at the end of a line for its rest, and `<!-- not run -->` before a block keeps it from running.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Cli, photos

DOCS = Path(__file__).parents[1] / "docs"
PROSE = ("security.md", "architecture.md", "weights-matrix.md")
SLOW = (
    *("alexnet", "vgg16-in-three-steps"),  # whole networks of half a gigabyte; their recipes run small in test_recipes
    *("backbones", "coming-from", "folds", "resume", "serve", "swap-layers", "take-it-anywhere", "training"),
    "vgg-weights-in-my-unet",
)
BLOCK = re.compile(r"^(<!-- not run -->\n)?```(python|text|console)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


def pages() -> list[Path]:
    """All but those of prose and tables alone, which are named here; Chinese pages have the blocks of these."""
    english = (page for page in DOCS.rglob("*.md") if DOCS / "zh" not in page.parents)
    return sorted(page for page in english if page.name not in PROSE)


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of every block that runs, in order."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [(language, text) for skipped, language, text in found if not skipped]


def commands(text: str) -> Iterator[tuple[list[str], list[str]]]:
    """Every `$ regraft ...` of a console block with the lines shown behind it."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        line, *shown = part.splitlines()
        words = shlex.split(line)
        assert words[0] == "regraft", f"a page runs {words[0]!r}"
        yield words[1:], shown


def assert_shown(shown: list[str], printed: str, where: str) -> None:
    """Each line that a page shows is a line of what was printed, in the same order."""
    lines = iter([" ".join(line.split()) for line in printed.splitlines()])
    for line in shown:
        wanted = " ".join(line.split())
        if wanted in ("", "..."):
            continue
        start = wanted.removesuffix("...")
        is_there = any(printed.startswith(start) for printed in lines) if start != wanted else wanted in lines
        assert is_there, f"{where}: not printed (or not in this order): {line}"


def test_there_are_pages() -> None:
    names = {page.name for page in pages()}
    assert {"freeze-some-layers.md", "swap-layers.md"} <= names


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.slow] if page.stem in SLOW else []) for page in pages()],
    ids=lambda page: page.stem,
)
def test_a_page_does_what_it_says(page: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos(tmp_path / "photos", {"cat": 12, "dog": 12})
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "docs"}
    printed = ""
    assert blocks(page)
    for language, text in blocks(page):
        if language == "python":
            out = StringIO()
            with redirect_stdout(out):
                exec(compile(text, page.name, "exec"), namespace)
            printed = out.getvalue()
        elif language == "text":
            assert_shown(text.splitlines(), printed, page.name)
        else:
            for arguments, shown in commands(text):
                result = cli(*arguments)
                assert bool(result.code) == any(line.startswith("error: ") for line in shown), result.err
                assert_shown(shown, result.out + result.err, page.name)
