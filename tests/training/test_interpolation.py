"""`interpolate`: a stage ends with the best network between the one that it began with and the one training left."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import regraft as rg
from regraft import pipeline
from regraft.errors import SettingsError
from regraft.run.folder import RunFolder
from regraft.run.records import read_metrics
from regraft.training.loop import merging
from tests.conftest import Cli
from tests.training.faults import result
from tests.training.tiny import Killed, begin, few_photos_in, kill_at_step, resumed_through_kills, tiny_network


def far(epochs: int = 2, lr: float = 1.0, **more: Any) -> list[rg.Stage]:
    """Stages of which the second goes too far, unless its rate is lower."""
    second: dict[str, Any] = {"interpolate": True, **more}
    return [
        rg.Stage("head", train="head", optimizer="adamw", epochs=1, batch_size=4, lr=0.1),
        rg.Stage("all", train="all", optimizer="sgd", epochs=epochs, batch_size=4, lr=lr, **second),
    ]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return few_photos_in(tmp_path_factory.mktemp("few") / "photos")


class Weights(rg.Callback):
    """Keeps the weights that the last stage began with, and those that each of its epochs ended with."""

    def on_stage_start(self, stage: Any) -> None:
        self.start = copied(stage.model.state_dict())

    def on_epoch_end(self, stage: Any, record: Mapping[str, Any]) -> None:
        average = stage.state.average
        self.end = copied(stage.model.state_dict() | ({} if average is None else average.averages))


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def rows(run: RunFolder) -> list[dict[str, Any]]:
    return [row for row in read_metrics(run.metrics) if row["kind"] == "interpolation"]


@pytest.mark.parametrize("more", [{}, {"ema": 0.5}], ids=["weights", "average"])
def test_the_delivered_network_lies_where_its_record_says(photos: Path, tmp_path: Path, more: dict[str, Any]) -> None:
    seen = Weights()
    run = begin(photos, tmp_path / "run", plan=far(**more), callbacks=[seen], monitor="val_loss")
    best = run.read(run.best)
    values = {row["share"]: row["val_loss"] for row in rows(run)}
    assert list(values) == [0.25, 0.5, 0.75]
    assert best["stage"] == "all"
    assert (best["share"], best["value"]) == min(values.items(), key=lambda item: item[1])
    delivered = load_file(run.model / "model.safetensors")
    assert {name for name in delivered if not torch.equal(seen.start[name], seen.end[name])}
    for name, tensor in delivered.items():
        if tensor.is_floating_point():
            assert torch.equal(tensor, torch.lerp(seen.start[name], seen.end[name], best["share"])), name
    text = (run.path / "log.txt").read_text()
    assert f"best: stage all, {best['share']:.0%} of the way from its start to epoch 2" in text


def test_where_no_epoch_is_worse_than_all_that_lies_between_nothing_changes(photos: Path, tmp_path: Path) -> None:
    with_it = begin(photos, tmp_path / "with", plan=far(lr=0.01), monitor="val_loss")
    without = begin(photos, tmp_path / "without", plan=far(lr=0.01, interpolate=False), monitor="val_loss")
    epochs = [row["val_loss"] for row in read_metrics(with_it.metrics) if row["kind"] == "epoch"]
    assert min(epochs) <= min(row["val_loss"] for row in rows(with_it)), "the case that this test is about"
    assert result(with_it)["weights"] == result(without)["weights"]
    assert with_it.read(with_it.best) == without.read(without.best)


def test_a_run_killed_between_the_shares_ends_in_the_same_bits(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = far()
    whole = begin(photos, tmp_path / "whole", plan=plan)
    original, done = merging._validated, []

    def validated(*arguments: Any, **place: Any) -> Any:
        if len(done) == 2:
            raise Killed
        done.append(1)
        return original(*arguments, **place)

    run = RunFolder(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(merging, "_validated", validated)
        with pytest.raises(Killed):
            begin(photos, run.path, plan=plan)
    assert not (run.model / "config.json").exists()
    resumed = pipeline.resume(run, model=tiny_network(), show=False)
    assert result(resumed) == result(whole)


def test_a_further_stage_starts_from_it_and_every_network_is_kept(photos: Path, tmp_path: Path) -> None:
    more = rg.Stage("more", train="head", optimizer="sgd", epochs=1, batch_size=4, lr=0.01)
    seen = Weights()
    plan = [*far(), more]
    run = begin(photos, tmp_path / "run", plan=plan, callbacks=[seen], monitor="val_loss")
    before = begin(photos, tmp_path / "before", plan=far(), monitor="val_loss")
    delivered = load_file(before.model / "model.safetensors")
    assert before.read(before.best)["share"] is not None
    assert all(torch.equal(tensor, seen.start[name]) for name, tensor in delivered.items())
    kept = run.read(run.networks)["stages"][1]
    assert (kept["stage"], kept["share"]) == ("all", before.read(before.best)["share"])
    stored = load_file(run.weights(kept["step"]) / "model.safetensors")
    assert all(torch.equal(tensor, stored[name]) for name, tensor in delivered.items())


def test_a_damaged_start_leaves_the_stage_as_it_ended(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Damage(rg.Callback):
        def on_epoch_end(self, stage: Any, record: Mapping[str, Any]) -> None:
            if record["stage"] == "all":
                start = stage.session.run_folder.checkpoint(stage.progress.start_step)
                (start / "model.safetensors").write_bytes(b"\0" * 8)

    run = begin(photos, tmp_path / "run", plan=far(lr=0.01), monitor="val_loss", callbacks=[Damage()], show=True)
    assert not rows(run)
    assert "no interpolation" in capsys.readouterr().err


def extend(run: RunFolder, *, epochs: int, **more: Any) -> RunFolder:
    settings = run.settings()
    settings["stages"][1] |= {"epochs": epochs, **more}
    return pipeline.resume(run, recipe=settings, allow_change=["stages.1"], model=tiny_network(), show=False)


def require_same(longer: RunFolder, whole: RunFolder, epochs: int) -> None:
    """Everything that a run leaves is equal, but for the number of epochs that each of them was to have then."""
    found, expected = result(longer), result(whole)
    found["metrics"] = [{**row, "epochs": epochs} if row["kind"] == "epoch" else row for row in found["metrics"]]
    expected["metrics"] = [{**row, "epochs": epochs} if row["kind"] == "epoch" else row for row in expected["metrics"]]
    for key, value in expected.items():
        assert found[key] == value, key


@pytest.mark.parametrize("more", [{}, {"ema": 0.5}], ids=["weights", "average"])
@pytest.mark.parametrize(("lr", "is_taken"), [(1.0, True), (0.01, False)])
def test_a_stage_made_longer_equals_one_that_was_longer_from_the_start(
    photos: Path, tmp_path: Path, lr: float, is_taken: bool, more: dict[str, Any]
) -> None:
    run = begin(photos, tmp_path / "run", plan=far(lr=lr, **more), monitor="val_loss")
    assert (run.read(run.networks)["stages"][1].get("share") is not None) == is_taken
    whole = begin(photos, tmp_path / "whole", plan=far(epochs=4, lr=lr, **more), monitor="val_loss")
    require_same(extend(run, epochs=4), whole, 4)


def test_made_longer_twice_and_killed_at_every_step_it_ends_in_the_same_bits(photos: Path, tmp_path: Path) -> None:
    run = begin(photos, tmp_path / "run", plan=far(epochs=1, ema=0.5), monitor="val_loss")
    with pytest.raises(Killed), kill_at_step(1):
        extend(run, epochs=2)
    run = resumed_through_kills(run)
    with pytest.raises(Killed), kill_at_step(0):
        extend(run, epochs=4)
    with pytest.raises(Killed), kill_at_step(3):
        pipeline.resume(run, recipe=run.settings(), model=tiny_network(), show=False)
    run = pipeline.resume(run, recipe=run.settings(), model=tiny_network(), show=False)
    whole = begin(photos, tmp_path / "whole", plan=far(epochs=4, ema=0.5), monitor="val_loss")
    require_same(run, whole, 4)


def test_what_an_extension_needs_is_kept_until_the_next_stage_trains(photos: Path, tmp_path: Path) -> None:
    run = begin(photos, tmp_path / "run", plan=far(), monitor="val_loss")
    last, start = run.read(run.networks)["last"]["step"], 2
    assert {start, last, last + 1} <= set(run.checkpoint_steps())
    more = {"name": "more", "train": "head", "optimizer": "sgd", "epochs": 1, "batch_size": 4, "lr": 0.01}
    settings = run.settings()
    settings["stages"].append(more)
    pipeline.resume(run, recipe=settings, allow_change=["stages.2"], model=tiny_network(), show=False)
    assert not {start, last} & set(run.checkpoint_steps())


def test_made_longer_with_a_further_stage_equals_such_a_run(photos: Path, tmp_path: Path) -> None:
    run = begin(photos, tmp_path / "run", plan=far(epochs=1), monitor="val_loss")
    more = rg.Stage("more", train="all", optimizer="sgd", epochs=1, batch_size=4, lr=0.01)
    whole = begin(photos, tmp_path / "whole", plan=[*far(epochs=3), more], monitor="val_loss")
    settings = whole.settings()
    allowed = ["stages.1.epochs", "stages.2"]
    run = pipeline.resume(run, recipe=settings, allow_change=allowed, model=tiny_network(), show=False)
    require_same(run, whole, 3)


def test_without_what_training_left_a_stage_is_not_made_longer(photos: Path, tmp_path: Path) -> None:
    run = begin(photos, tmp_path / "run", plan=far(), monitor="val_loss")
    shutil.rmtree(run.checkpoint(run.read(run.networks)["last"]["step"]))
    with pytest.raises(SettingsError, match="further stage"):
        extend(run, epochs=4)


def test_a_stage_that_has_ended_without_it_cannot_have_it(photos: Path, tmp_path: Path) -> None:
    run = begin(photos, tmp_path / "run", plan=far(interpolate=False))
    with pytest.raises(SettingsError, match="the weights that it began with are not kept"):
        extend(run, epochs=4, interpolate=True)


def test_a_head_that_is_solved_has_nothing_in_between() -> None:
    with pytest.raises(SettingsError, match="interpolate"):
        rg.Stage("head", optimizer="lbfgs", interpolate=True)


def test_the_last_epoch_stays_to_be_taken(photos: Path, tmp_path: Path) -> None:
    seen = Weights()
    run = begin(photos, tmp_path / "run", plan=far(), callbacks=[seen], monitor="val_loss")
    last = run.read(run.networks)["last"]
    assert "share" not in last
    stored = load_file(run.weights(last["step"]) / "model.safetensors")
    assert all(torch.equal(tensor, stored[name]) for name, tensor in seen.end.items())


def test_a_recipe_says_so_from_the_command_line(cli: Cli, photos: Path, tmp_path: Path) -> None:
    network = ("--model", "test_resnet", "--set", "model.weights=none", "--image-size", "32", "--threads", "1")
    stage = (
        "{name: top, train: [stage:-1, head], epochs: 2, optimizer: sgd, lr: 30, schedule: cosine, warmup_epochs: 0.5, "
        "interpolate: true, augment: {flip: horizontal, rotation: 8, zoom: 0.1, shift: 0.05}}"
    )
    done = cli("train", photos, *network, "--set", f"stages=[{stage}]", "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert "top 25% of the way from its start" in done.err
    assert done.err.count("% of the way from its start") >= 4
    report = (tmp_path / "run" / "report.html").read_text()
    share = rg.open_run(tmp_path / "run").read(tmp_path / "run" / "status.json")["best"].get("share")
    assert share is not None
    assert f"{share:.0%} of the way from its start" in report
    assert report.count("% of the way</td>") == 3
    marked = re.search(r'<g class="best"><line x1="([\d.]+)"', report)
    assert marked is not None
    point = f"{share:.0%} of the way from its start to epoch 2"
    assert re.search(rf'<circle cx="{marked[1]}"[^>]*><title>soups and interpolations: [^<]* at {point}<', report)
    with (tmp_path / "run" / "metrics.csv").open() as file:
        assert [row["share"] for row in csv.DictReader(file)] == ["", "", *map(str, merging.SHARES)]
    events = b"".join(path.read_bytes() for path in (tmp_path / "run" / "tensorboard").iterdir())
    assert events.count(b"75% of the way from its start/val_calibrated_loss") == 1
    longer = ("--set", "stages.top.epochs=3", "--allow-change", "stages.top.epochs")
    done = cli("resume", tmp_path / "run", *longer)
    assert done.code == 0, done.err
    assert [(row["epoch"], row.get("share")) for row in read_metrics(tmp_path / "run" / "metrics.jsonl")] == [
        *((epoch, None) for epoch in (1, 2, 3)),
        *((3, share) for share in merging.SHARES),
    ]


def test_a_monitor_of_training_says_nothing_of_what_lies_between(photos: Path, tmp_path: Path) -> None:
    run = begin(photos, tmp_path / "run", plan=far(), monitor="train_loss")
    assert not rows(run)
    log = (run.path / "log.txt").read_text()
    assert "stage 'all': interpolate has no effect: train_loss is not of validation images" in log
    assert "all: no interpolation" in log


def test_it_has_to_beat_every_epoch_and_leaves_restore_best_its_own_choice(photos: Path, tmp_path: Path) -> None:
    seen = Weights()
    rule = rg.EarlyStopping(monitor="train_loss", patience=9, restore_best=True)
    more = rg.Stage("more", train="head", optimizer="sgd", epochs=1, batch_size=4, lr=0.01)
    plan = [*far(early_stopping=rule), more]
    run = begin(photos, tmp_path / "run", plan=plan, callbacks=[seen], monitor="val_loss")
    kept = next(epoch for epoch in run.read(run.networks)["stages"] if epoch["stage"] == "all")
    epochs = [row for row in read_metrics(run.metrics) if row["kind"] == "epoch" and row["stage"] == "all"]
    assert kept["share"] is not None
    assert kept["value"] < min(row["val_loss"] for row in epochs)
    chosen = load_file(run.weights(kept["step"]) / "model.safetensors")
    assert any(not torch.equal(tensor, seen.start[name]) for name, tensor in chosen.items()), "the rule's own epoch"
