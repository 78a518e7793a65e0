"""Loads that once were accepted, complete and wrong: the right numbers, or a refusal that says why."""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from tests.conftest import Cli
from torch import Tensor, nn

from regraft.errors import WeightsError
from regraft.models.graft.graft import graft
from regraft.models.graft.match import match_weights
from regraft.models.keras_forms.forms import arguments_for
from regraft.weights.file import SourceTensor, WeightFile, read_weights
from regraft.weights.report import MatchReport

State = Mapping[str, Tensor]
Save = Callable[[State], WeightFile]


@pytest.fixture(params=["pth", "safetensors"])
def save(request: pytest.FixtureRequest, tmp_path: Path) -> Save:
    """Write a state dict, in the order of definition or (safetensors) in none, and read it."""

    def write(state: State) -> WeightFile:
        path = tmp_path / f"x.{request.param}"
        if request.param == "pth":
            torch.save(dict(state), path)
        else:
            save_file({name: tensor.clone() for name, tensor in state.items()}, path)
        return read_weights(path)

    return write


def _seeded(model: nn.Module) -> nn.Module:
    """Random values everywhere, moving statistics included, so that no two layers are equal."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                values = torch.randn(tensor.shape, generator=generator) * 0.3
                tensor.copy_(values.abs() + 0.5 if name.endswith("running_var") else values)
    return model.eval()


def _resnet(**options: Any) -> nn.Module:
    return _seeded(timm.create_model("resnet18", channels=(8, 8, 8, 8), num_classes=3, **options))


def _vit(**options: Any) -> nn.Module:
    sizes = {"embed_dim": 16, "num_heads": 2, "img_size": 32, "num_classes": 3, "depth": 3}
    return _seeded(timm.create_model("vit_tiny_patch16_224", **{**sizes, **options}))


def _chain(*names: str) -> nn.Sequential:
    """A stem, equal convolutions called as given, and a classifier."""
    model = nn.Sequential()
    model.add_module("stem", nn.Conv2d(3, 8, 3, padding=1))
    for name in names:
        model.add_module(name, nn.Conv2d(8, 8, 3, padding=1))
    model.add_module("pool", nn.AdaptiveAvgPool2d(1))
    model.add_module("flat", nn.Flatten())
    model.add_module("fc", nn.Linear(8, 5))
    return _seeded(model)


def _plain(num_identities: int, *, at: int = 1, size: int = 5) -> nn.Sequential:
    """The same convolutions in an nn.Sequential, with so many Identity layers put in."""
    layers: list[nn.Module] = [nn.Conv2d(3, 8, 3), nn.ReLU()]
    for _ in range(3):
        layers += [nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()]
    layers[at:at] = [nn.Identity() for _ in range(num_identities)]
    return _seeded(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, size)))


def _refused(report: MatchReport, why: str, what: str = "backbone") -> None:
    for asked in dict.fromkeys((what, "all")):
        with pytest.raises(WeightsError, match=why):
            report.require(asked)


def _same_numbers(file: WeightFile, source: nn.Module, target: nn.Module, size: int = 32, **options: Any) -> None:
    for tensor in target.state_dict().values():
        tensor.zero_()
    graft(target, match_weights(file, target, **options).require("all"))
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        torch.testing.assert_close(target.eval()(image), source(image), rtol=1e-4, atol=1e-5)


def _keras_file(layers: Mapping[str, Mapping[str, tuple[int, ...]]]) -> WeightFile:
    """Keras weights without a graph, under names that say nothing."""
    tensors = {}
    for layer, roles in layers.items():
        for role, shape in roles.items():
            name, axes = f"{layer}/{role}:0", {4: "HWIO", 2: "IO"}.get(len(shape), "C")
            values = np.random.default_rng([len(tensors)]).random(shape, np.float32)
            tensors[name] = SourceTensor(name, shape, "float32", layer, lambda v=values: v, role, axes)  # type: ignore[misc]
    return WeightFile(Path("x.h5"), "keras_h5", "keras 2.15.0", tensors)


_NORM = dict.fromkeys(("gamma", "beta", "mean", "variance"), (8,))


# --- the file's network is deeper, or has layers inside ----------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "backbone.", "model.encoder."])
@pytest.mark.parametrize(
    ("larger", "smaller"),
    [
        (lambda: _resnet(layers=[3, 2, 2, 2]), _resnet),
        (lambda: _vit(depth=4), _vit),
        (lambda: _chain("conv1", "conv2", "conv3"), lambda: _chain("conv1", "conv2")),
        (lambda: _resnet(block_args={"attn_layer": "se"}), _resnet),
        (lambda: _vit(init_values=0.1), _vit),
        (lambda: _vit(qk_norm=True), _vit),
    ],
    ids=["deeper resnet", "deeper vit", "longer chain", "squeeze", "layer scale", "qk norm"],
)
def test_layers_inside_of_what_was_matched_are_refused(
    larger: Callable[[], nn.Module], smaller: Callable[[], nn.Module], prefix: str, save: Save
) -> None:
    file = save({prefix + name: tensor for name, tensor in larger().state_dict().items()})
    report = match_weights(file, smaller())
    assert report.unexpected
    with pytest.raises(WeightsError, match=r"inside the part that was matched|missing"):
        report.require()
    if not prefix:
        _refused(report, "inside the part that was matched")


@pytest.mark.parametrize("prefix", ["", "net."])
@pytest.mark.parametrize("extra", [nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.PReLU(8)], ids=["conv", "norm", "prelu"])
def test_a_link_put_into_a_chain_of_words_is_refused(extra: nn.Module, prefix: str, save: Save) -> None:
    source = _chain("enter", "leave")
    state: dict[str, Tensor] = {}
    for name, tensor in source.state_dict().items():
        state[prefix + name] = tensor
        if name == "enter.bias":
            state |= {f"{prefix}middle.{leaf}": value for leaf, value in extra.state_dict().items()}
    _refused(
        match_weights(save(state), _chain("enter", "leave")), "middle(.|\n)*inside the part that was matched", "all"
    )


@pytest.mark.parametrize("prefix", ["", "net."])
def test_another_head_beside_a_chain_is_no_alarm(prefix: str, save: Save) -> None:
    source = _chain("enter", "leave")
    state = {prefix + name: tensor for name, tensor in source.state_dict().items()}
    _same_numbers(save(state | {f"{prefix}rotation.weight": torch.ones(4, 8)}), source, _chain("enter", "leave"))


@pytest.mark.parametrize("prefix", ["", "net."])
def test_side_outputs_of_a_chain_are_no_alarm(prefix: str, save: Save) -> None:
    """As HED has them: a convolution to one map beside each layer, and one that joins the maps."""
    source = _chain("enter", "leave")
    sides = {f"{prefix}{name}.weight": torch.ones(1, width, 1, 1) for name, width in {"dsn1": 8, "fuse": 2}.items()}
    state = {prefix + name: tensor for name, tensor in source.state_dict().items()}
    _same_numbers(save(state | sides), source, _chain("enter", "leave"))


@pytest.mark.parametrize("build", [lambda: (_vit(depth=6), _vit()), lambda: (_vit(init_values=1.0), _vit())])
def test_what_the_refusal_says_to_type_leaves_all_of_it_out(
    build: Callable[[], tuple[nn.Module, nn.Module]], save: Save
) -> None:
    larger, smaller = build()
    file = save(larger.state_dict())
    with pytest.raises(WeightsError) as refused:
        match_weights(file, smaller).require("all")
    skips = re.findall(r"--skip (\S+?)(?=[ )])", " ".join(refused.value.details))
    match_weights(file, smaller, skip=skips).require("all")


def test_what_lies_inside_can_be_left_out_on_purpose(save: Save) -> None:
    report = match_weights(save(_vit(depth=4).state_dict()), _vit(), skip=["blocks.3"])
    assert report.require("all").counts["dropped"] == 12


def test_a_norm_between_the_layers_of_the_trunk_is_refused(tmp_path: Path) -> None:
    torch.save(_vit(pre_norm=True).state_dict(), tmp_path / "x.pth")
    _refused(match_weights(read_weights(tmp_path / "x.pth"), _vit(pre_norm=False)), "norm_pre")


@pytest.mark.parametrize("inside", [{"se": {"kernel": (8, 2), "bias": (2,)}}, {"n": _NORM}], ids=["dense", "norm"])
def test_a_layer_between_others_that_only_shapes_have_placed_is_refused(
    inside: Mapping[str, Mapping[str, tuple[int, ...]]],
) -> None:
    layers = {"p": {"kernel": (3, 3, 3, 8)}, **inside, "r": {"kernel": (3, 3, 8, 16)}, "s": {"kernel": (16, 5)}}
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    plain.append(nn.Linear(16, 5))
    match_weights(_keras_file({name: layers[name] for name in "prs"}), plain).require("all")
    _refused(match_weights(_keras_file(layers), plain), "inside the part that was matched")


@pytest.mark.parametrize(
    "more",
    [
        {"projector.0.weight": (8, 8), "projector.1.weight": (8,), "projector.1.bias": (8,)},
        {"aux.conv.weight": (8, 8, 3, 3), "aux.bn.weight": (8,), "aux.bn.running_mean": (8,), "aux.fc.weight": (3, 8)},
        {"decoder.layer1.0.conv1.weight": (8, 8, 3, 3)},
        {"queue": (8, 16), "prototypes.weight": (30, 8)},
        {"fc_aux.weight": (7, 8), "fc_aux.bias": (7,)},
    ],
    ids=["projector", "auxiliary head", "decoder", "queue", "second head"],
)
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_heads_and_decoders_beside_the_trunk_are_no_alarm(
    more: dict[str, tuple[int, ...]], prefix: str, save: Save
) -> None:
    source = _resnet()
    state = {prefix + name: tensor for name, tensor in source.state_dict().items()}
    _same_numbers(save(state | {name: torch.ones(shape) for name, shape in more.items()}), source, _resnet(), 64)


def test_buffers_that_compute_nothing_are_no_alarm(save: Save) -> None:
    source = _resnet()
    state = dict(source.state_dict()) | {"layer1.0.total_ops": torch.zeros(1), "layer1.0.index": torch.arange(4)}
    _same_numbers(save(state), source, _resnet(), 64)


# --- numbers that are shifted ------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "net."])
def test_shifted_blocks_are_paired_in_order(prefix: str, save: Save) -> None:
    source = _vit()
    state = {
        prefix + (f"blocks.{int(name.split('.')[1]) + 1}.{name.split('.', 2)[2]}" if "blocks" in name else name): tensor
        for name, tensor in source.state_dict().items()
    }
    report = match_weights(save(state), _vit())
    placed = {match.target: match.sources[0].name for match in report.matched if match.sources}
    assert placed["blocks.0.attn.qkv.weight"] == f"{prefix}blocks.1.attn.qkv.weight"
    assert placed["blocks.2.attn.qkv.weight"] == f"{prefix}blocks.3.attn.qkv.weight"
    _same_numbers(save(state), source, _vit())


def _renumbered(state: State, pattern: str, *, by: int = 1) -> dict[str, Tensor]:
    """Every number right behind the pattern, moved on."""
    return {
        re.sub(rf"({pattern})(\d+)", lambda found: f"{found[1]}{int(found[2]) + by}", name): tensor
        for name, tensor in state.items()
    }


def _swin() -> nn.Module:
    sizes = {"embed_dim": 8, "depths": (2, 2), "num_heads": (2, 2), "img_size": 32, "patch_size": 4, "window_size": 4}
    return _seeded(timm.create_model("swin_tiny_patch4_window7_224", num_classes=3, **sizes))


def _beit() -> nn.Module:
    sizes = {"embed_dim": 16, "num_heads": 2, "img_size": 32, "num_classes": 3, "depth": 3}
    return _seeded(timm.create_model("beit_base_patch16_224", **sizes))


def _staged() -> nn.Module:
    """Three stages of two equal blocks, all of one width: `layer0.0` to `layer2.1`."""
    model = nn.Sequential()
    model.add_module("stem", nn.Conv2d(3, 8, 3, padding=1))
    for stage in range(3):
        blocks = [_named(conv1=nn.Conv2d(8, 8, 3, padding=1), conv2=nn.Conv2d(8, 8, 3, padding=1)) for _ in range(2)]
        model.add_module(f"layer{stage}", nn.Sequential(*blocks))
    return _seeded(model)


def _named(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))


@pytest.mark.parametrize("prefix", ["", "net."])
@pytest.mark.parametrize(
    ("build", "pattern"),
    [
        (_swin, r"blocks\."),
        (_beit, r"blocks\."),
        (lambda: _convnext(), r"stages\.|blocks\."),
        (_staged, r"layer|(?<=\d)\."),
    ],
    ids=["swin", "beit", "convnext", "stages and blocks"],
)
def test_shifted_blocks_with_parameters_of_their_own(
    build: Callable[[], nn.Module], pattern: str, prefix: str, save: Save
) -> None:
    """Bias tables and layer scales go with their blocks; numbers of stages and of blocks may both be others."""
    source = build()
    state = {prefix + name: tensor for name, tensor in _renumbered(source.state_dict(), pattern).items()}
    _same_numbers(save(state), source, build(), 32)


def test_other_numbers_in_the_opposite_order_are_never_taken_in_silence(tmp_path: Path) -> None:
    """The network runs its blocks from the last number to the first, and defines them so."""
    items = _renumbered(_vit().state_dict(), r"blocks\.").items()
    state = dict(sorted(items, key=lambda item: -int(item[0].split(".")[1]) if "blocks" in item[0] else 0))
    torch.save(state, tmp_path / "x.pth")
    report = match_weights(read_weights(tmp_path / "x.pth"), _vit())
    _refused(report, "ambiguous")
    assert not any(match.target.startswith("blocks") for match in report.matched)


def test_blocks_that_no_order_explains_stay_open(save: Save) -> None:
    """The same numbers on both sides in part, and other blocks below them: none is taken by its number."""
    source = _staged()
    state = _renumbered(source.state_dict(), "layer")
    state |= {f"layer3.{at}.conv1.weight": torch.ones(8, 4, 3, 3) for at in (0, 1)}
    state |= {f"layer2.{at}.conv1.weight": torch.ones(8, 4, 3, 3) for at in (0, 1)}
    with pytest.raises(WeightsError, match="4 ambiguous"):
        match_weights(save(state), _staged()).require()


def test_shifted_layers_are_paired_in_order_and_said(save: Save) -> None:
    source = _chain("conv1", "conv2", "conv3")
    _same_numbers(save(source.state_dict()), source, _chain("conv0", "conv1", "conv2"))
    report = match_weights(save(source.state_dict()), _chain("conv0", "conv1", "conv2"))
    assert any("conv1..conv3 -> conv0..conv2" in finding.text for finding in report.findings)


@pytest.mark.parametrize(("there", "here"), [((0, 1), (2, 1)), ((2, 1), (0, 1)), ((2, 3), (1, 1)), ((0, 1), (1, 5))])
def test_identities_put_in_or_out_of_a_sequential(there: tuple[int, int], here: tuple[int, int], save: Save) -> None:
    source = _plain(there[0], at=there[1])
    _same_numbers(save(source.state_dict()), source, _plain(here[0], at=here[1]))


def test_a_head_of_other_classes_does_not_hide_the_order(save: Save) -> None:
    source, target = _plain(0), _plain(2, size=9)
    graft(target, match_weights(save(source.state_dict()), target).require("backbone"))
    assert torch.equal(target[8].weight, source[6].weight)


@pytest.mark.parametrize(("prefix", "said"), [("", "the file's network is deeper"), ("trunk.", "10 ambiguous")])
def test_numbers_that_two_orders_explain_are_never_taken_in_silence(prefix: str, said: str, save: Save) -> None:
    """Six layers for five places, none of them called alike: which one is too many, nobody knows."""
    source = _chain(*(f"conv{number}" for number in range(1, 7)))
    file = save({prefix + name: tensor for name, tensor in source.state_dict().items()})
    report = match_weights(file, _chain(*(f"conv{number}" for number in range(5))))
    with pytest.raises(WeightsError, match=said):
        report.require()


# --- two networks in one file ------------------------------------------------------------------------------------


def _pair(first: str, second: str, build: Callable[[], nn.Module] = _resnet) -> tuple[dict[str, Tensor], nn.Module]:
    """A momentum copy before the network itself."""
    source = build()
    copy = {f"{first}.{name}": tensor * 2 for name, tensor in source.state_dict().items()}
    return copy | {f"{second}.{name}": tensor for name, tensor in source.state_dict().items()}, source


def _convnext() -> nn.Module:
    return _seeded(timm.create_model("convnext_atto", dims=(8, 8, 8, 8), depths=(1, 1, 2, 1), num_classes=3))


@pytest.mark.parametrize("build", [_resnet, _convnext])
@pytest.mark.parametrize("names", [("encoder_k", "encoder_q"), ("teacher", "student"), ("net.left", "net.right")])
def test_of_two_networks_none_is_taken_in_silence(
    names: tuple[str, str], build: Callable[[], nn.Module], save: Save
) -> None:
    state, source = _pair(*names, build)
    file, chosen = save(state), names[1]
    for name in names:
        _refused(match_weights(file, build()), f"ambiguous(.|\n)*--from .*{name}")
    _same_numbers(file, source, build(), 64, key=chosen)
    _same_numbers(read_weights(file.path, key=chosen), source, build(), 64)
    _same_numbers(file, source, build(), 64, skip=[f"{names[0]}.*"])


def test_a_copy_without_its_head_is_one_as_well(save: Save) -> None:
    state, _ = _pair("teacher", "student")
    state = {name: tensor for name, tensor in state.items() if not name.startswith("student.fc")}
    _refused(match_weights(save(state), _resnet()), "--from teacher or --from student")


@pytest.mark.parametrize("head", ["fc.weight", "classifier.weight", "out.0.weight"])
def test_a_head_beside_two_networks_hides_neither(head: str, save: Save) -> None:
    state, _ = _pair("left", "right")
    state = {name: tensor for name, tensor in state.items() if ".fc." not in name}
    report = match_weights(save(state | {head: torch.ones(3, 8)}), _resnet())
    _refused(report, "--from left or --from right")


def test_plain_names_win_over_a_copy_and_that_is_said(save: Save) -> None:
    source = _resnet()
    state = {f"ema.{name}": tensor * 2 for name, tensor in source.state_dict().items()} | dict(source.state_dict())
    report = match_weights(save(state), _resnet())
    assert any("--from ema" in finding.text for finding in report.findings)
    _same_numbers(save(state), source, _resnet(), 64)


def test_a_prefix_that_no_name_has_is_told_with_those_that_there_are(save: Save) -> None:
    file = save(_pair("encoder_k", "encoder_q")[0])
    with pytest.raises(WeightsError, match="encoder_k, encoder_q"):
        match_weights(file, _resnet(), key="encoder")
    with pytest.raises(WeightsError, match="begin with: encoder_k, encoder_q"):
        read_weights(file.path, key="encoder")


def test_the_command_line_chooses_between_two_networks(cli: Cli, tmp_path: Path) -> None:
    state, _ = _pair("encoder_k", "encoder_q", lambda: timm.create_model("test_resnet"))
    torch.save(state, tmp_path / "x.pth")
    call = ("match", tmp_path / "x.pth", "--model", "test_resnet")
    refused = cli(*call)
    assert refused.code == 4
    assert "--from encoder_k or --from encoder_q" in refused.err
    assert cli(*call, "--from", "encoder_q").code == 0
    assert cli(*call, "--skip", "encoder_k.*").code == 0


# --- what tensors do not show ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target", "why"),
    [
        ("mobilenet_v3_small", "mobilenetv3_small_100", "eps"),
        ("mobilenet_v3_small", "tf_mobilenetv3_small_100", "both sides alike"),
        ("efficientnet_b0", "tf_efficientnet_b0", "both sides alike"),
        ("efficientnet_v2_s", "efficientnetv2_s", "eps"),
    ],
)
def test_torchvisions_padding_and_epsilon_are_known(source: str, target: str, why: str, tmp_path: Path) -> None:
    with torch.device("meta"):
        network = getattr(torchvision.models, source)(num_classes=4)
    torch.save({name: torch.ones(tensor.shape) for name, tensor in network.state_dict().items()}, tmp_path / "x.pth")
    with torch.device("meta"):
        model = timm.create_model(target, num_classes=4)
    report = match_weights(read_weights(tmp_path / "x.pth"), model)
    assert report.coverage["all"] == 1.0
    _refused(report, why)


@pytest.mark.parametrize(
    ("source", "target", "arguments"),
    [
        ("mobilenet_v3_small", "mobilenetv3_small_100", {"bn_eps": 1e-3}),
        pytest.param("mobilenet_v3_large", "mobilenetv3_large_100", {"bn_eps": 1e-3}, marks=pytest.mark.slow),
        ("efficientnet_b0", "efficientnet_b0", {}),
        pytest.param("efficientnet_v2_s", "efficientnetv2_s", {"bn_eps": 1e-3}, marks=pytest.mark.slow),
    ],
)
def test_torchvisions_networks_give_the_same_numbers(
    source: str, target: str, arguments: dict[str, Any], tmp_path: Path
) -> None:
    torch.manual_seed(1)
    network = getattr(torchvision.models, source)(num_classes=4).eval()
    torch.save(network.state_dict(), tmp_path / "x.pth")
    model = timm.create_model(target, num_classes=4, **arguments)
    _same_numbers(read_weights(tmp_path / "x.pth"), network, model, 65)


def _lukemelas(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of an EfficientNet of timm under the names of EfficientNet-PyTorch."""
    block = {
        "conv_dw": "_depthwise_conv",
        "bn1": "_bn1",
        "se.conv_reduce": "_se_reduce",
        "se.conv_expand": "_se_expand",
    }
    first = {**block, "conv_pw": "_project_conv", "bn2": "_bn2"}
    later = {
        **block,
        "conv_pw": "_expand_conv",
        "bn1": "_bn0",
        "bn2": "_bn1",
        "bn3": "_bn2",
        "conv_pwl": "_project_conv",
    }
    top = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    blocks = list(dict.fromkeys(".".join(name.split(".")[:3]) for name in model.state_dict() if name[:6] == "blocks"))
    state = {}
    for name, tensor in model.state_dict().items():
        layer, _, leaf = name.rpartition(".")
        place = ".".join(name.split(".")[:3])
        if place in blocks:
            number, table = blocks.index(place), first if place.startswith("blocks.0") else later
            state[f"_blocks.{number}.{table[layer[len(place) + 1 :]]}.{leaf}"] = tensor
        else:
            state[f"{top[layer]}.{leaf}"] = tensor
    return state


