"""Where a model's head begins and its stages end, told by timm, by a run, or by what is stored."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import timm
import torch
from timm.models.inception_v3 import InceptionV3
from torch import Tensor, nn

from regraft.data.decode.decode import PixelProgram
from regraft.data.decode.preprocess import Preprocessing
from regraft.errors import SettingsError
from regraft.models.describe.info import ModelInfo, info_of, set_info
from regraft.models.describe.provenance import Provenance
from regraft.models.describe.trace import in_channels, trace


def network(name: str, **arguments: object) -> nn.Module:
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return timm.create_model(name, **arguments)


class Small(nn.Module):
    """An own network with a branch for training only."""

    def __init__(self) -> None:
        super().__init__()
        self.classify = nn.Linear(8, 3)  # registered first, run last
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.down = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.deep = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.aux_head = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.deep(self.down(self.stem(images))).mean((2, 3)))


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("resnet18", ("fc",)),
        ("vgg11", ("pre_logits", "head")),
        ("test_efficientnet", ("classifier",)),
        ("mobilenetv3_small_050", ("conv_head", "classifier")),
        ("test_convnext", ("head",)),
        ("test_nfnet", ("head",)),
        ("densenet121", ("classifier",)),
        ("dla34", ("fc",)),
        ("inception_v3", ("fc",)),
        ("levit_conv_128", ("head", "head_dist")),
        ("ghostnet_050", ("conv_head", "classifier")),
        ("legacy_xception", ("fc",)),
        ("hrnet_w18_small", ("classifier",)),
    ],
)
def test_the_head_is_all_after_the_last_feature_map(name: str, head: tuple[str, ...]) -> None:
    assert info_of(network(name)).head == head


def test_auxiliary_classifiers_belong_to_the_head() -> None:
    with torch.device("meta"):
        model = InceptionV3(aux_logits=True)
    assert set(info_of(model).head) == {"AuxLogits", "fc"}
    model.pretrained_cfg = {"classifier": "fc"}
    assert info_of(model).head == ("AuxLogits", "fc")


def test_what_belongs_to_the_head() -> None:
    info = info_of(network("vgg11"))
    assert info.is_head("pre_logits.fc1")
    assert info.is_head("head.fc.weight")
    assert not info.is_head("features.0.weight")
    assert not ModelInfo("x", head=("head",)).is_head("header.weight")
    assert not ModelInfo("x").is_head("head")


def test_a_timm_model_without_a_classifier_still_knows_its_place() -> None:
    assert info_of(network("resnet18", num_classes=0)).head == ("fc",)


def test_stages_are_timms_own() -> None:
    assert info_of(network("resnet18")).feature_stages == ("act1", "layer1", "layer2", "layer3", "layer4")
    names = {name for name, _ in network("hrnet_w18_small").named_modules()}
    assert set(info_of(network("hrnet_w18_small")).feature_stages) <= names


def test_an_unknown_module_is_run() -> None:
    info = info_of(Small())
    assert info.head == ("classify", "aux_head")
    assert info.feature_stages == ("stem", "deep.2")
    assert info.architecture == "Small"


def test_a_module_that_cannot_run_is_read_in_order_of_registration() -> None:
    assert info_of(nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))).head == ("2",)


def test_a_single_layer_has_no_head() -> None:
    assert info_of(nn.Conv2d(3, 2, 1)).head == ()


def test_deriving_changes_nothing() -> None:
    model = timm.create_model("test_resnet").train()
    model.bn1.eval()
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    info_of(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not hasattr(model, "regraft_info")


def test_stored_information_travels_with_the_model_and_not_with_its_state() -> None:
    model = Small()
    keys = list(model.state_dict())
    info = ModelInfo(
        "mine", head=("classify",), class_names=("a", "b", "c"), origin=Provenance(new_layers=("classify",))
    )
    assert set_info(model, info) is model
    assert list(model.state_dict()) == keys
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert info_of(twin) == info
        assert info_of(twin) is not info
    assert info_of(torch.compile(model, backend="eager")) is info
    assert info.is_new("classify.weight")
    assert not info.is_new("deep.0")


def test_information_about_another_model_is_refused() -> None:
    with pytest.raises(SettingsError, match="does not have: fc, layer9"):
        set_info(Small(), ModelInfo("mine", head=("fc",), feature_stages=("layer9",)))


class Picky(nn.Module):
    """Decides by numbers, which no shape-only run can do, and takes 40 pixels alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.register_buffer("count", torch.zeros(()))
        self.fc = nn.Linear(4 * 38 * 38, 2)

    def forward(self, images: Tensor) -> Tensor:
        self.count += 1
        if images.sum() > 1:
            images = -images
        return self.fc(self.conv(images).flatten(1))


def test_a_network_that_decides_by_numbers_runs_for_real_and_stays_as_it_was() -> None:
    model = Picky()
    calls = trace(model, 40)
    assert list(calls) == ["", "conv", "fc"]
    assert calls["conv"].shape == (4, 38, 38)
    assert model.count == 0
    assert in_channels(model)[0] == 2


def test_a_size_that_the_network_does_not_take_is_told() -> None:
    with pytest.raises(SettingsError, match="did not run on a blank image") as caught:
        trace(Picky(), 50)
    assert caught.value.details[0].startswith("50x50 with 2 channels: ")


def test_a_flattening_head_is_run_at_the_size_that_it_was_made_for() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 18 * 28, 2))
    stored = Preprocessing(PixelProgram((20, 30)))
    set_info(model, ModelInfo("mine", head=("2",), preprocessing=stored))
    assert trace(model)["0"].shape == (4, 18, 28)
