"""What a run promises: level 1, the same order and augmentation for any threads and caches; level 2, the same bits."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import regraft as rg
from regraft import pipeline
from regraft.data.cache import cache as cache_module
from regraft.data.cache import loader as loader_module
from regraft.errors import DivergedError
from regraft.run.folder import RunFolder
from tests.training.faults import result
from tests.training.tiny import Killed, begin, few_photos_in, kill_at_step, stages, tiny_network

AUGMENT = rg.Augment(flip="horizontal", rotation=20, zoom=0.2, erase=0.3)


@pytest.fixture(scope="module")
def few_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return few_photos_in(tmp_path_factory.mktemp("few") / "photos")


@pytest.fixture(scope="module")
def whole(few_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return begin(few_photos, tmp_path_factory.mktemp("whole") / "run", plan=stages(augment=AUGMENT))


@pytest.mark.parametrize(
    ("threads", "cache"),
    [
        (5, "ram"),
        (1, "disk"),
        (5, "off"),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((1, "ram"), (5, "disk"), (1, "off"))),
    ],
)
def test_loading_threads_and_caches_change_no_bit(
    few_photos: Path, whole: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int, cache: str
) -> None:
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path / "cache"))
    decode = cache_module._decode_files

    def decode_files(*arguments: Any) -> Any:
        *others, _, progress = arguments
        return decode(*others, threads, progress)

    monkeypatch.setattr(cache_module, "_decode_files", decode_files)
    monkeypatch.setattr(loader_module, "num_cpus", lambda: threads)
    run = begin(few_photos, tmp_path / "run", plan=stages(augment=AUGMENT), cache=cache)
    assert result(run)["weights"] == result(whole)["weights"]
    assert result(run)["metrics"] == result(whole)["metrics"]


def test_a_run_that_is_resumed_with_other_threads_and_another_cache_has_the_same_bits(
    few_photos: Path, whole: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Killed), kill_at_step(3):
        begin(few_photos, tmp_path / "run", plan=stages(augment=AUGMENT), save_steps=1)
    monkeypatch.setattr(loader_module, "num_cpus", lambda: 7)
    run = RunFolder(tmp_path / "run")
    settings = run.settings()
    settings["data"]["cache"] = "off"
    run = pipeline.resume(run, recipe=settings, allow_change=["data.cache"], model=tiny_network(), show=False)
    assert result(run)["weights"] == result(whole)["weights"]


class Noisy(nn.Module):
    """Draws from every generator that a user's module may draw from."""

    def forward(self, features: Tensor) -> Tensor:
        return features * (1 + 0.1 * torch.rand(1)) * (1 + 0.1 * random.random()) * (1 + 0.1 * np.random.rand())


def test_a_module_that_draws_from_python_and_numpy_resumes_to_the_same_bits(few_photos: Path, tmp_path: Path) -> None:
    def train(out: Path) -> RunFolder:
        model = noisy()
        plan = rg.make_plan(model, [rg.Stage("all", train="all", optimizer="sgd", epochs=2, batch_size=4)])
        return rg.train(model, plan, rg.open_data(few_photos), out=out, save_steps=1, show=False)

    def noisy() -> nn.Module:
        torch.manual_seed(1)
        layers = [nn.Conv2d(3, 4, 3, 2), Noisy(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)]
        return rg.adapt(nn.Sequential(*layers), classes=("bright", "dark"), image_size=16)

    whole = train(tmp_path / "whole")
    with pytest.raises(Killed), kill_at_step(2):
        train(tmp_path / "run")
    run = pipeline.resume(tmp_path / "run", model=noisy(), show=False)
    assert result(run) == result(whole)


def test_divergence_names_the_images_the_last_good_state_and_the_command_that_goes_on(
    few_photos: Path, tmp_path: Path
) -> None:
    plan = stages()
    wild = rg.Stage("all", train="all", optimizer="sgd", epochs=2, batch_size=4, lr=1e30)
    with pytest.raises(DivergedError) as caught:
        begin(few_photos, tmp_path / "run", plan=[plan[0], wild])
    error = caught.value
    run = RunFolder(tmp_path / "run")
    assert error.exit_code == 5
    assert error.details[-1].startswith(f"the last good state is in {str(run.checkpoint(2))!r}")
    command = f"regraft resume {run.path} --set stages.all.lr=1e+29 --allow-change stages.all.lr"
    assert command in error.next_step
    assert error.details[0] == "the images of this step:"
    assert all(Path(name).is_file() for name in error.details[1:-1])
    assert len(error.details) == 6
    settings = run.settings()
    settings["stages"][1]["lr"] = 0.05
    calm = pipeline.resume(run, recipe=settings, allow_change=["stages.all.lr"], model=tiny_network(), show=False)
    expected = begin(few_photos, tmp_path / "calm", plan=plan)
    assert result(calm)["weights"] == result(expected)["weights"]