def test_the_first_efficientnets_in_pytorch_pad_as_tensorflow_does(save: Save) -> None:
    source = timm.create_model("tf_efficientnet_b0", num_classes=3).eval()
    file = save(_lukemelas(source))
    with torch.device("meta"):
        stock = timm.create_model("efficientnet_b0", num_classes=3)
    report = match_weights(file, stock)
    assert report.coverage["all"] == 1.0
    _refused(report, "eps")
    _refused(report, "TensorFlow's SAME")
    _same_numbers(file, source, timm.create_model("tf_efficientnet_b0", num_classes=3), 64)


_KERAS_LAYERS = {"p": {"kernel": (3, 3, 3, 8)}, "q": _NORM, "r": {"kernel": (8, 5), "bias": (5,)}}


def _strided(eps: float) -> nn.Sequential:
    convolution = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(
        convolution, nn.BatchNorm2d(8, eps=eps), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    )


def test_keras_weights_that_do_not_tell_their_epsilon_are_refused() -> None:
    report = match_weights(_keras_file(_KERAS_LAYERS), _strided(1e-5))
    assert report.coverage["all"] == 1.0
    _refused(report, "Keras's default")
    _refused(report, "does not tell how its network pads")


def test_keras_weights_in_a_network_of_its_epsilon_say_what_is_unknown() -> None:
    report = match_weights(_keras_file(_KERAS_LAYERS), _strided(1e-3)).require("all")
    text = " ".join(finding.text for finding in report.findings)
    assert "does not tell how its network pads" in text
    assert "--check" in text


