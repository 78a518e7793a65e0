"""Small real pictures and folders of them, made by each test."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def scene(height: int = 40, width: int = 60, seed: int = 0) -> np.ndarray:
    """A smooth colour picture, uint8 (height, width, 3), different for each seed and unlike its own mirror images."""
    rows, columns = np.mgrid[0:height, 0:width]
    red = 40 + 180 * columns / max(1, width - 1)
    green = 30 + 200 * rows / max(1, height - 1)
    blue = 128 + 60 * np.sin(seed + rows / 9 + columns / 13)
    return np.stack([red, green, blue], axis=-1).round().astype(np.uint8)


def jpeg(seed: int = 0, height: int = 40, width: int = 60) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(scene(height, width, seed)).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


Plant = Callable[[Mapping[str, int | bytes]], Path]


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    """Make a data folder from {path: bytes of a file, or a number of photos to put into a folder}."""

    def make(tree: Mapping[str, int | bytes]) -> Path:
        root = tmp_path / "photos"
        root.mkdir(exist_ok=True)
        seed = 0
        for name, content in tree.items():
            if isinstance(content, bytes):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_bytes(content)
                continue
            (root / name).mkdir(parents=True, exist_ok=True)
            for number in range(content):
                seed += 1
                (root / name / f"{number:03}.jpg").write_bytes(jpeg(seed))
        return root

    return make
