"""The README does what it says: its Python runs, its commands run, its first two commands stand near the top."""

from __future__ import annotations

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
    """Every `$ regraft ...` line of the README, in order."""
    lines = [line for block in blocks("console") for line in block.splitlines()]
    return [shlex.split(line[2:].split(" > ")[0])[1:] for line in lines if line.startswith("$ regraft ")]


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


def test_python_block_runs(folder_with_photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("python")
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert (folder_with_photos / "runs/python/report.html").is_file()
    assert "'missing': 0" in capsys.readouterr().out


def test_commands_run_in_order(folder_with_photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert commands()
    for arguments in commands():
        monkeypatch.setattr("sys.argv", ["regraft", *arguments])
        assert exit_code() == 0, arguments
    assert (folder_with_photos / "runs/photos-1/report.html").is_file()
