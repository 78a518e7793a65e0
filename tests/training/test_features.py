"""The frozen-prefix cache: the same bits as without it, wherever features are kept, and no pass that is not needed."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import regraft as rg
from regraft import pipeline
from regraft.compute.numerics import choose_numerics
from regraft.compute.program import InferenceProgram
from regraft.errors import SettingsError
from regraft.run.folder import RunFolder
from regraft.run.records import read_metrics
from regraft.training.features import feature_pass, feature_store
from regraft.training.features.feature_store import Features, as_stored
from tests.training.conftest import small_model
from tests.training.tiny import Killed, kill_at_step

AUGMENT = rg.Augment(flip="horizontal", rotation=15, zoom=0.2)


def stages(*, augment: rg.Augment | None = None, epochs: int = 2, optimizer: str = "adamw") -> list[rg.Stage]:
    return [
        rg.Stage("head", train="head", optimizer=optimizer, epochs=epochs, lr=1e-2, batch_size=8),
        rg.Stage(
            "top", train=["stage:-1", "head"], optimizer="adamw", epochs=epochs, lr=1e-2, batch_size=6, augment=augment
        ),
    ]


def run(photos: Path, out: Path, plan: list[rg.Stage], model: nn.Module | None = None, **settings: Any) -> RunFolder:
    data = rg.open_data(photos)
    model = model or small_model(data.class_names)
    settings.setdefault("numerics", choose_numerics("cpu", "fp32", 1))
    return rg.train(model, rg.make_plan(model, plan), data, out=out, seed=5, show=False, **settings)


def weights(folder: RunFolder) -> tuple[str, list[float]]:
    """The hash of the trained weights and every epoch's validation loss, to the last bit."""
    digest = hashlib.sha256((folder.model / "model.safetensors").read_bytes()).hexdigest()
    return digest, [row["val_loss"] for row in read_metrics(folder.metrics)]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many images went through frozen parts, call by call."""
    counts: list[int] = []
    original = InferenceProgram.__call__

    def call(self: InferenceProgram, *inputs: Tensor) -> tuple[Tensor, ...]:
        if inputs[0].shape[1:] == (3, 32, 32):  # images, and not features on their way through what trains
            counts.append(len(inputs[0]))
        return original(self, *inputs)

    monkeypatch.setattr(InferenceProgram, "__call__", call)
    return counts


@pytest.fixture(scope="module")
def without(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[float]]:
    """What `stages()` ends in when nothing is kept."""
    return weights(run(photos, tmp_path_factory.mktemp("runs") / "off", stages(), feature_cache="off"))


@pytest.fixture(scope="module")
def of_one_view(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[float]]:
    """What the augmented stages end in with a single view of each image, kept in memory."""
    plan = stages(augment=AUGMENT)
    return weights(run(photos, tmp_path_factory.mktemp("runs") / "one", plan, feature_cache=1))


@pytest.mark.parametrize("mode", ["auto", 1])
def test_every_mode_ends_in_the_bits_of_off_in_fp32(
    photos: Path, without: tuple[str, list[float]], tmp_path: Path, mode: Any
) -> None:
    assert weights(run(photos, tmp_path / "run", stages(), feature_cache=mode)) == without


@pytest.mark.parametrize(
    ("augment", "precision", "modes"),
    [
        (AUGMENT, "bf16", ("off", "auto", 2)),
        pytest.param(None, "bf16", ("off", "auto"), marks=pytest.mark.slow),
        pytest.param(AUGMENT, "bf16", ("off", 5), marks=pytest.mark.slow),
    ],
)
def test_every_mode_ends_in_the_bits_of_off(
    photos: Path, tmp_path: Path, augment: rg.Augment | None, precision: str, modes: tuple[Any, ...]
) -> None:
    numerics, plan = choose_numerics("cpu", precision, 1), stages(augment=augment)
    runs = [run(photos, tmp_path / str(mode), plan, numerics=numerics, feature_cache=mode) for mode in modes]
    assert len({str(weights(one)) for one in runs}) == 1


def test_a_solved_head_is_the_same_with_and_without(photos: Path, tmp_path: Path) -> None:
    plan = stages(optimizer="lbfgs")[:1]
    off, auto = (weights(run(photos, tmp_path / mode, plan, feature_cache=mode)) for mode in ("off", "auto"))
    assert off == auto


@pytest.mark.parametrize("place", ["disk", None])
@pytest.mark.parametrize("mode", ["auto", 1])
def test_features_on_the_disk_or_nowhere_give_the_same_bits(
    photos: Path,
    without: tuple[str, list[float]],
    of_one_view: tuple[str, list[float]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str | None,
    mode: Any,
) -> None:
    plan, expected = (stages(augment=AUGMENT), of_one_view) if mode == 1 else (stages(), without)
    monkeypatch.setattr(feature_pass, "choose_tier", lambda num_bytes, device: place)
    monkeypatch.setattr(feature_pass, "_DISK_RATE", 1e18)
    other = run(photos, tmp_path / "other", plan, feature_cache=mode)
    assert weights(other) == expected
    said = other.log.read_text()
    assert ("on the disk" if place else "there is no room") in said
    assert not list(Path(feature_store.cache_folder(), "features").glob("*"))


def test_a_disk_that_is_slower_than_computing_is_not_used(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_pass, "choose_tier", lambda num_bytes, device: "disk")
    monkeypatch.setattr(feature_pass, "_DISK_RATE", 1e-3)
    assert "would come no faster from the disk" in run(photos, tmp_path / "run", stages()[:1]).log.read_text()


def test_a_full_disk_has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(feature_store.os, "posix_fallocate", full, raising=False)
    assert feature_pass._room(4, (torch.zeros(2, 3),), "disk") is None
    assert feature_pass._room(4, (torch.zeros(2, 3),), "memory") is not None


@pytest.mark.parametrize(("memory", "disk", "place"), [(99, 0, None), (99, 4e9, "disk"), (100, 0, "memory")])
def test_the_fastest_place_with_room_is_chosen(
    monkeypatch: pytest.MonkeyPatch, memory: int, disk: float, place: str | None
) -> None:
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(feature_store, "memory_budget", lambda: memory)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=int(disk)))
    assert feature_store.choose_tier(100, torch.device("cpu")) == place


@pytest.mark.slow
def test_views_come_again_and_each_passes_the_frozen_part_once(
    photos: Path, tmp_path: Path, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = [rg.Stage("head", train="head", optimizer="adamw", epochs=5, lr=1e-2, batch_size=8, augment=AUGMENT)]
    two = run(photos, tmp_path / "two", plan, feature_cache=2)
    assert sum(passes) == 2 * 20 + 12
    assert "cycling through 2 views of each training image" in two.log.read_text()
    off = run(photos, tmp_path / "off", plan, feature_cache="off")
    assert weights(two) != weights(off)
    # Its first two epochs are those of `off`.
    assert weights(two)[1][:2] == weights(off)[1][:2]
    monkeypatch.setattr(feature_pass, "choose_tier", lambda num_bytes, device: None)
    assert weights(run(photos, tmp_path / "no-room", plan, feature_cache=2)) == weights(two)


@pytest.mark.slow
def test_views_without_a_frozen_part_change_nothing(photos: Path, tmp_path: Path) -> None:
    plan = [rg.Stage("all", train="all", bn="train", optimizer="sgd", epochs=3, batch_size=8, augment=AUGMENT)]
    off, one = (weights(run(photos, tmp_path / str(mode), plan, feature_cache=mode)) for mode in ("off", 1))
    assert off == one


VIEWS = [rg.Stage("head", train="head", optimizer="adamw", epochs=4, lr=1e-2, batch_size=8, augment=AUGMENT)]


@pytest.fixture(scope="module")
def of_two_views(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run(photos, tmp_path_factory.mktemp("runs") / "whole", VIEWS, feature_cache=2)


@pytest.mark.parametrize("steps", [4, 8])
def test_a_run_killed_between_views_resumes_to_the_same_bits(
    photos: Path, of_two_views: RunFolder, tmp_path: Path, steps: int
) -> None:
    with pytest.raises(Killed), kill_at_step(steps):
        run(photos, tmp_path / "killed", VIEWS, feature_cache=2, save_steps=1)
    assert weights(pipeline.resume(tmp_path / "killed", show=False)) == weights(of_two_views)


# Across stages


def test_one_pass_serves_later_stages(photos: Path, tmp_path: Path, passes: list[int]) -> None:
    together = run(photos, tmp_path / "together", stages())
    # Both boundaries in one pass over 20 + 12 images; the first batch of each split also goes to compare.
    assert sum(passes) == (20 + 12) + 3 * (8 + 8)
    assert "for later stages" in together.log.read_text()
    passes.clear()
    run(photos, tmp_path / "augmented", stages(augment=AUGMENT))
    assert sum(passes) == 20 + (12 + 3 * 8) + 2 * 20
    passes.clear()
    apart = run(photos, tmp_path / "apart", stages(), feature_cache="off")
    assert sum(passes) == 2 * 2 * (20 + 12)
    assert weights(apart) == weights(together)


def test_stages_with_one_frozen_part_share_its_features(photos: Path, tmp_path: Path, passes: list[int]) -> None:
    head = {"train": "head", "optimizer": "adamw", "epochs": 1, "batch_size": 8}
    run(photos, tmp_path / "run", [rg.Stage("fast", lr=1e-2, **head), rg.Stage("slow", lr=1e-3, **head)])  # type: ignore[arg-type]
    assert sum(passes) == 20 + 12


def test_a_joint_pass_that_gives_other_bits_is_not_used(
    photos: Path, without: tuple[str, list[float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folding and in-place work may differ where one boundary lies behind another; here they are made to."""
    joint = feature_pass.joint_prefix

    def off_by_a_bit(*arguments: Any) -> Any:
        module, places = joint(*arguments)  # type: ignore[misc]
        parameter = next(module.parameters())
        parameter.data = torch.nextafter(parameter.data, torch.tensor(9.0))
        return module, places

    monkeypatch.setattr(feature_pass, "joint_prefix", off_by_a_bit)
    apart = run(photos, tmp_path / "apart", stages())
    assert weights(apart) == without
    assert "for later stages" not in apart.log.read_text()


