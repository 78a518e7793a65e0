"""`soup`: a stage ends with the average of late epochs, as far as validation says that it is better."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import regraft as rg
from regraft import pipeline
from regraft.errors import SettingsError
from regraft.run.folder import RunFolder
from regraft.run.records import network_name, read_metrics
from regraft.training.checkpoint.late import average_of, num_late, with_late
from regraft.training.checkpoint.state import Best, Progress, packed
from regraft.training.loop import merging
from regraft.training.loop.choice import safest
from tests.conftest import Cli
from tests.training.faults import result
from tests.training.tiny import Killed, begin, kill_at_step, resumed_through_kills, tiny_network


def restless(epochs: int = 6, lr: float = 0.5, **more: Any) -> list[rg.Stage]:
    """Stages of which the second never settles: the mean of its epochs 4 and 6 is better than each of them."""
    second: dict[str, Any] = {"soup": True, "clip_norm": 1.0, **more}
    return [
        rg.Stage("head", train="head", optimizer="adamw", epochs=1, batch_size=4, lr=0.1),
        rg.Stage("all", train="all", optimizer="sgd", epochs=epochs, batch_size=4, lr=lr, **second),
    ]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`photos/{train,val}/{bright,dark}`, four images each, whose brightness hardly says their class."""
    root, rng = tmp_path_factory.mktemp("few") / "photos", np.random.default_rng(5)
    classes = (("bright", 135), ("dark", 115))
    for folder, level in [(f"{split}/{name}", level) for split in ("train", "val") for name, level in classes]:
        (root / folder).mkdir(parents=True)
        for number in range(4):
            own = level + rng.integers(-40, 40)
            pixels = rng.integers(own - 60, own + 60, (20, 20, 3)).clip(0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(root / folder / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, Weights]:
    """A run that nothing stopped, with a soup, and the weights of its epochs."""
    seen = Weights()
    out = tmp_path_factory.mktemp("whole") / "run"
    return begin(photos, out, plan=restless(), callbacks=[seen], monitor="val_loss"), seen


class Weights(rg.Callback):
    """Keeps the weights that each epoch of the last stage ended with, and the names of what was validated after."""

    def __init__(self) -> None:
        self.epochs: dict[int, dict[str, Tensor]] = {}
        self.start: dict[str, Tensor] = {}
        self.candidates: list[Mapping[str, Any]] = []

    def on_stage_start(self, stage: Any) -> None:
        self.epochs, self.start = {}, copied(stage.model.state_dict())

    def on_epoch_end(self, stage: Any, record: Mapping[str, Any]) -> None:
        average = stage.state.average
        self.epochs[record["epoch"]] = copied(stage.model.state_dict() | ({} if average is None else average.averages))

    def on_candidate(self, stage: Any, record: Mapping[str, Any]) -> None:
        self.candidates.append(record)


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def rows(run: RunFolder, kind: str = "soup") -> list[dict[str, Any]]:
    return [row for row in read_metrics(run.metrics) if row["kind"] == kind]


def is_mean(tensor: Tensor, of: list[Tensor]) -> bool:
    return torch.allclose(tensor.double(), torch.stack(of).double().mean(0), rtol=1e-7, atol=1e-9)


def test_the_delivered_network_is_the_mean_of_its_epochs_and_better_than_each(
    whole: tuple[RunFolder, Weights],
) -> None:
    run, seen = whole
    best, values = run.read(run.best), {row["epoch"]: row["val_loss"] for row in rows(run, "epoch")[1:]}
    assert best["stage"] == "all"
    assert best["soup"] == [4, 6], "the case that this test is about"
    assert best["value"] < min(values[epoch] for epoch in best["soup"])
    delivered = load_file(run.model / "model.safetensors")
    for name, tensor in delivered.items():
        if tensor.is_floating_point():
            assert is_mean(tensor, [seen.epochs[epoch][name] for epoch in best["soup"]]), name
        else:
            assert torch.equal(tensor, seen.epochs[6][name]), name
    tried = rows(run)
    assert [row["soup"] for row in tried] == [row["soup"] for row in seen.candidates]
    assert [row["soup"] for row in tried] == [[4, 6], [4, 5, 6]], "with epoch 5 it is worse"
    text, mixed = (run.path / "log.txt").read_text(), ", ".join(map(str, best["soup"]))
    assert f"all: soup of epochs {mixed}: val_loss {best['value']:.4f} instead of " in text
    assert f"best: stage all, soup of epochs {mixed}, val_loss" in text
    assert run.read(run.status)["best"]["soup"] == best["soup"]


@pytest.mark.parametrize("share", [None, 0.5])
def test_what_lies_between_leads_to_the_soup(photos: Path, tmp_path: Path, share: float | None) -> None:
    seen = Weights()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "SHARES", () if share is None else (share,))
        plan = restless(interpolate=True, ema=0.3)
        run = begin(photos, tmp_path / "run", plan=plan, callbacks=[seen], monitor="val_loss")
    soup = next(row for row in reversed(rows(run)) if row["val_loss"] == min(row["val_loss"] for row in rows(run)))
    between = rows(run, "interpolation")
    assert [row["share"] for row in between] == ([] if share is None else [share])
    alone = min(row["val_loss"] for row in rows(run, "epoch") if row["epoch"] in soup["soup"] and row["stage"] == "all")
    assert all(row.get("soup") == (soup["soup"] if soup["val_loss"] < alone else None) for row in between)


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_run_killed_between_candidates_ends_in_the_same_bits(photos: Path, tmp_path: Path, after: int) -> None:
    plan = restless(interpolate=True)
    whole = begin(photos, tmp_path / "whole", plan=plan, monitor="val_loss")
    original, done = merging._validated, []

    def validated(*arguments: Any, **place: Any) -> Any:
        if len(done) == after:
            raise Killed
        done.append(1)
        return original(*arguments, **place)

    run = RunFolder(tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "_validated", validated)
        with pytest.raises(Killed):
            begin(photos, run.path, plan=plan, monitor="val_loss")
    assert result(pipeline.resume(run, model=tiny_network(), show=False)) == result(whole)


