"""Whole runs on images with masks: trained, resumed, measured, predicted, reported; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

import regraft as rg
from regraft.compute.numerics import choose_numerics
from regraft.errors import DataError, SettingsError
from regraft.evaluation.metrics.pixels import mask_confusion, pixel_metrics
from regraft.models.segment.upscale import resized_rows
from regraft.run.records import read_metrics
from tests.conftest import Cli
from tests.segmentation import COLOURS, SIZE, scenes_in
from tests.training.tiny import Killed, kill_at_step

MODEL = {
    "name": "unet",
    "weights": "none",
    "image_size": list(SIZE),
    "args": {"encoder": "test_resnet", "depth": 3, "filters": [16, 8]},
}
STAGE = {"name": "all", "train": "all", "epochs": 2, "optimizer": "adamw", "lr": 3e-3}
FP32 = choose_numerics("cpu", "fp32", 1)  # as the runs
VARIED = {"flip": "horizontal", "zoom": 0.1, "shift": 0.1, "brightness": 0.2}


def recipe(source: Path, *stages: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return {
        "model": MODEL,
        "data": {"source": str(source), "batch_size": 4},
        "monitor": "val_miou",
        "numerics": {"precision": "fp32", "threads": 1},
        "stages": [{**STAGE, **stage} for stage in stages or ({},)],
        "log": [],
        **settings,
    }


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures to train on; those of the test split are of another size."""
    root = scenes_in(tmp_path_factory.mktemp("scenes"), {"train": 8, "val": 4})
    scenes_in(root, {"test": 3}, size=(60, 100))
    return root


@pytest.fixture(scope="module")
def run(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    stage = {"epochs": 10, "augment": {"flip": "horizontal"}, "loss": {"cross_entropy": 1, "dice": 1}, "ema": 0.5}
    settings = recipe(scenes, {**stage, "class_weights": "median_frequency"})
    made = rg.run_recipe(settings, out=tmp_path_factory.mktemp("runs") / "run", show=False)
    rg.evaluate(made)
    return made.path


def test_a_network_learns_to_name_pixels(run: Path) -> None:
    epochs = read_metrics(run / "metrics.jsonl")
    assert epochs[-1]["val_miou"] > epochs[0]["val_miou"] + 0.1
    assert {"val_loss", "val_pixel_accuracy", "val_class_accuracy"} < set(epochs[0])
    (audit,) = json.loads((run / "audit.json").read_text())["stages"]
    assert audit["verdict"] == "ok"


def test_the_figures_are_those_of_the_masks_that_predict_gives_at_the_images_own_size(run: Path, scenes: Path) -> None:
    measures = json.loads((run / "predictions" / "test.json").read_text())
    counts = np.zeros((3, 3), np.int64)
    for prediction in rg.predict_masks(run, scenes / "test" / "images", numerics=FP32):
        with Image.open(prediction.path.replace("/images/", "/masks/")) as picture:
            truth = np.array(picture)
        assert prediction.mask is not None
        assert prediction.mask.shape == truth.shape == (60, 100)
        assert sum(prediction.shares.values()) == pytest.approx(1)
        counts += mask_confusion(truth, prediction.mask, 3)
    assert measures["confusion"] == counts.tolist()
    assert measures["miou"] == pytest.approx(pixel_metrics(counts, "abc")["miou"])
    assert measures["num_pixels"] == 3 * 60 * 98
    assert measures["boundary_f1"] == pytest.approx(np.mean([row["boundary_f1"] for row in measures["per_class"]]))


def test_rows_are_resized_as_torch_does_it() -> None:
    maps = torch.randn(3, 12, 16, generator=torch.Generator().manual_seed(0))
    for size in ((50, 70), (12, 16), (7, 9), (1, 1)):
        parts = torch.cat([part for _, part in resized_rows(maps, size, rows=8)], dim=1)
        expected = torch.nn.functional.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]
        torch.testing.assert_close(parts, expected, rtol=1e-5, atol=1e-5)


