"""Printed commands are as the user typed them."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from regraft.run.invocation import as_typed, command_name, typed_path


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):  # type: ignore[no-untyped-def]
    """Start as `program`, with an executable `regraft` in tmp_path/bin on the PATH or not."""

    def start(program: str, *, on_path: bool, uv: bool = False) -> str:
        script = tmp_path / "bin" / "regraft"
        script.parent.mkdir(exist_ok=True)
        script.write_text("#!/bin/sh\n")
        script.chmod(0o755)
        monkeypatch.setattr(sys, "argv", [program.replace("BIN", str(script.parent)), "train"])
        monkeypatch.setenv("PATH", str(script.parent) if on_path else str(tmp_path / "nothing"))
        if uv:
            monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
        else:
            monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)
        return command_name()

    return start


def test_each_way_of_starting_is_given_back(started, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert started("BIN/regraft", on_path=True) == "regraft"
    assert started("BIN/regraft", on_path=True, uv=True) == "uv run regraft"
    assert started("BIN/regraft", on_path=False) == str(tmp_path / "bin" / "regraft")
    assert started(".venv/bin/regraft", on_path=False) == ".venv/bin/regraft"
    assert started("/site/regraft/__main__.py", on_path=False) == f"{sys.executable} -m regraft"
    assert started("/site/regraft/__main__.py", on_path=True) == "regraft"
    assert started("my_script.py", on_path=True) == "regraft"


def test_commands_in_a_text_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
    text = "Type `regraft resume runs/a` (regraft wrote it; `regraft.folder` and `my regraft x` stay)."
    assert as_typed(text) == text.replace("`regraft resume", "`uv run regraft resume")


def test_a_path_with_spaces_can_be_pasted() -> None:
    assert typed_path("runs/my photos-1") == "'runs/my photos-1'"
    assert typed_path("runs/photos-1") == "runs/photos-1"
    assert shutil.which("sh") is None or os.system(f"true {typed_path('a; exit 3')}") == 0