def test_killed_in_every_epoch_it_ends_in_the_same_bits(
    photos: Path, tmp_path: Path, whole: tuple[RunFolder, Weights]
) -> None:
    run = RunFolder(tmp_path / "run")
    with pytest.raises(Killed), kill_at_step(3):
        begin(photos, run.path, plan=restless(), monitor="val_loss")
    run = resumed_through_kills(run)
    assert result(run) == result(whole[0])


def test_a_stage_made_longer_equals_one_that_was_longer_from_the_start(
    photos: Path, tmp_path: Path, whole: tuple[RunFolder, Weights]
) -> None:
    run = begin(photos, tmp_path / "run", plan=restless(epochs=3), monitor="val_loss")
    settings = run.settings()
    settings["stages"][1]["epochs"] = 6
    longer = pipeline.resume(run, recipe=settings, allow_change=["stages.1"], model=tiny_network(), show=False)
    found, expected = result(longer), result(whole[0])
    for key in expected:
        if key != "metrics":  # which say how many epochs the stage was to have then
            assert found[key] == expected[key], key


def test_late_weights_are_kept_until_the_next_stage_trains(photos: Path, tmp_path: Path) -> None:
    run = begin(photos, tmp_path / "run", plan=restless(), monitor="val_loss")
    late = {2 + 2 * epoch for epoch in (4, 5, 6)}
    kept = {*run.checkpoint_steps(), *run.lone_weights_steps()}
    assert late <= kept
    settings = run.settings()
    settings["stages"].append(
        {"name": "more", "train": "head", "optimizer": "sgd", "epochs": 1, "batch_size": 4, "lr": 0.01}
    )
    pipeline.resume(run, recipe=settings, allow_change=["stages.2"], model=tiny_network(), show=False)
    assert not {10, 12} & {*run.checkpoint_steps(), *run.lone_weights_steps()}


