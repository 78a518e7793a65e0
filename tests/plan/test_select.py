"""The selector language, on real networks and on hostile text."""

from __future__ import annotations

import contextlib
import warnings
from functools import cache

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from regraft.errors import SettingsError
from regraft.models.describe.info import ModelInfo, info_of, set_info
from regraft.models.layers.layers import list_layers
from regraft.plan.freezing.select import select, stage_spans


@cache
def network(name: str) -> nn.Module:
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = timm.create_model(name)
    return set_info(model, info_of(model))


def listing(name: str) -> list[str]:
    return [layer.name for layer in list_layers(network(name)) if layer.part == "backbone"]


def features(*numbers: int) -> set[str]:
    return {f"features.{number}" for number in numbers}


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("head", {"pre_logits.fc1", "pre_logits.fc2", "head.fc"}),
        ("block5", features(24, 26, 28)),
        ("stage:-1", features(24, 26, 28)),
        ("stage:0", features(0, 2)),
        ("stage:1:3", features(5, 7, 10, 12, 14)),
        ("stage:[-1]", features(24, 26, 28)),
        ("block5_conv2", features(26)),
        ("block1_conv*", features(0, 2)),
        ("features.2?", features(21, 24, 26, 28)),
        ("features.26", features(26)),
        ("from:block5_conv1", features(24, 26, 28)),
        ("from:block4_pool", features(24, 26, 28)),
        ("from:block5", features(24, 26, 28)),
        ("until:block1_pool", features(0, 2)),
        ("until:block2_conv1", features(0, 2, 5)),
        ("from:pre_logits.fc2", {"pre_logits.fc2", "head.fc"}),
        ("first:2", features(0, 2)),
        ("last:3", features(24, 26, 28)),
        ("[0]", features(0)),
        ("[-1]", features(28)),
        ("[:-11]", features(0, 2)),
        ("[1:6:2]", features(2, 7, 12)),
        ("type:Linear", {"head.fc"}),
        ("/conv1$/", features(0, 5, 10, 17, 24)),
        ("/block[12]_conv1$/,head.fc", features(0, 5) | {"head.fc"}),
        (r"/features\.(0|2),?$/", features(0, 2)),
        (r"!/features/", {"pre_logits.fc1", "pre_logits.fc2", "head.fc"}),
        ("fc1", {"pre_logits.fc1"}),
        (["block5", "head", "!fc1"], features(24, 26, 28) | {"pre_logits.fc2", "head.fc"}),
        ("!fc1, block5, fc1", features(24, 26, 28)),
        ("!backbone", {"pre_logits.fc1", "pre_logits.fc2", "head.fc"}),
        ("none", set()),
        ("none,head.fc", {"head.fc"}),
    ],
)
def test_terms_on_vgg16(selector: str | list[str], expected: set[str]) -> None:
    assert select(network("vgg16"), selector) == expected


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("res5c", {f"layer4.2.conv{i}" for i in (1, 2, 3)}),
        ("res5c_branch2c", {"layer4.2.conv3"}),
        ("bn5a_branch1", {"layer4.0.downsample.1"}),
        ("conv5_block3_3_conv", {"layer4.2.conv3"}),
        ("conv5_block3", {f"layer4.2.{kind}{i}" for i in (1, 2, 3) for kind in ("conv", "bn")}),
        ("conv5_block3_out", {f"layer4.2.{kind}{i}" for i in (1, 2, 3) for kind in ("conv", "bn")}),
        ("from:conv5_block3_1_conv,!type:BatchNorm*", {f"layer4.2.conv{i}" for i in (1, 2, 3)}),
        ("until:act1", {"conv1", "bn1"}),
        ("fc1000", {"fc"}),
    ],
)
def test_terms_on_resnet50(selector: str, expected: set[str]) -> None:
    assert select(network("resnet50"), selector) == expected


def test_a_block_is_a_resolution_stage_where_the_network_has_no_such_name() -> None:
    resnet = network("resnet50")
    assert select(resnet, "block5") == select(resnet, "layer4") == select(resnet, "stage:-1")
    assert select(network("legacy_xception"), "block5") < select(network("legacy_xception"), "backbone")


def test_a_block_of_efficientnet_is_keras_s_block() -> None:
    model = network("efficientnet_b0")
    assert select(model, "block7") == select(model, "blocks.6")
    assert select(model, "block2a") == select(model, "blocks.1.0")


def test_the_last_stage_holds_what_follows_its_blocks() -> None:
    """EfficientNet's top convolution and norm come after the last feature stage, and belong to the backbone."""
    last = select(network("efficientnet_b0"), "stage:-1")
    assert {"conv_head", "bn2"} <= last
    assert {name.split(".")[1] for name in last if name.startswith("blocks.")} == {"5", "6"}


def test_the_last_stage_of_densenet_begins_with_its_transition() -> None:
    assert "features.transition3.conv" in select(network("densenet121"), "stage:-1")


@pytest.mark.parametrize("name", ["vgg16_bn", "resnet50", "efficientnet_b0", "test_convnext", "hrnet_w18_small"])
def test_stages_part_the_backbone(name: str) -> None:
    spans = stage_spans(network(name))
    assert [layer for span in spans for layer in span] == listing(name)
    assert len(spans) >= 3


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_vit", "lcnet_035"])
def test_parts_and_numbers_over_families(name: str) -> None:
    model, rows = network(name), listing(name)
    head = select(model, "head")
    assert head
    assert select(model, "all") == head | set(rows)
    assert select(model, "backbone") == select(model, "!head") == set(rows)
    assert select(model, "last:5") == set(rows[-5:])
    assert select(model, "[:-5]") == set(rows[:-5])
    assert select(model, ["[:-5]", "last:5"]) == set(rows)
    assert select(model, f"from:{rows[3]}") == set(rows[3:])
    assert select(model, f"until:{rows[3]}") == set(rows[:4])


