"""Real networks: slots in the order of execution, and files of other hands."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import nn

from regraft.errors import WeightsError
from regraft.models.describe.flow import flow_of
from regraft.models.describe.slots import slots_of
from regraft.models.graft.graft import graft
from regraft.models.graft.match import match_weights
from regraft.models.zoo.families import installed_weights
from regraft.weights.file import read_weights


class Odd(nn.Module):
    """Layers registered in another order than they run in, with a shortcut and a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4 * 16 * 16, 2)
        self.short = nn.Conv2d(3, 4, 1, 2)
        self.main = nn.Conv2d(3, 4, 3, 2, 1)
        self.unused = nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.main(x)) + self.short(nn.functional.max_pool2d(x, 1))
        out: torch.Tensor = self.fc(torch.dropout(x.flatten(1), 0.5, False))
        return out


def test_slots_stand_in_the_order_of_execution() -> None:
    slots = slots_of(Odd())
    assert list(dict.fromkeys(slot.layer for slot in slots)) == ["main", "short", "fc", "unused"]
    by_name = {slot.name: slot for slot in slots}
    assert by_name["fc.weight"].inputs == ("main", "short")
    assert by_name["fc.weight"].flattened == (4, 16, 16)
    assert by_name["short.weight"].pools == ("max",)
    assert (by_name["fc.weight"].part, by_name["main.weight"].part) == ("head", "backbone")
    assert by_name["main.weight"].attributes["stride"] == (2, 2)
    assert by_name["unused.weight"].inputs is None


def test_watching_leaves_the_model_alone() -> None:
    model = timm.create_model("resnet18").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flow = flow_of(model)
    assert flow is not None
    assert flow.inputs["layer1.0.conv1"] == {"bn1"}
    assert flow.inputs["layer2.0.conv1"] == flow.inputs["layer2.0.downsample.0"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())


class LostOnMeta(nn.Module):
    """As Keras's max pooling: without numbers, what it gives comes from nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.conv = nn.Linear(4, 2), nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        x = torch.empty(x.shape, device="meta") if x.device.type == "meta" else x
        out: torch.Tensor = self.fc(x.mean((2, 3)))
        return out


def test_a_run_without_numbers_that_is_lost_is_made_again_with_them() -> None:
    flow = flow_of(LostOnMeta())
    assert flow is not None
    assert (flow.order, flow.inputs["fc"]) == (["conv", "fc"], {"conv"})


class Residual(nn.Module):
    """Blocks that add to what all blocks before them added."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(depth))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return x


@pytest.mark.parametrize(("depth", "expected"), [(100, 100), (400, 256)])
def test_a_deep_residual_network_is_followed_from_the_latest_givers(depth: int, expected: int) -> None:
    flow = flow_of(Residual(depth))
    assert flow is not None
    last = [*(["stem"] if depth < expected + 1 else []), *(f"blocks.{number}" for number in range(depth - 1))]
    assert flow.inputs[f"blocks.{depth - 1}"] == set(last[-expected:])


def test_roles_cover_every_tensor_of_a_network() -> None:
    roles = {slot.role for slot in slots_of(timm.create_model("tf_efficientnet_b0"))}
    assert roles == {
        *("kernel", "depthwise_kernel", "dense_kernel", "bias", "gamma", "beta", "mean", "variance", "counter")
    }


@pytest.mark.skipif(installed_weights("tf_efficientnet_lite0") is None, reason="the weights package is not installed")
def test_the_installed_efficientnet_matches_by_its_family() -> None:
    path = installed_weights("tf_efficientnet_lite0")
    assert path is not None
    model = timm.create_model("tf_efficientnet_lite0").eval()
    report = match_weights(read_weights(path), model).require("all")
    assert {match.rule for match in report.matched} == {"family mobilenet and efficientnet: lukemelas -> timm"}
    assert report.totals["model"]["matched"] == report.totals["file"]["matched"] == len(model.state_dict())
    graft(model, report)
    stored = torch.load(path, weights_only=True)
    assert torch.equal(model.blocks[3][1].bn2.running_var, stored["_blocks.6._bn1.running_var"])
    assert torch.equal(model.classifier.weight, stored["_fc.weight"])


@pytest.mark.parametrize(
    "name", ["mobilenet_v2", "resnet18", "densenet121", pytest.param("vgg11_bn", marks=pytest.mark.slow)]
)
def test_torchvision_files_give_the_same_logits_in_timm(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    source = getattr(torchvision.models, name)(num_classes=4).eval()
    torch.save(source.state_dict(), tmp_path / "x.pth")
    model = timm.create_model(name.replace("mobilenet_v2", "mobilenetv2_100"), num_classes=4).eval()
    graft(model, match_weights(read_weights(tmp_path / "x.pth"), model).require("all"))
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected, found = source(image), model(image)
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-4


@pytest.mark.parametrize(
    "prefix", [("", ""), ("backbone.", ""), ("model.encoder.", ""), ("", "body."), ("net.", "features.body.")]
)
def test_any_prefix_is_exchanged(prefix: tuple[str, str], tmp_path: Path) -> None:
    source = timm.create_model("resnet18", num_classes=0)
    torch.save({prefix[0] + name: tensor for name, tensor in source.state_dict().items()}, tmp_path / "x.pth")
    inner: nn.Module = timm.create_model("resnet18", num_classes=0)
    model = inner
    for part in reversed(prefix[1].split(".")[:-1]):
        model = nn.Sequential()
        model.add_module(part, inner)
        inner = model
    report = match_weights(read_weights(tmp_path / "x.pth"), model).require("all")
    graft(model, report)
    loaded = {name.removeprefix(prefix[1]): tensor for name, tensor in model.state_dict().items()}
    assert all(torch.equal(loaded[name], tensor) for name, tensor in source.state_dict().items())


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "x.pth")
    report = match_weights(read_weights(tmp_path / "x.pth"), timm.create_model("mobilenetv2_050"))
    with pytest.raises(WeightsError, match="does not fill mobilenetv2_050"):
        report.require()


def test_grey_images_and_flipped_stems(tmp_path: Path) -> None:
    source = timm.create_model("resnet18")
    torch.save(source.state_dict(), tmp_path / "x.pth")
    weights = read_weights(tmp_path / "x.pth")
    grey = timm.create_model("resnet18", in_chans=1)
    with pytest.raises(WeightsError, match=r"conv1\.weight"):
        match_weights(weights, grey).require()
    graft(grey, match_weights(weights, grey, adapt_input=True).require("all"))
    torch.testing.assert_close(grey.conv1.weight, source.conv1.weight.sum(1, keepdim=True))
    flipped = timm.create_model("resnet18")
    graft(flipped, match_weights(weights, flipped, flip_stem=True, class_order=range(999, -1, -1)).require("all"))
    assert torch.equal(flipped.conv1.weight, source.conv1.weight.flip(1))
    assert torch.equal(flipped.fc.bias, source.fc.bias.flip(0))
