"""The heat map of the page: what the model's extra output says is what `rg.explain` finds, and the page draws it so."""

from __future__ import annotations

import base64
import copy
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image
from tests.browser import Browser, browser
from tests.explanation.test_explain import CLASSES, planted, ranks, small_network
from tests.exports.test_families import NAMES, model_folder
from tests.exports.test_page import real_runtime  # noqa: F401
from torch import nn

import regraft as rg
from regraft.data.decode.decode import PixelProgram
from regraft.exports.int8.quantise import WAYS, quantised, ranges_of
from regraft.exports.page.heat import with_heat
from regraft.exports.running.session import SealedSession
from regraft.exports.sealed_run import SealedRun, sealed_run, with_metadata


def sealed(root: Path, model: Any) -> SealedRun:
    return sealed_run(model_folder(root / "model", model), "x.onnx", verify=0, model=copy.deepcopy(model))


def heat_of(data: bytes, images: np.ndarray) -> np.ndarray:
    session = SealedSession(data)
    assert "heat" in session.outputs
    return session.run(images, resize=False)["heat"]


@pytest.mark.parametrize(
    "output",
    ["softmax", pytest.param("binary", marks=pytest.mark.slow), pytest.param("multilabel", marks=pytest.mark.slow)],
)
def test_it_is_what_explain_finds(output: str, tmp_path: Path) -> None:
    model = small_network("pool", output)
    images, _, _ = planted(4, 0)
    heat = heat_of(with_heat(sealed(tmp_path, model)).data, images)
    for place, name in enumerate(CLASSES):
        for row, own in zip(rg.explain(model, images, classes=name), heat[:, place], strict=True):
            assert row.places is not None
            np.testing.assert_allclose(own / own.size, row.places, atol=1e-5)


@pytest.mark.slow
def test_other_weights_give_another_map_and_int8_the_same(tmp_path: Path) -> None:
    """As of `explain`: a map that stays the same without what was learned shows the image, not the network."""
    file = sealed(tmp_path, small_network("pool"))
    images, _, _ = planted(12, 5)
    before = heat_of(with_heat(file).data, images)[:, 1]
    model = onnx.load_model_from_string(file.data)
    (head,) = (one for one in model.graph.initializer if list(one.dims) == [2, 24])
    found = []
    for seed in range(12):
        values = np.random.default_rng(seed).normal(0, 0.2, (2, 24)).astype(np.float32)
        head.raw_data = values.tobytes()
        other = SealedRun(with_metadata(model, file.seal), file.seal, "", file.network, file.contents)
        maps = heat_of(with_heat(other).data, images)[:, 1]
        found += [np.corrcoef(ranks(one), ranks(two))[0, 1] for one, two in zip(before, maps, strict=True)]
    assert abs(np.mean(found)) < 0.3
    floats = onnx.load_model_from_string(file.data)
    small = quantised(floats, ranges_of(floats, [images], "minmax"), WAYS[0])
    data = with_metadata(small, file.seal)
    maps = heat_of(with_heat(SealedRun(data, file.seal, "", file.network, file.contents)).data, images)[:, 1]
    assert np.corrcoef(maps.ravel(), before.ravel())[0, 1] > 0.98


@pytest.mark.slow
def test_networks_that_end_otherwise_have_none(tmp_path: Path) -> None:
    normed = small_network("pool")
    assert isinstance(normed, nn.Sequential)
    normed[-1] = nn.Sequential(nn.LayerNorm(24), nn.Linear(24, 2))
    one_place = small_network("pool", program=PixelProgram((8, 8)))
    for number, model in enumerate((small_network("flatten"), normed, one_place)):
        file = sealed(tmp_path / str(number), model)
        assert with_heat(file) is file


@pytest.fixture(scope="module")
def page() -> Iterator[Browser]:
    with browser() as one:
        yield one


@pytest.mark.slow
@pytest.mark.usefixtures("real_runtime")
@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_the_page_draws_what_explain_draws(resize: Any, tmp_path: Path, page: Browser) -> None:
    model = rg.adapt(rg.build_model("test_resnet", seed=0), classes=NAMES, image_size=128)
    folder = model_folder(tmp_path / "model", model, pixels=PixelProgram((128, 128), resize, crop_fraction=0.875))
    out = rg.export(folder, tmp_path / "x.html", verify=0).path
    pixels = planted(1, 3)[0][0]
    Image.fromarray(pixels).resize((300, 190)).save(tmp_path / "a.png")
    (row,) = rg.explain(folder, tmp_path / "a.png")
    page.open(out.as_uri(), 400, 800, phone=True)
    page.choose("#choose", [tmp_path / "a.png"])
    page.wait("document.querySelectorAll('.photo[aria-busy=false]').length === 1")
    assert page.value("document.querySelector('.why').getAttribute('aria-pressed')") == "false"
    page.value("document.querySelector('.why').click()")
    drawn = page.value("document.querySelector('canvas.heat').toDataURL()").partition(",")[2]
    found = np.asarray(Image.open(io.BytesIO(base64.b64decode(drawn))).convert("RGB")).astype(int)
    wanted = row.panels()[1].astype(int)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).mean() < 3
    assert np.corrcoef(found[..., 0].ravel(), wanted[..., 0].ravel())[0, 1] > 0.98
    assert page.value("document.documentElement.scrollWidth") == 400
    boxes = [
        page.value(f"document.querySelector('{one}').getBoundingClientRect().toJSON()")
        for one in (".why", ".shown img", "canvas.heat")
    ]
    for side, sign in (("left", 1), ("top", 1), ("right", -1), ("bottom", -1)):
        assert sign * boxes[0][side] >= sign * boxes[1][side]
        assert boxes[2][side] == pytest.approx(boxes[1][side], abs=1)
    page.value("document.querySelector('.why').click()")
    assert page.value("document.querySelector('canvas.heat')") is None
    assert page.problems == []
