"""Weights by `modelscope:OWNER/NAME/FILE`: through the library where it is installed, asked for its cache first."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
import torch

import regraft as rg


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, bool]]:
    """A stand-in for the library that has one file; what it was asked for."""
    file = tmp_path / "cache" / "weights.pth"
    file.parent.mkdir()
    torch.save(rg.build_model("test_resnet", num_classes=3, seed=5).state_dict(), file)
    calls: list[tuple[str, str, bool]] = []

    def model_file_download(model_id: str, file_path: str, *, local_files_only: bool = False) -> str:
        calls.append((model_id, file_path, local_files_only))
        if local_files_only and len(calls) == 1:
            raise ValueError("not in the cache")
        if model_id != "owner/net":
            raise RuntimeError("404 Client Error")
        return str(file)

    module = types.ModuleType("modelscope.hub.file_download")
    module.model_file_download = model_file_download  # type: ignore[attr-defined]
    for name in ("modelscope", "modelscope.hub"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return calls


def test_a_file_is_downloaded_once_and_its_weights_are_in(asked: list[tuple[str, str, bool]]) -> None:
    model = rg.build_model("test_resnet", weights="modelscope:owner/net/weights.pth", num_classes=3)
    assert asked == [("owner/net", "weights.pth", True), ("owner/net", "weights.pth", False)]
    wanted = rg.build_model("test_resnet", num_classes=3, seed=5).state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in model.state_dict().items())
    rg.build_model("test_resnet", weights="modelscope:owner/net/weights.pth", num_classes=3)
    assert asked[2:] == [("owner/net", "weights.pth", True)]


def test_without_a_name_of_a_file_it_is_the_common_one(asked: list[tuple[str, str, bool]]) -> None:
    rg.build_model("test_resnet", weights="modelscope:owner/net", num_classes=3)
    assert asked[0] == ("owner/net", "model.safetensors", True)


@pytest.mark.parametrize("address", ["modelscope:net", "modelscope:", "modelscope:/net"])
def test_what_is_not_an_address_is_refused(address: str) -> None:
    with pytest.raises(rg.WeightsError, match="is not an address of ModelScope"):
        rg.build_model("test_resnet", weights=address)


def test_what_it_does_not_have_is_said(asked: list[tuple[str, str, bool]]) -> None:
    with pytest.raises(rg.WeightsError, match=r"did not give 'a.pth' of 'nobody/none' \(RuntimeError: 404"):
        rg.build_model("test_resnet", weights="modelscope:nobody/none/a.pth")


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelscope", None)
    with pytest.raises(rg.WeightsError, match="pip install modelscope"):
        rg.build_model("test_resnet", weights="modelscope:owner/net/a.pth")
