"""Every family of networks that regraft trains, with random weights, says the same as its export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnxruntime import InferenceSession
from PIL import Image
from tests.conftest import Cli, photo

import regraft as rg
from regraft.data.decode.decode import PixelProgram
from regraft.evaluation.predict import Predictor
from regraft.evaluation.probes import make_probes
from regraft.evaluation.trust import novelty
from regraft.evaluation.trust.novelty import KINDS, Evidence, fit_detector, strangeness
from regraft.exports.int8.quantise import WAYS, quantised, ranges_of
from regraft.exports.running.predictor import SealedMaskPredictor
from regraft.models.describe.info import info_of
from regraft.models.describe.inputs import Normaliser
from regraft.models.describe.trust import Detector, Trust
from regraft.models.store.folder import write_model

NAMES = ("cat", "dog", "owl")
DEFAULT = (("tf_efficientnet_lite0", 64, {}),)
SLOW = (
    ("unet", 64, {"encoder": "resnet18", "pyramid": [1, 2, 3, 6]}),
    ("segnet", 64, {}),
    ("keras_mobilenet", 32, {}),
    ("unet", 64, {"encoder": "resnet18"}),
    ("alexnet", 224, {}),
    *((f"keras_{name}", size, {}) for name, size in (("vgg16", 32), ("resnet50", 32), ("densenet121", 32))),
    *((f"keras_{name}", size, {}) for name, size in (("xception", 71), ("inception_v3", 75))),
    *((name, 75, {}) for name in ("inception_v3", "xception41", "inception_resnet_v2")),
    *(
        (name, 64, {})
        for name in (
            "convnext_atto",
            "densenet121",
            "dpn48b",
            "edgenext_xx_small",
            "efficientvit_b0",
            "fastvit_t8",
            "ghostnet_050",
            "hrnet_w18_small",
            "mobilenetv3_small_050",
            "mobileone_s0",
            "nf_regnet_b0",
            "regnetx_002",
            "repvgg_a0",
            "res2net50_14w_8s",
            "resnest14d",
            "resnet18",
            "resnetv2_50",
            "selecsls42b",
            "skresnet18",
            "tf_efficientnet_b0",
            "tf_mixnet_s",
            "vgg11_bn",
        )
    ),
)


def model_folder(root: Path, model: Any, *, pixels: PixelProgram | None = None) -> Path:
    """The folder of a model that nothing has trained, with probes of clouds."""
    info = info_of(model.eval())
    if pixels is not None:
        object.__setattr__(info.preprocessing, "pixels", pixels)
    program = info.preprocessing.pixels
    rng = np.random.default_rng(0)
    planes = rng.integers(0, 256, (4, program.num_channels, 6, 6), dtype=np.uint8)
    size = (program.size[1], program.size[0])
    images = [[np.asarray(Image.fromarray(plane).resize(size)) for plane in image] for image in planes]
    pixels_NHWC = np.array(images).transpose(0, 2, 3, 1)
    write_model(root, model, probes=make_probes(model, pixels_NHWC, Normaliser(info.preprocessing)))
    return root


def require_the_same(model: Any, root: Path, **options: Any) -> rg.Export:
    found = rg.export(model_folder(root / "model", model, **options), root / "x.onnx", verify=12)
    total = found.verified["num_probes"] + found.verified["num_images"]
    assert found.verified["same_class"] == total >= 14
    return found


@pytest.mark.parametrize(
    ("name", "size", "arguments"),
    [*DEFAULT, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_network_says_the_same(name: str, size: int, arguments: dict[str, Any], tmp_path: Path) -> None:
    model = rg.build_model(name, seed=0, **arguments)
    require_the_same(rg.adapt(model, classes=NAMES, image_size=size), tmp_path)


def test_there_are_thirty_architectures() -> None:
    assert len({name for name, _, _ in (*DEFAULT, *SLOW)}) >= 30


@pytest.mark.slow
@pytest.mark.parametrize(("output", "names"), [("binary", NAMES[:2]), ("multilabel", NAMES)])
def test_other_outputs(output: str, names: tuple[str, ...], tmp_path: Path, cli: Cli) -> None:
    head = rg.Head(output=output)  # type: ignore[arg-type]
    model = rg.adapt(rg.build_model("test_resnet", seed=0), classes=names, image_size=32, head=head)
    info_of(model).thresholds = dict.fromkeys(names[-1:] if output == "binary" else names, 0.45)
    found = require_the_same(model, tmp_path)
    photo(tmp_path / "a.png", (40, 60, 200), 1)
    for options in ((), ("--threshold", "0.99"), ("--json",)):
        rows = [cli("predict", one, tmp_path / "a.png", *options) for one in (tmp_path / "model", found.path)]
        assert rows[0].code == rows[1].code == 0, rows[1].err
        if not options:
            assert rows[0].out == rows[1].out
        elif options[0] == "--json":
            of_run, of_file = (json.loads(row.out) for row in rows)
            assert of_run.get("labels") == of_file.get("labels")
            assert of_run["prediction"] == of_file["prediction"]


@pytest.mark.slow
def test_several_bands(tmp_path: Path) -> None:
    model = rg.adapt(rg.build_model("test_resnet", seed=0), classes=NAMES, image_size=32, in_channels=5)
    found = require_the_same(model, tmp_path)
    assert "(N, height, width, 5)" in found.card.read_text()
    assert "np.load" in found.script.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("resize", ["squash", "pad"])
def test_masks_at_the_size_of_the_image(resize: Any, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regraft.evaluation.probes._MAP_SIDE", 40)  # of the probes of a larger network: parts of images
    model = rg.adapt(rg.build_model("unet", seed=0, encoder="resnet18"), classes=NAMES, image_size=64)
    found = require_the_same(model, tmp_path, pixels=PixelProgram((64, 64), resize))
    photo(tmp_path / "photos" / "a.png", (40, 60, 200), 1, (90, 150))
    photo(tmp_path / "photos" / "b.jpg", (200, 60, 20), 2, (600, 75))
    folders = []
    for name, model_path in (("run", tmp_path / "model"), ("file", found.path)):
        result = cli("predict", model_path, tmp_path / "photos", "--out", tmp_path / name, "--json")
        assert result.code == 0, result.err
        folders.append([json.loads(line) for line in result.out.splitlines()])
    for of_run, of_file in zip(*folders, strict=True):
        masks = [np.asarray(Image.open(row["mask"])) for row in (of_run, of_file)]
        assert masks[0].shape == masks[1].shape
        assert (masks[0] == masks[1]).mean() >= 0.999
        assert of_file["confidence"] == pytest.approx(of_run["confidence"], abs=1e-4)
        assert of_file["shares"] == pytest.approx(of_run["shares"], abs=1e-3)
    (bad,) = SealedMaskPredictor(found.path).predict([str(tmp_path / "none.png")])
    assert bad.error == "does not exist"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_a_thousand_odd_images(resize: Any, tiny_run: Path, tmp_path: Path) -> None:
    model = rg.load_model(tiny_run)
    folder = model_folder(tmp_path / "model", model, pixels=PixelProgram((32, 32), resize))
    found = rg.export(folder, tmp_path / "x.onnx", verify=1000)
    assert found.verified["same_class"] == 1004
    assert found.verified["largest_difference"] <= 1e-3


def knowing(kind: str) -> Any:
    """A network that knows how typical an image is, and what sets hold the truth."""
    model = rg.adapt(rg.build_model("test_resnet", seed=0), classes=NAMES, image_size=32)
    rng = np.random.default_rng(0)
    clouds = rng.integers(0, 256, (120, 4, 4, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    info_of(model).class_names = NAMES
    predictor = Predictor(model, rg.choose_numerics("cpu", "fp32"), features=True)
    logits, features = predictor.run(clouds)
    evidence = Evidence(features, logits, torch.arange(120) % 3)
    detector, _ = fit_detector(evidence.of(torch.arange(60)), evidence.of(torch.arange(60, 120)))
    train = evidence.of(torch.arange(60))
    kept = Detector(kind, {}, detector.typical)
    if kind != "energy":
        fitted = novelty._fitted(train, evidence.of(torch.arange(60, 120)))
        kept = Detector(kind, {name: fitted[name] for name in KINDS[kind][1]}, detector.typical)
    scores = strangeness(kept, features[60:], logits[60:]).sort().values
    info_of(model).trust = Trust(torch.linspace(0.1, 0.9, 60), Detector(kind, kept.tensors, scores))
    return model


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["blend", "distance", "neighbours", "energy"])
def test_sets_and_images_of_no_known_kind(kind: str, tmp_path: Path, cli: Cli) -> None:
    found = require_the_same(knowing(kind), tmp_path)
    assert found.verified["typicality_difference"] <= 1e-6
    photo(tmp_path / "photos" / "a.png", (40, 60, 200), 1)
    photo(tmp_path / "photos" / "b.png", (240, 250, 20), 2)
    asked = (tmp_path / "photos", "--sets", "0.9", "--reject", "--json")
    of_run, of_file = (cli("predict", one, *asked) for one in (tmp_path / "model", found.path))
    assert of_file.code == 0, of_file.err
    for lines in zip(of_run.out.splitlines(), of_file.out.splitlines(), strict=True):
        wanted, got = map(json.loads, lines)
        assert list(got) == list(wanted)
        assert got["candidates"] == wanted["candidates"]
        assert got["typicality"] == pytest.approx(wanted["typicality"], abs=1e-6)


@pytest.mark.slow
def test_what_is_large_of_the_typicality_has_16_bits_in_int8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = onnx.load(require_the_same(knowing("blend"), tmp_path).path)
    given = {"images": np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)}
    ranges = ranges_of(model, [given["images"]], "minmax")
    made = []
    for large in (64, 1 << 40):
        monkeypatch.setattr("regraft.exports.int8.quantise._LARGE", large)
        made.append(quantised(model, ranges, WAYS[0]))
    halves, none = ([one.name for one in each.graph.initializer if one.data_type == 10] for each in made)
    assert halves
    assert all(name.startswith("typicality.") for name in halves)
    assert not none
    assert made[0].ByteSize() < made[1].ByteSize()
    given["resize"] = np.asarray(False)
    got, wanted = (InferenceSession(each.SerializeToString()).run(["typicality"], given)[0] for each in made)
    np.testing.assert_allclose(got, wanted, atol=2e-3)
