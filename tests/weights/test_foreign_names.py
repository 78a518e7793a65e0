"""Files whose names no table knows: placed by structure where only one reading fits, and refused where two do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from tests.conftest import Cli
from torch import Tensor, nn

from regraft.errors import WeightsError
from regraft.models.graft.graft import graft
from regraft.models.graft.match import match_weights
from regraft.weights.file import WeightFile, read_weights
from regraft.weights.report import MatchReport

State = dict[str, Tensor]
Rename = Callable[[int, str, bool], str]

_LEAVES = {"weight": "w", "bias": "b", "running_mean": "mu", "running_var": "var", "num_batches_tracked": "n"}
_WORDS = ("enter", "settle", "middle", "narrow", "widen", "deepen", "close", "end", "after", "last", "leave", "answer")
_NUMBERED: dict[str, Rename] = {
    "numbers": lambda place, leaf, _: f"net.{place}.{leaf}",
    "foreign leaves": lambda place, leaf, _: f"m.layer{place}.{_LEAVES[leaf]}",
    "nested": lambda place, leaf, _: f"body.stage{place // 4}.part{place % 4}.{leaf}",
    "flat": lambda place, leaf, is_norm: f"{'bn' if is_norm else 'conv'}{place}_{leaf}",
    "one letter": lambda place, leaf, _: f"{_LEAVES[leaf]}{place}",
}


def _seeded(model: nn.Module, seed: int = 3) -> nn.Module:
    """Random values everywhere, so that no two layers are equal."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                values = torch.randn(tensor.shape, generator=draw) * 0.3
                tensor.copy_(values.abs() + 0.5 if name.endswith("running_var") else values)
    return model.eval()


def _plain(*, norms: bool = False, widths: tuple[int, ...] = (8, 8, 8, 16)) -> nn.Sequential:
    """Convolutions one behind the other, pairs of them of one shape, and a classifier."""
    layers: list[nn.Module] = []
    for width, out in zip((3, *widths), widths, strict=False):
        layers += [nn.Conv2d(width, out, 3, padding=1), *([nn.BatchNorm2d(out)] if norms else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 5))


