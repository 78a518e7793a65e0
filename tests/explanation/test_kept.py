"""A run keeps a few heat maps, and its report shows those that belong to its predictions."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch

import regraft as rg
from regraft.explanation.kept import keep_heat_maps
from regraft.models.describe.info import info_of, set_info
from regraft.models.store.folder import load_model
from regraft.pipeline import finish
from regraft.report.evidence import Evaluated
from regraft.report.gallery.heat_maps import heat_maps
from regraft.run.folder import RunFolder


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> RunFolder:
    return RunFolder(shutil.copytree(tiny_run, tmp_path / "run"))


def test_a_finished_run_has_some_in_its_report(run: RunFolder) -> None:
    outcome = finish(run)
    split = outcome.measures["split"]
    kept = json.loads(run.heat_maps(split).read_text())["images"]
    assert 0 < len(kept) <= 12
    assert run.heat_maps(split).stat().st_size < 400_000
    page = outcome.report.read_text(encoding="utf-8")
    assert page.count("and where it speaks for") == len(kept)
    assert "Heat maps" in page


def test_maps_of_other_predictions_are_not_shown(run: RunFolder) -> None:
    split = finish(run).measures["split"]
    rows = run.predictions / f"{split}.jsonl"
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    for line in lines:
        line["probabilities"] = {name: share / 2 for name, share in line["probabilities"].items()}
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "and where it speaks for" not in rg.write_report(run).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "kept",
    [
        {},
        {"images": []},
        {"images": {"a.png": 3}},
        {"images": {"a.png": {"jpeg": '"><script>', "class": "red", "prediction": "red", "probability": 0.9}}},
        {"images": {"a.png": {"jpeg": "AAAA", "class": "red", "prediction": "red", "probability": 0.9}}},
        {"images": {"a.png": {"jpeg": "/9j/", "class": "red", "prediction": "red", "probability": "much"}}},
    ],
)
def test_damaged_records_show_nothing(kept: dict[str, object]) -> None:
    row = {"path": "a.png", "prediction": "red", "probabilities": {"red": 0.9}, "label": "blue"}
    assert heat_maps(Evaluated("test", {}, worst=[row], heat=kept)) == ""


def test_names_are_escaped() -> None:
    entry = {"jpeg": "/9j/", "class": "<b>", "prediction": "<b>", "probability": 0.9}
    row = {"path": "<i>.png", "prediction": "<b>", "probabilities": {"<b>": 0.9}, "label": ["<b>", "<u>"]}
    page = heat_maps(Evaluated("test", {}, worst=[row], heat={"images": {"<i>.png": entry}}))
    assert "&lt;b&gt;" in page
    assert not {"<b>", "<i>", "<u>"} & set(page.split())
    assert "<b>" not in page


def test_networks_without_places_keep_none(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    info = replace(info_of(load_model(run.path)), head=("head",))
    tokens = timm.create_model("test_vit", num_classes=3).eval()
    torch.manual_seed(0)
    set_info(tokens, info)
    monkeypatch.setattr("regraft.explanation.kept.load_model", lambda path: tokens)
    assert keep_heat_maps(run, "test") == 0
    assert not run.heat_maps("test").exists()


def test_a_split_that_was_not_evaluated_keeps_none(run: RunFolder) -> None:
    assert keep_heat_maps(run, "train") == 0
