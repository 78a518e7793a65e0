"""One file of a label tool, whichever it is: known by what it holds, read once for each state of the file."""

from __future__ import annotations

import json
import os
import threading
from functools import lru_cache
from pathlib import Path

from regraft.data.decode.image_file import read_file
from regraft.data.files import access
from regraft.data.tools.annotated import DAMAGED, Export
from regraft.data.tools.coco import is_coco, read_coco
from regraft.data.tools.cvat import is_cvat, read_cvat
from regraft.data.tools.label_studio import is_label_studio, read_label_studio
from regraft.data.tools.labelme import is_labelme, read_labelme

__all__ = ["UNKNOWN_TOOL", "read_export"]

UNKNOWN_TOOL = "is not an export of LabelMe, Label Studio or CVAT, nor JSON of the COCO kind"
_HEAD = 4096
_READING = threading.Lock()


def read_export(path: str | os.PathLike[str]) -> Export | str:
    """Return what a file says of its images, or the reason as text why it cannot be read."""
    try:
        status = access.state_of(path)
    except (OSError, ValueError):
        return "does not exist"
    with _READING:  # threads that want one large file read it once
        return _read(os.fspath(path), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8)
def _read(path: str, mtime: int, size: int) -> Export | str:
    data = read_file(path)
    if isinstance(data, str):
        return data
    if is_cvat(data[:_HEAD]):
        return read_cvat(data)
    if data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] not in (b"{", b"["):
        return UNKNOWN_TOOL
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        return f"is not JSON ({' '.join(str(error).split())[:120]})"
    try:
        if is_labelme(values):
            return read_labelme(values, Path(path))
        if is_label_studio(values):
            return read_label_studio(values)
        return read_coco(values) if is_coco(values) else UNKNOWN_TOOL
    except DAMAGED as error:  # what is wrong with the file as a whole
        return f"cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:120]})"
