"""Finding the pictures below any folder, as prediction does."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from regraft.data.sources.walk import find_pictures, is_hidden

Plant = Callable[[Mapping[str, int | bytes]], Path]


def test_pictures_of_a_folder_come_sorted_and_the_rest_is_counted(plant: Plant) -> None:
    root = plant({"b": 2, "a/deep": 1, "c.txt": b"no", ".hidden": 2})
    paths, ignored = find_pictures(root)
    assert [os.path.relpath(path, root) for path in paths] == [
        os.path.join("a", "deep", "000.jpg"),
        os.path.join("b", "000.jpg"),
        os.path.join("b", "001.jpg"),
    ]
    assert ignored == {"hidden or system folder": 1, "not an image": 1}


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_link_back_to_the_folder_is_walked_once(plant: Plant) -> None:
    root = plant({"a": 2})
    (root / "a" / "top").symlink_to(root, target_is_directory=True)
    paths, ignored = find_pictures(str(root))
    assert len(paths) == 2
    assert ignored == {"folder met before (a link)": 1}


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        *((name, True) for name in (".git", "THUMBS.DB", "Desktop.ini", "__MACOSX", "lost+found")),
        *((name, False) for name in ("thumbs", "cat", "_private", "a.b")),
    ],
)
def test_system_names_are_known_in_any_case(name: str, hidden: bool) -> None:
    assert is_hidden(name) is hidden
