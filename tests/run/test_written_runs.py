"""Run folders that earlier versions wrote are resumed, evaluated, reported and predicted with."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from tests.run.written.make_runs import files_of, write_photos, write_scenes

import regraft as rg
from regraft.run.folder import RunFolder, open_run

WRITTEN = Path(__file__).parent / "written"
VERSIONS = sorted(folder.name for folder in WRITTEN.iterdir() if any(folder.glob("*.tar.xz")))


@pytest.fixture(params=VERSIONS)
def work(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the runs were written in, with their images."""
    monkeypatch.chdir(tmp_path)
    write_photos(Path("photos"))
    write_scenes(Path("scenes"))
    for packed in (WRITTEN / str(request.param)).glob("*.tar.xz"):
        with tarfile.open(packed) as archive:
            archive.extractall(tmp_path, filter="data")
    return tmp_path


def expected(name: str) -> dict[str, dict[str, float]]:
    return json.loads(Path(f"{name}.json").read_text())


def predicted(name: str) -> dict[str, dict[str, float]]:
    return {row.path: row.probabilities for row in rg.predict(name, files_of("photos"))}


def resumed(name: str, *allowed: str, epochs: int = 3) -> RunFolder:
    """Go on with a run whose images lie elsewhere now."""
    recipe = open_run(name).settings()
    recipe["data"]["source"] = "photos"
    recipe["stages"][-1]["epochs"] = epochs
    return rg.resume(name, recipe=recipe, allow_change=["data.source", *allowed], show=False)


def require_close(found: dict[str, dict[str, float]], name: str, within: float) -> None:
    wanted = expected(name)
    assert found.keys() == wanted.keys()
    for path, values in wanted.items():
        assert found[path] == pytest.approx(values, abs=within), path


def test_a_finished_run_predicts_what_it_predicted(work: Path) -> None:
    require_close(predicted("finished"), "finished", within=1e-4)


def test_a_finished_run_is_evaluated_reported_and_resumed(work: Path) -> None:
    before = (work / "finished" / "model" / "model.safetensors").read_bytes()
    assert 0 <= rg.evaluate("finished", "photos")["top1"] <= 1
    assert rg.write_report("finished").is_file()
    assert rg.resume("finished", show=False).is_finished
    assert (work / "finished" / "model" / "model.safetensors").read_bytes() == before


def test_a_finished_run_can_be_given_more_epochs(work: Path) -> None:
    run = resumed("finished", "stages.1.epochs", epochs=4)
    assert run.is_finished
    assert run.settings()["stages"][-1]["epochs"] == 4


def test_a_stopped_run_goes_on_to_the_same_network(work: Path) -> None:
    """Other processors round otherwise, so its predictions are compared, not its bits."""
    assert resumed("stopped").is_finished
    require_close(predicted("stopped"), "stopped", within=1e-3)


def test_masks_of_an_earlier_version_are_drawn_and_evaluated(work: Path) -> None:
    rows = rg.predict_masks("segmentation", files_of("scenes"))
    require_close({row.path: row.shares for row in rows}, "segmentation", within=5e-3)
    assert 0 <= rg.evaluate("segmentation", "scenes")["miou"] <= 1
