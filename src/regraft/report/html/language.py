"""A page in the chosen language: headings, names of facts and columns, legends; what comes from a run stays."""

from __future__ import annotations

import re

from regraft.language.choice import chosen_language
from regraft.language.translate import translated
from regraft.report.html.markup import Html

__all__ = ["in_chosen_language"]

# Where only regraft's own words stand, with what they hold of a run in the gaps of the catalogue's sentences.
_PLACES = re.compile(
    r"""(<(?:h[2-4]|dt|th|small|summary|figcaption><strong|p\ class="(?:absent|note)"
    |span\ class="(?:key\ [\w-]+|label)"|text\ class="unit"[^>]*|a\ href="\#[\w-]+")(?:\ class="[\w ]+")?>)
    ([^<]*\w[^<]*)(?=<)""",
    re.VERBOSE,
)


def in_chosen_language(text: Html) -> Html:
    """Return a whole page, its headings translated where a language other than English was chosen."""
    language = chosen_language()
    if language == "en":
        return text
    page = str(text).replace('<html lang="en">', f'<html lang="{language}">', 1)
    return Html(_PLACES.sub(_translated, page))


def _translated(match: re.Match[str]) -> str:
    before, words = match.groups()
    kept = words[len(words.rstrip()) :]
    return f"{before}{translated(words.strip())}{kept}"
