"""Run the cells of a notebook in order, in an empty folder, and keep their outputs: what they print, and the last value

uv run python scripts/notebook.py docs/notebooks/start.ipynb

Jupyter shows the same; it is not needed to run the cells again.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def execute(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with outputs; its cells run in the current folder, in one namespace."""
    namespace: dict[str, Any] = {"__name__": "notebook"}
    cells = []
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            cell = {
                **cell,
                "execution_count": number,
                "outputs": list(_run("".join(cell["source"]), namespace, number)),
            }
        cells.append(cell)
    return {**notebook, "cells": cells}


def _run(source: str, namespace: dict[str, Any], number: int) -> Iterator[dict[str, Any]]:
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    out = io.StringIO()
    value = None
    with contextlib.redirect_stdout(out):
        exec(compile(tree, f"cell {number}", "exec"), namespace)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), namespace)
    if out.getvalue():
        yield {"output_type": "stream", "name": "stdout", "text": _lines(out.getvalue())}
    if value is not None:
        data = {"text/plain": _lines(repr(value))}
        if hasattr(value, "_repr_html_"):
            data["text/html"] = _lines(value._repr_html_())
        yield {"output_type": "execute_result", "execution_count": number, "metadata": {}, "data": data}


def _lines(text: str) -> list[str]:
    """Lines as notebooks keep them, without the folder that the cells ran in."""
    text = text.replace(os.getcwd() + os.sep, "")
    return re.sub(r"0x[0-9a-f]{6,}", "0x...", text).splitlines(keepends=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("notebook", type=Path)
    path = parser.parse_args().notebook.resolve()
    before = json.loads(path.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        after = execute(before)
    path.write_text(json.dumps(after, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(path.name, sum(cell["cell_type"] == "code" for cell in after["cells"]), "cells")


if __name__ == "__main__":
    main()
