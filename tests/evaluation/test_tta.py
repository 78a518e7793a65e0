"""Test-time augmentation of classes: means over views, and `auto`, which asks the run's validation images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import TINY_MODEL, Cli, photo, photos

import regraft as rg
from regraft.errors import SettingsError
from regraft.evaluation.tta.choice import choose_views, gain_of, losses_of
from regraft.models.describe.views import PLACES, views_of

FP32 = ("--precision", "fp32", "--threads", "1")


def arrays(folder: Path) -> list[np.ndarray]:
    from PIL import Image

    return [np.asarray(Image.open(path)) for path in sorted(folder.rglob("*.png"))]


@pytest.fixture
def square(tmp_path: Path) -> Path:
    """Images of the network's own size: their views are cut from the very pixels that are given."""
    for number, colour in enumerate([(40, 60, 200), (90, 120, 90), (200, 50, 40)]):
        photo(tmp_path / "square" / f"{number}.png", colour, number, size=(32, 32))
    return tmp_path / "square"


def table(rows: list[rg.Prediction]) -> np.ndarray:
    return np.array([list(row.probabilities.values()) for row in rows])


def test_flip_is_the_mean_of_an_image_and_its_mirror_image(tiny_run: Path, square: Path) -> None:
    images = arrays(square)
    numerics = rg.choose_numerics("cpu", "fp32", 1)
    found = table(rg.predict(tiny_run, images, numerics=numerics, tta="flip"))
    both = [
        table(rg.predict(tiny_run, some, numerics=numerics))
        for some in (images, [np.ascontiguousarray(image[:, ::-1]) for image in images])
    ]
    assert np.abs(found - sum(both) / 2).max() < 1e-6
    assert np.abs(found - both[0]).max() > 1e-6


def test_views_begin_with_the_image_and_are_of_its_size() -> None:
    import torch

    images = torch.randint(0, 256, (2, 3, 20, 30), dtype=torch.uint8)
    every = list(views_of(images, "multi"))
    assert [view.shape for view in every] == [images.shape] * 12
    for name in PLACES:
        views = list(views_of(images, name))
        assert all(torch.equal(view, every[place]) for view, place in zip(views, _sorted(PLACES[name]), strict=True))
    assert torch.equal(every[0], images)
    assert torch.equal(every[-1], images.flip(-1))
    assert torch.equal(every[2], every[1].flip(-1))
    assert next(iter(views_of(images, None))) is images


def _sorted(places: tuple[int, ...]) -> list[int]:
    return sorted(places)


@pytest.mark.parametrize("tta", ["crops", "multi"])
def test_predict_by_command_and_in_python_agree(tta: str, cli: Cli, tiny_run: Path, square: Path) -> None:
    result = cli("predict", tiny_run, square, "--json", "--tta", tta, *FP32)
    assert result.code == 0, result.err
    numerics = rg.choose_numerics("cpu", "fp32", 1)
    rows = rg.predict(tiny_run, square, numerics=numerics, tta=tta)  # type: ignore[arg-type]
    for line, row in zip(map(json.loads, result.out.splitlines()), rows, strict=True):
        assert line["probabilities"] == row.probabilities
        assert sum(row.probabilities.values()) == pytest.approx(1, abs=1e-5)


def test_unknown_views_are_refused_and_so_is_auto_where_nothing_can_choose(
    cli: Cli, tiny_run: Path, square: Path
) -> None:
    for command in (("predict", tiny_run, square), ("evaluate", tiny_run)):
        result = cli(*command, "--tta", "turn")
        assert result.code == 2
        assert "flip, crops, multi" in result.err
    model_folder = cli("predict", tiny_run / "model", square, "--tta", "auto")
    assert model_folder.code == 2
    assert "is not a run" in model_folder.err
    with pytest.raises(SettingsError, match="loaded already"):
        rg.predict(rg.load_model(tiny_run), square, tta="auto")


