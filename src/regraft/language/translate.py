"""English sentences -> the chosen language, by the catalogue beside this file; what it lacks stays English."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from regraft.language.choice import chosen_language

__all__ = ["catalogue", "in_chinese", "translated"]

_CHINESE = Path(__file__).with_name("chinese.txt")
_GAP = "{}"  # where a sentence of the catalogue has a name, a number or a path


def translated(text: str) -> str:
    """Return a text, paragraph by paragraph, in the chosen language; a paragraph that the catalogue lacks stays."""
    if chosen_language() == "en":
        return text
    return in_chinese(text)


def in_chinese(text: str) -> str:
    """Return a text, paragraph by paragraph, in Chinese, whatever language was chosen."""
    return "\n\n".join(_paragraph(part) for part in text.split("\n\n"))


@cache
def catalogue() -> dict[str, str]:
    """Return English sentences, on one line each, with what they are in Chinese."""
    lines = [line for line in _CHINESE.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    pairs = zip(lines[::2], lines[1::2], strict=True)
    return {english.removeprefix("en: "): chinese.removeprefix("zh: ") for english, chinese in pairs}


def _paragraph(text: str) -> str:
    line = " ".join(text.split())
    exact = catalogue().get(line)
    if exact is not None:
        return exact
    for pattern, chinese in _patterns():
        if match := pattern.fullmatch(line):
            return _filled(chinese, match.groups())
    return text


@cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    """Return the sentences with gaps, the longest first: a shorter one may fit where a longer one is meant."""
    gaps = [(english, chinese) for english, chinese in catalogue().items() if _GAP in english]
    ordered = sorted(gaps, key=lambda pair: -len(pair[0]))
    return [(re.compile(re.escape(english).replace(re.escape(_GAP), "(.+?)")), chinese) for english, chinese in ordered]


def _filled(text: str, values: tuple[str, ...]) -> str:
    """Return the text with its gaps filled in order."""
    first, *rest = text.split(_GAP)
    return first + "".join(f"{value}{part}" for value, part in zip(values, rest, strict=False))
