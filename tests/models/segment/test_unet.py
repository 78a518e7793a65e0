"""U-Net: its shape on VGG and on other networks, images of any size, its first weights."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.segment.networks import SMALL, vgg_unet
from torch import Tensor, nn
from torch.nn import functional

import regraft as rg
from regraft.errors import SettingsError
from regraft.models.describe.outputs import output_of

VGG = {1: (0, 2), 2: (5, 7), 3: (10, 12, 14), 4: (17, 19, 21), 5: (24, 26, 28)}  # timm's numbers of Keras's layers


def by_hand(model: nn.Module, images: Tensor, depth: int) -> Tensor:
    """The question's U-Net, written down: skips before the poolings, no fifth pooling, up, concatenate, two convs."""
    state = model.state_dict()
    skips, maps = [], images
    for block in range(1, depth + 1):
        for place in VGG[block]:
            name = f"encoder.features.{place}"
            maps = functional.relu(functional.conv2d(maps, state[f"{name}.weight"], state[f"{name}.bias"], padding=1))
        skips.append(maps)
        maps = functional.max_pool2d(maps, 2)
    maps = skips.pop()
    for stage in range(1, depth):
        maps = maps.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        maps = torch.cat([maps, skips.pop()], dim=1)
        for conv in (1, 2):
            name = f"decoder.stage{stage}.convs.conv{conv}"
            maps = functional.relu(functional.conv2d(maps, state[f"{name}.weight"], state[f"{name}.bias"], padding=1))
    return functional.conv2d(maps, state["classifier.weight"], state["classifier.bias"])


@pytest.mark.parametrize("depth", [2, 3, 4, 5])
def test_it_is_the_network_of_the_question(depth: int) -> None:
    model = vgg_unet(depth=depth, batch_norm=False)
    images = torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        assert torch.allclose(model(images), by_hand(model, images, depth), atol=1e-5)


def test_filters_and_depth_count_from_the_form_on_vgg() -> None:
    model = rg.build_model("unet", classes=["sky", "road"])
    widths = [stage.convs.conv2.out_channels for stage in model.decoder.children()]
    assert widths == [256, 128, 64, 32]
    assert [stage.convs.conv1.in_channels for stage in model.decoder.children()] == [1024, 512, 256, 128]
    assert (model.classifier.kernel_size, model.classifier.in_channels, model.classifier.out_channels) == (
        (1, 1),
        32,
        2,
    )
    assert len(model.encoder.features) == 30  # up to the ReLU of block5_conv3
    shallow = rg.build_model("unet", depth=3, filters=[24, 12])
    assert [stage.convs.conv2.out_channels for stage in shallow.decoder.children()] == [24, 12]
    assert len(shallow.encoder.features) == 16
    default = rg.build_model("unet", depth=3)
    assert [stage.convs.conv2.out_channels for stage in default.decoder.children()] == [64, 32]


def test_what_it_says_of_itself() -> None:
    model = rg.build_model("unet", encoder=SMALL, classes=["sky", "road", "car"])
    info = model.regraft_info
    assert output_of(model) == "segmentation"
    assert (info.architecture, info.class_names, info.head, info.decoder) == (
        "unet", ("sky", "road", "car"), ("classifier",), ("decoder",),
    )  # fmt: skip
    assert info.args == {"encoder": SMALL, "num_classes": 3}
    assert info.new_layers == ("decoder", "classifier")


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "regnetx_002", "test_convnext"])
def test_the_encoder_is_timm_s_network(name: str) -> None:
    """Same names, and the same maps as timm's own `features_only`, finest stride 2 (ConvNeXt's is 4)."""
    whole = timm.create_model(name).eval()
    model = rg.build_model("unet", encoder=name)
    inner = model.encoder.state_dict()
    assert set(inner) <= set(whole.state_dict())
    model.encoder.load_state_dict({key: whole.state_dict()[key] for key in inner})
    twin = timm.create_model(name, features_only=True).eval()
    flat = {key.replace(".", "_"): value for key, value in whole.state_dict().items()}
    twin.load_state_dict({key: flat[key.replace(".", "_")] for key in twin.state_dict()})
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        maps = model.encoder.forward_intermediates(images, indices=model.indices, intermediates_only=True)
        for given, expected in zip(maps, twin(images)[-len(maps) :], strict=True):
            assert torch.equal(given, expected)
        assert model(images).shape == (1, 2, 64, 96)
    assert 64 // maps[0].shape[2] == (4 if "convnext" in name else 2)


def test_logits_of_other_encoders_are_interpolated_to_the_image() -> None:
    model = rg.build_model("unet", encoder=SMALL, classes=3)
    coarse: list[Tensor] = []
    model.classifier.register_forward_hook(lambda _module, _inputs, output: coarse.append(output))
    with torch.no_grad():
        logits = model(torch.randn(1, 3, 64, 64))
    assert coarse[0].shape == (1, 3, 32, 32)
    assert torch.equal(logits, functional.interpolate(coarse[0], (64, 64), mode="bilinear", align_corners=False))


def test_the_pyramid_is_the_map_beside_its_means_over_grids() -> None:
    model = rg.build_model("unet", encoder=SMALL, classes=3, pyramid=[1, 2]).eval()
    context = model.decoder.context
    maps = torch.randn(2, context.conv1.in_channels, 4, 6)
    with torch.no_grad():
        mean = functional.relu(context.conv1(maps.mean((2, 3), keepdim=True))).expand(-1, -1, 4, 6)
        quarters = maps.reshape(2, -1, 2, 2, 2, 3).mean((3, 5))
        fine = functional.relu(context.conv2(quarters))
        fine = functional.interpolate(fine, (4, 6), mode="bilinear", align_corners=False)
        torch.testing.assert_close(context(maps), context.convs(torch.cat([maps, mean, fine], dim=1)))