def test_a_network_that_normalised_its_own_input_is_told() -> None:
    own = {"normalization": {"mean": (3,), "variance": (3,), "count": ()}}
    report = match_weights(_keras_file({**own, **_KERAS_LAYERS}), _strided(1e-3)).require("all")
    assert any("normalized its own input" in finding.text for finding in report.findings)


@pytest.mark.parametrize(("named", "is_right"), [("resnet18", True), ("resnetblur18", False), ("no such one", True)])
def test_the_config_beside_a_file_names_another_network(named: str, is_right: bool, tmp_path: Path) -> None:
    source = _resnet()
    save_file(dict(source.state_dict()), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": f"{named}.tag"}))
    report = match_weights(read_weights(tmp_path / "model.safetensors"), _resnet())
    if is_right:
        report.require("all")
    else:
        _refused(report, "--model resnetblur18")


@pytest.mark.parametrize(("layer", "version"), [("conv2_block1_1_conv", "3"), ("res2a_branch2a", "2"), ("conv1", None)])
def test_resnet50_is_of_the_keras_that_its_names_are_of(layer: str, version: str | None) -> None:
    found = arguments_for("keras_resnet50", [f"resnet50/{layer}", "fc1000"])
    assert found == ({"keras_version": version} if version else {})
    assert arguments_for("keras_vgg16", [layer]) == {}


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.bool])
def test_integers_are_no_weights(dtype: torch.dtype, save: Save) -> None:
    state = {
        name: (tensor * 20).to(dtype) if name.endswith("conv1.weight") else tensor
        for name, tensor in _resnet().state_dict().items()
    }
    _refused(match_weights(save(state), _resnet()), "quantised")


