"""What a `config.json` beside a hub's weights file says of its network: epsilon, activation, strides, padding.

Only settings that no tensor shows are read, and only where the names are those of the library that wrote the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regraft.weights.limits import is_own_file

__all__ = ["hub_config"]

_MOST_BYTES = 1 << 20
_FILES = {"transformers": "config.json", "clip": "open_clip_config.json"}


def hub_config(weights: Path, dialect: str) -> Mapping[str, Any]:
    """Return the settings of the network beside a file of a dialect (`transformers clip`); empty where there are none.

    Of a file for images and text, those of the network for images.
    """
    name = _FILES.get(dialect.split()[0]) if dialect else None
    path = weights.parent / name if name else None
    if path is None or not path.is_file() or not is_own_file(path) or path.stat().st_size > _MOST_BYTES:
        return {}
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError):
        return {}
    if not isinstance(found, dict):
        return {}
    if name == "open_clip_config.json":
        model = found.get("model_cfg")
        quick = isinstance(model, dict) and model.get("quick_gelu") is True
        return {"hidden_act": "quick_gelu" if quick else "gelu"} if isinstance(model, dict) else {}
    inner = found.get("vision_config")
    return inner if isinstance(inner, dict) else found
