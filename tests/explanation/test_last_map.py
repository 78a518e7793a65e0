"""The map that everything goes through is found in networks of every kind, and missed where there is none."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

import regraft as rg
from regraft.compute.numerics import Numerics
from regraft.explanation.evidence import EvidenceMaps, class_score
from regraft.explanation.last_map import find_last_map
from regraft.models.describe.info import ModelInfo, info_of, set_info

NUMERICS = Numerics("cpu", "fp32", True, 1)
# One or more of each family of timm's CNNs; the image's side where 64 pixels are too few for it.
FEW = ["resnet10t", "convnext_atto", "mobilenetv3_small_050", "tf_efficientnet_lite0", "vgg11", "edgenext_xx_small"]
MANY = """
bat_resnext26ts:256 botnet26t_256:256 coatnet_pico_rw_224:224 convmixer_768_32 convnext_atto_ols convnext_femto
convnext_pico convnext_nano convnext_tiny convnext_zepto_rms convnextv2_atto convnextv2_femto convnextv2_pico
cs3darknet_focus_s cs3darknet_s cs3darknet_x cs3darknet_m cs3sedarknet_l cs3se_edgenet_x cspdarknet53 cspresnet50
cspresnext50 darknet53 darknet17 darknetaa53 densenet161 densenet169 densenet201 densenetblur121d dla102 dla34 dla46_c
dla46x_c dla60 dla60_res2net dla60x_c dm_nfnet_f0 dpn48b dpn68 dpn68b eca_botnext26ts_256:256 eca_nfnet_l0
eca_resnet33ts eca_resnext26ts eca_vovnet39b ecaresnet26t ecaresnet50d ecaresnetlight edgenext_small edgenext_x_small
edgenext_xx_small efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b0_gn efficientnet_b0_g8_gn
efficientnet_cc_b0_4e efficientnet_el efficientnet_em efficientnet_es efficientnet_lite0 efficientnet_lite1
efficientnetv2_rw_t efficientnetv2_s efficientvit_b0:224 efficientvit_m0:224 ese_vovnet19b_dw ese_vovnet19b_slim
ese_vovnet39b fastvit_mci0 fastvit_s12 fastvit_t8 fbnetc_100 fbnetv3_b focalnet_tiny_srf:224 gc_efficientnetv2_rw_t
gcresnet33ts gcresnet50t gcresnext26ts gernet_m gernet_s ghostnet_050 ghostnet_100 ghostnetv2_100 halonet26t:256
haloregnetz_b:224 hardcorenas_a hardcorenas_c hgnet_tiny hgnet_small hgnetv2_b0 hgnetv2_b1 hrnet_w18_small
hrnet_w18_small_v2 inception_next_atto inception_next_tiny inception_resnet_v2:128 inception_v3:128 inception_v4:128
lambda_resnet26t:256 lcnet_035 lcnet_050 lcnet_100 legacy_seresnet18 legacy_seresnet50 legacy_seresnext26_32x4d
legacy_xception mambaout_femto mambaout_kobe maxvit_pico_rw_256:256 mixnet_s mixnet_m mnasnet_050 mnasnet_100
mnasnet_small mobilenet_edgetpu_v2_xs mobilenetv1_100 mobilenetv2_035 mobilenetv2_050 mobilenetv2_100
mobilenetv3_large_075 mobilenetv3_rw mobilenetv4_conv_small mobilenetv4_conv_medium mobilenetv4_hybrid_medium
mobileone_s0 mobileone_s1 mobilevit_xxs mobilevitv2_050 nasnetalarge:128 nf_ecaresnet26 nf_regnet_b0 nf_resnet26
nf_seresnet26 nfnet_f0 nfnet_l0 nextvit_small pnasnet5large:128 poolformer_s12 poolformerv2_s12 pvt_v2_b0 rdnet_tiny
regnetv_040 regnetx_002 regnetx_004 regnetx_008 regnety_002 regnety_004 regnety_008 regnetz_040 regnetz_b16
regnetz_005 repghostnet_050 repghostnet_100 repvgg_a0 repvgg_b0 repvit_m0_9 repvit_m1 res2net50_14w_8s
res2net50_26w_4s res2next50 resnest14d resnest26d resnest50d resnet14t resnet18 resnet18d resnet26 resnet26d resnet26t
resnet32ts resnet33ts resnet34 resnet34d resnet50 resnet50d resnet50_gn resnet50t resnet51q resnetaa50 resnetblur18
resnetblur50 resnetrs50 resnetv2_18 resnetv2_50 resnetv2_50d_evos resnetv2_50x1_bit resnext26ts resnext50_32x4d
resnext50d_32x4d rexnet_100 rexnetr_100 sebotnet33ts_256:256 sehalonet33ts:256 selecsls42 selecsls42b selecsls60
semnasnet_075 semnasnet_100 senet154 sequencer2d_s:224 seresnet18 seresnet33ts seresnet34 seresnet50
seresnext26d_32x4d seresnext26ts shvit_s1 skresnet18 skresnet34 skresnext50_32x4d spnasnet_100 starnet_s1 starnet_s050
swiftformer_xs:224 tf_efficientnet_b0 tf_efficientnet_cc_b0_4e tf_efficientnet_el tf_efficientnetv2_b0 tf_mixnet_s
tf_mobilenetv3_small_075 tf_mobilenetv3_small_minimal_100 tinynet_a tinynet_c tinynet_e tresnet_m vgg11_bn vgg13 vgg16
vovnet39a wide_resnet50_2 xception41 xception41p xception65
"""
TOKENS = ["test_vit", "vit_tiny_patch16_224", "mixer_s32_224", "deit_tiny_patch16_224", "gmlp_ti16_224"]


def network(name: str, num_classes: int = 5) -> tuple[nn.Module, int]:
    name, _, side = name.partition(":")
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=num_classes).eval()
    for module in model.modules():
        if isinstance(module, nn.Linear) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.02)  # some heads begin with zeros, and say nothing then
    return model, int(side or 64)


def assert_explained(model: nn.Module, side: int) -> None:
    """Every score has a map with places, and what it says depends on the image."""
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    maps = EvidenceMaps(model, NUMERICS)
    place = torch.tensor([1, 2])
    logits, (found,) = maps(images, lambda logits: [class_score(logits, "softmax", place)])
    with torch.no_grad():
        assert torch.allclose(logits, model(images), atol=1e-4, rtol=1e-3)
    height, width = found.shape[1:]
    assert height * width > 1
    assert maps.last_map is not None
    assert side // height <= 64
    assert abs(found).max() > 0


@pytest.mark.parametrize("name", FEW)
def test_networks_of_timm(name: str) -> None:
    assert_explained(*network(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", MANY.split())
def test_many_networks_of_timm(name: str) -> None:
    assert_explained(*network(name))


@pytest.mark.parametrize("name", TOKENS[:1])
def test_tokens_have_no_map(name: str) -> None:
    _no_map(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", TOKENS[1:])
def test_more_tokens_have_no_map(name: str) -> None:
    _no_map(name)


def _no_map(name: str) -> None:
    model = timm.create_model(name, num_classes=5).eval().requires_grad_(False)
    size = model.pretrained_cfg["input_size"][-2:]
    with pytest.raises(rg.SettingsError, match="works on tokens") as caught:
        find_last_map(model, torch.zeros(1, 3, *size))
    assert "convolutional" in str(caught.value)


def test_layers_on_pixels_alone_have_no_map() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 16), nn.ReLU(), nn.Linear(16, 4)).requires_grad_(False)
    with pytest.raises(rg.SettingsError, match="has no map of places"):
        find_last_map(model, torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize("name", ["keras_vgg16", "keras_mobilenetv2", "alexnet"])
def test_forms_of_keras_and_alexnet(name: str) -> None:
    model = rg.build_model(name, num_classes=5, seed=0)
    assert_explained(model.eval(), 227 if name == "alexnet" else 64)


def test_behind_global_pooling_it_is_the_class_activation_map() -> None:
    model, side = network("resnet10t")
    images = torch.randn(3, 3, side, side)
    place = torch.tensor([0, 3, 4])
    _, (found,) = EvidenceMaps(model, NUMERICS)(images, lambda logits: [class_score(logits, "softmax", place)])
    with torch.no_grad():
        features = model.forward_features(images)  # type: ignore[operator]
        weights = model.fc.weight - model.fc.weight.mean(0)  # type: ignore[union-attr]
        wanted = torch.einsum("nchw,nc->nhw", features, weights[place]) / features.shape[2:].numel()
    assert torch.allclose(torch.from_numpy(found), wanted, atol=1e-5, rtol=1e-3)


def test_each_output_has_its_score() -> None:
    logits = torch.tensor([[1.0, 2.0, 6.0], [0.0, 3.0, 0.0]])
    place = torch.tensor([2, 0])
    assert class_score(logits, "softmax", place).tolist() == [3.0, -1.0]
    assert class_score(logits, "multilabel", place).tolist() == [6.0, 0.0]
    assert class_score(logits[:, :1], "binary", torch.tensor([1, 0])).tolist() == [1.0, 0.0]
    assert class_score(logits[:, :1], "binary", torch.tensor([0, 0])).tolist() == [-1.0, 0.0]
    pixels = logits[..., None, None].expand(-1, -1, 2, 2)
    assert class_score(pixels, "segmentation", place).shape == (2, 2, 2)


class Branches(nn.Module):
    """Two branches behind one convolution, each pooled: only the fork is a map that everything goes through."""

    def __init__(self, *, in_place: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.left, self.right = nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 4, 1)
        self.act = nn.ReLU(inplace=in_place)
        self.fc = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.act(self.stem(images))
        pooled = [branch(maps).mean((2, 3)) for branch in (self.left, self.right)]
        return self.fc(torch.cat(pooled, 1))


@pytest.mark.parametrize("in_place", [False, True])
def test_a_branch_is_not_taken_for_the_whole(in_place: bool) -> None:
    model = Branches(in_place=in_place).eval().requires_grad_(False)
    assert find_last_map(model, torch.zeros(1, 3, 32, 32)).size == (16, 16)
    assert_explained(model, 32)


class ByNumbers(nn.Module):
    """A network that cannot be traced: numbers decide its path."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 6, 3, 2, 1), nn.Linear(6, 5)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images)
        if float(images.detach().abs().mean()) >= 0:
            maps = torch.relu_(maps)
        return self.fc(maps.flatten(2).mean(2))


