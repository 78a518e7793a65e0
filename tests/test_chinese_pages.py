"""The Chinese pages have the commands and the code of the English ones, which run: one test for both languages."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_spec = importlib.util.spec_from_file_location("chinese_blocks", ROOT / "scripts" / "chinese_blocks.py")
assert _spec is not None
assert _spec.loader is not None
chinese_blocks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(chinese_blocks)
PAIRS = list(chinese_blocks.pairs())


@pytest.mark.parametrize(("chinese", "english"), PAIRS, ids=[pair[0].stem for pair in PAIRS])
def test_blocks_are_those_of_the_english_page(chinese: Path, english: Path) -> None:
    blocks = [chinese_blocks.BLOCK.findall(page.read_text(encoding="utf-8")) for page in (chinese, english)]
    assert blocks[0] == blocks[1], "uv run python scripts/chinese_blocks.py"


@pytest.mark.parametrize("chinese", [pair[0] for pair in PAIRS], ids=[pair[0].stem for pair in PAIRS])
def test_links_lead_to_files(chinese: Path) -> None:
    targets = re.findall(r"\]\(([^)\s#]+)[^)]*\)", chinese.read_text(encoding="utf-8"))
    assert [target for target in targets if "://" not in target and not (chinese.parent / target).exists()] == []


@pytest.mark.parametrize(("chinese", "english"), PAIRS[1:], ids=[pair[0].stem for pair in PAIRS[1:]])
def test_headings_are_as_many(chinese: Path, english: Path) -> None:
    if english.name == "index.md" and english.parent.name == "docs":
        return  # the start page is written for its readers

    def levels(page: Path) -> list[str]:
        text = chinese_blocks.BLOCK.sub("", page.read_text(encoding="utf-8"))
        return re.findall(r"^(#+) ", text, re.MULTILINE)

    assert levels(chinese) == levels(english)
