"""What a recipe says about data reaches the network: sources, splits, folds, colours, sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import regraft as rg
from regraft.compute.numerics import choose_numerics
from regraft.data.decode.decode import PixelProgram
from regraft.data.decode.preprocess import Preprocessing
from regraft.models.describe.info import preprocessing_of
from regraft.models.store.folder import load_model
from tests.conftest import Cli, photos

STAGES = [{"name": "head", "train": "head", "epochs": 1, "optimizer": "sgd", "lr": 0.1}]


def run_with(source: Path, out: Path, *, model: dict[str, Any] | None = None, **settings: Any) -> Path:
    recipe = {
        "model": {"name": "test_resnet", "weights": "none", "image_size": 32, **(model or {})},
        "stages": STAGES,
        "numerics": {"precision": "fp32", "threads": 1},
        **settings,
        "data": {"source": str(source), **settings.get("data", {})},
    }
    return rg.run_recipe(recipe, out=out, show=False).path


def stored(run: Path) -> Preprocessing:
    return preprocessing_of(load_model(run))


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_sides_may_differ_with_every_way_to_resize(tiny_photos: Path, tmp_path: Path, resize: str) -> None:
    head = {"pool": "flatten", "hidden": [8]} if resize == "pad" else {}
    run = run_with(tiny_photos, tmp_path / "run", model={"image_size": [32, 56]}, data={"resize": resize}, head=head)
    pixels = stored(run).pixels
    assert (pixels.size, pixels.resize) == ((32, 56), resize)
    rows = rg.predict(run, tiny_photos, numerics=choose_numerics(precision="fp32", threads=1))
    assert len(rows) == 36
    assert all(row.error is None for row in rows)
    measures = rg.evaluate(run)
    kept = {row["path"]: row for row in map(json.loads, (run / "predictions" / "test.jsonl").read_text().splitlines())}
    for row in rows:
        if row.path in kept:
            assert kept[row.path]["probabilities"] == pytest.approx(row.probabilities, abs=1e-5)
    assert measures["num_images"] == len(kept) > 0


@pytest.mark.parametrize(
    ("preprocess", "expected"),
    [
        ("caffe", {"mean": (103.939 / 255, 116.779 / 255, 123.68 / 255), "std": (1 / 255,) * 3, "channels": "BGR"}),
        ("tf", {"mean": (0.5,) * 3, "std": (0.5,) * 3, "channels": "RGB"}),
        ("torch", {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "channels": "RGB"}),
        ("raw", {"mean": (0.0,) * 3, "std": (1 / 255,) * 3, "channels": "RGB"}),
        ({"mean": [100, 110, 120], "scale": 255}, {"mean": (100 / 255, 110 / 255, 120 / 255), "std": (1 / 255,) * 3}),
        ({"mean": 0.5, "std": 0.25, "channels": "BGR"}, {"mean": (0.5,) * 3, "std": (0.25,) * 3, "channels": "BGR"}),
    ],
)
def test_colours_are_prepared_as_the_recipe_says(tiny_photos: Path, preprocess: Any, expected: dict[str, Any]) -> None:
    from regraft.assembly.preprocessing import preprocessing_for
    from regraft.models.zoo.build import build_model
    from regraft.recipe.recipe import validate_recipe

    recipe = validate_recipe({"model": {"image_size": [30, 40]}, "data": {"preprocess": preprocess, "resize": "pad"}})
    value = preprocessing_for(recipe, build_model("test_resnet"))
    assert (value.pixels.size, value.pixels.resize) == ((30, 40), "pad")
    for name, wanted in expected.items():
        given = getattr(value, name)
        assert given == wanted if isinstance(wanted, str) else given == pytest.approx(wanted)


def test_a_run_keeps_its_colours_and_its_recipe_gives_them_again(tiny_photos: Path, tmp_path: Path) -> None:
    first = run_with(tiny_photos, tmp_path / "one", data={"preprocess": "caffe", "resize": "pad"})
    assert stored(first).channels == "BGR"
    recipe = yaml.safe_load((first / "recipe.yaml").read_text())
    again = rg.run_recipe(recipe, out=tmp_path / "two", show=False).path
    assert stored(again) == stored(first)
    weights = [(run / "model" / "model.safetensors").read_bytes() for run in (first, again)]
    assert weights[0] == weights[1]
    recipe["model"]["image_size"] = [24, 40]
    recipe["data"]["resize"] = "crop"
    changed = stored(rg.run_recipe(recipe, out=tmp_path / "three", show=False).path)
    assert (changed.pixels.size, changed.pixels.resize, changed.channels) == ((24, 40), "crop", "BGR")


def test_grey_images_take_the_mean_of_a_familys_colours() -> None:
    from regraft.assembly.preprocessing import preprocessing_for
    from regraft.models.zoo.build import build_model
    from regraft.recipe.recipe import validate_recipe

    recipe = validate_recipe({"model": {"in_channels": 1}, "data": {"preprocess": "tf"}})
    value = preprocessing_for(recipe, build_model("test_resnet"))
    assert (value.channels, value.mean, value.std) == ("L", (0.5,), (0.5,))


def test_training_on_a_table_from_the_command_line(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = photos(tmp_path / "photos", {"green": 8, "red": 8})
    paths = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*.png"))]
    (root / "colours.csv").write_text("file;class\n" + "".join(f"{path};{path[:3]}\n" for path in paths))
    options = ("--model", "test_resnet", "--stages", "head", "--set", "model.weights=none", "--image-size", "32")
    result = cli("train", "photos/colours.csv", *options, "--set", "data.fractions=[0.5,0.25,0.25]", "--threads", "1")
    assert result.code == 0, result.err
    run = tmp_path / "runs" / "colours-1"
    splits = json.loads((run / "splits.json").read_text())
    assert {name: len(rows) for name, rows in splits["splits"].items()} == {"train": 8, "val": 4, "test": 4}
    assert splits["splits"]["train"][0][1] in ("gre", "red")
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    assert recipe["data"]["source"] == str(root / "colours.csv")
    assert recipe["data"]["fractions"] == [0.5, 0.25, 0.25]
    assert "accuracy (test)" in result.out
    assert (run / "report.html").is_file()
    measured = cli("evaluate", run, "photos/colours.csv")
    assert "accuracy (colours)" in measured.out, measured.err
    assert "of 16 images" in measured.out

    (root / "colours.csv").write_text("file;class\nlost.png;red\n")
    refused = cli("train", "photos/colours.csv", *options)
    assert refused.code == 3
    assert "colours.csv, row 2: there is no file 'lost.png'." in refused.err


def test_a_recipes_labels_go_with_the_source_that_is_replaced(cli: Cli, tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", {"green": 4, "red": 4})
    (tmp_path / "mine.yaml").write_text(
        "model: {name: test_resnet, weights: none, image_size: 32}\ndata: {source: elsewhere, labels: lost.csv}\n"
    )
    result = cli("train", root, "--recipe", tmp_path / "mine.yaml", "--dry-run")
    assert result.code == 0, result.err
    result = cli("train", root, "--recipe", tmp_path / "mine.yaml", "--dry-run", "--labels", "lost.csv")
    assert "There is no file" in result.err


def test_a_fold_is_a_run_of_its_own(tiny_photos: Path, tmp_path: Path) -> None:
    run = run_with(tiny_photos, tmp_path / "run", data={"fold": [1, 3]}, seed=7)
    splits = json.loads((run / "splits.json").read_text())
    expected = rg.open_data(tiny_photos, seed=7, fold=(1, 3))
    assert {name: [path for path, _ in rows] for name, rows in splits["splits"].items()} == {
        name: [Path(path).relative_to(tiny_photos).as_posix() for path in split.paths]
        for name, split in expected.splits.items()
    }
    assert yaml.safe_load((run / "recipe.yaml").read_text())["data"]["fold"] == [1, 3]


def test_pixels_of_unequal_sides_hold_what_the_policies_say() -> None:
    """A picture of 20 x 40 pixels, left half black and right half white, in a size of 30 high and 40 wide."""
    import io

    from PIL import Image

    from regraft.data.decode.decode import decode

    picture = np.zeros((20, 40, 3), np.uint8)
    picture[:, 20:] = 255
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    out = {
        resize: decode(buffer.getvalue(), PixelProgram((30, 40), resize, "nearest", background=(9, 9, 9)))  # type: ignore[arg-type]
        for resize in ("squash", "crop", "pad")
    }
    assert all(pixels.shape == (30, 40, 3) for pixels in out.values())
    for resize in ("squash", "crop"):
        assert (out[resize][:, :19] == 0).all()
        assert (out[resize][:, 21:] == 255).all()
    assert (out["pad"][:5] == 9).all()
    assert (out["pad"][25:] == 9).all()
    assert (out["pad"][5:25] == picture).all()
