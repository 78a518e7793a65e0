"""`regraft convert`: to safetensors, to a model folder, and back to Keras to the last bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.numpy import load_file, save_file
from tests.conftest import Cli

import regraft as rg
from regraft.models.graft.keras_tensors import keras_tensors
from regraft.weights.writers import keras_h5
from regraft.weights.writers.keras_tensor import KerasTensor

MODEL = "test_resnet"
pytest.importorskip("h5py")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    state = rg.build_model(MODEL, seed=7).state_dict()
    save_file({f"module.{name}": np.ascontiguousarray(t.numpy()) for name, t in state.items()}, tmp_path / "w.st")
    return tmp_path / "w.st"


def values(path: Path) -> dict[str, bytes]:
    return {tensor.name: tensor.load().tobytes() for tensor in rg.read_weights(path)}


def test_to_safetensors(cli: Cli, tmp_path: Path, file: Path) -> None:
    result = cli("convert", file, "--model", MODEL, "-o", tmp_path / "o.safetensors", "--skip", "module.fc")
    assert result.code == 0, result.err
    assert "not written: 2 tensors" in result.out
    written = load_file(tmp_path / "o.safetensors")
    wanted = rg.build_model(MODEL, seed=7).state_dict()
    assert set(written) == {name for name in wanted if not name.startswith("fc.")}
    assert all(np.array_equal(array, wanted[name].numpy()) for name, array in written.items())


def test_to_a_model_folder(cli: Cli, tmp_path: Path, file: Path) -> None:
    result = cli("convert", file, "--model", MODEL, "-o", tmp_path / "model")
    assert result.code == 0, result.err
    assert "class names: the file has none for its 1,000 classes; written as 0 to 999" in result.out
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        wanted = rg.build_model(MODEL, seed=7).eval()(images)
        assert torch.equal(rg.load_model(tmp_path / "model")(images), wanted)
        assert torch.equal(timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True).eval()(images), wanted)


def test_a_model_folder_needs_its_head(cli: Cli, tmp_path: Path, file: Path) -> None:
    result = cli("convert", file, "--model", MODEL, "-o", tmp_path / "model", "--skip", "module.layer4")
    assert result.code == 4
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("name", ["o.safetensors", "o.h5", "folder"])
def test_nothing_is_overwritten(cli: Cli, tmp_path: Path, file: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    result = cli("convert", file, "--model", MODEL, "-o", tmp_path / name)
    assert result.code == 7
    assert (tmp_path / name).read_text() == "mine"


def test_networks_without_names_in_keras(cli: Cli, tmp_path: Path, file: Path) -> None:
    result = cli("convert", file, "--model", MODEL, "-o", tmp_path / "o.h5")
    assert result.code == 4
    assert "keras_resnet50" in result.err
    assert not (tmp_path / "o.h5").exists()


def test_what_adjust_would_change_is_in_no_file(cli: Cli, tmp_path: Path) -> None:
    model = rg.build_model("keras_resnet50", keras_version="3")
    keras_h5.write(tmp_path / "w.h5", keras_tensors(model, set(model.state_dict())))
    options = [tmp_path / "w.h5", "--model", "resnet50", "-o"]
    assert cli("convert", *options, tmp_path / "o.safetensors").code == 4
    result = cli("convert", *options, tmp_path / "o.safetensors", "--adjust")
    assert result.code == 0, result.err
    assert "to be set in the network: the stride of " in result.out
    assert cli("convert", *options, tmp_path / "folder", "--adjust").code == 4
    assert not (tmp_path / "folder").exists()


def vgg16_notop(path: Path) -> Path:
    tensors, channels, random = [], 3, np.random.default_rng(0)
    for block, (count, width) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)], start=1):
        for conv in range(1, count + 1):
            name = f"block{block}_conv{conv}"
            tensors.append(KerasTensor(name, "kernel", random.random((3, 3, channels, width), "f4")))
            tensors.append(KerasTensor(name, "bias", random.random(width, "f4")))
            channels = width
    keras_h5.write(path, tensors)
    return path


def test_vgg16_and_back_to_the_last_bit(cli: Cli, tmp_path: Path) -> None:
    first = vgg16_notop(tmp_path / "vgg16_notop.h5")
    for source, out in ((first, "t.safetensors"), ("t.safetensors", "back.h5"), ("t.safetensors", "back.weights.h5")):
        result = cli("convert", tmp_path / source, "--model", "vgg16", "-o", tmp_path / out)
        assert result.code == 0, result.err
    assert values(tmp_path / "back.h5") == values(first)
    assert sorted(values(tmp_path / "back.weights.h5").values()) == sorted(values(first).values())


@pytest.mark.parametrize("name", ["keras_resnet50", "keras_mobilenetv2"])
def test_keras_networks_and_back_to_the_last_bit(cli: Cli, tmp_path: Path, name: str) -> None:
    model = rg.build_model(name, num_classes=7)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    keras_h5.write(tmp_path / "first.h5", keras_tensors(model, set(model.state_dict())))
    options = ["--model", name, "--num-classes", "7"]
    for source, out in (("first.h5", "t.safetensors"), ("t.safetensors", "back.h5")):
        result = cli("convert", tmp_path / source, *options, "-o", tmp_path / out)
        assert result.code == 0, result.err
    assert values(tmp_path / "back.h5") == values(tmp_path / "first.h5")


KERAS = {
    "keras_vgg16": "VGG16",
    "keras_resnet50": "ResNet50",
    "keras_resnet50v2": "ResNet50V2",
    "keras_inception_v3": "InceptionV3",
    "keras_xception": "Xception",
    "keras_mobilenet": "MobileNet",
    "keras_mobilenetv2": "MobileNetV2",
    "keras_densenet121": "DenseNet121",
    "keras_efficientnetb0": "EfficientNetB0",
}


@pytest.mark.oracle
@pytest.mark.parametrize("name", KERAS)
@pytest.mark.parametrize("suffix", [".h5", ".weights.h5"])
def test_keras_loads_what_goes_back(tmp_path: Path, name: str, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    options = {"keras_version": "3"} if name == "keras_resnet50" else {}
    model = rg.build_model(name, **options).eval()
    generator = torch.Generator().manual_seed(0)
    for tensor_name, tensor in model.state_dict().items():
        if tensor_name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.is_floating_point() and tensor.ndim == 1:
            tensor.add_(torch.rand(tensor.shape, generator=generator) * 0.1)
    out = tmp_path / f"w{suffix}"
    rg.write_keras(out, rg.keras_tensors(model))
    original = getattr(keras.applications, KERAS[name])(weights=None, classifier_activation=None)
    original.load_weights(out)
    side = original.input_shape[1]
    images = torch.rand(1, 3, side, side, generator=generator)
    with torch.no_grad():
        given = model(images).numpy()
        wanted = original(images.permute(0, 2, 3, 1)).detach().cpu().numpy()
    assert np.abs(given - wanted).max() / np.abs(wanted).max() <= 1e-4


@pytest.mark.parametrize("name", ["x.onnx", "x.pth", "x.PT", "x.ckpt", "x.keras", "x.safetensor"])
def test_a_suffix_that_is_not_written_is_refused(name: str, cli: Cli, tmp_path: Path, file: Path) -> None:
    result = cli("convert", file, "--model", MODEL, "-o", tmp_path / name)
    assert result.code == 2
    assert "NAME.safetensors" in result.err
    with pytest.raises(rg.SettingsError, match=f"would be a {Path(name).suffix.lower()} file"):
        rg.convert(file, tmp_path / name, model=MODEL)
    assert not (tmp_path / name).exists()


def test_a_run_is_converted_by_the_network_that_it_knows(cli: Cli, tmp_path: Path, tiny_run: Path) -> None:
    for source in (tiny_run, tiny_run / "model"):
        out = tmp_path / f"{source.name}.safetensors"
        result = cli("convert", source, "-o", out)
        assert result.code == 0, result.err
        stored = load_file(tiny_run / "model" / "model.safetensors")
        written = load_file(out)
        assert set(written) == set(stored)
        assert all(np.array_equal(written[name], stored[name]) for name in stored)
    for arguments, said in {
        ("--model", MODEL, "-o", tmp_path / "a.h5"): "--model was given",
        ("-o", tmp_path / "folder"): "is a model folder already",
    }.items():
        result = cli("convert", tiny_run, *arguments)
        assert (result.code, said in result.err) == (2, True), result.err


def test_without_a_network_the_option_is_named(cli: Cli, tmp_path: Path, file: Path) -> None:
    result = cli("convert", file, "-o", tmp_path / "a.safetensors")
    assert result.code == 2
    assert "--model: the weights are written" in result.err
