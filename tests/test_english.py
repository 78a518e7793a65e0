"""What users read is the field's English, without the phrases in CONTRIBUTING's table; docstrings begin with a verb."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "src" / "regraft").rglob("*.py"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
VERBS = """
Accept Add Align Answer Append Apply Assign Audit Begin Bound Build Call Carry Change Check Collect Compare Complete
Compute Convert Copy Correct Count Cut Decide Decode Decompress Delete Derive Descend Do Draw Drop Erase Evaluate
Expand Fail Fill Find Fine-tune Finish Flush Fold Forbid Forget Forward Freeze Give Go Group Hand Handle Hash Hold
Keep Lay Leave Let List Load Locate Lock Log Look Make Map Mark Match Measure Mirror Move Name Note Open Override Pad
Pair Pick Point Pop Predict Print Put Qualify Raise Read Record Refuse Remove Rename Replace Require Resolve Resume
Return Rewrite Round Run Save Say Send Set Show Sign Solve Sort Spend Split Start Stop Store Sum Sweep Switch Take Tell
Train Try Turn Undo Unmap Update Validate Verify Wait Warn Write Yield
"""


@cache
def banned() -> list[str]:
    """The phrases in the left column of CONTRIBUTING's table, as regular expressions."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition("## The field's English")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.+`) \| .+ \|$", section, re.MULTILINE)
    return [phrase.replace(r"\|", "|") for cell in cells for phrase in re.findall(r"`([^`]+)`", cell)]


def docstrings(tree: ast.Module) -> Iterator[tuple[ast.AST, ast.Constant]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            value = node.body[0].value if isinstance(node.body[0], ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield node, value


def sentences(module: Path) -> Iterator[str]:
    """The strings of a module that people may read: those with a blank in them, docstrings apart."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    documented = {id(text) for _, text in docstrings(tree)}
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented
        if is_text and " " in node.value.strip():  # type: ignore[attr-defined,union-attr]
            yield node.value  # type: ignore[attr-defined,misc]


def test_the_table_is_read() -> None:
    assert len(banned()) >= 20


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(ROOT / "src" / "regraft").as_posix())
def test_no_string_holds_a_phrase_that_was_replaced(module: Path) -> None:
    found = [(phrase, text) for text in sentences(module) for phrase in banned() if re.search(phrase, text)]
    assert found == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_no_page_holds_a_phrase_that_was_replaced(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [phrase for phrase in banned() if re.search(phrase, text)] == []


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(ROOT / "src" / "regraft").as_posix())
def test_docstrings_of_functions_begin_with_a_verb(module: Path) -> None:
    wrong = []
    for node, text in docstrings(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not is_property(node):
            first = str(text.value).split()[0].rstrip(",:;.")
            if first not in VERBS.split():
                wrong.append(f"{node.name}: {str(text.value).splitlines()[0]}")
    assert wrong == []


def is_property(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    names = {getattr(item, "id", getattr(item, "attr", "")) for item in node.decorator_list}
    return bool(names & {"property", "cached_property"})
