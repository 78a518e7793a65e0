"""Names of archive members as paths inside their archive: what cannot be a path there is told with a reason."""

from __future__ import annotations

import re

__all__ = ["inner_path", "unsafe_reason"]

_DRIVE = re.compile(r"[A-Za-z]:/")


def inner_path(name: str) -> str:
    """Return the path of a member as seen from its archive, with slashes; empty for the archive's own folder."""
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))


def unsafe_reason(name: str) -> str:
    """Return why a member's name is no path inside its archive; empty for one that is."""
    slashed = name.replace("\\", "/")
    if "\0" in name:
        return "holds a NUL byte"
    if slashed.startswith("/") or _DRIVE.match(slashed):
        return "is an absolute path"
    if ".." in slashed.split("/"):
        return "leads out of its folder by '..'"
    return ""
