"""Writes docs/weights-matrix.md, from the pairs that `test_weights_matrix` proves.

uv run python -m tests.oracle.matrix_page
"""

from __future__ import annotations

from pathlib import Path

from tests.oracle.pairs.weight_pair import Pair
from tests.oracle.pairs.weight_pairs import PAIRS

__all__ = ["PAGE", "page"]

PAGE = Path(__file__).parents[2] / "docs" / "weights-matrix.md"
_INTRO = """\
# Weights of other libraries, tried

Each row is a network of another library and one that `regraft` builds, both narrow and with random weights. The file
is written by the library itself, or, for the last tables, with the names that the framework puts before those of
timm's networks. *Same numbers* means that the filled network's output differs from the library's by at most the given
share of its largest value; *refused* that `regraft match` ends with exit code 4 and says so. There is no third kind:
the test behind this page (`uv run pytest -m oracle tests/oracle/test_weights_matrix.py`) fails where a file is
accepted and the output is another one.

"""


def page() -> str:
    """Return the whole page."""
    exact = sum(not pair.refused for pair in PAIRS)
    count = f"{len(PAIRS)} pairs: {exact} give the same numbers, {len(PAIRS) - exact} are refused, none is wrong.\n"
    libraries = dict.fromkeys(pair.library for pair in PAIRS)
    tables = [_table(library, [pair for pair in PAIRS if pair.library == library]) for library in libraries]
    return _INTRO + count + "".join(tables)


def _table(library: str, pairs: list[Pair]) -> str:
    rows = [f"| {pair.name} | `{pair.target}` | {_outcome(pair)} |" for pair in pairs]
    return "\n".join([f"\n## {library}\n", "| network there | network here | outcome |", "|---|---|---|", *rows, ""])


def _outcome(pair: Pair) -> str:
    if pair.refused:
        return f"refused: “{pair.refused}”"
    part = "" if pair.require == "all" else " (backbone)"
    return f"same numbers{part}, {pair.tolerance:g}" + (", with `--adjust`" if pair.adjust else "")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
