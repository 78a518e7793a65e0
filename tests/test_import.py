"""What importing costs: neither `import regraft` nor `regraft --help` imports torch."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "timm", "torchvision", "accelerate", "sklearn", "h5py")


def loaded_after(code: str) -> str:
    check = f"{code}\nimport sys\nprint([name for name in {HEAVY} if name in sys.modules])"
    return subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout


def test_import_is_light() -> None:
    assert loaded_after("import regraft").strip() == "[]"


def test_help_is_light() -> None:
    code = "import sys\nfrom regraft.cli.main import app\ntry:\n    app(['--help'])\nexcept SystemExit:\n    pass"
    assert loaded_after(code).strip().splitlines()[-1] == "[]"


@pytest.mark.slow
def test_help_costs_a_fraction_of_importing_torch() -> None:
    """A ratio in the same run: these machines are noisy, and `--help` must never wait for torch."""

    def seconds(code: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
        return time.perf_counter() - began

    helps = [seconds("from regraft.cli.main import app; app(['--help'])") for _ in range(3)]
    assert statistics.median(helps) < seconds("import torch, timm") / 3


def imports_of(file: Path) -> Iterator[tuple[str, str]]:
    """Modules of regraft and the names taken from them, wherever in a file, functions included."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "regraft":
            yield from ((str(node.module), alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.split(".")[0] == "regraft")


@pytest.mark.parametrize("folder", ["tests", "benchmarks", "scripts"])
def test_what_is_imported_from_regraft_exists(folder: str) -> None:
    """Some of it is imported by tests and programs that no default run calls."""
    wanted = {pair: file for file in sorted((ROOT / folder).rglob("*.py")) for pair in imports_of(file)}
    assert len(wanted) > 5
    for (module, name), file in wanted.items():
        found = importlib.import_module(module)
        rooms = [room.name for room in pkgutil.iter_modules(getattr(found, "__path__", ()))]
        assert not name or hasattr(found, name) or name in rooms, f"{file.relative_to(ROOT)}: {module} has no {name}"