def test_a_network_that_cannot_be_traced() -> None:
    assert_explained(ByNumbers().eval(), 32)


class Last(nn.Module):
    """Channels last inside."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 6, 4, 4), nn.LayerNorm(6), nn.Linear(6, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.norm(self.conv(images).permute(0, 2, 3, 1)).mean((1, 2)))


def test_channels_may_come_last() -> None:
    model = Last().eval().requires_grad_(False)
    found = find_last_map(model, torch.zeros(1, 3, 64, 96))
    assert (found.channels_axis, found.size) == (3, (16, 24))
    assert_explained(model, 64)


@pytest.mark.parametrize(("name", "options"), [("unet", {"encoder": "test_efficientnet"}), ("segnet", {"depth": 3})])
def test_networks_for_segmentation(name: str, options: dict[str, object]) -> None:
    model = rg.build_model(name, num_classes=4, seed=0, **options).eval()
    maps = EvidenceMaps(model, NUMERICS)
    place = torch.tensor([1, 2])
    images = torch.randn(2, 3, 64, 64)

    def score(logits: Tensor) -> list[Tensor]:
        return [class_score(logits, "segmentation", place).sum((1, 2))]

    _, (found,) = maps(images, score)
    assert found.shape[1] <= 16
    assert abs(found).max() > 0


@pytest.mark.parametrize("pyramid", [(), (1, 2, 3, 6)])
def test_a_unet_is_explained_where_the_first_skip_has_joined(pyramid: tuple[int, ...]) -> None:
    """Not at its coarsest map, past which nearly all goes, and not at a grid that is pooled from it."""
    model = rg.build_model("unet", num_classes=3, seed=0, encoder="test_efficientnet", pyramid=pyramid).eval()
    assert isinstance(model.stride, int)
    side = 4 * model.stride  # its coarsest map has 4x4 places, fewer than the finest grid
    assert find_last_map(model.requires_grad_(False), torch.zeros(1, 3, side, side)).size == (8, 8)


def test_the_model_itself_stays_as_it_was() -> None:
    model, side = network("resnet10t")
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    place = torch.tensor([1])
    EvidenceMaps(model, NUMERICS)(torch.randn(1, 3, side, side), lambda logits: [class_score(logits, "softmax", place)])
    assert model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_an_own_head_of_several_layers_counts_as_head() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Flatten(1), nn.Linear(4 * 256, 5))
    set_info(model, ModelInfo("own", head=("3",)))
    assert info_of(model).head == ("3",)
    assert_explained(model.eval(), 32)


def test_a_unet_without_what_it_learned_has_another_map() -> None:
    """Adebayo et al. 2018: with a random classifier, and with random weights behind the encoder."""
    model = rg.build_model("unet", num_classes=4, seed=0, encoder="test_efficientnet").eval()
    images = torch.randn(4, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    place = torch.tensor([0, 1, 2, 3])

    def maps_of(network: nn.Module) -> Tensor:
        found = EvidenceMaps(network, NUMERICS)(
            images, lambda logits: [class_score(logits, "segmentation", place).sum((1, 2))]
        )
        return torch.from_numpy(found[1][0]).flatten(1)

    before = maps_of(model)
    for part in ("classifier", "decoder"):
        same = []
        for seed in range(3):
            torch.manual_seed(seed)
            for layer in model.get_submodule(part).modules():
                if isinstance(layer, nn.Conv2d):
                    nn.init.xavier_normal_(layer.weight)
            pairs = zip(before, maps_of(model), strict=True)
            same += [float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in pairs]
        assert abs(sum(same) / len(same)) < 0.3, part
