"""Networks of other channels than red, green and blue: trained, resumed, evaluated, reported, asked; by recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file

import regraft as rg
from regraft.errors import SettingsError, StoppedError
from regraft.models.describe.info import preprocessing_of
from tests.conftest import TINY_MODEL, Cli
from tests.data.tiff_writer import tiff

BANDS = ["R", "G", "B", "NIR", "SWIR"]


def picture(path: Path, num_bands: int, last: int, seed: int) -> None:
    """Noise in all bands but the last one, which tells the class."""
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 20, num_bands), dtype=np.uint8)
    pixels[..., -1] = last + pixels[..., 0] // 8
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        path.write_bytes(tiff(pixels, t262=2, compression=8))
    else:
        Image.fromarray(pixels).save(path)


def pictures(root: Path, num_bands: int) -> Path:
    for place, name in enumerate(["dry", "wet"]):
        for number in range(10):
            suffix = "tif" if num_bands > 4 else "png"
            picture(root / name / f"{number:02}.{suffix}", num_bands, 200 * place, seed=100 * place + number)
    return root


def recipe(source: Path, **model: Any) -> dict[str, Any]:
    return {
        "model": {"name": TINY_MODEL, "weights": "none", "image_size": 32, **model},
        "data": {"source": str(source), "batch_size": 4},
        "stages": [
            {"name": "head", "train": "head", "epochs": 1, "optimizer": "adam"},
            {
                "name": "all",
                "train": "all",
                "epochs": 2,
                "lr": 1e-3,
                "augment": {"rotation": 20, "flip": "both", "contrast": 0.2, "erase": 0.5},
            },
        ],
        "numerics": {"precision": "fp32"},
        "save_steps": 3,
    }


@pytest.mark.parametrize(
    ("num_bands", "model"),
    [
        pytest.param(4, {"in_channels": 4}, marks=pytest.mark.slow),
        (4, {"bands": ["R", "G", "B", "A"]}),
        (5, {"bands": BANDS}),
        (2, {"in_channels": 2}),
    ],
    ids=str,
)
def test_a_run_on_bands(
    num_bands: int, model: dict[str, Any], cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = pictures(tmp_path / "p", num_bands)
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe(source, **model)))
    shown = cli("train", "--recipe", tmp_path / "r.yaml", "--dry-run")
    assert shown.code == 0, shown.err
    names = model.get("bands") or [f"band{place + 1}" for place in range(num_bands)]
    assert f"channels {', '.join(names)}" in shown.out
    trained = cli("train", "--recipe", tmp_path / "r.yaml", "--out", tmp_path / "whole")
    assert trained.code == 0, trained.err

    on_disk = recipe(source, **model)
    on_disk["data"]["cache"] = "disk"
    _stopped_and_resumed(on_disk, tmp_path / "stopped", monkeypatch)
    first, second = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "stopped"))
    assert all(first[name].equal(second[name]) for name in first)

    assert cli("evaluate", tmp_path / "whole").code == 0
    assert cli("report", tmp_path / "whole").code == 0
    rows = list(rg.predict(tmp_path / "whole", source))
    assert len(rows) == 20
    assert not any(row.error for row in rows)
    described = preprocessing_of(rg.load_model(tmp_path / "whole"))
    assert described.pixels.bands == described.channels == tuple(names)
    assert len(described.mean) == num_bands


def _stopped_and_resumed(settings: dict[str, Any], out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from regraft.training.loop import gradient_stage

    real = gradient_stage.seed_step

    def stop(seed: int, number: int, *rest: Any) -> None:
        if number == 7:
            raise StoppedError("Stopped by the test.", "", "", exit_code=130)
        real(seed, number, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(gradient_stage, "seed_step", stop)
        with pytest.raises(StoppedError, match="Stopped by the test"):
            rg.run_recipe(settings, out=out, show=False)
    rg.resume(out, show=False)


def test_the_last_band_decides(tmp_path: Path) -> None:
    """Nothing else differs between the classes."""
    source = pictures(tmp_path / "p", 4)
    settings = recipe(source, bands=["R", "G", "B", "A"])
    settings["stages"] = [
        {"name": "all", "train": "all", "epochs": 12, "optimizer": "adamw", "lr": 3e-3, "bn": "train"}
    ]
    run = rg.run_recipe(settings, out=tmp_path / "run", show=False)
    for last, name in ((10, "dry"), (215, "wet")):
        picture(tmp_path / "one.png", 4, last, seed=7)
        assert rg.predict(run.path, tmp_path / "one.png")[0].prediction == name


@pytest.mark.parametrize("model", [{"in_channels": 4}, {"bands": ["R", "G", "B", "NIR"]}])
@pytest.mark.parametrize("dry", [True, False])
def test_photos_are_refused_before_anything_is_written(
    model: dict[str, Any], dry: bool, tiny_photos: Path, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe(tiny_photos, **model)))
    told = cli("train", "--recipe", tmp_path / "r.yaml", "--out", tmp_path / "run", *(["--dry-run"] if dry else []))
    assert told.code == SettingsError.exit_code
    assert "takes 4 bands" in told.err
    assert "holds 3 bands (R, G, B), not the 4 wanted" in told.err
    assert "model.bands=[R,G,B,A]" in told.err
    assert not (tmp_path / "run").exists()


def test_colours_that_are_not_there_cannot_change(tmp_path: Path) -> None:
    settings = recipe(pictures(tmp_path / "p", 4), in_channels=4)
    settings["stages"][1]["augment"] = {"hue": 0.1}
    with pytest.raises(SettingsError, match="images of 4 bands, in stage 'all'"):
        rg.run_recipe(settings, out=tmp_path / "run", show=False)
    assert not (tmp_path / "run").exists()


def test_images_of_other_bands_are_quarantined_and_rows_of_predictions(tmp_path: Path) -> None:
    source = pictures(tmp_path / "p", 5)
    Image.fromarray(np.zeros((24, 20, 3), np.uint8)).save(source / "dry" / "photo.png")
    settings = recipe(source, bands=BANDS)
    settings["stages"] = settings["stages"][:1]
    settings["data"]["fractions"] = [0.5, 0.5, 0.0]
    run = rg.run_recipe(settings, out=tmp_path / "run", show=False)
    reason = f"holds 3 bands (R, G, B), not the 5 wanted: {', '.join(BANDS)}"
    assert reason in run.splits.read_text()
    row = rg.predict(run.path, source / "dry" / "photo.png")[0]
    assert (row.prediction, row.error) == (None, reason)


def test_grey_pictures_for_a_network_of_one_channel(cli: Cli, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for place, name in enumerate(["dark", "light"]):
        for number in range(8):
            pixels = (150 * place + rng.integers(0, 90, (24, 20))).astype(np.uint8)
            (tmp_path / "p" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "p" / name / f"{number}.png")
    settings = recipe(tmp_path / "p", in_channels=1)
    run = rg.run_recipe(settings, out=tmp_path / "run", show=False)
    assert preprocessing_of(rg.load_model(run.path)).channels == "L"
    assert len(rg.predict(run.path, tmp_path / "p")) == 16
