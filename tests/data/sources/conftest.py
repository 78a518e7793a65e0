"""Lists and tables beside small pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.data.conftest import jpeg

from regraft.data.dataset import DataSet
from regraft.data.labels import label_names
from regraft.data.open import open_data
from regraft.errors import DataError

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Make files below one folder from {path: text, bytes, or None for a small picture}; gives the folder back."""

    def make(files: dict[str, str | bytes | None]) -> Path:
        root = tmp_path / "birds"
        root.mkdir(exist_ok=True)
        for number, (name, content) in enumerate(files.items()):
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            data = jpeg(number, 8, 8) if content is None else content
            path.write_bytes(data.encode() if isinstance(data, str) else data)
        return root

    return make


def rows(data: DataSet) -> dict[str, list[tuple[str, Any]]]:
    """Every split as (path relative to the root, label name or names), sorted."""
    return {
        name: sorted(
            (Path(path).relative_to(data.root).as_posix(), label)
            for path, label in zip(split.paths, label_names(split.labels, data.class_names), strict=True)
        )
        for name, split in data.splits.items()
    }


def whole(source: Path, **options: Any) -> list[tuple[str, Any]]:
    """All rows of a source without splits."""
    data = open_data(source, fractions=(1.0, 0.0, 0.0), **options)
    assert list(data.splits) == ["train"]
    return rows(data)["train"]


def mistakes(source: Path, **options: Any) -> tuple[str, ...]:
    """The details of the one error that a source gives."""
    with pytest.raises(DataError) as caught:
        open_data(source, **options)
    assert caught.value.exit_code == 3
    assert caught.value.expected
    return caught.value.details
