"""The notebook's cells run, and show what is kept in it: text, and records as tables."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def kinds(notebook: dict[str, Any]) -> list[list[tuple[str, ...]]]:
    """Of each cell, what its outputs are; figures differ between machines."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [[(output["output_type"], *sorted(output.get("data", {}))) for output in cell["outputs"]] for cell in cells]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_run_and_show_what_is_kept(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("notebook", ROOT / "scripts" / "notebook.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.chdir(tmp_path)
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert any("text/html" in kind for cell in kinds(kept) for kind in cell)
    assert str(Path.home()) not in path.read_text(encoding="utf-8")
    assert kinds(script.execute(kept)) == kinds(kept)
