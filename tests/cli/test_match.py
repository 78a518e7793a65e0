"""`regraft match`: what goes where, the exit code, and a reference output that settles what the file cannot."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from tests.conftest import Cli

import regraft as rg

MODEL = "test_resnet"


@pytest.fixture(scope="module")
def state() -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in rg.build_model(MODEL, seed=7).state_dict().items()}


def saved(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    save_file({name: np.ascontiguousarray(values) for name, values in tensors.items()}, path)
    return path


def test_a_whole_file(cli: Cli, tmp_path: Path, state: dict[str, np.ndarray]) -> None:
    path = saved(tmp_path / "w.safetensors", state)
    result = cli("match", path, "--model", MODEL)
    assert result.code == 0, result.err
    assert f"model: {len(state)} matched = {len(state)}" in result.out
    report = json.loads(cli("match", path, "--model", MODEL, "--json", "--require", "all").out)
    assert report["counts"]["matched"] == len(state)
    assert report["coverage"] == {"backbone": 1.0, "all": 1.0}


def test_a_missing_head_is_no_error_unless_all_is_asked_for(
    cli: Cli, tmp_path: Path, state: dict[str, np.ndarray]
) -> None:
    path = saved(tmp_path / "w.safetensors", {n: v for n, v in state.items() if not n.startswith("fc.")})
    assert cli("match", path, "--model", MODEL).code == 0
    result = cli("match", path, "--model", MODEL, "--require", "all")
    assert result.code == 4
    assert "fc.{weight,bias}" in result.err


def test_a_missing_backbone_layer_is_an_error_that_names_it(
    cli: Cli, tmp_path: Path, state: dict[str, np.ndarray]
) -> None:
    path = saved(tmp_path / "w.safetensors", {n: v for n, v in state.items() if not n.startswith("layer3.0.conv1")})
    result = cli("match", path, "--model", MODEL)
    assert result.code == 4
    assert "layer3.0.conv1.weight" in result.err
    assert "missing:" in result.out
    assert cli("match", path, "--model", MODEL, "--require", "any").code == 0


def test_by_hand_and_left_out(cli: Cli, tmp_path: Path, state: dict[str, np.ndarray]) -> None:
    renamed = {name.replace("fc.", "my_top."): values for name, values in state.items()}
    path = saved(tmp_path / "w.safetensors", renamed)
    by_hand = cli("match", path, "--model", MODEL, "--map", "fc=my_top", "--require", "all", "--json")
    assert by_hand.code == 0, by_hand.err
    rules = {match["target"]: match["rule"] for match in json.loads(by_hand.out)["matched"]}
    assert rules["fc.weight"] == "map"
    left_out = json.loads(cli("match", path, "--model", MODEL, "--skip", "my_top", "--json").out)
    assert left_out["dropped"] == ["my_top.bias", "my_top.weight"] or set(left_out["dropped"]) == {
        "my_top.bias",
        "my_top.weight",
    }


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--map", "fc"], 2),
        (["--map", "fc=nothing_of_that_name"], 4),
        (["--skip", "nothing_of_that_name"], 4),
        (["--require", "most"], 2),
        (["--check", "image.npy"], 2),
        (["--check", "image.npy=none.npy"], 2),
    ],
)
def test_options_that_cannot_be_carried_out(
    cli: Cli, tmp_path: Path, state: dict[str, np.ndarray], options: list[str], code: int
) -> None:
    result = cli("match", saved(tmp_path / "w.safetensors", state), "--model", MODEL, *options)
    assert result.code == code
    assert result.err.startswith("error: ")


def test_files_and_models_that_are_none(cli: Cli, tmp_path: Path, state: dict[str, np.ndarray]) -> None:
    assert cli("match", tmp_path / "none.h5", "--model", MODEL).code == 4
    assert cli("match", saved(tmp_path / "w.safetensors", state), "--model", "resnet5O").code == 2


def reference(folder: Path, weights: Path) -> str:
    model = rg.build_model(MODEL)
    rg.graft(model, rg.match_weights(rg.read_weights(weights), model))
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        np.save(folder / "logits.npy", model.eval()(images).numpy())
    np.save(folder / "image.npy", images.numpy())
    return f"{folder / 'image.npy'}={folder / 'logits.npy'}"


def test_a_reference_output_is_compared(cli: Cli, tmp_path: Path, state: dict[str, np.ndarray]) -> None:
    path = saved(tmp_path / "w.safetensors", state)
    pair = reference(tmp_path, path)
    good = cli("match", path, "--model", MODEL, "--check", pair)
    assert good.code == 0, good.err
    assert "deviates" in good.err
    other = saved(tmp_path / "other.safetensors", {**state, "conv1.0.weight": state["conv1.0.weight"] * -1})
    bad = cli("match", other, "--model", MODEL, "--check", pair)
    assert bad.code == 4
    assert "another output" in bad.err