def test_epochs_that_are_alike_are_not_averaged(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = begin(photos, tmp_path / "run", plan=restless(lr=1e-5), monitor="val_calibrated_loss", show=True)
    assert not rows(run)
    assert "no soup: epochs 4, 5, 6 are alike, their losses of an image differ by 0.00" in capsys.readouterr().err


def test_two_epochs_have_one_in_their_second_half(photos: Path, tmp_path: Path) -> None:
    with_it = begin(photos, tmp_path / "with", plan=restless(epochs=2), monitor="val_loss")
    without = begin(photos, tmp_path / "without", plan=restless(epochs=2, soup=False), monitor="val_loss")
    assert "all: no soup: it takes two epochs" in (with_it.path / "log.txt").read_text()
    assert result(with_it)["weights"] == result(without)["weights"]
    assert with_it.read(with_it.best) == without.read(without.best)


def test_a_damaged_epoch_is_no_part_of_it(photos: Path, tmp_path: Path) -> None:
    class Damage(rg.Callback):
        def on_epoch_end(self, stage: Any, record: Mapping[str, Any]) -> None:
            if record["stage"] == "all" and record["epoch"] == 6:
                stage.session.checkpoints.wait()
                (stage.session.run_folder.lone_weights(10) / "model.safetensors").write_bytes(b"\0" * 8)

    run = begin(photos, tmp_path / "run", plan=restless(), monitor="val_loss", callbacks=[Damage()])
    assert rows(run)
    assert all(4 not in row["soup"] for row in rows(run))
    assert "no part of a soup: weights-000010 is damaged" in (run.path / "log.txt").read_text()


def test_the_mean_of_equal_weights_has_their_very_bits(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    torch.manual_seed(0)
    tensors = {
        name: (torch.randn(999) * 10.0 ** torch.randint(-30, 30, (999,))).to(dtype)
        for name, dtype in (("a", torch.float32), ("b", torch.bfloat16), ("c", torch.float64))
    }
    epochs = [Best(step, "all", step, 1.0) for step in range(1, 6)]
    for epoch in epochs:
        run.lone_weights(epoch.step).mkdir(parents=True)
        save_file(tensors, run.lone_weights(epoch.step) / "model.safetensors")
    for num in range(1, 6):
        mean = average_of(run, epochs[:num], tensors)
        assert all(torch.equal(mean[name], tensor) for name, tensor in tensors.items())


def test_late_epochs_are_the_last_five_of_the_second_half() -> None:
    late: list[Best] = []
    found = {}
    for number in range(1, 15):
        late = with_late(late, Best(number, "all", number, 0.0))
        found[number] = [epoch.epoch for epoch in late]
        assert len(late) == num_late(number)
    assert [found[number] for number in (1, 2, 3, 6, 9, 14)] == [
        *([1], [2], [2, 3], [4, 5, 6], [5, 6, 7, 8, 9], [10, 11, 12, 13, 14]),
    ]


def test_of_few_images_an_average_has_to_be_surely_better() -> None:
    one = Best(1, "all", 1, 0.5, losses=packed(torch.full((40,), 0.5)))
    noisy = torch.from_numpy(np.random.default_rng(0).normal(0.49, 1.0, 40))
    lucky = Best(2, "all", 2, float(noisy.mean()), soup=[1, 2], losses=packed(noisy))
    surely = Best(2, "all", 2, 0.45, soup=[1, 2], losses=packed(torch.full((40,), 0.45)))
    assert safest(one, [surely], "min") is surely
    if lucky.value < one.value:
        assert safest(one, [lucky], "min") is one


def test_a_state_of_an_older_version_knows_no_soup() -> None:
    values = Progress(bests=[Best(3, "all", 1, 0.5)]).to_dict()
    del values["late"], values["bests"][0]["soup"]
    read = Progress.from_dict(values)
    assert read.late == []
    assert read.bests[0].soup == []
    assert "soup" not in read.bests[0].to_dict()


def test_what_is_solved_has_no_epochs_to_average() -> None:
    with pytest.raises(SettingsError, match="soup averages the weights of epochs"):
        rg.Stage("head", optimizer="lbfgs", soup=True)


def test_a_stage_that_has_ended_without_it_cannot_have_it(photos: Path, tmp_path: Path) -> None:
    run = begin(photos, tmp_path / "run", plan=restless(epochs=1, soup=False))
    settings = run.settings()
    settings["stages"][1] |= {"epochs": 4, "soup": True}
    with pytest.raises(SettingsError, match="the weights of its epochs are not kept"):
        pipeline.resume(run, recipe=settings, allow_change=["stages.1"], model=tiny_network(), show=False)


def test_a_network_is_named_after_its_epochs() -> None:
    soup = {"stage": "all", "epoch": 6, "soup": [4, 6]}
    assert network_name(soup) == "stage all, soup of epochs 4, 6"
    expected = "stage all, 75% of the way from its start to the soup of epochs 4, 6"
    assert network_name({**soup, "share": 0.75}) == expected


def test_a_recipe_says_so_from_the_command_line(cli: Cli, photos: Path, tmp_path: Path) -> None:
    network = ("--model", "test_resnet", "--set", "model.weights=none", "--image-size", "32", "--threads", "1")
    stage = "{name: top, train: [stage:-1, head], epochs: 4, optimizer: sgd, lr: 3, soup: true, interpolate: true}"
    run = tmp_path / "run"
    done = cli("train", photos, *network, "--set", f"stages=[{stage}]", "--set", "monitor=val_loss", "--out", run)
    assert done.code == 0, done.err
    assert "top: soup of epochs 3, 4" in done.err or "top: no soup: none is better" in done.err
    made = [row for row in read_metrics(run / "metrics.jsonl") if row["kind"] != "epoch"]
    assert [row.get("share") for row in made] == [None, 0.25, 0.5, 0.75]
    with (run / "metrics.csv").open() as file:
        table = [row for row in csv.DictReader(file) if row["soup"] or row["share"]]
    assert [row["share"] for row in table] == ["", "0.25", "0.5", "0.75"]
    assert table[0]["soup"] == "3 4"
    report = (run / "report.html").read_text()
    assert "soup of epochs 3, 4</td>" in report
    assert "soups and interpolations" in report