class _Block(nn.Module):
    """Two convolutions of one shape beside a shortcut; foreign names too."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(width, out, 3, padding=1), nn.Conv2d(out, out, 3, padding=1)
        self.short = nn.Conv2d(width, out, 1)

    def forward(self, maps: Tensor) -> Tensor:
        blended: Tensor = (self.second(self.first(maps).relu()) + self.short(maps)).relu()
        return blended


def _residual() -> nn.Sequential:
    return nn.Sequential(
        _Block(3, 8), _Block(8, 16), _Block(16, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)
    )


_NETWORKS: dict[str, Callable[[], nn.Sequential]] = {
    "plain": _plain,
    "with norms": lambda: _plain(norms=True),
    "residual": _residual,
}


def _renamed(model: nn.Module, rename: Rename) -> State:
    state = model.state_dict()
    owners = list(dict.fromkeys(name.rpartition(".")[0] for name in state))
    renamed = {}
    for name, tensor in state.items():
        owner, _, leaf = name.rpartition(".")
        renamed[rename(owners.index(owner), leaf, f"{owner}.running_mean" in state)] = tensor.clone()
    return renamed


def _saved(state: Mapping[str, Tensor], path: Path) -> WeightFile:
    if path.suffix == ".safetensors":
        save_file(dict(state), path)
    else:
        torch.save(dict(state), path)
    return read_weights(path)


def _assert_same(file: WeightFile, source: nn.Module, target: nn.Module, **options: Any) -> MatchReport:
    report = match_weights(file, target, **options).require("all")
    graft(target, report)
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        theirs, ours = source(image), target.eval()(image)
    assert float((theirs - ours).abs().max()) <= 1e-5 * float(theirs.abs().max())
    return report


@pytest.mark.parametrize(("names", "suffix"), [(n, s) for n in _NUMBERED for s in (".pth", ".safetensors")])
def test_layers_in_order_are_placed_by_structure(names: str, suffix: str, tmp_path: Path) -> None:
    for build in _NETWORKS.values():
        source = _seeded(build())
        file = _saved(_renamed(source, _NUMBERED[names]), tmp_path / f"x{suffix}")
        report = _assert_same(file, source, _seeded(build(), 9))
        told = [finding.text for finding in report.findings if finding.kind == "order"]
        assert "nothing else tells them apart" in told[0]
        assert told[0] in report.render()


def test_the_command_line_says_that_order_was_the_only_evidence(cli: Cli, tmp_path: Path) -> None:
    state = _renamed(timm.create_model("test_resnet", num_classes=3), _NUMBERED["numbers"])
    torch.save(state, tmp_path / "x.pth")
    call = ("match", tmp_path / "x.pth", "--model", "test_resnet", "--num-classes", "3")
    refused = cli(*call)
    assert refused.code == 4
    assert "layer3.0.conv3.weight + layer3.0.downsample.1.weight <- net.20.weight + net.22.weight" in refused.err
    matched = cli(*call, "--map", "layer3.0.conv3=net.20")
    assert matched.code == 0, matched.err
    assert "nothing else tells them apart" in matched.out


def _worded(*words: str) -> Rename:
    return lambda place, leaf, _: f"{words[place]}.{leaf}"


def test_layers_between_others_are_placed_by_their_neighbours(tmp_path: Path) -> None:
    """Words without numbers: of two equal convolutions one runs before the layer of another shape, and one behind."""
    source = _seeded(_plain(widths=(8, 8, 16, 8, 8)))
    state = _renamed(source, _worded("enter", "settle", "widen", "narrow", "close", "leave"))
    report = _assert_same(_saved(state, tmp_path / "x.pth"), source, _seeded(_plain(widths=(8, 8, 16, 8, 8)), 9))
    assert any(finding.kind == "order" for finding in report.findings)


def test_the_pair_that_nothing_tells_apart_is_named(tmp_path: Path) -> None:
    source = _seeded(_plain(widths=(8, 8, 16, 8, 8, 8)))
    state = _renamed(source, _worded("enter", "settle", "widen", "narrow", "close", "end", "leave"))
    file, target = _saved(state, tmp_path / "x.pth"), _seeded(_plain(widths=(8, 8, 16, 8, 8, 8)), 9)
    report = match_weights(file, target)
    assert [sorted({name.partition(".")[0] for name in group.sources}) for group in report.ambiguous] == [
        ["close", "end"]
    ]
    with pytest.raises(WeightsError, match="order of definition"):
        report.require()
    _assert_same(file, source, target, in_order=True)


def test_numbers_that_may_count_downwards_decide_nothing_without_an_order(tmp_path: Path) -> None:
    """A decoder counts its equal layers down as often as up; a file in order tells, one without does not."""

    def build(*names: str) -> nn.Sequential:
        model = nn.Sequential()
        model.add_module("enter", nn.Conv2d(3, 8, 3, padding=1))
        for name in names:
            model.add_module(name, nn.Conv2d(8, 8, 3, padding=1))
        return _seeded(model)

    source = build("up3", "up2", "up1")
    state = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    file = _saved(state, tmp_path / "x.safetensors")
    for path in (file, _saved(state, tmp_path / "x.pth")):
        with pytest.raises(WeightsError, match="ambiguous"):
            match_weights(path, build("alpha", "beta", "gamma")).require()
    counted = _saved({name.replace("up", "down"): tensor for name, tensor in state.items()}, tmp_path / "y.safetensors")
    report = match_weights(counted, build("alpha", "beta", "gamma"), in_order=True).require("all")
    assert {match.rule for match in report.matched} >= {"structure: order of numbers"}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_projector_beside_the_network_hides_nothing(suffix: str, tmp_path: Path) -> None:
    """It has layers of the network's own shapes, and more of them than half."""
    source = _seeded(_plain(norms=True))
    state = {f"enc.{name}": tensor for name, tensor in _renamed(source, lambda at, leaf, _: f"{at}.{leaf}").items()}
    beside = {f"proj.{at}.weight": torch.randn(8, 8, 3, 3) for at in range(6)}
    beside |= {f"proj.9.{leaf}": torch.rand(8) for leaf in ("weight", "bias", "running_mean", "running_var")}
    _assert_same(_saved(state | beside, tmp_path / f"x{suffix}"), source, _seeded(_plain(norms=True), 9))