def test_evaluate_keeps_the_plain_figures_and_says_what_the_views_change(
    cli: Cli, tiny_run: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    plain = (run / "predictions" / "test.json").read_bytes()
    result = cli("evaluate", run, "--tta", "flip", *FP32)
    assert result.code == 0, result.err
    assert "tta: flip, 2 views (the image alone: " in result.out
    assert (run / "predictions" / "test.json").read_bytes() == plain
    record = json.loads((run / "predictions" / "tta-flip" / "test.json").read_text())
    assert record["tta"]["views"] == "flip"
    assert record["tta"]["alone"]["top1"] == json.loads(plain)["top1"]
    assert record["tta"]["gain"]["low"] <= record["tta"]["gain"]["mean"] <= record["tta"]["gain"]["high"]


def test_auto_asks_once_and_never_mirrors_what_was_not_trained_mirrored(
    cli: Cli, tmp_path: Path, square: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = photos(tmp_path / "data", {"blue": 110, "red": 110})
    shared = ("--model", TINY_MODEL, "--image-size", "32", "--set", "model.weights=none", "--stages", "head")
    run = tmp_path / "run"
    assert cli("-q", "train", data, "--out", run, *shared).code == 0
    first = cli("predict", run, square, "--json", "--tta", "auto", *FP32)
    assert first.code == 0, first.err
    assert "mirror images were left out" in caplog.text
    assert "looking at the run's" in caplog.text
    caplog.clear()
    record = json.loads((run / "tta.json").read_text())
    assert set(record["gains"]) == {"crops"}
    again = cli("predict", run, square, "--json", "--tta", "auto", *FP32)
    assert again.out == first.out
    assert "looking at" not in caplog.text
    measured = rg.evaluate(run, tta="auto")
    assert measured["tta"]["views"] == record["views"]


def test_auto_is_refused_for_a_cross_validation(cli: Cli, tiny_photos: Path, square: Path, tmp_path: Path) -> None:
    run = tmp_path / "cv"
    shared = ("--model", TINY_MODEL, "--image-size", "32", "--set", "model.weights=none", "--stages", "head")
    assert cli("-q", "train", tiny_photos, "--folds", "2", "--out", run, *shared).code == 0
    assert cli("predict", run, square, "--tta", "flip").code == 0
    for command in (("predict", run, square, "--tta", "auto"), ("evaluate", run, "--tta", "flip")):
        result = cli(*command)
        assert result.code == 2
        assert "cross-validation" in result.err


def views(rng: np.random.Generator, num: int, *, better: bool) -> tuple[list[np.ndarray], np.ndarray]:
    """Rows of 12 views of three classes: independent guesses of one quality, or the same guess twelve times."""
    labels = rng.integers(0, 3, num)
    signal = 1.5 * np.eye(3)[labels][:, None]
    noise = rng.normal(0, 1, (num, 12 if better else 1, 3))
    logits = np.broadcast_to(signal + noise, (num, 12, 3))
    shares = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
    return list(shares), labels


def test_the_choice_takes_views_that_help_and_leaves_those_that_do_not() -> None:
    rng = np.random.default_rng(0)
    rows, labels = views(rng, 300, better=True)
    choice = choose_views(rows, labels, "softmax", mirrored=True, step=1, precision="fp32")
    assert choice.views == "multi"
    assert choice.gains["multi"].low > 0
    unmirrored = choose_views(rows, labels, "softmax", mirrored=False, step=1, precision="fp32")
    assert unmirrored.views == "crops"
    same, labels = views(rng, 300, better=False)
    assert choose_views(same, labels, "softmax", mirrored=True, step=1, precision="fp32").views is None
    few = choose_views(rows[:20], labels[:20], "softmax", mirrored=True, step=1, precision="fp32")
    assert few.views is None
    assert "too few" in few.reason


def test_losses_of_every_kind_of_output_are_those_of_their_logits() -> None:
    rng = np.random.default_rng(1)
    shares = rng.uniform(0.05, 0.95, (50, 2))
    labels = rng.integers(0, 2, 50)
    binary = losses_of(np.stack([1 - shares[:, 0], shares[:, 0]], 1), labels, "binary")
    softmax = losses_of(np.stack([1 - shares[:, 0], shares[:, 0]], 1), labels, "softmax")
    assert binary.mean() == pytest.approx(softmax.mean(), rel=0.05)
    many = losses_of(shares, np.stack([labels, 1 - labels], 1).astype(np.uint8), "multilabel")
    assert many.shape == (50,)
    assert np.isfinite(many).all()
    assert gain_of(binary, binary).mean == 0
