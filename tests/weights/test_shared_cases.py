"""Files written by the real frameworks, and damaged ones: the right numbers, or an error that says why."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from regraft.errors import WeightsError
from regraft.models.graft.graft import graft
from regraft.models.graft.match import match_weights
from regraft.weights.file import WeightFile, read_weights
from regraft.weights.report import MatchReport

_ROOT = Path(os.environ.get("REGRAFT_SHARED", Path(__file__).parents[3] / "shared")) / "weights"
_MANIFEST = _ROOT / "manifest.json"
_CASES = json.loads(_MANIFEST.read_text())["cases"] if _MANIFEST.is_file() else []
_CALLS = {
    "model(x_nchw)": lambda model, x: model(x),
    "model.forward_features(x_nchw)": lambda model, x: model.forward_features(x),
    "model.features(x_nchw)": lambda model, x: model.features(x),
    "model.features[:-1](x_nchw)": lambda model, x: model.features[:-1](x),
}

pytestmark = pytest.mark.skipif(not _CASES, reason="the frameworks' files (REGRAFT_SHARED or ../shared) are absent")


def _of(*words: str) -> list[Any]:
    return [pytest.param(c, id=c["id"]) for c in _CASES if c["expect"].startswith(words)]


@pytest.fixture(scope="module")
def targets() -> ModuleType:
    spec = importlib.util.spec_from_file_location("shared_targets", _ROOT / "targets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _build(targets: ModuleType, case: dict[str, Any]) -> nn.Module:
    torch.manual_seed(1)
    model: nn.Module = targets.build(case["target"])
    return model


def _read(case: dict[str, Any]) -> WeightFile:
    return read_weights(_ROOT / case["dir"] / case["files"][0])


def _bytes_of(model: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


def _worst_error(case: dict[str, Any], model: nn.Module) -> float:
    expected = np.load(_ROOT / case["dir"] / "expected.npz")
    x = torch.from_numpy(expected["x_nchw"])
    worst = 0.0
    for name, output in case["outputs"].items():
        if output is None or name not in expected or name.endswith("_ema"):
            continue
        if name == "logits" and case["id"].startswith("safetensors_"):
            continue  # these files hold no head for the target: only its features are the file's
        with torch.no_grad():
            value = _CALLS[output["call"]](model, x).numpy()
        worst = max(worst, float(np.abs(value - expected[name]).max() / np.abs(expected[name]).max()))
    return worst


def _check_account(report: MatchReport, weights: WeightFile, model: nn.Module) -> None:
    totals = report.totals
    assert totals["model"]["total"] == len(model.state_dict())
    assert totals["file"]["total"] == len(weights)


@pytest.mark.parametrize("case", _of("exact"))
def test_gives_the_numbers_of_the_framework(case: dict[str, Any], targets: ModuleType) -> None:
    model, weights = _build(targets, case), _read(case)
    report = match_weights(weights, model)
    _check_account(report, weights, model)
    if "ambiguous" in case["expect"] and report.ambiguous:
        with pytest.raises(WeightsError, match="ambiguous"):
            report.require()
        return
    graft(model, report.require())
    assert _worst_error(case, model) <= case["tolerance"]


@pytest.mark.parametrize("case", _of("folded"))
def test_unfolds_folded_norms_or_refuses(case: dict[str, Any], targets: ModuleType) -> None:
    model, weights = _build(targets, case), _read(case)
    report = match_weights(weights, model)
    _check_account(report, weights, model)
    assert any(finding.kind == "folded" for finding in report.findings)
    graft(model, report.require("all"))
    assert _worst_error(case, model) <= case["tolerance"]


@pytest.mark.parametrize("case", _of("error"))
def test_refuses_and_leaves_the_model_as_it_was(
    case: dict[str, Any], targets: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = _build(targets, case)
    before = _bytes_of(model)
    with pytest.raises(WeightsError) as caught:
        graft(model, match_weights(_read(case), model).require())
    assert _bytes_of(model) == before
    assert not (tmp_path / "REGRAFT_PWNED").exists()
    for word in ("LFS", "HTML"):
        if word in case["expect"]:
            assert word in str(caught.value) or (word == "HTML" and "web page" in str(caught.value))


def test_every_case_is_tried() -> None:
    assert len(_of("exact", "folded", "error")) == len(_CASES)
