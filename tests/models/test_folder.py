"""Model folders: what is loaded is what was written, to the bit; timm loads what it can and refuses the rest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import regraft as rg
from regraft.errors import RegraftError, SettingsError, StorageError
from regraft.evaluation.probes import make_probes
from regraft.models.describe.info import info_of
from regraft.models.describe.inputs import Normaliser
from regraft.models.store.folder import CONFIG, WEIGHTS, load_probes, write_model
from regraft.models.surgery.surgery import default_preprocessing

CLASSES = ["cat", 'dog, "big"\n', "Hühner"]


class Small(nn.Module):
    """A user's own network."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(self.conv(x)).relu().mean((2, 3)))


def build(name: str = "test_efficientnet", size: Any = 32, head: rg.Head | None = None, **options: Any) -> nn.Module:
    return rg.adapt(rg.build_model(name, seed=1, **options), classes=CLASSES, image_size=size, head=head).eval()


def write(path: Path, model: nn.Module) -> dict[str, Any]:
    preprocessing = default_preprocessing(model)
    height, width = preprocessing.pixels.size
    images = np.random.default_rng(0).integers(0, 256, (4, height, width, 3), dtype=np.uint8)
    probes = make_probes(model, images, Normaliser(preprocessing))
    return write_model(path, model, probes=probes)


def logits(model: nn.Module, folder: Path) -> Tensor:
    with torch.no_grad():
        return model(load_probes(folder)["images"])


@pytest.mark.parametrize(
    ("head", "size", "loadable"),
    [
        (None, 32, True),
        (rg.Head(dropout=0.3), 32, True),
        (None, (32, 64), True),
        (rg.Head(pool="flatten"), 64, False),
        (rg.Head(pool="flatten"), (64, 96), False),
        (rg.Head(hidden=[16], dropout=0.5), 32, False),
        (rg.Head(pool="avgmax"), 32, False),
    ],
    ids=["plain", "dropout", "wide", "flatten", "wide-flatten", "hidden", "avgmax"],
)
@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet"])
def test_a_folder_gives_back_the_same_logits(
    tmp_path: Path, name: str, head: rg.Head | None, size: Any, loadable: bool
) -> None:
    model = build(name, size, head)
    config = write(tmp_path / "model", model)
    expected = load_probes(tmp_path / "model")["logits"]
    loaded = rg.load_model(tmp_path / "model")
    assert torch.equal(logits(loaded, tmp_path / "model"), expected)
    assert info_of(loaded).class_names == tuple(CLASSES)
    assert info_of(loaded).preprocessing == info_of(model).preprocessing
    assert not loaded.training

    assert config["regraft"]["timm_loadable"] is loadable
    assert config["architecture"].startswith("regraft/") is not loadable
    if loadable:
        twin = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True).eval()
        assert torch.allclose(logits(twin, tmp_path / "model"), expected, atol=1e-5)
    else:
        with pytest.raises(RuntimeError, match="Unknown model"):
            timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True)


def test_arguments_of_the_architecture_come_back(tmp_path: Path) -> None:
    model = build("test_resnet", 64, output_stride=16)
    config = write(tmp_path / "model", model)
    assert config["regraft"]["timm_loadable"] is True
    assert config["model_args"] == {"output_stride": 16}
    loaded = rg.load_model(tmp_path / "model")
    assert torch.equal(logits(loaded, tmp_path / "model"), load_probes(tmp_path / "model")["logits"])


def test_a_network_that_was_changed_after_building_is_not_called_timms(tmp_path: Path) -> None:
    model = build("test_resnet", 64)
    for module in model.modules():
        if isinstance(module, nn.MaxPool2d):
            module.stride = 1
    config = write(tmp_path / "model", model)
    assert config["regraft"]["timm_loadable"] is False
    assert config["architecture"] == "regraft/test_resnet"


def test_alexnet_comes_back(tmp_path: Path) -> None:
    model = build("alexnet", 227, widths=[8, 16, 24, 24, 16], hidden=32)
    write(tmp_path / "model", model)
    loaded = rg.load_model(tmp_path / "model")
    assert torch.equal(logits(loaded, tmp_path / "model"), load_probes(tmp_path / "model")["logits"])


@pytest.mark.parametrize("head", [None, rg.Head(hidden=[4])])
def test_a_users_own_module_is_loaded_into_it(tmp_path: Path, head: rg.Head | None) -> None:
    adapted = rg.adapt(Small(), classes=CLASSES, image_size=32, head=head)
    config = write(tmp_path / "model", adapted)
    assert config["architecture"] == "regraft/Small"
    expected = load_probes(tmp_path / "model")["logits"]
    with pytest.raises(SettingsError, match="module of your own"):
        rg.load_model(tmp_path / "model")
    bare = Small()
    assert torch.equal(logits(rg.load_model(tmp_path / "model", model=bare), tmp_path / "model"), expected)
    assert bare.fc.out_features == 10, "a module as it was before `adapt` is left as it is"
    again = rg.adapt(Small(), classes=CLASSES, image_size=32, head=head, seed=7)
    loaded = rg.load_model(tmp_path / "model", model=again)
    assert loaded is again
    assert torch.equal(logits(loaded, tmp_path / "model"), expected)
    with pytest.raises(StorageError, match="does not fit"):
        rg.load_model(tmp_path / "model", model=rg.adapt(rg.build_model("test_resnet"), classes=CLASSES, image_size=64))


