"""`--numerics measure`: another choice only when it is clearly faster, kept for the machine, part of the recipe."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import regraft as rg
from regraft.compute.numerics import Numerics
from regraft.training.preflight import fastest
from regraft.training.preflight.fastest import choices, choose_fastest, measured_numerics

USUAL = Numerics("cpu", "bf16", True, 1)


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({("bf16", True): 1.0, ("fp32", True): 0.95}, ("bf16", True)),
        ({("bf16", True): 1.0, ("fp32", True): 0.80}, ("fp32", True)),
        ({("bf16", True): 1.0, ("fp32", True): 2.0, ("bf16", False): 0.5}, ("bf16", False)),
    ],
)
def test_another_choice_must_win_by_a_tenth(seconds: dict[tuple[str, bool], float], chosen: tuple[str, bool]) -> None:
    assert choose_fastest(seconds, ("bf16", True)) == chosen  # type: ignore[arg-type]


def test_fp16_is_no_choice_on_a_cpu_and_a_given_precision_is_the_only_one() -> None:
    assert choices(USUAL) == [("bf16", True), ("bf16", False), ("fp32", True), ("fp32", False)]
    fp32 = Numerics("cpu", "fp32", True, 1)
    assert choices(fp32, "fp32") == [("fp32", True), ("fp32", False)]
    assert ("fp16", True) in choices(Numerics("cuda", "bf16", True, 1))


def test_it_is_measured_once_for_a_machine_and_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path))
    model = rg.build_model("test_efficientnet", seed=0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    asked = []

    def seconds(model, numerics, among, *_):  # type: ignore[no-untyped-def]
        asked.append(list(among))
        return {choice: 0.5 if choice == ("fp32", False) else 1.0 for choice in among}

    monkeypatch.setattr(fastest, "step_seconds", seconds)
    said: list[str] = []
    for _ in range(2):
        found = measured_numerics(model, USUAL, image_size=(32, 32), batch_size=4, say=said.append)
        assert (found.precision, found.channels_last, found.threads) == ("fp32", False, 1)
    assert len(asked) == 1
    assert "as measured before" in said[1]
    assert all(before[name].equal(tensor) for name, tensor in model.state_dict().items())
    (file,) = tmp_path.rglob("measured.json")
    file.write_text('{"damaged": 3')
    measured_numerics(model, USUAL, image_size=(32, 32), batch_size=4)
    assert len(asked) == 2


@pytest.mark.usefixtures("one_thread")
def test_the_fastest_step_of_each_choice_counts_and_a_first_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that only the passes move on; it ends with the round in which 4 seconds are over."""
    model = rg.build_model("test_efficientnet", seed=0)
    now, lasts = 0.0, iter([0, 0, 0.5, 0.6, 0.7, 0.2])
    passes: list[tuple[torch.dtype, bool]] = []
    num_backward = 0

    def forward(module: torch.nn.Module, images: tuple[torch.Tensor], logits: torch.Tensor) -> None:
        nonlocal now
        now += next(lasts)
        passes.append((logits.dtype, images[0].is_contiguous(memory_format=torch.channels_last)))
        logits.register_hook(backward)

    def backward(gradient: torch.Tensor) -> None:
        nonlocal now, num_backward
        now += 1
        num_backward += 1

    model.register_forward_hook(forward)
    monkeypatch.setattr(fastest, "time", SimpleNamespace(perf_counter=lambda: now))
    seconds = fastest.step_seconds(model, USUAL, [("bf16", True), ("fp32", False)], (32, 32), 2)
    assert seconds == {("bf16", True): pytest.approx(1.5), ("fp32", False): pytest.approx(1.2)}
    assert passes == [(torch.bfloat16, True), (torch.float32, False)] * 3
    assert num_backward == 6


def test_the_choice_is_in_the_resolved_recipe(
    tiny_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        fastest, "step_seconds", lambda *a: {choice: 0.5 if choice == ("fp32", False) else 1.0 for choice in a[2]}
    )
    recipe = {
        "model": {"name": "test_efficientnet", "weights": "none", "image_size": 32},
        "data": {"source": str(tiny_photos)},
        "stages": [{"name": "head", "train": "head", "epochs": 1}],
        "numerics": {"choose": "measure", "threads": 1},
        "log": [],
    }
    run = rg.run_recipe(recipe, out=tmp_path / "run")
    stored = run.settings()["numerics"]
    assert (stored["precision"], stored["channels_last"], stored["threads"]) == ("fp32", False, 1)
    assert json.loads(run.environment.read_text())["torch"]
    again = rg.resume(run.path)
    assert again.settings()["numerics"] == stored