def test_integers_are_no_positions(save: Save) -> None:
    state = {
        name: (tensor * 20).to(torch.int8) if name == "pos_embed" else tensor
        for name, tensor in _vit().state_dict().items()
    }
    _refused(match_weights(save(state), _vit()), "quantised")


# --- an order that is not that of execution ----------------------------------------------------------------------


class _Executed(nn.Module):
    """Two equal convolutions, run in the order of the names given and defined in the order of `defined`."""

    def __init__(self, run: tuple[str, ...], defined: tuple[str, ...]) -> None:
        super().__init__()
        self.run = run
        for name in defined:
            self.add_module(name, nn.Conv2d(3 if name in ("stem", "a") else 8, 8, 3, padding=1))
        self.fc = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        for name in self.run:
            images = self.get_submodule(name)(images).relu()
        logits: Tensor = self.fc(images.mean((2, 3)))
        return logits


@pytest.mark.parametrize(
    "defined", [("second", "first", "stem"), ("stem", "second", "first"), ("stem", "conv_2", "conv_1")]
)
def test_the_order_of_definition_alone_decides_nothing(defined: tuple[str, ...], tmp_path: Path) -> None:
    source = _seeded(
        _Executed(tuple(sorted(defined, key=lambda n: {"stem": 0, "first": 1, "conv_1": 1}.get(n, 2))), defined)
    )
    torch.save(source.state_dict(), tmp_path / "x.pth")
    report = match_weights(read_weights(tmp_path / "x.pth"), _Executed(("a", "b", "c"), ("a", "b", "c")))
    _refused(report, "definition")
    _refused(report, "--check")


