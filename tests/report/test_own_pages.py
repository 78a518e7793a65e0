"""Pages are written over pages of regraft alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import Cli

import regraft as rg
from regraft.errors import StorageError
from regraft.report.range_test import write_range_test

FOUND = {"rates": [1e-4, 1e-3], "losses": [2.0, 1.0], "smoothed": [2.0, 1.5], "suggestion": 1e-3, "stage": "head"}


def test_a_page_of_regraft_is_replaced_and_another_is_not(tmp_path: Path) -> None:
    page = write_range_test(tmp_path / "curve.html", FOUND)
    write_range_test(page, {**FOUND, "stage": "top"})
    assert "stage top" in page.read_text()
    assert rg.write_report(tmp_path) == rg.write_report(tmp_path)
    for path, write in (
        (tmp_path / "mine" / "curve.html", lambda path: write_range_test(path, FOUND)),
        (tmp_path / "mine" / "report.html", lambda path: rg.write_report(path.parent)),
    ):
        path.parent.mkdir(exist_ok=True)
        path.write_text("<h1>mine</h1>")
        with pytest.raises(StorageError, match="nothing is overwritten"):
            write(path)
        assert path.read_text() == "<h1>mine</h1>"


def test_find_lr_asks_before_it_computes(cli: Cli, tiny_photos: Path, tmp_path: Path) -> None:
    (tmp_path / "curve.html").write_text("mine")
    result = cli("find-lr", tiny_photos, "--out", tmp_path / "curve.html")
    assert result.code == 7
    assert (tmp_path / "curve.html").read_text() == "mine"
