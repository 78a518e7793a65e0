"""`--checkpoint`: the networks that a run has trained and not chosen, in every verb that reads one."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.training.tiny import few_photos_in
from typer.testing import CliRunner

import regraft as rg
from regraft.cli.main import app
from regraft.errors import SettingsError, StorageError
from regraft.run.folder import RunFolder, open_run

STAGES = [
    {"name": "head/one", "train": "head", "epochs": 1, "optimizer": "adamw", "lr": 0.1},
    {"name": "all", "train": "all", "epochs": 3, "optimizer": "sgd", "lr": 1e-3, "image_size": 40},
]


def recipe(photos: Path, **changes: Any) -> dict[str, Any]:
    return {
        "model": {"name": "test_resnet", "weights": "none", "image_size": 32},
        "data": {"source": str(photos), "batch_size": 4},
        "numerics": {"precision": "fp32", "threads": 1},
        "monitor": "val_loss",
        "mode": "max",  # the first stage, which has learnt least, is delivered
        "stages": STAGES,
        **changes,
    }


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return few_photos_in(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return rg.run_recipe(recipe(photos), out=tmp_path_factory.mktemp("runs") / "run", show=False)


def typed(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


def other_than_delivered(run: RunFolder) -> str:
    delivered = json.loads(run.best.read_text())["stage"]
    return next(stage["name"] for stage in STAGES if stage["name"] != delivered)


def test_the_best_of_each_stage_and_the_last_epoch_are_kept(run: RunFolder) -> None:
    networks = json.loads(run.networks.read_text())
    assert [network["stage"] for network in networks["stages"]] == ["head/one", "all"]
    assert networks["last"]["epoch"] == 3
    for network in (*networks["stages"], networks["last"]):
        model = rg.load_model(run.path, checkpoint="last" if network is networks["last"] else network["stage"])
        stored = load_file(run.weights(network["step"]) / "model.safetensors")
        assert all(torch.equal(value, stored[name]) for name, value in model.state_dict().items())
    names = sorted(path.name for path in run.checkpoints.iterdir())
    assert all((run.checkpoints / name / "optimizer.safetensors").exists() == name.startswith("step") for name in names)


def test_each_network_looks_at_the_size_of_its_stage(run: RunFolder) -> None:
    sizes = [
        rg.load_model(run.path, checkpoint=name).regraft_info.preprocessing.pixels.size  # type: ignore[union-attr]
        for name in ("head/one", "all", "last")
    ]
    assert [list(size) for size in sizes] == [[32, 32], [40, 40], [40, 40]]


def test_predict_names_by_the_network_that_is_asked_for(run: RunFolder, photos: Path) -> None:
    rows = {}
    for checkpoint in ("head/one", "all", "last"):
        printed = typed("predict", run.path, photos / "val", "--json", "--checkpoint", checkpoint, "--threads", 1)
        rows[checkpoint] = [json.loads(line)["probabilities"] for line in printed.splitlines()]
        own = rg.predict(run.path, photos / "val", checkpoint=checkpoint)
        assert [row.probabilities for row in own] == [pytest.approx(row, abs=1e-5) for row in rows[checkpoint]]
    assert rows["head/one"] != rows["all"]
    with pytest.raises(SettingsError, match="loaded already"):
        rg.predict(rg.load_model(run.path), photos / "val", checkpoint="last")


def test_evaluate_measures_it_and_leaves_the_figures_of_the_delivered_one(run: RunFolder) -> None:
    delivered = rg.evaluate(run)
    before = (run.predictions / "val.json").read_bytes()
    other = other_than_delivered(run)
    printed = typed("evaluate", run.path, "--checkpoint", other)
    assert f"checkpoint: {other}" in printed
    assert (run.predictions / "val.json").read_bytes() == before
    measures = rg.evaluate(run, checkpoint=other)
    assert measures["checkpoint"] == other
    assert measures["loss"] != delivered["loss"]
    step = next(n["step"] for n in json.loads(run.networks.read_text())["stages"] if n["stage"] == other)
    rows = (run.predictions / f"step-{step:06d}" / "val.jsonl").read_text().splitlines()
    assert len(rows) == measures["num_images"]


def test_convert_writes_its_weights_or_a_model_folder_of_its_own(run: RunFolder, photos: Path, tmp_path: Path) -> None:
    other = other_than_delivered(run)
    wanted = rg.load_model(run.path, checkpoint=other)
    typed("convert", run.path, "--checkpoint", other, "-o", tmp_path / "other.safetensors")
    stored = load_file(tmp_path / "other.safetensors")
    assert all(torch.equal(value, stored[name]) for name, value in wanted.state_dict().items())
    typed("convert", run.path, "--checkpoint", other, "-o", f"{tmp_path / 'folder'}/")
    assert [row.probabilities for row in rg.predict(tmp_path / "folder", photos / "val")] == [
        pytest.approx(row.probabilities, abs=1e-6) for row in rg.predict(wanted, photos / "val")
    ]
    said = typed("convert", tmp_path / "other.safetensors", "--checkpoint", other, "-o", tmp_path / "b.h5", code=2)
    assert "holds one network" in " ".join(said.split())


def test_the_end_of_the_log_says_how_to_take_the_last_stage(run: RunFolder) -> None:
    lines = run.log.read_text()
    if other_than_delivered(run) == "all":
        assert "delivered is stage head/one (val_loss" in lines
        assert "IMAGES --checkpoint all`" in lines


def test_what_is_not_kept_is_said(run: RunFolder, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="keeps no network 'nobody'") as error:
        rg.load_model(run.path, checkpoint="nobody")
    assert "head/one, all, last" in error.value.expected
    copy = RunFolder(Path(shutil.copytree(run.path, tmp_path / "run")))
    copy.networks.unlink()  # as in runs of versions that kept the delivered network alone
    assert len(rg.predict(copy.path, photos / "val")) == 8
    assert "networks.json is missing" in " ".join(
        typed("predict", copy.path, photos / "val", "--checkpoint", "last", code=2).split()
    )
    with pytest.raises(SettingsError, match="not a run's folder"):
        rg.load_model(run.model, checkpoint="last")
    copy = RunFolder(Path(shutil.copytree(run.path, tmp_path / "dropped")))
    shutil.rmtree(copy.checkpoints)  # the user has dropped them
    assert len(rg.predict(copy.path, photos / "val")) == 8
    with pytest.raises(StorageError, match="cannot be read"):
        rg.load_model(copy.path, checkpoint="last")


def test_a_run_that_goes_on_keeps_them(run: RunFolder, tmp_path: Path) -> None:
    copy = open_run(shutil.copytree(run.path, tmp_path / "run"))
    before = json.loads(copy.networks.read_text())["stages"]
    longer = copy.settings()
    longer["stages"].append({**longer["stages"][1], "name": "more", "epochs": 1, "image_size": None})
    rg.resume(copy, recipe=longer, allow_change=["stages.2"], show=False)
    after = json.loads(copy.networks.read_text())["stages"]
    assert after[:2] == before
    assert after[2]["stage"] == "more"
    for network in after:
        rg.load_model(copy.path, checkpoint=network["stage"])
    assert len(copy.checkpoint_steps()) <= 3


def test_labels_take_the_thresholds_of_their_epoch(photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "split"])
        for path in sorted(photos.rglob("*.png")):
            writer.writerow([str(path), path.parent.name, path.parts[-3]])
    changes = {"head": {"output": "binary"}, "monitor": "val_loss", "mode": None}
    made = rg.run_recipe(recipe(photos, **changes), out=tmp_path / "run", show=False)
    networks = json.loads(made.networks.read_text())
    for network in networks["stages"]:
        model = rg.load_model(made.path, checkpoint=network["stage"])
        assert model.regraft_info.thresholds == network["thresholds"]  # type: ignore[union-attr]
        assert network["thresholds"]