def test_numbers_that_rise_confirm_the_order_of_definition(tmp_path: Path) -> None:
    source = _seeded(_Executed(("stem", "conv_1", "conv_2"), ("stem", "conv_1", "conv_2")))
    torch.save(source.state_dict(), tmp_path / "x.pth")
    file, target = read_weights(tmp_path / "x.pth"), _Executed(("a", "b", "c"), ("a", "b", "c"))
    assert any(finding.kind == "order" for finding in match_weights(file, target).findings)
    _same_numbers(file, source, target)


def test_the_order_of_definition_can_be_taken_on_purpose(tmp_path: Path) -> None:
    source = _seeded(_Executed(("stem", "early", "late"), ("stem", "early", "late")))
    torch.save(source.state_dict(), tmp_path / "x.pth")
    file, target = read_weights(tmp_path / "x.pth"), _Executed(("a", "b", "c"), ("a", "b", "c"))
    _refused(match_weights(file, target), "definition")
    _same_numbers(file, source, target, in_order=True)


# --- refused though plain ----------------------------------------------------------------------------------------


def test_one_input_channel_is_no_depthwise_convolution(save: Save) -> None:
    def build(*names: str) -> nn.Module:
        model = nn.Sequential()
        for name, layer in zip(names, (nn.Conv2d(1, 8, 3), nn.Conv2d(8, 16, 3)), strict=True):
            model.add_module(name, layer)
        return _seeded(model)

    source, target = build("p", "q"), build("first", "second")
    graft(target, match_weights(save(source.state_dict()), target).require("all"))
    assert torch.equal(target.get_submodule("first").weight, source.get_submodule("p").weight)


