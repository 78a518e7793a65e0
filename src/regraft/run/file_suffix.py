"""What the name of a file says: whether an output is a file or a folder, and whether an input is an export."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from regraft.errors import SettingsError
from regraft.run.invocation import typed_path

__all__ = ["EXPORTED", "file_suffix", "refuse_export"]

EXPORTED = (".onnx", ".xml")  # files that `regraft export` writes and `regraft predict` runs

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


def refuse_export(path: str | Path) -> None:
    """Raise SettingsError where a run was asked for, and an exported file was named."""
    if Path(path).suffix.lower() in EXPORTED and Path(path).is_file():
        raise SettingsError(
            f"{str(path)!r} is an exported file, and this takes the run that it was made from.",
            "a run folder",
            f"`regraft predict {typed_path(path)} IMAGES` for what the file can do",
        )
