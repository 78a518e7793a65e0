"""`regraft inspect FILE`: what a weights file holds, and which network it is likely for."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.conftest import Cli, photo, photos

from regraft.weights.file import read_weights
from regraft.weights.inspection import describe, render
from regraft.weights.likely import likely_architectures
from regraft.weights.writers import keras_h5
from regraft.weights.writers.keras_tensor import KerasTensor

pytest.importorskip("h5py")


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).normal(size=shape).astype("f4")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    broken = random(8)
    broken[[1, 5]] = np.nan, np.inf
    tensors = [
        KerasTensor("block1_conv1", "kernel", random(3, 3, 3, 8)),
        KerasTensor("block1_conv1", "bias", broken),
        KerasTensor("block1_conv2", "kernel", random(3, 3, 8, 8)),
        KerasTensor("block2_conv1", "kernel", random(3, 3, 8, 16)),
        KerasTensor("block2_conv2", "kernel", random(3, 3, 16, 16)),
        KerasTensor("predictions", "kernel", random(16, 4)),
    ]
    keras_h5.write(tmp_path / "w.h5", tensors)
    return tmp_path / "w.h5"


def test_facts(cli: Cli, file: Path) -> None:
    facts = json.loads(cli("inspect", file, "--json").out)
    assert (facts["format"], facts["producer"]) == ("keras_h5", "keras 2.15.0")
    assert (facts["num_layers"], facts["num_tensors"]) == (5, 6)
    assert facts["num_parameters"] == 3 * 3 * (3 * 8 + 8 * 8 + 8 * 16 + 16 * 16) + 8 + 64
    assert facts["num_not_finite"] == 2
    assert [layer["layer"] for layer in facts["layers"]][:2] == ["block1_conv1", "block1_conv2"]
    kernel, bias = facts["layers"][0]["tensors"]
    assert (kernel["shape"], kernel["axes"], kernel["dtype"]) == ([3, 3, 3, 8], "HWIO", "float32")
    assert bias["num_not_finite"] == 2
    assert facts["names"]["family"] == "vgg"


def test_for_people(cli: Cli, file: Path) -> None:
    result = cli("inspect", file)
    assert result.code == 0, result.err
    assert "format: keras_h5, keras 2.15.0" in result.out
    assert "NaN or infinite: 2" in result.out
    assert "kernel 3x3x3x8 HWIO, bias 8 (2 NaN or infinite)" in result.out


def test_what_cannot_be_read(cli: Cli, tmp_path: Path, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:900])
    assert cli("inspect", file).code == 4
    page = tmp_path / "w.pth"
    page.write_text("<!DOCTYPE html><html>")
    assert "web page" in cli("inspect", page).err
    assert "predict" in cli("inspect", photo(tmp_path / "a.png", (1, 2, 3), 0)).err


def test_names_cannot_steer_the_terminal(tmp_path: Path) -> None:
    save_file({"\x1b[31mred\n.weight": random(2, 2)}, tmp_path / "w.safetensors")
    text = render(describe(read_weights(tmp_path / "w.safetensors")))
    assert "\x1b" not in text
    assert "red\n" not in text


def test_torch_is_not_imported(file: Path) -> None:
    code = (
        "import sys; from regraft.weights.file import read_weights; from regraft.weights.inspection import describe;"
        f"describe(read_weights({str(file)!r})); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(("without", "least"), [((), 1.0), (("predictions",), 0.9)])
def test_the_likely_network(tmp_path: Path, without: tuple[str, ...], least: float) -> None:
    """MobileNet by its shapes alone: nothing of its names is looked at."""
    tensors = {"a.weight": np.zeros((32, 3, 3, 3), "f2")}
    width = 32
    for place, out in enumerate((64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)):
        tensors[f"b{place}.dw.weight"] = np.zeros((width, 1, 3, 3), "f2")
        tensors[f"b{place}.pw.weight"] = np.zeros((out, width, 1, 1), "f2")
        width = out
    if "predictions" not in without:
        tensors["z.weight"] = np.zeros((1000, 1024), "f2")
    save_file(tensors, tmp_path / "w.safetensors")
    name, score = likely_architectures(read_weights(tmp_path / "w.safetensors"))[0]
    assert name == "mobilenetv1_100"
    assert score >= least


def list_networks() -> object:
    script = Path(__file__).parents[2] / "scripts" / "list_networks.py"
    spec = importlib.util.spec_from_file_location("list_networks", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "names", [["vgg16", "mobilenetv2_100", "resnet50"], pytest.param(None, marks=pytest.mark.slow)]
)
def test_the_table_of_networks_is_timms(names: list[str] | None) -> None:
    import regraft.weights.likely as likely

    script = list_networks()
    table = (Path(likely.__file__).parent / likely.NETWORKS).read_text(encoding="ascii").splitlines()
    assert set(script.lines(names or script.NAMES)) <= set(table)


@pytest.mark.parametrize("kind", ["bztar", "xztar"])
def test_an_archive_of_images_is_not_a_weights_file(cli: Cli, tmp_path: Path, kind: str) -> None:
    photos(tmp_path / "photos", {"red": 2, "green": 2})
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), kind, tmp_path / "photos"))
    result = cli("inspect", packed)
    assert result.code == 3
    assert "is an archive of a kind that is not read in place" in result.err
    assert packed.name in result.err.partition("try:")[2]
