"""Exports as OpenVINO models and as programs of torch.export, through the command line and in Python."""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import Cli, photo
from tests.exports.test_families import DEFAULT, NAMES, SLOW, model_folder

import regraft as rg
from regraft import commit
from regraft.exports.other import torch_program


@pytest.fixture(scope="module")
def model(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> rg.Export:
    """The tiny run's network as tiny.xml and tiny.bin."""
    return rg.export(tiny_run, tmp_path_factory.mktemp("openvino") / "tiny.xml", verify=12)


def test_an_openvino_model_says_what_the_run_says(
    model: rg.Export, tiny_run: Path, tiny_photos: Path, cli: Cli
) -> None:
    assert sorted(path.name for path in model.path.parent.iterdir()) == ["tiny.bin", "tiny.md", "tiny.py", "tiny.xml"]
    assert (model.verified["num_images"], model.verified["same_class"]) == (12, 18)
    assert model.verified["largest_difference"] < 1e-3
    rows = [json.loads(line) for line in cli("predict", model.path, tiny_photos, "--json").out.splitlines()]
    wanted = rg.predict(tiny_run, tiny_photos)
    assert [row["prediction"] for row in rows] == [row.prediction for row in wanted]
    for row, other in zip(rows, wanted, strict=True):
        assert row["probabilities"] == pytest.approx(other.probabilities, abs=1e-4)
    assert [row.prediction for row in rg.predict(model.path, tiny_photos)] == [row.prediction for row in wanted]
    assert str(Path.cwd()) not in model.path.read_text()


def test_its_script_runs_without_regraft(model: rg.Export, tiny_photos: Path, tmp_path: Path) -> None:
    for path in model.path.parent.iterdir():
        shutil.copy(path, tmp_path)
    (tmp_path / "regraft.py").write_text("raise ImportError('not here')\n")
    image = Image.open(next((tiny_photos / "red").iterdir())).resize((300, 70))
    image.save(tmp_path / "wide.png")
    command = [sys.executable, "tiny.py", "wide.png"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("wide.png\t")


def test_what_was_changed_or_is_missing_is_named(
    model: rg.Export, tiny_photos: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in model.path.parent.iterdir():
        shutil.copy(path, tmp_path)
    xml, weights = tmp_path / "tiny.xml", tmp_path / "tiny.bin"
    text = xml.read_text()
    xml.write_text(text.replace("blue", "navy"))
    result = cli("predict", xml, tiny_photos)
    assert (result.code, "`class_names` of its metadata" in result.err) == (7, True), result.err
    xml.write_text(text)
    data = bytearray(weights.read_bytes())
    data[len(data) // 2 + 1] ^= 1
    weights.write_bytes(bytes(data))
    result = cli("predict", xml, tiny_photos)
    assert (result.code, "changed after it was written: its network" in result.err) == (7, True), result.err
    weights.unlink()
    result = cli("predict", xml, tiny_photos)
    assert (result.code, "cannot be read by OpenVINO" in result.err) == (7, True), result.err
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else find(name))
    result = cli("predict", model.path, tiny_photos)
    assert (result.code, "pip install 'regraft[openvino]'" in result.err) == (2, True)


def test_a_program_of_torch_export(tiny_run: Path, tiny_photos: Path, tmp_path: Path, cli: Cli) -> None:
    result = cli("export", tiny_run, "--to", "torch", "-o", tmp_path / "tiny.pt2", "--verify", "6")
    assert result.code == 0, result.err
    assert "6 golden probes and 6 odd images say the same" in result.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.md", "tiny.pt2"]
    found = {torch_program.METADATA_FILE: ""}
    program = torch.export.load(io.BytesIO((tmp_path / "tiny.pt2").read_bytes()), extra_files=found)
    texts = json.loads(found[torch_program.METADATA_FILE])
    assert json.loads(texts["class_names"]) == ["blue", "green", "red"]
    files = sorted((tiny_photos / "red").iterdir())[:3]
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB").resize((32, 32), 3)) for path in files])
    shares = program.module()(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()))
    for row, wanted in zip(shares.numpy(), rg.predict(tiny_run, list(pixels)), strict=True):
        np.testing.assert_allclose(row, list(wanted.probabilities.values()), atol=1e-5)


def test_missing_packages_names_and_int8_are_said_first(
    tiny_run: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.bin").write_text("mine")
    result = cli("export", tiny_run, "-o", tmp_path / "mine.xml")
    assert (result.code, "mine.bin' already" in result.err) == (7, True), result.err
    result = cli("export", tiny_run, "-o", tmp_path / "tiny.xml", "--int8")
    assert (result.code, "int8 is written as .onnx" in result.err) == (2, True), result.err
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else find(name))
    result = cli("export", tiny_run, "-o", tmp_path / "tiny.xml")
    assert (result.code, "pip install 'regraft[openvino]'" in result.err) == (2, True), result.err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.bin"]


@pytest.mark.slow
def test_a_full_disk_leaves_nothing_of_several_files(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = commit.write_new, []

    def failing(path: Path, data: bytes) -> None:
        calls.append(path)
        if path.suffix == ".xml":
            raise rg.StorageError("The disk is full.")
        write(path, data)

    monkeypatch.setattr(commit, "write_new", failing)
    with pytest.raises(rg.StorageError):
        rg.export(tiny_run, tmp_path / "tiny.xml", verify=0)
    assert len(calls) == 4
    assert not list(tmp_path.iterdir())


CASES = {case[0]: case for case in (*DEFAULT, *SLOW)}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet", "tf_efficientnet_lite0"])
def test_other_families_as_openvino_models(name: str, tmp_path: Path) -> None:
    _, size, arguments = CASES[name]
    network = rg.adapt(rg.build_model(name, seed=0, **arguments), classes=NAMES, image_size=size)
    folder = model_folder(tmp_path / "model", network)
    found = rg.export(folder, tmp_path / "x.xml", verify=12)
    assert found.verified["same_class"] == found.verified["num_probes"] + 12
    if name == "unet":
        photo(tmp_path / "a.png", (40, 60, 200), 1, (90, 150))
        (wanted,), (mask,) = (rg.predict_masks(one, tmp_path / "a.png") for one in (folder, found.path))
        assert mask.mask is not None
        assert wanted.mask is not None
        assert (mask.mask == wanted.mask).mean() > 0.999


@pytest.mark.slow
def test_what_another_runtime_computes_differently_is_refused(tmp_path: Path) -> None:
    _, size, arguments = CASES["segnet"]
    network = rg.adapt(rg.build_model("segnet", seed=0, **arguments), classes=NAMES, image_size=size)
    folder = model_folder(tmp_path / "model", network)
    with pytest.raises(rg.WeightsError, match=r"does not say what the run says: .* masks differ"):
        rg.export(folder, tmp_path / "x.xml", verify=6)  # places of largest values, chosen among nearly equal ones
    with pytest.raises(rg.SettingsError, match="this network names pixels"):
        rg.export(folder, tmp_path / "x.pt2", verify=0)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
