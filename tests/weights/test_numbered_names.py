"""Networks whose layers have numbers for names, as those of a nested `Sequential`."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import regraft as rg


def blocks(num: int) -> nn.Sequential:
    return nn.Sequential(*(nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4)) for _ in range(num)))


@pytest.mark.parametrize("prefix", ["", "backbone.", "model.net."])
@pytest.mark.parametrize("num", [3, 20])
def test_they_are_not_taken_for_a_known_network(prefix: str, num: int, tmp_path: Path) -> None:
    """Their names are those of MobileNetV3 in torchvision, too, whose normalisations have another epsilon."""
    torch.manual_seed(0)
    file, model = blocks(num), blocks(num)
    save_file({prefix + name: value for name, value in file.state_dict().items()}, tmp_path / "blocks.safetensors")
    report = rg.match_weights(rg.read_weights(tmp_path / "blocks.safetensors"), model)
    assert not any(finding.serious for finding in report.findings), report.render()
    rg.graft(model, report.require("all"))
    assert all(torch.equal(value, file.state_dict()[name]) for name, value in model.state_dict().items())


def test_the_network_they_are_of_keeps_its_epsilon(tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    file = models.mobilenet_v3_small(weights=None)
    model = models.mobilenet_v3_small(weights=None).features
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-5
    save_file(file.state_dict(), tmp_path / "file.safetensors")
    report = rg.match_weights(rg.read_weights(tmp_path / "file.safetensors"), model)
    assert any(finding.attribute == "eps" and finding.serious for finding in report.findings)


def test_many_copies_are_told_in_a_line(tmp_path: Path) -> None:
    """A file of thirty members, each the whole network."""

    def network() -> nn.Sequential:
        return nn.Sequential(OrderedDict(stem=nn.Conv2d(3, 8, 3), neck=nn.Conv2d(8, 4, 3)))

    members = nn.ModuleDict({f"member{number}": network() for number in range(30)})
    save_file(members.state_dict(), tmp_path / "members.safetensors")
    report = rg.match_weights(rg.read_weights(tmp_path / "members.safetensors"), network())
    (group,) = report.ambiguous
    assert "30 networks of this shape" in group.decides
    assert "and 24 more" in group.decides
    assert len(group.decides) < 500
