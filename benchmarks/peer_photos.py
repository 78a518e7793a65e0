"""What the peers of `accuracy.py` share, each in its own environment: the photos, the network, what they hand back.

`began` is when the process began, so that the time a peer has includes its imports, as regraft's does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

NETWORK = "tf_efficientnet_lite0"
MEAN = STD = (0.5, 0.5, 0.5)
SIZE = 224
SPLITS = {"train": ("train",), "val": ("validation", "val", "valid"), "test": ("test",)}


def began() -> float:
    """When this process began, in seconds since the epoch."""
    import psutil

    return float(psutil.Process(os.getpid()).create_time())


def folder_of(photos: Path, split: str) -> Path:
    """The folder of a split."""
    found = [photos / name for name in SPLITS[split] if (photos / name).is_dir()]
    if not found:
        raise SystemExit(f"{photos}: no folder for {split}\nexpected: {' or '.join(SPLITS[split])}")
    return found[0]


def overlay(weights: Path | str) -> dict[str, Any]:
    """What makes timm start from a file of weights instead of its own."""
    return {"file": str(weights), "url": "", "hf_hub_id": None}


def print_result(files: Iterable[Path], folder: Path, right: Sequence[bool], seconds: float, **more: Any) -> None:
    """Print a JSON line: for each image, by its path below the split's folder, whether its class was found; seconds."""
    names = (Path(file).relative_to(folder).as_posix() for file in files)
    found = dict(zip(names, map(bool, right), strict=True))
    print(json.dumps({"right": found, "seconds": seconds, **more}))


def print_too_slow(**more: Any) -> None:
    """Print that the run was given up, because it could not end in its time."""
    print(json.dumps({"right": None, **more}))
