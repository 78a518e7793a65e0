"""The README does what it says: its Python runs, its commands run, its first two commands stand near the top."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regraft.cli import main as cli

README = Path(__file__).parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def commands() -> list[list[str]]:
    """Every `$ uv run regraft ...` line of the README but the demo's, in order."""
    start, demo = "$ uv run regraft ", "$ uv run regraft demo"
    lines = [line for block in blocks("console") for line in block.splitlines()]
    return [shlex.split(line.removeprefix(start)) for line in lines if line.startswith(start) and line != demo]


def exit_code() -> int:
    try:
        cli.run()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture
def folder_with_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for index, name in enumerate(("cats", "dogs")):
        for number in range(20):
            path = tmp_path / "photos" / name / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng([index, number]).integers(0, 120, (48, 64, 3))
            Image.fromarray((noise + 100 * index).astype(np.uint8)).save(path, quality=95)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_two_commands_stand_before_line_25() -> None:
    top = README.read_text(encoding="utf-8").splitlines()[:25]
    assert "$ uv run regraft demo" in top
    assert "$ uv run pytest" in top
    assert any("pip install uv" in line for line in top)


def test_one_way_of_typing_it_from_the_first_line_to_the_last() -> None:
    lines = [line for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]
    assert all(line.startswith("$ uv run ") for line in lines), "the bare name is on no PATH after `uv run`"


def test_tests_that_the_readme_names_exist() -> None:
    """In blocks and in its table of proofs."""
    lines = re.findall(r"uv run pytest ([^`\n]*)", README.read_text(encoding="utf-8"))
    paths = [word for line in lines for word in line.split() if word.startswith("tests")]
    assert len(paths) >= 5
    assert all((README.parent / path).exists() for path in paths)


def test_every_page_is_linked_from_the_readme_or_from_a_page() -> None:
    texts = {page: page.read_text(encoding="utf-8") for page in (README, *README.parent.glob("docs/**/*.md"))}
    linked = {
        (page.parent / target.partition("#")[0]).resolve()
        for page, text in texts.items()
        for target in re.findall(r"\]\(([^)\s]+)\)", text)
    }
    assert [page.name for page in texts if page != README and page.resolve() not in linked] == []


def test_the_number_of_recipes_is_right() -> None:
    words = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    num = len(list((README.parent / "recipes").glob("*.yaml")))
    assert f"[{words[num - 1]} classic ones](recipes/)" in README.read_text(encoding="utf-8")


def test_python_block_runs(folder_with_photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("python")
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert (folder_with_photos / "runs/python/report.html").is_file()
    assert json.loads((folder_with_photos / "runs/python/match.json").read_text())["counts"]["missing"] == 0
    assert capsys.readouterr().out.splitlines()[-1] in ("cats", "dogs")


def test_commands_run_in_order(folder_with_photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert commands()
    for arguments in commands():
        monkeypatch.setattr("sys.argv", ["regraft", *arguments])
        assert exit_code() == 0, arguments
    assert (folder_with_photos / "runs/photos-1/report.html").is_file()
