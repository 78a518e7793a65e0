"""A model folder and a run folder may come from a stranger: nothing in them opens a file or an address, or runs code.

The floor of timm unpickles a `checkpoint_path`. To run this file with it:

    uv pip install --no-deps --target /tmp/floor timm==1.0.22   (outside the repository, which pins another)
    PYTHONPATH=/tmp/floor uv run pytest -n 0 tests/models/test_strangers.py
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conftest import Cli

import regraft as rg
from regraft.errors import SettingsError, StorageError
from regraft.models.zoo.arguments import argument_mistakes

ROOT = Path(__file__).parents[2]


class Mine:
    """Unpickled, it makes a file."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.sign),)


class Trap:
    """A pickle that leaves a sign when it is opened, and an address that notes each call."""

    def __init__(self, folder: Path) -> None:
        self.sign, self.pickle = folder / "ran", folder / "planted.pth"
        self.pickle.write_bytes(pickle.dumps({"state_dict": Mine(self.sign)}))
        self.calls: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/weights.pth"
        threading.Thread(target=self._answer, daemon=True).start()

    def _answer(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                self.calls.append(connection.recv(100))

    def close(self) -> None:
        self._socket.close()

    def assert_untouched(self) -> None:
        assert not self.sign.exists()
        assert not self.calls


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Trap]:
    made = Trap(tmp_path)
    yield made
    made.close()


def hostile_arguments(trap: Trap) -> list[dict[str, Any]]:
    config = {"url": trap.url, "file": str(trap.pickle), "num_classes": 1000, "architecture": "test_efficientnet"}
    return [
        {"checkpoint_path": str(trap.pickle)},
        {"pretrained": True, "pretrained_cfg": {**config, "file": None}},
        {"pretrained": True, "pretrained_cfg": config},
        {"pretrained": True, "pretrained_cfg_overlay": config},
        {"pretrained": True, "cache_dir": str(trap.pickle.parent)},
        {"weights": str(trap.pickle)},
        {"weights": "pretrained"},
        {"features_only": True},
        {"pruned": True},
        {"encoder_args": {"checkpoint_path": str(trap.pickle)}},
        {"act_layer": str(trap.pickle)},
        {"drop_path_rate": trap.url},
        {"adjusted": {"conv_stem": {"forward": 1}}},
        {"adjusted": {"no_such_layer": {"eps": 1e-3}}},
        {"img_size": 10**12},
        {"no_such_argument": 1},
    ]


NUM_HOSTILE = 16


def planted(run: Path, folder: Path, arguments: dict[str, Any], *, name: str | None = None) -> Path:
    """A copy of a run whose model and recipe ask for these arguments."""
    copy = shutil.copytree(run, folder)
    config = json.loads((copy / "model" / "config.json").read_text())
    config["regraft"]["build"]["args"] |= arguments
    config["model_args"] |= arguments
    config["regraft"]["build"]["name"] = name or config["regraft"]["build"]["name"]
    (copy / "model" / "config.json").write_text(json.dumps(config))
    recipe = yaml.safe_load((copy / "recipe.yaml").read_text())
    recipe["model"]["args"] |= arguments
    recipe["model"]["name"] = name or recipe["model"]["name"]
    (copy / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (copy / "status.json").write_text('{"state": "stopped"}')
    return copy


@pytest.mark.parametrize("number", range(NUM_HOSTILE))
@pytest.mark.parametrize("name", [None, "unet"])
def test_a_stored_network_opens_nothing(
    number: int, name: str | None, tiny_run: Path, tmp_path: Path, trap: Trap
) -> None:
    arguments = hostile_arguments(trap)[number]
    copy = planted(tiny_run, tmp_path / "run", arguments, name=name)
    said = "|".join({*arguments, *arguments.get("adjusted", {})})
    with pytest.raises(StorageError, match=said):
        rg.load_model(copy)
    with pytest.raises(SettingsError, match=said):
        rg.resume(copy, show=False)
    trap.assert_untouched()


def test_the_command_line_says_what_a_stored_network_asks_for(
    tiny_run: Path, tiny_photos: Path, tmp_path: Path, trap: Trap, cli: Cli
) -> None:
    copy = planted(tiny_run, tmp_path / "run", {"checkpoint_path": str(trap.pickle)})
    result = cli("predict", copy, tiny_photos / "red")
    assert (result.code, "checkpoint_path" in result.err) == (7, True)
    assert cli("resume", copy).code == 2
    trap.assert_untouched()


@pytest.mark.parametrize("name", ["test_efficientnet", "alexnet", "unet", "segnet", "keras_vgg16", "keras:VGG16"])
def test_one_list_for_every_builder(name: str, trap: Trap) -> None:
    for arguments in hostile_arguments(trap)[:9]:
        if "weights" not in arguments:  # the caller's own word for a file
            with pytest.raises(SettingsError, match="does not take these arguments"):
                rg.build_model(name, **arguments)
        assert argument_mistakes(name, arguments)
    trap.assert_untouched()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("test_efficientnet", {"drop_path_rate": 0.1, "bn_eps": 1e-3, "pad_type": "same", "act_layer": "gelu"}),
        ("test_resnet", {"output_stride": 16, "block_args": {"attn_layer": "se"}, "global_pool": "max"}),
        ("test_vit", {"img_size": 64, "init_values": 1e-5, "qkv_bias": False}),
        ("alexnet", {"widths": [8, 8, 8, 8, 8], "hidden": 16, "conv1_padding": "same"}),
        ("unet", {"encoder": "test_resnet", "depth": 3, "filters": [8, 4], "encoder_args": {"drop_path_rate": 0.1}}),
        ("keras_resnet50", {"keras_version": 3}),
    ],
)
def test_what_describes_a_network_is_let_through(name: str, arguments: dict[str, Any]) -> None:
    assert argument_mistakes(name, arguments) == []
    if name != "keras_resnet50":
        rg.build_model(name, classes=3, **arguments)


def test_a_class_in_a_program_is_the_caller_s_own() -> None:
    from torch import nn

    assert isinstance(rg.build_model("test_resnet", act_layer=nn.SiLU).get_submodule("act1"), nn.SiLU)


@pytest.mark.packages
def test_the_same_with_the_lowest_timm(tmp_path: Path) -> None:
    """The floor of pyproject.toml instead of the installed timm."""
    floor = tmp_path / "floor"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (lowest,) = (line.replace(">=", "==") for line in project["dependencies"] if line.startswith("timm>="))
    install = ["uv", "pip", "install", "-q", "--no-deps", "--python", sys.executable, "--target", floor, lowest]
    if shutil.which("uv") is None or subprocess.run(install, cwd=tmp_path, check=False).returncode:
        pytest.skip(f"needs {lowest} from the package registry, which did not answer")
    run = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", "-m", "not packages", __file__]
    done = subprocess.run(run, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(floor)}, check=False, capture_output=True)
    assert done.returncode == 0, done.stdout.decode()[-2000:]
