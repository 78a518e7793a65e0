"""`regraft evaluate`: figures with the name of what they were measured on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.conftest import Cli, photos
from tests.segmentation import scenes_in


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_run, tmp_path / "run")


def test_every_figure_names_its_split(cli: Cli, run: Path) -> None:
    result = cli("evaluate", run, "--threads", "1")
    assert result.code == 0, result.err
    assert "accuracy (test): 100.00% of 6 images" in result.out
    for name in ("blue", "green", "red"):
        assert f"  {name}" in result.out


def test_json_holds_all_measures(cli: Cli, run: Path, tmp_path: Path) -> None:
    other = photos(tmp_path / "other", {"green": 3, "red": 3}, seed=4)
    (other / "red" / "bad.jpg").write_bytes(b"")
    measures = json.loads(cli("evaluate", run, other, "--json").out)
    assert (measures["label"], measures["num_images"], measures["num_errors"]) == ("other", 6, 1)
    assert measures["confusion"] == [[0, 0, 0], [0, 3, 0], [0, 0, 3]]
    assert "unreadable images (other): 1" in cli("evaluate", run, other).out


def test_masks_are_not_measured_by_a_classifier(cli: Cli, run: Path, tmp_path: Path) -> None:
    """Not "classes that the model does not know: '0', '1'"."""
    root = scenes_in(tmp_path / "scenes", {"test": 2})
    result = cli("evaluate", run, root)
    assert result.code == 3
    assert "have masks, and the model of" in result.err
    assert "classifies whole images" in result.err
    assert "does not know" not in result.err


def test_images_before_the_run(cli: Cli, run: Path, tmp_path: Path) -> None:
    other = photos(tmp_path / "other", {"green": 1})
    result = cli("evaluate", other, run)
    assert result.code == 2
    assert f"`regraft evaluate {run} {other}`" in result.err
