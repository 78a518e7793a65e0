"""The arrows of the house: imports point down, rooms of one rank never import each other, nothing goes in a ring.

Imports inside functions count, and so do those for type checkers alone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "regraft"
LAYERS = (  # from the bottom; what stands in one line never imports another of that line
    ("errors", "visible", "version", "wording"),
    ("commit", "summary", "language"),
    ("machine", "settings"),
    ("run", "weights", "data", "compute", "recipe"),
    ("models",),
    ("plan", "evaluation"),
    ("training",),
    ("ranking",),
    ("checkup",),
    ("report", "incremental"),
    ("exports",),
    ("comparison", "explanation", "serving", "sharing"),
    ("assembly",),
    ("pipeline",),
    ("folds",),
    ("inspection", "conversion"),
    ("cli",),
    ("__main__",),
)
RANKS = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}
NO_TORCH = (
    *("errors", "visible", "version", "wording", "summary", "commit"),
    *("language", "machine", "settings", "run", "weights", "recipe", "report"),
    *("data/decode", "data/sources", "data/split"),
    *("evaluation/results", "exports/running", "exports/seal.py", "exports/formats", "exports/script", "exports/page"),
)
RECIPE_READERS = {"assembly", "pipeline", "folds", "cli", "recipe"}
MOST_FILES = 12


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def packages() -> list[Path]:
    return sorted(path.parent for path in SOURCE.rglob("__init__.py"))


def shown(path: Path) -> str:
    return path.relative_to(SOURCE.parent).as_posix()


@cache
def imported(path: Path) -> tuple[tuple[str, str], ...]:
    """Every module that a file imports, and the name that it takes from there (empty where it takes all of it)."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide arrows"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.append((whole, "") if is_ours(whole) else (node.module or "", alias.name))
    return tuple(found)


@cache
def is_ours(name: str) -> bool:
    path = SOURCE.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def arrows(path: Path) -> Iterator[str]:
    """The modules of regraft that a file imports."""
    yield from (module for module, _ in imported(path) if module.split(".")[0] == "regraft")


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def test_every_room_has_its_place_and_every_place_its_room() -> None:
    rooms = {room(path) for path in modules()} - {"__init__"}
    assert rooms == set(RANKS), "DESIGN.md section 2 lists the rooms of the house"


@pytest.mark.parametrize("path", modules(), ids=shown)
def test_imports_point_down(path: Path) -> None:
    here = room(path)
    for module in arrows(path):
        if here == "__init__":
            continue
        assert module != "regraft", "a room imports the public door"
        there = module.split(".")[1]
        if there != here:
            assert RANKS[there] < RANKS[here], f"{here} (rank {RANKS[here]}) imports {module} (rank {RANKS[there]})"
        if there == "recipe":
            assert here in RECIPE_READERS, f"{here} reads recipes; only pipeline, folds and cli may"
            assert here == "recipe" or module == "regraft.recipe.recipe", "recipes have one door"


@pytest.mark.parametrize("package", packages(), ids=shown)
def test_nothing_goes_in_a_ring(package: Path) -> None:
    """The files and the sub-packages of one package, each taken as a whole, never import each other in a ring."""
    prefix = ".".join(package.relative_to(SOURCE.parent).parts)
    wanted: dict[str, dict[str, str]] = {}
    for path in package.rglob("*.py"):
        here = path.relative_to(package).parts[0].removesuffix(".py")
        for module in arrows(path) if here != "__init__" else ():
            there = module.removeprefix(prefix + ".").split(".")[0]
            if module.startswith(prefix + ".") and there != here:
                wanted.setdefault(here, {})[there] = f"{shown(path)} imports {module}"
    free = set(wanted)
    while leaves := {name for name in free if not free & wanted[name].keys()}:
        free -= leaves
    assert not free, [why for name in sorted(free) for there, why in wanted[name].items() if there in free]


@pytest.mark.parametrize("path", modules(), ids=shown)
def test_private_names_stay_in_their_folder(path: Path) -> None:
    for module, name in imported(path):
        if module.startswith("regraft.") and name.startswith("_") and not name.endswith("__"):
            there = SOURCE.parent.joinpath(*module.split(".")[:-1])
            assert there == path.parent, f"{shown(path)} takes {name} from {module}"


@pytest.mark.parametrize("package", packages(), ids=shown)
def test_a_folder_can_be_taken_in_at_a_glance(package: Path) -> None:
    files = [path.name for path in package.iterdir() if path.is_file() and path.name != "__init__.py"]
    assert len(files) <= MOST_FILES, sorted(files)


def test_accelerate_stays_in_two_modules() -> None:
    users = [path.relative_to(SOURCE).as_posix() for path in modules() if _imports(path, "accelerate")]
    assert users == ["training/engine.py", "training/loggers/trackers.py"]  # devices, processes; experiment trackers


@pytest.mark.parametrize("prefix", NO_TORCH)
def test_rooms_that_do_without_torch(prefix: str) -> None:
    paths = [path for path in modules() if path.relative_to(SOURCE).as_posix().startswith(prefix)]
    assert paths
    assert not [path for path in paths if _imports(path, "torch") or _imports(path, "timm")]


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
    return any(module.split(".")[0] == package for module, _ in imported(path))