def test_of_two_parts_that_both_hold_the_network_none_is_taken(tmp_path: Path) -> None:
    state = _renamed(_seeded(_plain()), lambda at, leaf, _: f"{at}.{leaf}")
    twice = {f"{part}.{name}": tensor.clone() for part in ("one", "other") for name, tensor in state.items()}
    with pytest.raises(WeightsError, match="ambiguous"):
        match_weights(_saved(twice, tmp_path / "x.pth"), _seeded(_plain(), 9)).require()


# --- weight normalisation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
@pytest.mark.parametrize(("suffix", "foreign"), [(".pth", False), (".safetensors", False), (".pth", True)])
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_weight_normalisation_is_put_together(
    wrap: Callable[[nn.Module], nn.Module], suffix: str, foreign: bool, tmp_path: Path
) -> None:
    source = _plain(norms=True)
    for layer in source:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            wrap(layer)
    _seeded(source)
    state = {f"net.b{name}" if foreign else name: tensor.clone() for name, tensor in source.state_dict().items()}
    report = _assert_same(_saved(state, tmp_path / f"x{suffix}"), source, _seeded(_plain(norms=True), 9))
    kernel = next(match for match in report.matched if match.target == "0.weight")
    assert [str(step) for step in kernel.steps] == ["bring the second to these lengths"]
    assert report.totals["file"]["matched"] == report.totals["file"]["total"]


@pytest.mark.parametrize("axis", [None, 1])
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_lengths_along_another_axis(axis: int | None, tmp_path: Path) -> None:
    source = nn.Sequential(nn.utils.weight_norm(nn.Conv2d(3, 8, 3), dim=axis))
    _seeded(source)
    _assert_same(
        _saved(dict(source.state_dict()), tmp_path / "x.pth"), source, _seeded(nn.Sequential(nn.Conv2d(3, 8, 3)))
    )


# --- a trunk that was cut off -------------------------------------------------------------------------------------


def test_a_foreign_file_without_its_first_block_is_refused(tmp_path: Path) -> None:
    model = timm.create_model("vit_tiny_patch16_224", embed_dim=24, num_heads=2, depth=2, img_size=32, num_classes=3)
    names = {"norm1": "ln_1", "norm2": "ln_2", "attn.qkv": "attn", "attn.proj": "attn.out_proj"}
    names |= {"mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    top = {"cls_token": "class_embedding", "pos_embed": "positional_embedding", "patch_embed.proj": "conv1"}
    state: State = {}
    for name, tensor in model.state_dict().items():
        owner, _, leaf = name.rpartition(".")
        if owner.startswith("blocks."):
            _, number, inner = owner.split(".", 2)
            leaf = f"in_proj_{leaf}" if inner == "attn.qkv" else leaf
            state[f"transformer.resblocks.{number}.{names[inner]}.{leaf}"] = tensor
        elif name in top:
            state[top[name]] = tensor[0] if name == "pos_embed" else tensor[0, 0]
        else:
            state[f"{top.get(owner, 'ln_post')}.{leaf}"] = tensor
    state = {name: tensor.clone() for name, tensor in state.items() if not name.startswith("head")}
    assert not any(
        "cut off" in finding.text for finding in match_weights(_saved(state, tmp_path / "x.pth"), model).findings
    )
    cut = {
        name.replace("resblocks.1", "resblocks.2").replace("resblocks.0", "resblocks.1"): t for name, t in state.items()
    }
    report = match_weights(_saved(cut, tmp_path / "y.pth"), model)
    with pytest.raises(WeightsError, match=r"resblocks\.1(.|\n)*may\s+have\s+been\s+cut\s+off"):
        report.require()
