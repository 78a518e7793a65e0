"""Darknet's `.weights` and `.cfg`, written by Darknet's source (`other_files`): the program itself is not run here."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import hostile
import numpy as np
import pytest
import torch
from other_files import darknet
from torch import nn

from regraft.errors import WeightsError
from regraft.models.graft.graft import graft
from regraft.models.graft.match import match_weights
from regraft.weights.file import read_weights
from regraft.weights.readers.darknet import darknet_weights

CFG = """
[net]
# a comment
width=16
height=16
channels=3

[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky

[maxpool]
size=2
stride=2

[convolutional]
filters=8
size=3
pad=1
groups=8
activation=linear

[shortcut]
from=-2
activation=linear

[route]
layers=-1,1

[convolutional]
batch_normalize=1
filters=6
size=1
stride=1
activation=leaky

[upsample]
stride=2

[connected]
output=5
activation=linear

[softmax]
"""


class Net(nn.Module):
    """The network of `CFG`."""

    def __init__(self, stride: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride, 1, bias=False)
        self.stem_bn = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, 1, 1, groups=8)
        self.mix = nn.Conv2d(16, 6, 1, bias=False)
        self.mix_bn = nn.BatchNorm2d(6)
        self.fc = nn.Linear(6 * 8 * 8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.max_pool2d(nn.functional.leaky_relu(self.stem_bn(self.stem(x)), 0.1), 2)
        x = torch.cat([self.depthwise(x) + x, x], 1)
        x = nn.functional.leaky_relu(self.mix_bn(self.mix(x)), 0.1)
        x = nn.functional.interpolate(x, size=(8, 8))
        out: torch.Tensor = self.fc(torch.flatten(x, 1))
        return out


ORDER = [
    *(f"stem_bn.{leaf}" for leaf in ("bias", "weight", "running_mean", "running_var")),
    "stem.weight",
    "depthwise.bias",
    "depthwise.weight",
    *(f"mix_bn.{leaf}" for leaf in ("bias", "weight", "running_mean", "running_var")),
    "mix.weight",
    "fc.bias",
    "fc.weight",
]


def net(seed: int, **options: int) -> Net:
    torch.manual_seed(seed)
    network = Net(**options).eval()
    for tensor in network.state_dict().values():
        if tensor.dtype.is_floating_point:
            tensor.uniform_(0.1, 1)
    return network


def numbers(network: nn.Module, count: int = len(ORDER)) -> list[np.ndarray]:
    state = network.state_dict()
    return [state[name].numpy() for name in ORDER[:count]]


def written(folder: Path, content: bytes, cfg: str = CFG, name: str = "net.weights") -> Path:
    (folder / name).write_bytes(content)
    (folder / "net.cfg").write_text(cfg)
    return folder / name


@pytest.mark.parametrize("version", [(0, 1, 0), (0, 2, 5)])
def test_a_darknet_network_computes_the_same_in_torch(tmp_path: Path, version: tuple[int, int, int]) -> None:
    made, filled = net(1), net(2)
    weights = read_weights(written(tmp_path, darknet(numbers(made), version)))
    assert (weights.format, weights.producer, weights.ordered) == ("darknet", "darknet", True)
    assert weights.tensors["2.conv.weight"].role == "depthwise_kernel"
    graft(filled, match_weights(weights, filled).require("all"))
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(filled(x), made(x))
    findings = match_weights(weights, net(2, stride=1)).findings
    assert any(finding.attribute == "stride" for finding in findings)


def test_a_trunk_ends_behind_a_layer(tmp_path: Path) -> None:
    weights = read_weights(written(tmp_path, darknet(numbers(net(1), 7)), name="net.conv.3"))
    assert list(weights.layers) == ["0.bn", "0.conv", "2.conv"]
    assert "ends behind layer 4 of 9" in weights.notes[1]


def test_says_that_the_description_is_missing(tmp_path: Path) -> None:
    path = written(tmp_path, darknet(numbers(net(1))))
    (tmp_path / "net.cfg").rename(tmp_path / "other.cfg")
    assert "'other.cfg'" in read_weights(path).notes[0]  # the only one there is
    (tmp_path / "more.cfg").write_text(CFG)
    with pytest.raises(WeightsError, match="the network's description is not next to it") as caught:
        read_weights(path)
    assert "net.cfg" in caught.value.expected
    (tmp_path / "net.cfg").symlink_to(tmp_path / "other.cfg")
    with pytest.raises(WeightsError, match="is not next to it"):
        read_weights(path)


@pytest.mark.parametrize(
    ("cfg", "words"),
    [
        ("", r"does not begin with a section \[net\]"),
        (CFG.replace("filters=8", "filters=0"), "filters of its section .* is 0"),
        (CFG.replace("filters=8", "filters=x"), "filters of its section .* is 'x'"),
        (CFG.replace("filters=8", "filters=" + "9" * 5000), "filters of its section"),
        (CFG.replace("size=3", "size=999999999"), "axis of length|does not fit in memory"),
        (CFG.replace("from=-2", "from=-9"), "layer 3 takes layer '-9'"),
        (CFG.replace("from=-2", "from=7"), "layer 3 takes layer '7'"),
        (CFG.replace("layers=-1,1", "layers="), "layers of its section"),
        (CFG.replace("groups=8", "groups=3"), "has 3 groups for 8 channels"),
        (CFG.replace("[softmax]", "[lstm]"), r"layer 8 is \[lstm\]"),
        (CFG.replace("pad=1", "pad=1\nxnor=1"), "has xnor"),
        (CFG + "garbage", "holds the line 'garbage'"),
        (CFG.replace("filters=6", "filters=7"), "it ends inside layer 7"),
        (CFG.replace("output=5", "output=4"), "bytes follow the last layer"),
        ("[net]\nchannels=3\n" + "[route]\nlayers=-1\n" * 3, "layer 0 takes layer '-1'"),
        ("[net]\n" + "[dropout]\n" * 20_000, "more than 10,000 sections"),
        ("[net]\nwidth=9\nheight=9\n" + "[upsample]\nstride=99999999\n" * 9, "its layer 1 gives 3 x"),
        ("[net]\n[dropout]\n", "bytes follow the last layer"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) and "\n" not in value else "",
)
def test_refuses_descriptions_that_do_not_fit(tmp_path: Path, cfg: str, words: str) -> None:
    path = written(tmp_path, darknet(numbers(net(1))), cfg)
    with pytest.raises(WeightsError, match=words) as caught:
        read_weights(path)
    hostile.assert_in_words(caught.value)


def test_other_numbers_are_no_darknet(tmp_path: Path) -> None:
    for content in (struct.pack("<5i", 0, 0, 0, 0, 0), struct.pack("<5i", 9, 9, 9, 0, 0), bytes(range(40))):
        with pytest.raises(WeightsError, match="unknown weight format"):
            read_weights(written(tmp_path, content))


def test_survives_cuts_and_flips(tmp_path: Path) -> None:
    path = written(tmp_path, darknet(numbers(net(1))))
    num_cut, num_flipped = hostile.fuzz(darknet_weights, path)
    assert num_cut <= 2  # where a layer ends
    assert num_flipped > 150


def test_a_description_survives_cuts_and_flips(tmp_path: Path) -> None:
    path = written(tmp_path, darknet(numbers(net(1))))
    for content in hostile.flipped(CFG.encode(), 300, random.Random(0)):
        (tmp_path / "net.cfg").write_bytes(content)
        hostile.survive(darknet_weights, path)
