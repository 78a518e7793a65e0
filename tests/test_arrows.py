"""The arrows of the house: imports point down the ranks only, siblings never import each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "regraft"
RANKS = {
    "errors": 0,
    "recipe": 0,
    "commit": 0,
    "weights": 1,
    "data": 1,
    "run": 1,
    "models": 2,
    "plan": 3,
    "evaluate": 3,
    "train": 4,
    "report": 5,
    "export": 5,
    "serve": 5,
    "pipeline": 6,
    "folds": 7,
    "cli": 8,
    "__main__": 9,
}
FOUNDATION = {"errors", "commit"}  # rank 0 may use these two
NO_TORCH = ("weights", "run", "report", "recipe", "errors", "commit", "data/decode", "data/sources", "data/split")
RECIPE_READERS = {"pipeline", "folds", "cli"}


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, inside functions too; blocks for type checkers count as well."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide arrows"
            yield node.module or ""
            if node.module == "regraft":
                yield from (f"regraft.{alias.name}" for alias in node.names)


def room(path: Path) -> str:
    return room_of(path.relative_to(SOURCE).parts[0].removesuffix(".py"))


def room_of(name: str) -> str:
    """`recipe.py` and the modules beside it that it is made of, `recipe_text.py` and so on, are one room."""
    return "recipe" if name.startswith("recipe_") else name


def rooms_of(path: Path) -> Iterator[str]:
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "regraft" and len(parts) > 1 and room_of(parts[1]) in RANKS:
            yield room_of(parts[1])


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_imports_point_down(path: Path) -> None:
    here = room(path)
    if here == "__init__":
        return
    assert here in RANKS, f"{here} is no room of the house; DESIGN.md section 2 lists them"
    for there in rooms_of(path):
        if there == here or (RANKS[here] == 0 and there in FOUNDATION):
            continue
        assert RANKS[there] < RANKS[here], f"{here} (rank {RANKS[here]}) imports {there} (rank {RANKS[there]})"
        assert there != "recipe" or here in RECIPE_READERS, f"{here} reads recipes; only pipeline and cli may"


def test_train_never_imports_report_and_accelerate_stays_in_two_modules() -> None:
    users = [path.relative_to(SOURCE).as_posix() for path in modules() if _imports(path, "accelerate")]
    assert users == ["train/engine.py", "train/trackers.py"]  # devices and processes; experiment trackers
    assert not [path for path in modules() if room(path) == "train" and "report" in rooms_of(path)]


@pytest.mark.parametrize("prefix", NO_TORCH)
def test_rooms_that_do_without_torch(prefix: str) -> None:
    paths = [path for path in modules() if path.relative_to(SOURCE).as_posix().startswith(prefix)]
    assert paths
    assert not [path for path in paths if _imports(path, "torch") or _imports(path, "timm")]


def test_recipes_have_one_door() -> None:
    parts = {path.stem for path in modules() if path.stem.startswith("recipe_") and path.parent == SOURCE}
    assert parts
    for path in modules():
        if room(path) != "recipe":
            assert not {name.split(".")[1] for name in imported(path) if name.startswith("regraft.")} & parts, path


def test_no_attic() -> None:
    attics = {"utils", "common", "helpers", "core", "base", "misc"}
    assert not [path for path in modules() if path.stem in attics or path.parent.name in attics]


def test_no_assert_statement_in_the_source() -> None:
    for path in modules():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)], path


def test_package_files_hold_a_docstring_only() -> None:
    for path in SOURCE.rglob("*/__init__.py"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        assert len(body) == 1, path
        assert isinstance(body[0], ast.Expr), path


def _imports(path: Path, package: str) -> bool:
    return any(name.split(".")[0] == package for name in imported(path))