# Storage


@settings(max_examples=60, deadline=None)
@given(
    num=st.integers(1, 5),
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    channels_last=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    place=st.sampled_from(["memory", "disk"]),
)
def test_features_come_back_with_their_bits_and_layout(
    num: int, shape: list[int], channels_last: bool, dtype: torch.dtype, place: Any
) -> None:
    part = torch.randn(num, *shape).to(dtype)
    if channels_last and part.ndim == 4:
        part = part.to(memory_format=torch.channels_last)
    room = Features(num, (part,), place)
    for row in range(num):
        room.write(row, (part[row : row + 1],))
    (direct,) = as_stored((part,))
    order = torch.arange(num).flip(0)
    for found, truth in (
        (room.read(slice(None))[0], direct),
        (room.read(order)[0], direct[order]),
        (room.all()[0], part),
    ):
        assert torch.equal(found, truth)
    assert room.read(slice(None))[0].stride() == direct.stride()
    room.read(slice(None))[0].zero_()
    assert torch.equal(room.read(slice(None))[0], part), "what was read is a copy"


@pytest.mark.parametrize("mode", ["on", 0, -1, True, 1.5])
def test_unknown_modes_are_refused_before_anything_is_written(photos: Path, tmp_path: Path, mode: Any) -> None:
    with pytest.raises(SettingsError, match="feature cache"):
        run(photos, tmp_path / "run", stages(), feature_cache=mode)
    assert not (tmp_path / "run").exists()
