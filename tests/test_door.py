"""The public door: the names that are promised, each of them there, whichever room was entered first."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import regraft
from tests.conftest import photos

SOURCE = Path(regraft.__file__).parent
ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

PUBLIC = [
    "Addition",
    "Augment",
    "BayesianMaps",
    "CacheContents",
    "Callback",
    "Checkup",
    "Comparison",
    "Conversion",
    "DataError",
    "DataSet",
    "DivergedError",
    "EarlyStopping",
    "Explanation",
    "Export",
    "Folds",
    "Freeze",
    "Head",
    "Inspection",
    "Issue",
    "Item",
    "KerasTensor",
    "Layer",
    "LostProcessError",
    "MaskPrediction",
    "MatchReport",
    "ModelRow",
    "Numerics",
    "OutOfMemoryError",
    "Plan",
    "Plateau",
    "Prediction",
    "Pulled",
    "Pushed",
    "RangeTest",
    "RankedModel",
    "Ranking",
    "Recipe",
    "RegraftError",
    "RunFolder",
    "RunRow",
    "Schedule",
    "SettingsError",
    "Signed",
    "Stage",
    "StoppedError",
    "StorageError",
    "SurgeryPlan",
    "WeightFile",
    "WeightsError",
    "adapt",
    "add_class",
    "bayesian_predict",
    "build_model",
    "check",
    "choose_numerics",
    "clear_cache",
    "compare",
    "convert",
    "cross_validate",
    "cut",
    "describe_models",
    "evaluate",
    "explain",
    "export",
    "find_lr",
    "find_pretrained",
    "freeze",
    "graft",
    "inspect",
    "keep_statistics",
    "keras_tensors",
    "list_cache",
    "list_layers",
    "list_models",
    "list_runs",
    "load_model",
    "make_plan",
    "match_weights",
    "open_data",
    "open_run",
    "predict",
    "predict_masks",
    "predict_tiled",
    "pull",
    "push",
    "rank",
    "read_mask",
    "read_recipe",
    "read_weights",
    "replace_layer",
    "resume",
    "resume_folds",
    "run_recipe",
    "serve",
    "sign",
    "slots_of",
    "surgery_plan",
    "tap",
    "train",
    "unfreeze",
    "verify",
    "write_keras",
    "write_report",
]


def test_all_is_sorted_and_is_what_the_documentation_promises() -> None:
    assert regraft.__all__ == sorted(regraft.__all__) == PUBLIC
    assert dir(regraft) == sorted([*PUBLIC, "__version__"])


@pytest.mark.parametrize("name", PUBLIC)
def test_every_name_is_there(name: str) -> None:
    value = getattr(regraft, name)
    assert callable(value)
    assert value.__doc__
    assert value.__name__ == name


def test_other_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        regraft.trian  # noqa: B018


def test_no_room_has_the_name_of_what_is_public() -> None:
    """Importing a room sets its name on the package, over a function of that name."""
    assert not {path.stem for path in SOURCE.iterdir()} & set(PUBLIC)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_import_from_the_door_alone(page: Path) -> None:
    inner = re.findall(r"^\s*(?:from regraft\.|import regraft\.).*$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert inner == []


SCRIPT = """
import torch

import regraft as rg

model: torch.nn.Module = rg.load_model("run")
report: rg.MatchReport = rg.match_weights(rg.read_weights("w.h5"), model)
print(report.coverage["all"])
data: rg.DataSet = rg.open_data("photos", seed=1)
plan: rg.Plan = rg.make_plan(model, [rg.Stage("all", train="all", early_stopping=rg.EarlyStopping(patience=2))])
run: rg.RunFolder = rg.train(model, plan, data, numerics=rg.choose_numerics("cpu"))
rows: list[rg.Prediction] = rg.predict(run.path, ["a.jpg", "b.jpg"])
print(rows[0].prediction, rg.evaluate(run)["top1"], rg.inspect("run").text, rg.list_models("res*")[0])
rg.convert("run", "w.safetensors")
try:
    rg.resume("run")
except rg.StorageError as error:
    print(error.exit_code)
"""


@pytest.mark.slow
def test_a_script_that_follows_the_readme_passes_strict_type_checks(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    assert blocks
    for number, text in enumerate([*blocks, SCRIPT]):
        (tmp_path / f"script{number}.py").write_text(text)
    scripts = sorted(map(str, tmp_path.glob("*.py")))
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", *scripts]
    checked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_records_show_a_few_facts_in_consoles_and_notebooks(tmp_path: Path) -> None:
    run = regraft.RunFolder(tmp_path / "<b>run")
    row = regraft.Prediction("a.jpg", "cat", 0.9, {"cat": 0.9, "dog": 0.1})
    damaged = regraft.Prediction("b.jpg", None, None, {}, "not an image")
    assert repr(run) == f"RunFolder(path={str(run.path)!r}, state='unknown')"
    assert repr(row) == "Prediction(path='a.jpg', prediction='cat', probabilities='cat 0.9000, dog 0.1000')"
    assert repr(damaged) == "Prediction(path='b.jpg', error='not an image')"
    assert "&lt;b&gt;run" in shown(run)
    assert "cat 0.9000" in shown(row)


def test_data_and_plans_show_themselves(tmp_path: Path) -> None:
    data = regraft.open_data(photos(tmp_path / "photos", {"cat": 6, "dog": 6}))
    model = regraft.adapt(regraft.build_model("test_resnet", seed=0), classes=data.class_names)
    plan = regraft.make_plan(model, [regraft.Stage("head", train="head"), regraft.Stage("all", train="all", epochs=2)])
    assert repr(data).startswith(f"DataSet(name={data.name!r}, labels='classes', classes='")
    assert f"train={len(data.train)}" in repr(data)
    assert "adamw, 2 epochs" in repr(plan)
    assert "<th" in shown(plan)
    assert "adamw, 2 epochs" in shown(plan)


def shown(record: Any) -> str:
    """What a notebook shows of it."""
    html: str = record._repr_html_()
    return html