@pytest.mark.parametrize(
    "leaves",
    [
        ("w", "b", "mu", "var"),
        ("w", "b", "mean", "var"),
        ("g", "b", "m", "v"),
        ("gamma", "beta", "mean", "var"),
        ("scale", "shift", "moving_mean", "moving_var"),
        ("weight", "bias", "average", "spread"),
    ],
)
def test_the_tensors_of_a_norm_are_told_by_their_shapes(leaves: tuple[str, ...], save: Save) -> None:
    source = _seeded(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16)))
    spelled = dict(zip(("weight", "bias", "running_mean", "running_var"), leaves, strict=True))
    with torch.no_grad():
        source[1].running_mean -= 0.2
    state = {}
    for name, tensor in source.state_dict().items():
        number, leaf = name.split(".")
        if leaf in spelled:
            is_norm = number in ("1", "3")
            state[f"_net.{number}.{spelled[leaf] if is_norm else {'weight': 'w', 'bias': 'b'}[leaf]}"] = tensor
    target = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16))
    _same_numbers(save(state), source, target)


@pytest.mark.parametrize("prefix", ["backbone.", "module.visual.trunk."])
@pytest.mark.parametrize("build", [lambda: _vit(init_values=0.1), _convnext], ids=["vit", "convnext"])
def test_loose_tensors_go_with_their_neighbours(prefix: str, build: Callable[[], nn.Module], save: Save) -> None:
    source = build()
    state = {prefix + name: tensor for name, tensor in source.state_dict().items()}
    _same_numbers(save(state | {"head.0.weight": torch.ones(4, 4)}), source, build(), 32)


