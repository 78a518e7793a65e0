"""What the command-line library says of a value that it cannot take, in regraft's words."""

from __future__ import annotations

import re

__all__ = ["in_words"]

_WORDS = (
    (r"Input should be greater than or equal to (\S+)", r"it must be \1 or more"),
    (r"Input should be greater than (\S+)", r"it must be above \1"),
    (r"Input should be less than or equal to (\S+)", r"it must be at most \1"),
    (r"Input should be less than (\S+)", r"it must be below \1"),
    (r"Input should be a valid integer.*", "it must be a whole number"),
    (r"Input should be a valid number.*", "it must be a number"),
    (r"Input should be (?:a valid )?(.*)", r"it must be \1"),
)


def in_words(message: str) -> str:
    """Return a message about a value as the rest of regraft would put it."""
    for pattern, words in _WORDS:
        if match := re.fullmatch(pattern, message, re.DOTALL):
            return match.expand(words)
    return message
