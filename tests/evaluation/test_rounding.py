"""What is said and chosen is what fp32 gives anywhere, whatever a run trains in; less than fp32 says what it costs."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from tests.conftest import Cli, photos
from tests.segmentation import scenes_in
from torch import nn

import regraft as rg
from regraft.compute.numerics import Numerics, choose_numerics, exact_products
from regraft.data.decode.decode import decode
from regraft.data.decode.preprocess import Preprocessing

pytestmark = pytest.mark.usefixtures("one_thread")
ROUNDED = Numerics("cpu", "bf16", channels_last=True, threads=1)  # as `auto` is on a processor with bf16 units
STAGES = (
    rg.Stage("head", optimizer="lbfgs"),
    rg.Stage("top", train=["head", "blocks.3"], optimizer="adamw", lr=1e-3, epochs=2),
    rg.Stage("all", train="all", optimizer="adamw", lr=1e-3, epochs=2),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photos(tmp_path_factory.mktemp("photos") / "colours", {"red": 12, "green": 12, "brick": 12})


def plain_timm(run: Path, paths: Sequence[str]) -> torch.Tensor:
    """The logits of a run's model by timm and torch alone, in fp32; the pixels are regraft's."""
    config = json.loads((run / "model" / "config.json").read_text())
    network = timm.create_model(config["architecture"], num_classes=config["num_classes"]).eval()
    network.load_state_dict(load_file(run / "model" / "model.safetensors"))
    preprocessing = Preprocessing.from_dict(config["regraft"]["preprocessing"])
    pixels = np.stack([decode(path, preprocessing.pixels) for path in paths])
    mean, std = (torch.tensor(config["pretrained_cfg"][key]).view(3, 1, 1) for key in ("mean", "std"))
    images = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - mean) / std
    with torch.no_grad():
        return torch.cat([network(part) for part in images.split(16)])


def at_temperature(run: Path, logits: torch.Tensor) -> torch.Tensor:
    """Logits divided by the temperature that the model folder has, or by that of the class with the largest one."""
    stored = json.loads((run / "model" / "config.json").read_text())["regraft"].get("calibration")
    temperatures = torch.tensor(stored["temperatures"] if stored else [1.0])
    return logits / (temperatures if len(temperatures) == 1 else temperatures[logits.argmax(1)][:, None])


def assert_is_plain_timm(run: Path) -> None:
    """Measures, stored predictions and new ones are those of plain timm, at the run's temperature."""
    measures = rg.evaluate(run)
    rows = [json.loads(line) for line in (run / "predictions" / f"{measures['split']}.jsonl").read_text().splitlines()]
    logits = plain_timm(run, [row["path"] for row in rows])
    expected, names = at_temperature(run, logits).softmax(1).numpy(), json.loads((run / "classes.json").read_text())
    assert [row["prediction"] for row in rows] == [names[place] for place in expected.argmax(1)]
    given = np.array([[row["probabilities"][name] for name in names] for row in rows])
    np.testing.assert_allclose(given, expected, atol=1e-4)
    again = rg.predict(run, [row["path"] for row in rows])
    assert [row.prediction for row in again] == [row["prediction"] for row in rows]


@pytest.mark.parametrize("stages", [STAGES[:1], STAGES[:2], STAGES], ids=["head", "top", "all"])
def test_a_run_that_trained_in_bf16_gives_the_numbers_of_plain_timm(
    stages: Sequence[rg.Stage], folder: Path, tmp_path: Path
) -> None:
    data = rg.open_data(folder)
    model = rg.adapt(rg.build_model("test_efficientnet", seed=0), classes=data.class_names, image_size=32)
    run = rg.train(model, rg.make_plan(model, stages), data, out=tmp_path / "run", numerics=ROUNDED, show=False)
    assert_is_plain_timm(run.path)
    status = json.loads(run.status.read_text())
    records = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    (best,) = [r for r in records if (r["stage"], r["epoch"]) == (status["best"]["stage"], status["best"]["epoch"])]
    splits = json.loads(run.splits.read_text())
    val = rg.open_data(folder).val  # the same split: it is a function of the data and the seed
    assert len(val.paths) == len(splits["splits"]["val"])
    logits = plain_timm(run.path, val.paths)
    loss = float(nn.functional.cross_entropy(logits, torch.from_numpy(np.asarray(val.labels))))
    assert best["val_loss"] == pytest.approx(loss, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"), [("dogs-vs-cats-small", ("--set", "stages.all.epochs=1")), ("clothing", ("--stages", "head"))]
)
def test_a_default_run_on_photos_gives_the_classes_of_plain_timm(
    name: str, settings: Sequence[str], shared: Path, tmp_path: Path, cli: Cli
) -> None:
    run = tmp_path / "run"
    assert cli("train", str(shared / "data" / name), *settings, "--out", str(run), "-q").code == 0
    assert_is_plain_timm(run)


