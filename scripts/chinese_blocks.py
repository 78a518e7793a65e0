"""Copy the blocks of code of the English pages into the Chinese ones, by position; a test holds them equal.

uv run python scripts/chinese_blocks.py

So the commands of both languages are run by the same tests. A page whose number of blocks changed is named: its Chinese
text needs a hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^(?:<!-- not run -->\n)?```\w+\n.*?^```$", re.DOTALL | re.MULTILINE)


def pairs() -> Iterator[tuple[Path, Path]]:
    """Each Chinese page with the English one that it translates."""
    yield ROOT / "README.zh.md", ROOT / "README.md"
    chinese = ROOT / "docs" / "zh"
    for page in sorted(chinese.rglob("*.md")):
        yield page, ROOT / "docs" / page.relative_to(chinese)


def main() -> None:
    for chinese, english in pairs():
        text = chinese.read_text(encoding="utf-8")
        blocks = BLOCK.findall(english.read_text(encoding="utf-8"))
        if len(BLOCK.findall(text)) != len(blocks):
            raise SystemExit(f"{chinese.relative_to(ROOT)}: the English page has {len(blocks)} blocks")
        left = iter(blocks)
        chinese.write_text(BLOCK.sub(lambda _, left=left: next(left), text), encoding="utf-8")  # type: ignore[misc]


if __name__ == "__main__":
    main()