def test_layer_scales_of_any_shape_fit(save: Save) -> None:
    source = _convnext()
    state = {
        name: tensor.reshape(1, -1, 1, 1) if name.endswith("gamma") else tensor
        for name, tensor in source.state_dict().items()
    }
    _same_numbers(save(state), source, _convnext())


def test_a_wide_file_under_a_prefix_is_matched_in_linear_time(save: Save) -> None:
    """Counted, not timed: how often two layers are compared must not grow with the square of the blocks."""
    from regraft.models.describe.slots import slots_of
    from regraft.weights.naming.layers import Layer, model_layers, source_layers
    from regraft.weights.naming.naming import by_suffix

    def comparisons(depth: int) -> int:
        model = _vit(depth=depth)
        file = save({f"net.{name}": tensor for name, tensor in model.state_dict().items()})
        count = 0

        def fits(target: Layer, source: Layer) -> bool:
            nonlocal count
            count += 1
            return target.shape == source.shape

        found = by_suffix(model_layers(slots_of(model)), source_layers(file), fits)
        assert found is not None
        assert len(found.pairs) > 6 * depth
        return count

    assert comparisons(24) < 2.5 * comparisons(12)


def test_the_config_of_a_hub_s_cache_is_compared_too(tmp_path: Path) -> None:
    """There every file is a link to `blobs`."""
    blobs, snapshot = tmp_path / "models--x" / "blobs", tmp_path / "models--x" / "snapshots" / "0123"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    save_file(dict(_resnet().state_dict()), blobs / "aa")
    (blobs / "bb").write_text(json.dumps({"architecture": "resnetblur18"}))
    (snapshot / "model.safetensors").symlink_to(Path("..") / ".." / "blobs" / "aa")
    (snapshot / "config.json").symlink_to(Path("..") / ".." / "blobs" / "bb")
    _refused(match_weights(read_weights(snapshot / "model.safetensors"), _resnet()), "--model resnetblur18")


def test_a_prefix_may_end_with_its_dot(tmp_path: Path) -> None:
    state = {f"encoder_q.{name}": tensor for name, tensor in _resnet().state_dict().items()}
    torch.save(state, tmp_path / "x.pth")
    assert read_weights(tmp_path / "x.pth", key="encoder_q.").tensors.keys() == state.keys()
    with pytest.raises(WeightsError, match="Its names begin with: encoder_q"):
        read_weights(tmp_path / "x.pth", key="encoder_k.")
