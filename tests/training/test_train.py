"""Whole runs on small photos: what is written, same bits twice, and a stopped run that goes on to the same bits."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import regraft as rg
from regraft import pipeline
from regraft.compute.numerics import choose_numerics
from regraft.errors import DataError, DivergedError, SettingsError, StoppedError
from regraft.run.folder import RunFolder
from regraft.run.records import read_metrics
from regraft.settings.monitor import EarlyStopping
from regraft.training.checkpoint import saver as saver_module
from regraft.training.loop import gradient_stage
from tests.training.conftest import small_model, two_stages
from tests.training.tiny import Killed, kill_at_step


def run_small(photos: Path, out: Path, *, stages: list[rg.Stage] | None = None, **settings: Any) -> RunFolder:
    data = rg.open_data(photos)
    model = small_model(data.class_names, head=rg.Head(dropout=0.3))
    plan = rg.make_plan(model, stages or two_stages())
    return rg.train(model, plan, data, out=out, seed=5, show=False, **settings)


def weights_hash(run: RunFolder) -> str:
    return hashlib.sha256((run.model / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run_small(photos, tmp_path_factory.mktemp("runs") / "finished")


def test_run_folder_holds_what_the_design_says(finished: RunFolder) -> None:
    for name in [
        "recipe.yaml",
        "command.txt",
        "environment.json",
        "status.json",
        "classes.json",
        "splits.json",
        "audit.json",
        "metrics.jsonl",
        "log.txt",
        "last.json",
        "best.json",
        "model/config.json",
        "model/model.safetensors",
        "model/probes.safetensors",
        "model/README.md",
    ]:
        assert (finished.path / name).is_file(), name
    assert json.loads(finished.status.read_text())["state"] == "finished"
    assert json.loads(finished.classes.read_text()) == ["bright", "dark"]
    assert not [path for path in finished.path.rglob(".*") if path.name.startswith(".")], "something temporary is left"


def test_metrics_have_each_epoch_once(finished: RunFolder) -> None:
    rows = read_metrics(finished.metrics)
    assert [(row["stage"], row["epoch"]) for row in rows] == [("head", 1), ("head", 2), ("top", 1), ("top", 2)]
    assert [row["step"] for row in rows] == [3, 6, 9, 12]
    assert all(row["val_loss"] > 0 and 0 <= row["val_top1"] <= 1 and row["images_per_second"] > 0 for row in rows)


def test_audit_shows_what_moved_and_what_did_not(finished: RunFolder) -> None:
    head, top = json.loads(finished.audit.read_text())["stages"]
    assert head["verdict"] == top["verdict"] == "ok"
    assert [tensor["name"] for tensor in head["trainable"]] == ["classifier.weight", "classifier.bias"]
    assert top["num_trainable"] > head["num_trainable"]
    assert all(tensor["moved"] > 0 and tensor["grad_norm"] > 0 for tensor in head["trainable"])


def test_only_best_and_last_checkpoints_and_the_weights_of_each_stage_are_kept(finished: RunFolder) -> None:
    best, last = (json.loads(path.read_text())["checkpoint"] for path in (finished.best, finished.last))
    networks = json.loads(finished.networks.read_text())
    of_stages = {finished.weights(network["step"]).name for network in networks["stages"]}
    assert {path.name for path in finished.checkpoints.iterdir()} == {best, last, *of_stages}
    for name in of_stages - {best, last}:
        assert {file.name for file in (finished.checkpoints / name).iterdir()} == {"model.safetensors", "manifest.json"}


def test_best_epoch_is_the_one_with_the_lowest_calibrated_loss_or_a_later_one_as_good(finished: RunFolder) -> None:
    best = json.loads(finished.best.read_text())
    of_stage = [row for row in read_metrics(finished.metrics) if row["stage"] == best["stage"]]
    lowest = min(of_stage, key=lambda row: row["val_calibrated_loss"])
    (chosen,) = [row for row in of_stage if row["epoch"] == best["epoch"]]
    assert best["value"] == chosen["val_calibrated_loss"]
    assert chosen["epoch"] >= lowest["epoch"]
    assert (chosen is lowest) == ("within their noise" not in finished.log.read_text())


def test_same_seed_gives_same_bits(finished: RunFolder, photos: Path, tmp_path: Path) -> None:
    again = run_small(photos, tmp_path / "again")
    assert weights_hash(again) == weights_hash(finished)
    other = run_small(photos, tmp_path / "other", stages=two_stages(lr=2e-2))
    assert weights_hash(other) != weights_hash(finished)


@pytest.mark.parametrize("steps", [1, 3, 4, 7, 11])
def test_killed_run_resumes_to_the_same_bits(steps: int, finished: RunFolder, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed), kill_at_step(steps):
        run_small(photos, tmp_path / "run", save_steps=2)
    run = pipeline.resume(tmp_path / "run", show=False)
    assert weights_hash(run) == weights_hash(finished)
    rows = [{**row, "images_per_second": 0, "data_wait": 0, "seconds": 0} for row in read_metrics(run.metrics)]
    expected = [{**row, "images_per_second": 0, "data_wait": 0, "seconds": 0} for row in read_metrics(finished.metrics)]
    assert rows == expected


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_run_killed_while_saving_resumes_to_the_same_bits(
    number: int, finished: RunFolder, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves = 0
    original = saver_module.save_file

    def save_file(*arguments: Any, **options: Any) -> None:
        nonlocal saves
        saves += 1
        original(*arguments, **options)
        if saves == 2 * number + 4:  # in the middle of a checkpoint: its files are there, its manifest is not
            raise Killed

    monkeypatch.setattr(saver_module, "save_file", save_file)
    with pytest.raises(Killed):
        run_small(photos, tmp_path / "run")
    monkeypatch.undo()
    assert weights_hash(pipeline.resume(tmp_path / "run", show=False)) == weights_hash(finished)


def test_signal_saves_and_resume_ends_in_the_same_bits(
    finished: RunFolder, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = gradient_stage.training_step
    done = 0

    def step(*arguments: Any, **options: Any) -> float:
        nonlocal done
        done += 1
        if done == 8:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments, **options)

    monkeypatch.setattr(gradient_stage, "training_step", step)
    assert threading.current_thread() is threading.main_thread()
    with pytest.raises(StoppedError) as caught:
        run_small(photos, tmp_path / "run")
    monkeypatch.undo()
    assert caught.value.exit_code == 143
    assert "regraft resume" in str(caught.value)
    run = RunFolder(tmp_path / "run")
    assert json.loads(run.status.read_text())["state"] == "stopped"
    assert json.loads(run.last.read_text())["step"] == 8, "the very step is saved, not the epoch before"
    assert weights_hash(pipeline.resume(run, show=False)) == weights_hash(finished)


def test_damaged_last_checkpoint_is_passed_over(finished: RunFolder, photos: Path, tmp_path: Path) -> None:
    run = run_small(photos, tmp_path / "run")
    last = run.checkpoint(json.loads(run.last.read_text())["step"])
    best = json.loads(run.best.read_text())["step"]
    if run.checkpoint(best) == last:
        pytest.skip("best and last are one checkpoint in this run, so there is none before")
    weights = last / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    run.status.unlink()
    assert weights_hash(pipeline.resume(run, show=False)) == weights_hash(finished)


def test_resume_of_a_finished_run_changes_nothing(finished: RunFolder) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.path.rglob("*")}
    pipeline.resume(finished)
    assert {path: path.stat().st_mtime_ns for path in finished.path.rglob("*")} == before


def test_resume_refuses_changed_images(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    copy = tmp_path / "photos"
    shutil.copytree(photos, copy)
    run = run_small(copy, tmp_path / "run")
    run.status.unlink()
    first, second = copy / "train/bright/0.png", copy / "train/dark/0.png"
    first.write_bytes(second.read_bytes())
    with pytest.raises(DataError, match="have changed since"):
        pipeline.resume(run, show=False)


def test_diverged_run_stops_before_the_step(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DivergedError) as caught:
        run_small(photos, tmp_path / "run", stages=two_stages(lr=1e30, optimizer="sgd"))
    assert caught.value.exit_code == 5
    run = RunFolder(tmp_path / "run")
    assert json.loads(run.status.read_text())["state"] == "failed"
    for step in run.checkpoint_steps():
        stored = load_file(run.checkpoint(step) / "model.safetensors")
        assert all(torch.isfinite(tensor).all() for tensor in stored.values() if tensor.is_floating_point())


def test_early_stopping_ends_a_stage_early(photos: Path, tmp_path: Path) -> None:
    rule = EarlyStopping(monitor="val_loss", patience=1, min_delta=1e9)
    stages = [rg.Stage("head", optimizer="adamw", epochs=6, batch_size=8, early_stopping=rule)]
    run = run_small(photos, tmp_path / "run", stages=stages)
    assert [row["epoch"] for row in read_metrics(run.metrics)] == [1, 2]


def test_lbfgs_solves_the_head_and_beats_no_training(photos: Path, tmp_path: Path) -> None:
    data = rg.open_data(photos)
    model = small_model(data.class_names)
    plan = rg.make_plan(model, [rg.Stage("head")])
    assert plan.stages[0].optimizer == "lbfgs"
    run = rg.train(model, plan, data, out=tmp_path / "run", show=False)
    rows = read_metrics(run.metrics)
    losses = [row["train_loss"] for row in rows]
    assert losses == sorted(losses, reverse=True), "each weaker regularisation fits the training images better"
    assert max(row["val_top1"] for row in rows) == 1.0
    again = rg.train(small_model(data.class_names), plan, data, out=tmp_path / "again", show=False)
    assert weights_hash(run) == weights_hash(again)


def test_lbfgs_equals_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    from regraft.training.objective.lbfgs import solve_head
    from regraft.training.objective.losses import build_loss

    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (300,), generator=generator)
    features = torch.randn(300, 8, generator=generator, dtype=torch.float64) + labels[:, None] * 0.3
    center, scale = features.mean(0), (features - features.mean(0)).square().mean().sqrt()
    scaled = ((features - center) / scale).numpy()
    for solution in list(solve_head(features, labels, 3, build_loss("softmax")))[:6]:
        oracle = LogisticRegression(C=1 / (solution.strength * 300), tol=1e-10, max_iter=10_000)
        oracle.fit(scaled, labels.numpy())
        ours = (features @ solution.weight.double().T + solution.bias).softmax(1)
        assert torch.allclose(ours, torch.from_numpy(oracle.predict_proba(scaled)), atol=1e-4)


@pytest.mark.parametrize("cache", ["off", "ram", "disk"])
def test_streamed_and_cached_pixels_give_the_same_bits(
    cache: str, finished: RunFolder, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path / "cache"))
    run = run_small(photos, tmp_path / "run", cache=cache, feature_cache="off")
    assert weights_hash(run) == weights_hash(finished)
    assert {"off": "decoded again", "ram": "in memory", "disk": "32 of them on the disk"}[cache] in run.log.read_text()


def test_threads_of_loading_do_not_change_the_order(photos: Path, tmp_path: Path) -> None:
    runs = [
        run_small(photos, tmp_path / str(threads), numerics=choose_numerics("cpu", "fp32", threads))
        for threads in (1, 2)
    ]
    first, second = ([row["train_loss"] for row in read_metrics(run.metrics)] for run in runs)
    assert first == pytest.approx(second, rel=1e-4)
    torch.set_num_threads(choose_numerics("cpu").threads)


def test_other_classes_than_the_model_are_refused(photos: Path, tmp_path: Path) -> None:
    data = rg.open_data(photos)
    model = small_model(("dark", "bright"))
    with pytest.raises(DataError, match="classes are not those"):
        rg.train(model, rg.make_plan(model, [rg.Stage("head")]), data, out=tmp_path / "run", show=False)
    assert not (tmp_path / "run").exists()


def test_existing_out_is_refused_and_left_alone(finished: RunFolder, photos: Path) -> None:
    with pytest.raises(SettingsError, match="exists already"):
        run_small(photos, finished.path)
    assert json.loads(finished.status.read_text())["state"] == "finished"


def test_own_module_trains_and_resumes(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def own() -> nn.Module:
        torch.manual_seed(1)
        layers = [nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return rg.adapt(nn.Sequential(*layers, nn.Linear(8, 5)), classes=("bright", "dark"), image_size=32)

    def start(out: Path) -> RunFolder:
        model = own()
        stages = [rg.Stage("all", train="all", optimizer="sgd", epochs=2, batch_size=8)]
        return rg.train(model, rg.make_plan(model, stages), rg.open_data(photos), out=out, show=False)

    whole = start(tmp_path / "whole")
    with pytest.raises(Killed), kill_at_step(4):
        start(tmp_path / "run")
    run = pipeline.resume(tmp_path / "run", model=own(), show=False)
    assert weights_hash(run) == weights_hash(whole)
    loaded = rg.load_model(run.path, model=own())
    assert [row.error for row in rg.predict(loaded, photos / "val")] == [None] * 12
