"""Heat maps through the public API: a planted cause is found, random weights change the map, and every policy of
resizing lands on the right place of the image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import TINY_MODEL, Cli, photos
from torch import nn

import regraft as rg
from regraft.data.decode.decode import PixelProgram, decode
from regraft.data.decode.preprocess import Preprocessing
from regraft.explanation.colours import as_png, heat_colours, overlaid
from regraft.explanation.geometry import view_of
from regraft.models.describe.info import ModelInfo, set_info

SIDE, PATCH, STRIDE = 64, 12, 8
CLASSES = ("blue", "red")
COLOURS = {"blue": (60, 60, 255), "red": (255, 60, 60)}


def planted(num: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noisy images (N, H, W, 3) in which a small patch at a random place decides the class; labels, corners (y, x)."""
    noise = np.random.default_rng(seed)
    images = noise.normal(110, 35, (num, SIDE, SIDE, 3))
    labels = noise.integers(0, 2, num)
    corners = noise.integers(0, SIDE - PATCH, (num, 2))
    for image, label, (top, left) in zip(images, labels, corners, strict=True):
        image[top : top + PATCH, left : left + PATCH] = COLOURS[CLASSES[label]]
    return images.clip(0, 255).astype(np.uint8), labels, corners


def small_network(kind: str, output: str = "softmax", program: PixelProgram | None = None) -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 12), (12, 24), (24, 24)):
        layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten()] if kind == "pool" else [nn.Flatten()]
    width = 24 if kind == "pool" else 24 * (SIDE // STRIDE) ** 2
    model = nn.Sequential(*layers, *pooled, nn.Linear(width, 1 if output == "binary" else 2))
    preprocessing = Preprocessing(program or PixelProgram((SIDE, SIDE)))
    head = str(len(model) - 1)
    return set_info(
        model, ModelInfo("own", class_names=CLASSES, preprocessing=preprocessing, head=(head,), output=output)
    )


@pytest.fixture(scope="module", params=[("pool", "softmax"), ("flatten", "softmax"), ("pool", "binary")])
def decided(request: pytest.FixtureRequest) -> nn.Module:
    """A small network that was trained on planted images."""
    kind, output = request.param
    model = small_network(kind, output)
    images, labels, _ = planted(600 if kind == "flatten" else 300, 1)
    pixels = as_input(images)
    wanted = torch.from_numpy(labels)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3, weight_decay=1e-4)
    for epoch in range(8):
        for batch in torch.randperm(len(pixels), generator=torch.Generator().manual_seed(epoch)).split(50):
            logits = model(pixels[batch])
            if output == "binary":
                loss = nn.functional.binary_cross_entropy_with_logits(logits[:, 0], wanted[batch].float())
            else:
                loss = nn.functional.cross_entropy(logits, wanted[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def as_input(images: np.ndarray) -> torch.Tensor:
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (pixels - mean) / std


def test_a_patch_that_decides_is_found(decided: nn.Module) -> None:
    images, labels, corners = planted(80, 2)
    rows = rg.explain(decided, images)
    right = [row.prediction == CLASSES[label] for row, label in zip(rows, labels, strict=True)]
    assert np.mean(right) >= 0.95
    near = []
    for row, (top, left) in zip(rows, corners, strict=True):
        assert row.peak is not None
        x, y = row.peak
        near.append(
            left - STRIDE <= x <= left + PATCH + STRIDE and top - STRIDE <= y <= top + PATCH + STRIDE  # in it or next
        )
    assert np.mean(near) >= 0.95


def test_predictions_are_those_of_predict(decided: nn.Module) -> None:
    images, _, _ = planted(20, 3)
    for row, said in zip(rg.explain(decided, images), rg.predict(decided, images), strict=True):
        assert (row.path, row.prediction, row.probability) == (said.path, said.prediction, said.probability)
        assert row.class_name == said.prediction


def test_what_speaks_for_one_of_two_classes_speaks_against_the_other(decided: nn.Module) -> None:
    images, _, _ = planted(4, 4)
    blue, red = (rg.explain(decided, images, classes=name) for name in CLASSES)
    both = rg.explain(decided, images, top=2)
    assert len(both) == 8
    assert both[0].class_name == both[0].prediction != both[1].class_name
    for one, other in zip(blue, red, strict=True):
        assert one.places is not None
        assert other.places is not None
        np.testing.assert_allclose(one.places, -other.places, atol=1e-5)


def ranks(values: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(values.ravel())).astype(np.float64)


def test_random_weights_change_the_map() -> None:
    """Adebayo et al. 2018: a map that stays the same without what was learned shows the image, not the network."""
    images, _, _ = planted(12, 5)
    trained = small_network("pool")
    before = rg.explain(trained, images, classes="red")
    found: dict[str, list[float]] = {"head": [], "all": []}
    for seed in range(12):
        for part, layers in (("head", [trained[-1]]), ("all", list(trained))):
            torch.manual_seed(100 + seed)
            other = small_network("pool")
            torch.manual_seed(100 + seed)
            for place, layer in enumerate(other):
                if (part == "all" or place == len(other) - 1) and hasattr(layer, "reset_parameters"):
                    layer.reset_parameters()  # type: ignore[operator]
            assert layers
            for one, two in zip(before, rg.explain(other, images, classes="red"), strict=True):
                assert one.places is not None
                assert two.places is not None
                found[part].append(float(np.corrcoef(ranks(one.places), ranks(two.places))[0, 1]))
    assert abs(np.mean(found["head"])) < 0.3
    assert abs(np.mean(found["all"])) < 0.3


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
@pytest.mark.parametrize("size", [(90, 200), (200, 90), (64, 64)])
@pytest.mark.parametrize("stored", [None, (80, 100)])
def test_a_place_of_the_input_lands_on_its_place_of_the_image(
    resize: str, size: tuple[int, int], stored: tuple[int, int] | None, tmp_path: Path
) -> None:
    """A bright spot is decoded as the network gets it, and the map of its brightness is laid back over the image."""
    program = PixelProgram((SIDE, SIDE), resize, background=(0, 0, 0), stored=stored)  # type: ignore[arg-type]
    image = np.zeros((*size, 3), np.uint8)
    y, x = size[0] // 2 + 12, size[1] // 2 - 14
    image[y - 5 : y + 6, x - 5 : x + 6] = 255
    Image.fromarray(image).save(tmp_path / "spot.png")
    places = decode(tmp_path / "spot.png", program)[..., 0].astype(np.float32) / 255
    view = view_of(program, size)
    spread = view.spread(places, size)
    assert spread.shape == size
    weight = spread.clip(0)
    assert (weight.sum(1) @ np.arange(size[0])) / weight.sum() == pytest.approx(y, abs=1.5)
    assert (weight.sum(0) @ np.arange(size[1])) / weight.sum() == pytest.approx(x, abs=1.5)
    row, column = np.unravel_index(int(places.argmax()), places.shape)
    px, py = view.point(int(row), int(column), (SIDE, SIDE))
    assert abs(px - x) <= 9
    assert abs(py - y) <= 9
    covered = view.covers(size)
    assert covered.all() == (resize != "crop" or (size == (64, 64) and stored is None))
    inside = view.inside((SIDE, SIDE))
    assert inside.all() == (resize != "pad" or (size == (64, 64) and stored is None))


def test_colours_are_uniform_and_read_in_grey() -> None:
    colours = heat_colours(np.linspace(0, 1, 64)) / 255
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722])
    lightness = 116 * np.cbrt(luminance) - 16
    assert (np.diff(lightness) > 0).all()
    deuteranopia = np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
    )
    seen = (linear @ deuteranopia.T).clip(0, 1) @ np.array([0.2126, 0.7152, 0.0722])  # Machado et al. 2009
    assert (np.diff(seen) > 0).all()