def test_a_class_named_like_an_architecture_is_still_the_users_own(tmp_path: Path) -> None:
    model = type("resnet18", (Small,), {})()
    write(tmp_path / "model", rg.adapt(model, classes=CLASSES, image_size=32))
    with pytest.raises(SettingsError, match="module of your own"):
        rg.load_model(tmp_path / "model")


def test_tied_weights_are_written_twice_and_loaded(tmp_path: Path) -> None:
    class Tied(Small):
        def __init__(self) -> None:
            super().__init__()
            self.other = nn.BatchNorm2d(8)
            self.other.weight = self.norm.weight

    write(tmp_path / "model", rg.adapt(Tied(), classes=CLASSES, image_size=32))
    stored = load_file(tmp_path / "model" / WEIGHTS)
    assert torch.equal(stored["norm.weight"], stored["other.weight"])
    loaded = rg.load_model(tmp_path / "model", model=Tied())
    assert loaded.other.weight is loaded.norm.weight
    assert torch.equal(logits(loaded, tmp_path / "model"), load_probes(tmp_path / "model")["logits"])


def test_a_model_without_names_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no class names"):
        write(tmp_path / "model", rg.build_model("test_resnet"))
    assert not (tmp_path / "model").exists()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "model"
    write(path, build())
    return path


def change(change_config: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text())
        change_config(config)
        (folder / CONFIG).write_text(json.dumps(config))

    return apply


def flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "config cut": lambda f: (f / CONFIG).write_text((f / CONFIG).read_text()[:200]),
    "config is a list": lambda f: (f / CONFIG).write_text("[]"),
    "config is null": lambda f: (f / CONFIG).write_text("null"),
    "config is bytes": lambda f: (f / CONFIG).write_bytes(b"\xff\xfe\x00"),
    "config is deep": lambda f: (f / CONFIG).write_text("[" * 100_000),
    "no regraft section": change(lambda c: c.pop("regraft")),
    "no preprocessing": change(lambda c: c["regraft"].pop("preprocessing")),
    "preprocessing is text": change(lambda c: c["regraft"].update(preprocessing="model")),
    "no label names": change(lambda c: c.pop("label_names")),
    "label names twice": change(lambda c: c.update(label_names=["a", "a", "b"])),
    "a label name less": change(lambda c: c["label_names"].pop()),
    "label names are text": change(lambda c: c.update(label_names="abc")),
    "no build": change(lambda c: c["regraft"].pop("build")),
    "build is text": change(lambda c: c["regraft"].update(build="x")),
    "build args are a list": change(lambda c: c["regraft"]["build"].update(args=[])),
    "unknown network": change(lambda c: c["regraft"]["build"].update(name="no_such_net")),
    "another network": change(lambda c: c["regraft"]["build"].update(name="test_resnet")),
    "unknown head": change(lambda c: c["regraft"]["build"]["args"].update(head={"pool": "mean"})),
    "head of no known keys": change(lambda c: c["regraft"]["build"]["args"].update(head={"layers": 3})),
    "weights cut": lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:1000]),
    "weights empty": lambda f: (f / WEIGHTS).write_bytes(b""),
    "weights changed by a bit": lambda f: flip_byte(f / WEIGHTS),
    "weights missing": lambda f: (f / WEIGHTS).unlink(),
}


@pytest.mark.parametrize("harm", DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_a_typed_error(tmp_path: Path, written: Path, harm: Callable[[Path], object]) -> None:
    folder = shutil.copytree(written, tmp_path / "model")
    harm(folder)
    with pytest.raises(RegraftError) as caught:
        rg.load_model(folder)
    assert caught.value.exit_code in (2, 7)
    assert caught.value.next_step


def test_weights_that_are_cut_are_refused_without_a_manifest_too(tmp_path: Path, written: Path) -> None:
    folder = shutil.copytree(written, tmp_path / "model")
    (folder / "manifest.json").unlink()
    rg.load_model(folder)
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:1000])
    with pytest.raises(StorageError, match=r"model\.safetensors' cannot be read"):
        rg.load_model(folder)


def test_labels_that_do_not_fit_are_counted(tmp_path: Path, written: Path) -> None:
    folder = shutil.copytree(written, tmp_path / "model")
    change(lambda config: config.update(num_classes=7))(folder)
    with pytest.raises(StorageError, match=r"label_names has \d names, and num_classes is 7"):
        rg.load_model(folder)
    change(lambda config: config["regraft"].update(class_names=["a", "b", "c"]))(folder)
    with pytest.raises(StorageError, match="label_names are not those of the softmax rows of class_names"):
        rg.load_model(folder)


def test_a_folder_of_timms_own_is_told_apart(tmp_path: Path, written: Path) -> None:
    folder = shutil.copytree(written, tmp_path / "model")
    change(lambda config: config.pop("regraft"))(folder)
    with pytest.raises(StorageError, match="not written by regraft"):
        rg.load_model(folder)


def test_where_there_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="There is no model"):
        rg.load_model(tmp_path)
    with pytest.raises(SettingsError, match="There is no model"):
        rg.load_model(tmp_path / "missing")
    (tmp_path / "recipe.yaml").write_text("seed: 1")
    with pytest.raises(SettingsError, match="has no model yet"):
        rg.load_model(tmp_path)


def test_the_model_card_names_classes_and_how_to_load(written: Path) -> None:
    card = (written / "README.md").read_text(encoding="utf-8")
    assert "Hühner" in card
    assert 'timm.create_model("local-dir:PATH", pretrained=True)' in card
    assert 'dog, "big",' in card, "a line break in a name does not break the card"