def test_who_asks_for_bf16_is_told_what_it_changes(folder: Path, tmp_path: Path, cli: Cli) -> None:
    run = tmp_path / "run"
    asked = cli(
        *("train", str(folder), "--model", "test_efficientnet", "--image-size", "32", "--stages", "head"),
        *("--set", "model.weights=none", "--precision", "bf16", "--out", str(run)),
    )
    assert asked.code == 0, asked.err
    said = r"bf16: (\d+) of (\d+) validation images gets? another class than in fp32"
    found = re.search(said, asked.err)
    assert found is not None
    paths = rg.open_data(folder).val.paths
    rounded, exact = (rg.predict(run, paths, numerics=choose_numerics("cpu", name, 1)) for name in ("bf16", "fp32"))
    num_other = sum(one.prediction != other.prediction for one, other in zip(rounded, exact, strict=True))
    assert (int(found[1]), int(found[2])) == (num_other, len(paths))
    assert re.search(said, cli("evaluate", str(run)).out), "the run goes on in what it was trained to predict in"
    assert not re.search("fp32", cli("evaluate", str(run), "--precision", "fp32").out)
    predicted = cli("predict", str(run), paths[0], "--precision", "bf16")
    assert re.search(said, predicted.err)
    assert "fp32" not in predicted.out
    of_last = re.search(said, cli("predict", str(run), paths[0], "--checkpoint", "last", "--precision", "bf16").err)
    last = rg.load_model(run, checkpoint="last")
    rounded, exact = (rg.predict(last, paths, numerics=choose_numerics("cpu", name, 1)) for name in ("bf16", "fp32"))
    assert of_last is not None
    assert int(of_last[1]) == sum(one.prediction != other.prediction for one, other in zip(rounded, exact, strict=True))
    assert "fp32" not in cli("predict", str(run), paths[0]).err


def test_pixels_of_masks_are_counted(tmp_path: Path, cli: Cli) -> None:
    run = tmp_path / "run"
    asked = cli(
        *("train", str(scenes_in(tmp_path / "scenes")), "--model", "unet", "--set", "model.args.encoder=test_resnet"),
        *("--set", "model.weights=none", "--image-size", "32", "--stages", "decoder", "--epochs", "1"),
        *("--precision", "bf16", "--out", str(run)),
    )
    assert asked.code == 0, asked.err
    assert re.search(r"bf16: [\d.]+% of the pixels of \d+ validation images get another class", asked.err)


def test_a_run_of_an_earlier_version_says_what_its_figures_were_computed_in(folder: Path, tmp_path: Path) -> None:
    data = rg.open_data(folder)
    model = rg.adapt(rg.build_model("test_efficientnet", seed=0), classes=data.class_names, image_size=32)
    plan = rg.make_plan(model, STAGES[:1])
    run = rg.train(model, plan, data, out=tmp_path / "run", numerics=ROUNDED, show=False)
    assert "notes" not in rg.evaluate(run)
    text = run.recipe.read_text()
    assert "  inference: fp32\n" in text
    run.recipe.write_text(text.replace("  inference: fp32\n", ""))
    assert rg.evaluate(run)["notes"] == ["the run's stored figures were computed in bf16; these are those of fp32"]
    of_others = rg.evaluate(run, folder)["notes"]
    assert not any("bf16" in note for note in of_others), "figures of other images have none to differ from"


def test_what_the_user_allows_torch_to_round_does_not_reach_predictions(folder: Path, tmp_path: Path) -> None:
    data = rg.open_data(folder)
    model = rg.adapt(rg.build_model("test_efficientnet", seed=0), classes=data.class_names, image_size=32)
    expected = [row.probabilities for row in rg.predict(model, data.train.paths)]
    kinds = (torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv)  # type: ignore[attr-defined]
    before = [kind.fp32_precision for kind in kinds]
    try:
        for kind in kinds:
            kind.fp32_precision = "bf16"
        assert [row.probabilities for row in rg.predict(model, data.train.paths)] == expected
        with exact_products(), exact_products():
            assert [kind.fp32_precision for kind in kinds] == ["ieee", "ieee"]
        assert [kind.fp32_precision for kind in kinds] == ["bf16", "bf16"], "the user's settings are the user's"
    finally:
        for kind, precision in zip(kinds, before, strict=True):
            kind.fp32_precision = precision