def test_each_place_sees_the_whole_image_through_the_pyramid() -> None:
    """Far from a changed corner, logits of the plain network stay as they were, and those with a pyramid do not."""
    images = torch.randn(1, 3, 512, 512, generator=torch.Generator().manual_seed(0))
    changed = images.clone()
    changed[:, :, :32, :32] += 3
    far = (..., slice(-32, None), slice(-32, None))
    for pyramid, is_seen in (((), False), ((1,), True)):
        torch.manual_seed(0)
        model = rg.build_model("unet", encoder=SMALL, classes=3, pyramid=list(pyramid), depth=3).eval()
        with torch.no_grad():
            assert torch.equal(model(images)[far], model(changed)[far]) is not is_seen


@pytest.mark.parametrize("grids", [[0], [1, -2], [1.5], ["2"]])
def test_grids_that_cannot_be(grids: list[Any]) -> None:
    with pytest.raises(SettingsError, match=r"(?s)pyramid is \["):
        rg.build_model("unet", encoder=SMALL, pyramid=grids)


UNETS = {
    "vgg": lambda: vgg_unet(depth=4),
    "resnet": lambda: rg.build_model("unet", encoder=SMALL, classes=3),
    "bilinear": lambda: rg.build_model("unet", encoder=SMALL, classes=3, up="bilinear", depth=3),
    "pyramid": lambda: rg.build_model("unet", encoder=SMALL, classes=3, pyramid=[1, 2]),
    "transposed": lambda: rg.build_model("unet", encoder="test_efficientnet", classes=3, up="transposed"),
}


@pytest.fixture(scope="module", params=UNETS)
def any_unet(request: pytest.FixtureRequest) -> nn.Module:
    return UNETS[request.param]()


@settings(deadline=None, max_examples=25)
@given(height=st.integers(1, 70), width=st.integers(1, 70))
def test_any_size(any_unet: nn.Module, height: int, width: int) -> None:
    """Padded by repeating the last row and column up to the next multiple of the stride, and cropped back."""
    images = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(height * 100 + width))
    stride = any_unet.stride
    rows = torch.arange(-(-height // stride) * stride).clamp(max=height - 1)
    columns = torch.arange(-(-width // stride) * stride).clamp(max=width - 1)
    with torch.no_grad():
        logits = any_unet(images)
        whole = any_unet(images[:, :, rows][:, :, :, columns])
    assert logits.shape == (1, 3, height, width)
    assert torch.allclose(logits, whole[:, :, :height, :width], atol=1e-5, rtol=1e-4)


def test_a_network_that_takes_borders_away_has_a_smallest_size() -> None:
    model = rg.build_model("unet", encoder="inception_v3", classes=3)
    assert model.least > model.stride
    with torch.no_grad():
        assert model(torch.randn(1, 3, 5, 130)).shape == (1, 3, 5, 130)


@pytest.mark.parametrize("make", [UNETS["vgg"], UNETS["resnet"]])
def test_an_export_holds_the_padding(make: Any) -> None:
    model, images = make(), torch.randn(2, 3, 33, 70)
    program = torch.export.export(model, (images,)).module()
    with torch.no_grad():
        assert torch.allclose(program(images), model(images), atol=1e-5)


def test_the_decoder_is_drawn_by_name() -> None:
    """He: the variance of a kernel is two by the number of its inputs; a function of the seed."""
    model, same, other = (rg.build_model("unet", encoder=SMALL, seed=seed) for seed in (1, 1, 2))
    weight = model.decoder.stage1.convs.conv1.weight
    fan_in = weight[0].numel()
    assert weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.02)
    assert torch.equal(weight, same.decoder.stage1.convs.conv1.weight)
    assert not torch.equal(weight, other.decoder.stage1.convs.conv1.weight)
    uniform = rg.build_model("unet", encoder=SMALL, init="he_uniform").decoder.stage1.convs.conv1.weight
    assert uniform.abs().max().item() == pytest.approx((6 / fan_in) ** 0.5, rel=0.01)


def test_it_learns(one_thread: None) -> None:
    model = rg.build_model("unet", encoder=SMALL, classes=2, filters=[16, 16, 16, 16])
    images = torch.randn(4, 3, 45, 37)
    masks = (images.mean(1) > 0).long()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = functional.cross_entropy(model.train()(images), masks)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"encoder": "resnet5"}, "resnet50"),
        ({"encoder": "vit_tiny_patch16_224"}, "no feature maps of falling size"),
        ({"encoder": SMALL, "depth": 1}, "from 2 to 5"),
        ({"encoder": "test_convnext", "depth": 5}, "from 2 to 4"),
        ({"encoder": SMALL, "depth": 3, "filters": [1, 2, 3]}, "2 number\\(s\\)"),
        ({"encoder": SMALL, "up": "cubic", "init": "zeros"}, "(?s)up is 'cubic'.*init is 'zeros'"),
        ({"encoder": SMALL, "dropout": 1.0}, "dropout is 1.0"),
        ({"encoder": "inception_v3", "up": "transposed"}, "expected nearest or bilinear"),
        ({"encoder": SMALL, "encoder_args": {"nonsense": 1}}, "does not take these arguments"),
        ({"encoder": SMALL, "nonsense": 1}, "does not take these arguments"),
        ({"encoder": SMALL, "classes": ["a", "a"]}, "more than once"),
        ({"encoder": SMALL, "classes": 3, "num_classes": 4}, "classes are given as well as num_classes"),
    ],
)
def test_mistakes(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        rg.build_model("unet", **arguments)