def test_predict_writes_palette_masks_and_overlays(run: Path, scenes: Path, cli: Cli, tmp_path: Path) -> None:
    inputs = tmp_path / "new"
    (inputs / "deep").mkdir(parents=True)
    for name, number in (("a.png", 0), ("deep/a.png", 1)):
        (inputs / name).write_bytes((scenes / "train" / "images" / f"{number:03}.png").read_bytes())
    (inputs / "bad.png").write_bytes(b"")
    out = tmp_path / "masks"
    result = cli("predict", run, inputs, "--out", out, "--overlay", "--tta", "flip", "--precision", "fp32")
    assert result.code == 0, result.err
    rows = [line.split("\t") for line in result.out.splitlines()]
    assert [row[1] for row in rows] == [str(out / "a.png"), "error: is empty", str(out / "deep" / "a.png")]
    with Image.open(out / "deep" / "a.png") as mask, Image.open(out / "deep" / "a-overlay.jpg") as overlay:
        assert mask.mode == "P"
        assert mask.size == overlay.size == SIZE[::-1]
        assert np.array(mask).max() <= 2
    assert sorted(path.name for path in out.rglob("*") if path.is_file()) == ["a-overlay.jpg"] * 2 + ["a.png"] * 2


def test_predict_never_writes_over_the_masks_of_a_data_set(
    run: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in `cd DATASET && regraft predict RUN images`, and then `regraft predict RUN .`."""
    data = scenes_in(tmp_path / "data", {"test": 2}) / "test"
    truth = {path.name: path.read_bytes() for path in (data / "masks").iterdir()}
    monkeypatch.chdir(data)
    first = cli("predict", run, "images", "--precision", "fp32")
    assert first.code == 0, first.err
    masks = [Path(line.split("\t")[1]) for line in first.out.splitlines()]
    assert masks == [Path(f"predictions/run-images-1/{number:03}.png") for number in range(2)]
    second = cli("predict", run, ".", "--precision", "fp32")
    assert second.code == 0, second.err
    assert [line.split("\t")[:2] for line in second.out.splitlines()] == [
        [f"./images/{number:03}.png", f"predictions/run-test-1/images/{number:03}.png"] for number in range(2)
    ]
    assert "left out: 2 x mask of an image" in second.err
    assert "left out: 2 x prediction of an earlier command" in second.err
    into = cli("predict", run, "images", "--out", "masks", "--precision", "fp32")
    assert into.code == 7
    assert "2 of the files to be written are there already" in into.err
    assert {path.name: path.read_bytes() for path in (data / "masks").iterdir()} == truth


def test_masks_that_nothing_came_of_leave_no_folder(
    run: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.png").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert cli("predict", run, "bad.png").code == 3
    assert list((tmp_path / "predictions").iterdir()) == []
    for out, code in (("/proc/masks", 7), ("masks.csv", 2)):
        result = cli("predict", run, "bad.png", "--out", out)
        assert (result.code, "bug" in result.err) == (code, False)


def test_masks_of_what_is_in_memory(run: Path, scenes: Path) -> None:
    path = scenes / "train" / "images" / "000.png"
    (of_file,), (of_array,) = rg.predict_masks(run, path), rg.predict_masks(run, np.asarray(Image.open(path)))
    assert of_array.path == "image"
    assert np.array_equal(of_file.mask, of_array.mask)


def test_tiles_see_the_images_own_pixels(run: Path, scenes: Path, cli: Cli, tmp_path: Path) -> None:
    image = scenes / "train" / "images" / "000.png"  # of the size of the training: one tile is the whole image
    (whole,), (tiled,) = rg.predict_masks(run, image), rg.predict_masks(run, image, tile=128)
    assert whole.mask is not None
    assert tiled.mask is not None
    assert np.array_equal(whole.mask, tiled.mask)
    result = cli("predict", run, scenes / "test" / "images", "--tile", "32", "--json", "--out", tmp_path)
    assert result.code == 0, result.err
    rows = [json.loads(line) for line in result.out.splitlines()]
    assert all(row["error"] is None and set(row) >= {"mask", "shares", "confidence"} for row in rows)


def test_options_that_the_model_does_not_read_are_refused(run: Path, tiny_run: Path, scenes: Path, cli: Cli) -> None:
    for command in (
        ("predict", run, scenes / "test" / "images", "--csv"),
        ("predict", tiny_run, scenes / "test" / "images", "--overlay"),
        ("predict", run, scenes / "test" / "images", "--tta", "turn"),
    ):
        assert cli(*command).code == 2
    with pytest.raises(SettingsError, match="predict_masks"):
        rg.predict(run, scenes / "test" / "images")


def test_the_report_shows_truth_prediction_and_error(run: Path) -> None:
    page = rg.write_report(run).read_text()
    for text in ("mean IoU", "Boundary F1", "Worst images", "<th>error</th>", "images with masks"):
        assert text.lower() in page.lower(), text
    assert page.count("data:image/png;base64,") >= 4 * 3
    assert "The records behind this part are not what regraft writes" not in page


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_a_killed_run_ends_in_the_same_bits(scenes: Path, tmp_path: Path, step: int) -> None:
    settings = recipe(scenes, {"augment": VARIED, "loss": {"focal": 1}, "ema": 0.9}, save_steps=1)
    whole = rg.run_recipe(settings, out=tmp_path / "whole", show=False)
    with pytest.raises(Killed), kill_at_step(step):
        rg.run_recipe(settings, out=tmp_path / "killed", show=False)
    resumed = rg.resume(tmp_path / "killed", show=False)
    one, other = (load_file(made.model / "model.safetensors") for made in (whole, resumed))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("augment", [None, VARIED])
def test_features_that_are_kept_end_in_the_same_bits(
    scenes: Path, tmp_path: Path, augment: dict[str, Any] | None
) -> None:
    """The skips of a frozen encoder are features as well; with a view for each epoch, masks move as images do."""
    stage = {"train": "!encoder", "augment": augment}
    kept = "auto" if augment is None else {"views": 1}
    states = []
    for name, cache, epochs in (("kept", kept, 2), ("off", "off", 2 if augment is None else 1)):
        settings = recipe(scenes, {**stage, "epochs": epochs}, feature_cache=cache, monitor="train_loss")
        states.append(rg.run_recipe(settings, out=tmp_path / name, show=False))
    log = (states[0].path / "log.txt").read_text()
    assert "cached backbone features" in log
    first = [read_metrics(made.path / "metrics.jsonl")[0] for made in states]
    assert first[0]["train_loss"] == first[1]["train_loss"]
    assert first[0]["val_miou"] == first[1]["val_miou"]


def test_tensorboard_shows_the_masks(scenes: Path, tmp_path: Path) -> None:
    made = rg.run_recipe(recipe(scenes, {"epochs": 1}, log=["tensorboard"]), out=tmp_path / "run", show=False)
    written = b"".join(path.read_bytes() for path in made.tensorboard.iterdir())
    start = written.index(b"\x89PNG")
    (tmp_path / "grid.png").write_bytes(written[start:])
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size == (4 * 64 + 3 * 2, 2 * 48 + 2)  # four images, each beside its mask
        right = np.array(grid.convert("RGB"))[:48, 66:130].reshape(-1, 3)
    assert {tuple(colour) for colour in np.unique(right, axis=0).tolist()} & {(128, 0, 0), (0, 0, 0), *COLOURS}


def test_what_does_not_go_with_masks_is_refused_all_at_once(scenes: Path, tmp_path: Path) -> None:
    stage = {"mixup": 0.2, "sampling": "balanced"}
    with pytest.raises(SettingsError) as caught:
        rg.run_recipe(recipe(scenes, stage), out=tmp_path / "run", show=False)
    for text in ("mixup and cutmix", "sampling: balanced"):
        assert text in str(caught.value), text


def test_networks_and_data_that_do_not_go_together(scenes: Path, tiny_photos: Path, tmp_path: Path) -> None:
    settings = recipe(scenes)
    settings["model"] = {"name": "test_resnet", "weights": "none", "image_size": 32}
    with pytest.raises(SettingsError, match="unet"):
        rg.run_recipe(settings, out=tmp_path / "run", show=False)
    with pytest.raises(SettingsError, match="masks"):
        rg.run_recipe({**recipe(tiny_photos), "monitor": "val_loss"}, out=tmp_path / "run", show=False)
    settings = recipe(tiny_photos, {"loss": "dice"}, monitor="val_loss")
    settings["model"] = {"name": "test_resnet", "weights": "none", "image_size": 32}
    with pytest.raises(SettingsError, match="a loss for pixels"):
        rg.run_recipe(settings, out=tmp_path / "run", show=False)


def test_images_without_a_usable_mask_are_rows_with_an_error(run: Path, scenes: Path, tmp_path: Path) -> None:
    other = scenes_in(tmp_path / "other", {"test": 2, "train": 1, "val": 1})
    Image.fromarray(np.full((9, 9), 1, np.uint8)).save(other / "test" / "masks" / "000.png")
    measures = rg.evaluate(run, other)
    assert (measures["num_images"], measures["num_errors"]) == (1, 1)
    rows = [json.loads(line) for line in (run / "predictions" / "other.jsonl").read_text().splitlines()]
    assert "has 64 x 48 pixels, and its mask 9 x 9" in rows[0]["error"]
    assert rows[1]["miou"] is not None


def test_masks_of_other_images_are_described_as_in_training(run: Path, scenes: Path, cli: Cli, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for path in (scenes / "test" / "images").iterdir():
        (other / path.name).write_bytes(path.read_bytes())
        with Image.open(scenes / "test" / "masks" / path.name) as picture:
            Image.fromarray(np.array(picture) // 2 + 70).save(other / f"{path.stem}_m.png")  # 70, 71, void is 197
    (tmp_path / "merged.txt").write_text("70 0\n71 2\n197 nothing\n")
    options = ("--masks", "*_m.png", "--class-table", tmp_path / "merged.txt", "--ignore", "nothing")
    result = cli("evaluate", run, other, *options, "--json")
    assert result.code == 0, result.err
    found, own = (json.loads(text) for text in (result.out, (run / "predictions" / "test.json").read_text()))
    merged = np.array(own["confusion"])
    assert found["confusion"] == [(merged[0] + merged[1]).tolist(), [0, 0, 0], merged[2].tolist()]


def test_options_of_masks_are_refused_where_no_other_masks_are_read(
    run: Path, tiny_run: Path, tiny_photos: Path, cli: Cli
) -> None:
    whole = cli("evaluate", tiny_run, tiny_photos, "--ignore", "3", "--masks", "masks")
    assert whole.code == 2
    assert "--masks and --ignore was given" in whole.err
    assert "names whole images" in whole.err
    own = cli("evaluate", run, "--ignore", "3")
    assert own.code == 2
    assert f"regraft evaluate {run} IMAGES" in own.err.replace("\n", " ")


def test_a_range_test_of_masks(scenes: Path) -> None:
    from regraft.assembly.range_test import range_test

    found = range_test(yaml.safe_load(yaml.safe_dump(recipe(scenes))), steps=12)
    assert len(found.losses) >= 2


def test_the_model_folder_keeps_the_colours(run: Path) -> None:
    config = json.loads((run / "model" / "config.json").read_text())
    assert len(config["regraft"]["class_colours"]) == 3
    config["regraft"]["class_colours"][0] = [300, 0, 0]
    (run.parent / "bad").mkdir()
    (run.parent / "bad" / "model.safetensors").write_bytes((run / "model" / "model.safetensors").read_bytes())
    (run.parent / "bad" / "config.json").write_text(json.dumps(config))
    with pytest.raises(rg.RegraftError, match="class_colours"):
        rg.load_model(run.parent / "bad")


def test_nothing_to_measure_is_an_error(run: Path, tmp_path: Path) -> None:
    other = scenes_in(tmp_path / "other", {"test": 1, "train": 1, "val": 1})
    Image.fromarray(np.full((9, 9), 1, np.uint8)).save(other / "test" / "masks" / "000.png")
    with pytest.raises(DataError, match="can be read with its mask"):
        rg.evaluate(run, other)
