"""What the name of a file says when it is one shard of several: `model-00001-of-00003.safetensors`."""

from __future__ import annotations

import re
from pathlib import Path

from regraft.weights.words import some

__all__ = ["shard_note"]

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.[A-Za-z0-9]+)")
_MOST = 1000  # shards that are looked for


def shard_note(path: Path) -> str | None:
    """Return what to read instead of one shard of several, and what of it is missing; None for any other file."""
    found = _SHARD.fullmatch(path.name)
    if not found or int(found["count"]) < 2:
        return None
    end = f"-of-{found['count']}{found['suffix']}"
    names = [f"{found['stem']}-{number:05d}{end}" for number in range(1, min(int(found["count"]), _MOST) + 1)]
    missing = [name for name in names if not path.with_name(name).is_file()]
    index = path.with_name(f"{found['stem']}{found['suffix']}.index.json")
    note = f"This is shard {int(found['number'])} of {int(found['count'])}"
    if not missing and index.is_file():
        return f"{note}: give {str(index)!r}, or the folder, to read all of them."
    parts = [f"the index {index.name!r} is {'here' if index.is_file() else 'missing'}"]
    if missing:
        word = "shard is" if len(missing) == 1 else "shards are"
        parts.append(f"{len(missing)} other {word} missing ({some(missing, 3)})")
    return f"{note}: {' and '.join(parts)}. Put all of them into one folder and give the index."