def test_a_stage_may_end_in_a_container_that_is_never_called() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, stride=2)))
    model.forward = lambda images: model[2](model[1][1](model[1][0](model[0](images))).mean((2, 3)))
    model.append(nn.Linear(4, 2))
    set_info(model, ModelInfo("own", head=("2",), feature_stages=("0", "1")))
    assert stage_spans(model) == [("0",), ("1.0", "1.1")]


def test_a_network_without_stages_says_so() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 2))
    with pytest.raises(SettingsError, match="a position among 0 stages"):
        select(model, "stage:-1")


def test_numbers_never_reach_the_head() -> None:
    model = network("vgg16")
    assert not select(model, "last:13") & select(model, "head")
    assert select(model, "[-1]") == {"features.28"}


def test_types_hold_their_subclasses() -> None:
    model = network("test_resnet")
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert select(model, "type:BatchNorm2d") == norms


def test_parameters_of_the_model_itself_have_a_name() -> None:
    model = network("test_vit")
    assert select(model, "(model)") == {""}
    assert "" in select(model, "backbone")


def test_wrapped_models_are_selected_by_plain_names() -> None:
    model = timm.create_model("test_resnet")
    assert select(torch.compile(model, backend="eager"), "head") == {"fc"}


def test_keras_rows_count_as_keras_counts_them() -> None:
    model = timm.create_model("test_resnet")
    info = info_of(model)
    names = [layer.name for layer in list_layers(model) if layer.part == "backbone"]
    rows: list[tuple[str, str, str | None]] = [("input_1", "InputLayer", None)]
    for number, name in enumerate(names):
        rows += [(f"k_{number}", "Conv2D", name), (f"activation_{number}", "Activation", None)]
    rows.append(("avg_pool", "AveragePooling2D", None))
    info.origin.keras_rows = rows
    set_info(model, info)
    assert select(model, "last:3") == {names[-1]}
    assert select(model, "[:2]") == {names[0]}
    assert select(model, "k_3") == {names[3]}
    assert select(model, "from:activation_5") == set(names[6:])
    assert select(model, "until:activation_5") == set(names[:6])
    with pytest.raises(SettingsError, match=r"no layer .* with weights"):
        select(model, "activation_5")
    with pytest.raises(SettingsError, match=r"no layer .* with weights"):
        select(model, "last:2")


@pytest.mark.parametrize(
    ("selector", "told"),
    [
        ("laye4", "did you mean 'layer4'"),
        ("conv5_blok3_3_conv", "'conv5_block3_3_conv'"),
        ("headd", "did you mean 'head'"),
        ("from:laye4", "did you mean 'layer4'"),
        ("type:BatchNorm2D", "did you mean 'BatchNorm2d'"),
        ("layer9.*", "'layer9.*' matches no layer"),
        ("/layer9/", "'/layer9/' matches no layer"),
        ("/(/", "not a regular expression"),
        ("stge:-1", "did you mean 'stage:-1'?"),
        ("stages:-2:", "did you mean 'stage:-2:'?"),
        ("form:layer4", "did you mean 'from:layer4'?"),
        ("tpye:Conv2d", "did you mean 'type:Conv2d'?"),
        ("lats:3", "did you mean 'last:3'"),
        ("stage:9", "a position among 5 stages"),
        ("stage:x", "a number or a slice"),
        ("stage:", "a number or a slice"),
        ("stage:7:", "matches no layer"),
        ("last:0", "a number of layers"),
        ("last:-3", "a number of layers"),
        ("last:many", "a number of layers"),
        ("last:107", "has 106 layers"),
        ("[106]", "a position among 106 layers of the backbone"),
        ("[200:]", "matches no layer"),
        ("[::0]", "other than zero"),
        ("[1,2]", "matches no layer"),
        ("relu", "matches no layer"),
        ("act1", "with weights"),
        ("layer4.2.conv3.weight", "did you mean 'layer4.2.conv3'"),
        ("block9", "matches no layer"),
        ("!laye4", "did you mean 'layer4'"),
        ("", "is empty"),
        (" , ", "is empty"),
        ([], "is empty"),
    ],
)
def test_what_matches_nothing_is_told(selector: str | list[str], told: str) -> None:
    with pytest.raises(SettingsError) as caught:
        select(network("resnet50"), selector)
    assert told in str(caught.value)


def test_all_wrong_terms_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        select(network("resnet50"), ["laye4", "fc", "bnn1", "last:999"])
    assert len(caught.value.details) == 3


def test_no_text_is_refused() -> None:
    with pytest.raises(SettingsError, match="not a string"):
        select(network("resnet50"), [3])  # type: ignore[list-item]


@cache
def small() -> nn.Module:
    return network("test_resnet")


@settings(max_examples=40, deadline=None)
@given(st.text(alphabet="layerconvbnfhd0123456789.*?[]:!,/()-_ \\^$", max_size=12))
def test_any_text_selects_layers_or_is_refused_politely(text: str) -> None:
    owners = {layer.name for layer in list_layers(small())}
    with contextlib.suppress(SettingsError):
        assert select(small(), text) <= owners


@settings(max_examples=8, deadline=None)
@given(st.lists(st.sampled_from(["head", "layer4", "!bn1", "stage:0", "!type:BatchNorm2d", "last:7"]), min_size=1))
def test_unions_do_not_depend_on_order_or_spelling(terms: list[str]) -> None:
    chosen = select(small(), terms)
    assert select(small(), list(reversed(terms))) == chosen
    assert select(small(), ",".join(terms)) == chosen
    assert select(small(), [*terms, *terms]) == chosen
