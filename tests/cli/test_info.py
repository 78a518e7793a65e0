"""`regraft info`: enough to paste into a bug report, and nothing that tells who somebody is."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import pytest
from tests.conftest import Cli

import regraft
from regraft.cli.verbs.installation import facts


def test_it_tells_versions_devices_threads_caches_and_extras(cli: Cli) -> None:
    shown = cli("info")
    assert shown.code == 0
    assert f"regraft:   {regraft.__version__}" in shown.out
    for fact in ("torch 2.", "devices:", "threads:", "extras:", "tensorboard", "caches:", "tf_efficientnet_lite0"):
        assert fact in shown.out


def test_json_is_one_object_of_the_same_facts(cli: Cli) -> None:
    told = json.loads(cli("info", "--json").out)
    assert told["packages"]["torch"] == importlib.metadata.version("torch")
    assert set(told["extras"]) >= {"onnx", "heic", "keras"}
    assert set(told["caches"]) == {"regraft", "hub"}


def test_the_home_folder_is_not_told(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "jane.doe"))
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path / "jane.doe" / "cache"))
    shown = cli("info").out
    assert "jane.doe" not in shown
    assert "regraft ~/cache" in shown


def test_what_is_missing_or_broken_is_a_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name in ("onnx", "torch"):
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    told = facts.collect()
    assert told["extras"]["onnx"] == "not installed (`pip install 'regraft[onnx]'`)"
    assert told["packages"]["torch"] == "not installed"
    assert told["devices"][0].startswith("torch cannot be imported: ")


def test_a_checkout_that_is_not_installed_has_facts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", requires)
    assert facts.collect()["packages"] == {}