def test_cold_places_show_the_image_and_unseen_ones_are_dark() -> None:
    image = np.full((4, 6, 3), 200, np.uint8)
    drawn = overlaid(image, np.zeros((4, 6)), np.arange(24).reshape(4, 6) < 12)
    assert (drawn[0] == 200).all()
    assert (drawn[3] < 100).all()
    hot = overlaid(image, np.ones((4, 6)))
    assert hot[0, 0, 2] < hot[0, 0, 0]
    assert as_png(drawn).startswith(b"\x89PNG")


def test_a_value_that_is_not_a_number_is_no_heat() -> None:
    """Of a network whose weights overflowed: the report is written all the same."""
    image = np.full((2, 2, 3), 200, np.uint8)
    assert (overlaid(image, np.array([[np.nan, 0], [0, 0]])) == 200).all()


def test_nothing_that_speaks_for_a_class_is_no_heat() -> None:
    model = small_network("pool")
    with torch.no_grad():
        model[-1].weight.zero_()  # type: ignore[union-attr,operator]
    (row,) = rg.explain(model, planted(1, 0)[0])
    assert row.peak is None
    assert not row.heat().any()
    assert row.to_dict()["peak"] is None
    assert row.overlay().shape == (256, 520, 3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("explained")
    data = rg.open_data(photos(root / "photos", {"blue": 8, "green": 8, "red": 8}))
    model = rg.adapt(rg.build_model(TINY_MODEL, seed=0), classes=data.class_names, image_size=64)
    plan = rg.make_plan(model, [rg.Stage("head", epochs=1)])
    return rg.train(model, plan, data, out=root / "run", batch_size=16, show=False).path


def test_the_command(trained: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    new = photos(tmp_path / "new", {"blue": 2, "red": 1}, seed=5)
    (new / "red" / "bad.jpg").write_bytes(b"no image")
    Image.new("RGB", (1, 1), "red").save(new / "pixel.png")
    result = cli("explain", trained, new)
    assert result.code == 0, result.err
    assert "no heat map of 1 image" in result.err
    lines = [line.split("\t") for line in result.out.splitlines()]
    assert [Path(line[0]).name for line in lines] == ["000.png", "001.png", "pixel.png", "000.png", "bad.jpg"]
    said = {row.path: row for row in rg.predict(trained, new)}
    for path, name, *rest in lines:
        if path.endswith("bad.jpg"):
            assert name.startswith("error: ")
            continue
        assert name == said[path].prediction
        assert float(rest[0]) == pytest.approx(said[path].probability, abs=1e-4)
        with Image.open(rest[1]) as image:
            assert image.width == 2 * image.size[1] * (48 / 40 if "pixel" not in path else 1) + 8 or image.width > 256
        assert Path(rest[1]).parent.parent.name in ("new", "explanations") or "explanations" in rest[1]
    assert Path("explanations/run-new-1/blue").is_dir()
    again = cli("predict", trained, tmp_path / "explanations", "--json")
    assert again.code == 3  # what regraft drew is no image to predict
    one = cli("explain", trained, new / "pixel.png", "--class", "red", "--class", "blue", "--json", "--out", "maps")
    rows = [json.loads(line) for line in one.out.splitlines()]
    assert [row["class"] for row in rows] == ["red", "blue"]
    assert sorted(path.name for path in Path("maps").iterdir()) == ["pixel-blue.png", "pixel-red.png"]
    assert rows[0].keys() == {"path", "prediction", "class", "probability", "peak", "error", "file"}
    assert (
        cli("explain", trained, new / "pixel.png", "--class", "red", "--out", "maps").code == 7
    )  # nothing overwritten
    assert cli("explain", trained, new / "pixel.png", "--top", "3", "--out", "top").code == 0
    assert len(list(Path("top").iterdir())) == 3


def test_what_cannot_be_explained_says_why(
    trained: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    image = next((trained.parent / "photos" / "red").glob("*.png"))
    wrong = cli("explain", trained, image, "--class", "gren")
    assert wrong.code == 2
    assert "no class 'gren'; did you mean 'green'" in wrong.err
    both = cli("explain", trained, image, "--class", "red", "--top", "2")
    assert (both.code, "one or the other" in both.err) == (2, True)
    assert cli("explain", image, trained).code == 2  # the run comes first
    assert cli("explain", tmp_path / "none", image).code == 2
    assert cli("explain", trained, image, "--out", "map.png").code == 2
    Path("bad.png").write_bytes(b"")
    bad = cli("explain", trained, "bad.png")
    assert bad.code == 3
    assert "error: " in bad.out
    assert not Path("explanations/run-bad-1").exists()


def test_labels_each_get_a_map() -> None:
    torch.manual_seed(1)
    model = small_network("pool", "multilabel")
    info = model.regraft_info
    info.thresholds = {"blue": 0.0, "red": 0.0}  # type: ignore[union-attr]
    images, _, _ = planted(2, 6)
    rows = rg.explain(model, images)
    assert sorted(row.class_name or "" for row in rows[:2]) == ["blue", "red"]
    info.thresholds = {"blue": 1.0, "red": 1.0}  # type: ignore[union-attr]
    (first, _) = rg.explain(model, images)  # nothing is named: the most probable label is explained
    assert (first.prediction, first.class_name in CLASSES) == ("", True)


def test_masks_are_explained_by_class(tmp_path: Path) -> None:
    torch.manual_seed(0)
    program = PixelProgram((64, 64), "pad")
    model = rg.build_model("unet", num_classes=3, seed=0, encoder="test_efficientnet").eval()
    info = model.regraft_info
    info.class_names, info.preprocessing = ("sky", "road", "tree"), Preprocessing(program)  # type: ignore[union-attr]
    image = np.random.default_rng(0).integers(0, 255, (40, 90, 3)).astype(np.uint8)
    (largest,) = rg.explain(model, image)
    assert largest.error is None
    assert largest.class_name == largest.prediction
    assert 1 / 3 <= (largest.probability or 0) <= 1
    assert largest.heat().shape == (40, 90)
    rows = rg.explain(model, [image, b"no image"], classes=["sky", "road", "tree"])
    assert [row.class_name for row in rows] == ["sky", "road", "tree", None]
    assert all(row.places is not None or "no pixel" in (row.error or "") for row in rows[:3])
    assert rows[3].error
    with pytest.raises(rg.DataError, match="no heat map"):
        rows[3].overlay()


def test_a_map_of_a_padded_input_lies_over_what_it_covers() -> None:
    """A U-Net brings its input to a multiple of its stride: the map's last places are partly outside of the image."""
    model = rg.build_model("unet", num_classes=2, seed=0, encoder="test_efficientnet").eval()
    stride = model.stride
    assert isinstance(stride, int)
    size = (2 * stride + stride // 4, 3 * stride)
    info = model.regraft_info
    info.class_names = ("sky", "road")  # type: ignore[union-attr]
    info.preprocessing = Preprocessing(PixelProgram(size))  # type: ignore[union-attr]
    image = np.random.default_rng(0).integers(0, 255, (90, 60, 3)).astype(np.uint8)
    (row,) = rg.explain(model, image)
    assert row.places is not None
    assert row.seen is not None
    assert row.places.shape[0] * size[1] == row.places.shape[1] * 3 * stride  # square places
    assert (row.seen.view.height, row.seen.view.width) == (90 * 3 * stride / size[0], 60)
    assert row.seen.view.covers((90, 60)).all()
    assert row.heat().shape == (90, 60)


def test_folds_are_explained_one_by_one(tmp_path: Path) -> None:
    from regraft.models.store.ensemble import Ensemble

    both = Ensemble([small_network("pool"), small_network("pool")]).eval()
    with pytest.raises(rg.SettingsError, match="each fold by itself"):
        rg.explain(both, planted(1, 0)[0])


def test_bands_and_grey_images_are_explained(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 255, (40, 50)).astype(np.uint8)
    (row,) = rg.explain(small_network("pool"), grey)
    assert row.overlay(100).shape == (80, 208, 3)
    model = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2))
    numbers = (0.5,) * 4
    four = Preprocessing(PixelProgram((32, 32)), numbers, numbers, ("R", "G", "B", "A"))
    set_info(model, ModelInfo("own", class_names=CLASSES, preprocessing=four, head=("4",)))
    (row,) = rg.explain(model.eval(), np.dstack([grey, grey, grey, grey]))
    assert row.error is None
    assert row.overlay().shape == (256, 520, 3)
