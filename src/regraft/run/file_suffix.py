"""Whether a name that somebody gave for an output is that of a file or of a folder."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from regraft.errors import SettingsError

__all__ = ["file_suffix"]

_FILE = re.compile(r"\.[a-z][a-z0-9]{0,12}")


def file_suffix(out: str | Path, kinds: Sequence[str]) -> str:
    """Return the suffix of the file that `out` names, in small letters; empty for a folder.

    Args:
        out: It as it was given: a slash at its end makes it a folder.
        kinds: The suffixes of the files that can be written.

    Raises:
        SettingsError: It has the suffix of another kind of file.
    """
    given = os.fspath(out)
    suffix = Path(given).suffix.lower()
    if given.endswith(("/", os.sep)) or Path(given).is_dir() or not _FILE.fullmatch(suffix):
        return ""
    if suffix in kinds:
        return suffix
    raise SettingsError(
        f"The output {given!r} would be a {suffix} file, which is not written here.",
        f"NAME{', NAME'.join(kinds)} or a folder",
        f"choose one of them; a folder of this name is {given + '/'!r}",
    )
