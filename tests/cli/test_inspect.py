"""`regraft inspect` says what something is: a run, a model, photos, a network, a pattern of names."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import Cli, photos


def test_a_run(cli: Cli, tiny_run: Path) -> None:
    result = cli("inspect", tiny_run)
    assert result.code == 0, result.err
    for text in ("state: finished", "classes: blue, green, red", "head: trains head", "accuracy (test): 100.00%"):
        assert text in result.out
    assert json.loads(cli("inspect", tiny_run, "--json").out)["model"] == "test_efficientnet"


def test_a_model_folder(cli: Cli, tiny_run: Path) -> None:
    facts = json.loads(cli("inspect", tiny_run / "model", "--json").out)
    assert facts["classes"] == "blue, green, red"
    assert facts["input"].startswith("3x32x32")
    assert facts["timm can load it by itself"] is True


def test_photos_with_their_defects(cli: Cli, tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", {"cat": 10, "dog": 1})
    (root / "empty class").mkdir()
    result = cli("inspect", root)
    assert result.code == 0, result.err
    assert "classes: 2" in result.out
    assert "'dog'" in result.out
    assert "'empty class'" in result.out


def test_a_network_and_a_pattern(cli: Cli) -> None:
    result = cli("inspect", "test_resnet", "--image-size", "64")
    assert result.code == 0, result.err
    assert "stem" in result.out or "conv1" in result.out
    assert cli("inspect", "test_res*").out.split() == ["test_resnet"]
    assert "no model name fits" in cli("inspect", "zzz*").out


def test_what_is_none_of_these(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(b"\0")
    for target in (tmp_path / "missing", tmp_path / "file.bin", "resnet5O"):
        result = cli("inspect", target)
        assert result.code in (2, 3, 4)
        assert "error: " in result.err
    assert "There is no file or folder" in cli("inspect", tmp_path / "missing").err
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("a: [")
    assert cli("inspect", tmp_path / "run").code == 7
    (tmp_path / "run" / "recipe.yaml").write_text("seed: 1")
    assert cli("inspect", tmp_path / "run").code == 7
