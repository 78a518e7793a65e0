"""Lists of lines `path label`, as Caffe, timm and mmpretrain write them; a path may hold spaces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from regraft.data.sources.bad_rows import BadRows
from regraft.data.sources.labels.records import Record
from regraft.data.sources.text import TextLines
from regraft.data.sources.walk import is_picture_name

__all__ = ["read_lines"]


def read_lines(path: Path, bad: BadRows, *, split: str = "", near: str = "") -> Iterator[Record]:
    """Yield the rows of a list: the label is the last field, behind a tab or else behind the last space.

    Args:
        path: The list.
        bad: Where lines without a label go.
        split: The split of all its rows.
        near: The name of a folder that the images may lie in.
    """
    lines = TextLines(path, bad)
    for line in lines:
        text = line.strip()
        if not text:
            continue
        written, label = _fields(text)
        if is_picture_name(label) and "|" not in label:
            written, label = text, ""
        yield Record(path, lines.number, written, label, split, near)


def _fields(text: str) -> tuple[str, str]:
    if "\t" in text:
        written, _, label = text.rpartition("\t")
    else:
        written, *rest = text.rsplit(maxsplit=1)
        label = rest[0] if rest else ""
    return written.strip(), label.strip()
