"""Which language a person is spoken to in: what was asked for, else what the environment says, else English."""

from __future__ import annotations

import os

__all__ = ["LANGUAGES", "choose_language", "chosen_language"]

LANGUAGES = ("en", "zh")
_VARIABLES = ("REGRAFT_LANG", "LC_ALL", "LC_MESSAGES", "LANG")  # the first that is set decides, as POSIX has it
_asked_for: list[str | None] = [None]  # of this process


def choose_language(code: str | None) -> None:
    """Set the language of what this process says; None leaves it to the environment."""
    _asked_for[0] = code if code in LANGUAGES else None


def chosen_language() -> str:
    """Return `en` or `zh`."""
    if _asked_for[0] is not None:
        return _asked_for[0]
    told = next((os.environ[name] for name in _VARIABLES if os.environ.get(name)), "")
    return "zh" if told.lower().startswith("zh") else "en"
