"""The matcher on small files made here: every rule, every refusal, and the account that adds up."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.errors import WeightsError
from regraft.weights.axes import convert
from regraft.weights.file import SourceTensor, WeightFile
from regraft.weights.match.match import Slot, match
from regraft.weights.report import MatchReport

_ROLES = {"kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias", "mean": "running_mean"}
_ROLES |= {"variance": "running_var"}


def _file(
    layers: Mapping[str, Mapping[str, tuple[int, ...]]], *, format: str = "keras_h5", ordered: bool = True, **more: Any
) -> WeightFile:
    """A file with these layers: role -> shape, kernels as HWIO or IO."""
    tensors = {}
    for layer, roles in layers.items():
        for role, shape in roles.items():
            name = f"{layer}/{role}:0"
            axes = {4: "HWIO", 2: "IO"}.get(len(shape), "C")
            values = np.random.default_rng([len(tensors)]).standard_normal(shape).astype(np.float32)
            known = None if role.startswith("unnamed") else role
            tensors[name] = SourceTensor(name, shape, "float32", layer, lambda values=values: values, known, axes)
    return WeightFile(Path("weights.h5"), format, "", tensors, ordered=ordered, **more)


def _slots(layers: Mapping[str, tuple[str, tuple[int, ...], Sequence[str]]]) -> list[Slot]:
    """A model with these layers: name -> (kind, kernel shape or channels, inputs)."""
    slots = []
    for order, (layer, (kind, shape, inputs)) in enumerate(layers.items()):
        if kind == "norm":
            parts = dict.fromkeys(("gamma", "beta", "mean", "variance"), shape)
        else:
            parts = {"kernel" if kind == "conv" else "dense_kernel": shape, "bias": shape[:1]}
        for role, size in parts.items():
            leaf = _ROLES.get(role, "weight")
            part = "head" if layer.startswith("head") else "backbone"
            slots.append(Slot(f"{layer}.{leaf}", size, role, layer, order, part, kind, inputs=tuple(inputs)))
    return slots


def _source_of(report: MatchReport, target: str) -> list[str]:
    return [source.name for found in report.matched if found.target == target for source in found.sources]


_CHAIN = {"a": ("conv", (4, 3, 3, 3), [""]), "b": ("conv", (4, 4, 3, 3), ["a"]), "c": ("conv", (4, 4, 3, 3), ["b"])}
_CHAIN_FILE = {
    "x": {"kernel": (3, 3, 3, 4), "bias": (4,)},
    "y": {"kernel": (3, 3, 4, 4), "bias": (4,)},
    "z": {"kernel": (3, 3, 4, 4), "bias": (4,)},
}


def test_names_beat_the_order_of_the_file() -> None:
    shuffled = dict(zip("cab", (_CHAIN_FILE[name] for name in "zxy"), strict=True))
    report = match(_file(shuffled), _slots(_CHAIN)).require("all")
    assert _source_of(report, "b.weight") == ["b/kernel:0"]
    assert {found.rule for found in report.matched} == {"exact name"}


def test_a_chain_is_aligned_by_the_order_of_execution() -> None:
    report = match(_file(_CHAIN_FILE), _slots(_CHAIN)).require("all")
    assert [_source_of(report, f"{layer}.weight") for layer in "abc"] == [
        ["x/kernel:0"],
        ["y/kernel:0"],
        ["z/kernel:0"],
    ]
    assert [str(step) for step in report.matched[0].steps] == ["transpose (3, 2, 0, 1)"]


def test_an_order_that_means_nothing_decides_nothing() -> None:
    report = match(_file(_CHAIN_FILE, ordered=False), _slots(_CHAIN))
    assert {name for group in report.ambiguous for name in group.targets} == {
        *("b.weight", "b.bias", "c.weight", "c.bias")
    }
    with pytest.raises(WeightsError, match="ambiguous"):
        report.require()


def test_creation_numbers_stand_in_for_an_order() -> None:
    numbered = {"conv2d_10": _CHAIN_FILE["z"], "conv2d_9": _CHAIN_FILE["y"], "conv2d": _CHAIN_FILE["x"]}
    report = match(_file(numbered, ordered=False), _slots(_CHAIN)).require("all")
    assert _source_of(report, "c.weight") == ["conv2d_10/kernel:0"]


@pytest.mark.parametrize("names", [("conv2d_2", "conv2d_1", "conv2d"), ("first", "last/conv2d", "last/conv2d_0")])
def test_creation_numbers_that_fall_or_are_equal_decide_nothing(names: tuple[str, ...]) -> None:
    """The first layer is certain, the only one of its shape: `conv2d_2` cannot be created after what runs behind it."""
    numbered = dict(zip(names, _CHAIN_FILE.values(), strict=True))
    report = match(_file(numbered, ordered=False), _slots(_CHAIN))
    assert {name for group in report.ambiguous for name in group.targets} == {
        *("b.weight", "b.bias", "c.weight", "c.bias")
    }
    with pytest.raises(WeightsError, match="ambiguous"):
        report.require()


_BRANCHES = {
    "stem": ("conv", (4, 3, 3, 3), [""]),
    "left": ("conv", (4, 4, 3, 3), ["stem"]),
    "right": ("conv", (4, 4, 3, 3), ["stem"]),
    "head": ("dense", (2, 8), ["left", "right"]),
}
_BRANCH_FILE = [_CHAIN_FILE["x"], _CHAIN_FILE["y"], _CHAIN_FILE["z"], {"kernel": (8, 2), "bias": (2,)}]


def test_parallel_branches_are_ambiguous_whatever_the_order() -> None:
    report = match(_file(dict(zip("pqrs", _BRANCH_FILE, strict=True))), _slots(_BRANCHES))
    assert [sorted(group.targets) for group in report.ambiguous] == [
        ["left.bias", "left.weight", "right.bias", "right.weight"]
    ]
    with pytest.raises(WeightsError, match="branches"):
        report.require()


def test_words_of_foreign_names_tell_branches_apart() -> None:
    named = dict(zip(("s", "net/right/c", "net/left/c", "h"), _BRANCH_FILE, strict=True))
    report = match(_file(named), _slots(_BRANCHES)).require("all")
    assert _source_of(report, "left.weight") == ["net/left/c/kernel:0"]


def _node(name: str, inputs: list[str], output: str) -> dict[str, Any]:
    weights = {"kernel": f"{name}/kernel:0"}
    return {"name": name, "type": "Conv", "inputs": inputs, "outputs": [output], "attributes": {}, "weights": weights}


def test_the_files_own_graph_tells_branches_apart() -> None:
    """A shortcut beside two convolutions: all of one shape, and only the wiring says which is which."""
    model = {
        "stem": ("conv", (4, 3, 3, 3), [""]),
        "main1": ("conv", (4, 4, 3, 3), ["stem"]),
        "main2": ("conv", (4, 4, 3, 3), ["main1"]),
        "short": ("conv", (4, 4, 3, 3), ["stem"]),
    }
    layers = {"n0": _CHAIN_FILE["x"], "n1": _CHAIN_FILE["y"], "n2": _CHAIN_FILE["y"], "n3": _CHAIN_FILE["y"]}
    nodes = [_node("n0", ["image"], "t0"), _node("n1", ["t0"], "t1"), _node("n2", ["t0"], "t2")]
    nodes.append(_node("n3", ["t2"], "t3"))
    nodes.append(_node("sum", ["t1", "t3"], "t4") | {"type": "Add", "weights": {}})
    graph = {"source": "onnx", "wired": True, "nodes": nodes}
    report = match(_file(layers, format="onnx", graph=graph), _slots(model)).require("all")
    assert [_source_of(report, f"{name}.weight")[0][:2] for name in model] == ["n0", "n2", "n3", "n1"]
    assert any(found.rule.startswith("graph") for found in report.matched)


def test_a_bias_goes_into_the_mean_behind_it() -> None:
    model = _slots({"conv": ("conv", (4, 3, 3, 3), [""]), "bn": ("norm", (4,), ["conv"])})
    model = [slot for slot in model if slot.name != "conv.bias"]
    layers = {"conv": _CHAIN_FILE["x"], "bn": dict.fromkeys(("gamma", "beta", "mean", "variance"), (4,))}
    report = match(_file(layers), model).require("all")
    assert _source_of(report, "bn.running_mean") == ["bn/mean:0", "conv/bias:0"]


@pytest.mark.parametrize("lacking", ["gamma", "beta"])
def test_an_unnamed_part_of_a_norm_is_what_the_model_has_a_place_for(lacking: str) -> None:
    """A file of numbered variables does not say whether a norm of three has a scale or a shift; the network does."""
    slots = _slots({"conv": ("conv", (4, 3, 3, 3), [""]), "bn": ("norm", (4,), ["conv"])})
    parts = dict.fromkeys(("unnamed", "mean", "variance"), (4,))
    file = _file({"conv": _CHAIN_FILE["x"], "bn": parts}, format="keras_v3")
    left = [slot for slot in slots if slot.role != lacking]
    report = match(file, left).require("all")
    target = next(slot.name for slot in left if slot.layer == "bn" and slot.role in ("gamma", "beta"))
    assert _source_of(report, target) == ["bn/unnamed:0"]
    with pytest.raises(WeightsError, match="bn/unnamed:0 has no place"):
        match(file, slots).require()


def test_folded_norms_are_unfolded_and_reported() -> None:
    model = _slots({"conv": ("conv", (4, 3, 3, 3), [""]), "bn": ("norm", (4,), ["conv"])})
    model = [slot for slot in model if slot.name != "conv.bias"]
    report = match(_file({"conv": _CHAIN_FILE["x"]}, format="onnx"), model).require("all")
    assert _source_of(report, "bn.bias") == ["conv/bias:0"]
    assert [finding.kind for finding in report.findings] == ["folded"]


def test_a_bias_without_a_place_is_never_lost_in_silence() -> None:
    model = [slot for slot in _slots({"conv": ("conv", (4, 3, 3, 3), [""])}) if slot.role != "bias"]
    with pytest.raises(WeightsError, match="conv/bias:0 has no place"):
        match(_file({"conv": _CHAIN_FILE["x"]}), model).require()


def test_skip_and_map() -> None:
    weights, slots = _file(_CHAIN_FILE), _slots(_CHAIN)
    report = match(weights, slots, skip=["c"], map={"a": "x", "b": "z"})
    assert _source_of(report, "b.weight") == ["z/kernel:0"]
    assert report.dropped_targets == ("c.weight", "c.bias")
    assert report.require("all").coverage == {"backbone": 1.0, "all": 1.0}
    swapped = match(weights, slots, map={"z": "b", "c": "y"}).require("all")
    assert _source_of(swapped, "c.weight") == ["y/kernel:0"]
    with pytest.raises(WeightsError, match="cannot be skipped"):
        match(weights, slots, skip=["nothing"])
    with pytest.raises(WeightsError, match="name nothing"):
        match(weights, slots, map={"a": "nothing"})


def test_another_head_is_reported_and_does_not_hurt_the_backbone() -> None:
    slots = _slots(_BRANCHES)
    layers = dict(zip(_BRANCHES, _BRANCH_FILE, strict=True)) | {"head": {"kernel": (8, 7), "bias": (7,)}}
    report = match(_file(layers), slots).require()
    assert {pair.target for pair in report.wrong_shape} == {"head.weight", "head.bias"}
    with pytest.raises(WeightsError, match="wrong shape"):
        report.require("all")


def test_nothing_in_common_is_an_error() -> None:
    with pytest.raises(WeightsError, match="nothing in the file fits"):
        match(_file({"q": {"kernel": (5, 5, 9, 9)}}), _slots(_CHAIN)).require("any")


_KERAS_RESNET = ["conv1_conv", "conv2_block1_0_conv", "conv2_block1_1_conv", "conv2_block1_2_conv"]
_KERAS_RESNET += ["conv2_block1_3_conv", "conv2_block2_1_conv", "conv2_block2_2_conv", "conv2_block2_3_conv"]
_CAFFE_RESNET = ["conv1", "res2a_branch1", "res2a_branch2a", "res2a_branch2b", "res2a_branch2c"]
_CAFFE_RESNET += ["res2b_branch2a", "res2b_branch2b", "res2b_branch2c"]
_SLIM_RESNET = ["resnet_v1_50/conv1"] + [
    f"resnet_v1_50/block1/unit_{unit}/bottleneck_v1/{name}"
    for unit, name in [(1, "shortcut"), *[(1, f"conv{i}") for i in (1, 2, 3)], *[(2, f"conv{i}") for i in (1, 2, 3)]]
]
_TIMM_RESNET = ["conv1", "layer1.0.downsample.0", "layer1.0.conv1", "layer1.0.conv2", "layer1.0.conv3"]
_TIMM_RESNET += ["layer1.1.conv1", "layer1.1.conv2", "layer1.1.conv3"]


@pytest.mark.parametrize("names", [_KERAS_RESNET, _CAFFE_RESNET, _SLIM_RESNET, [f"rn/{n}" for n in _KERAS_RESNET]])
@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_family_names_match_in_any_order(names: list[str], seed: int) -> None:
    stem, *blocks = _TIMM_RESNET
    slots = _slots({stem: ("conv", (4, 3, 7, 7), [""])} | {name: ("conv", (4, 4, 1, 1), [stem]) for name in blocks})
    layers = [(name, {"kernel": (1, 1, 4, 4), "bias": (4,)}) for name in names]
    layers[0] = (names[0], {"kernel": (7, 7, 3, 4), "bias": (4,)})
    random.Random(seed).shuffle(layers)
    report = match(_file(dict(layers), ordered=False), slots)
    for target, source in zip(_TIMM_RESNET, names, strict=True):
        assert _source_of(report, f"{target}.weight") == [f"{source}/kernel:0"]


def test_a_gap_in_the_names_is_not_counted_over() -> None:
    """Without block 1 of stage 2, counting would put every later block one place too early."""
    slots = _slots({f"features.{i}": ("conv", (4, 4, 3, 3), [""]) for i in (0, 2, 5, 7)})
    layers = dict.fromkeys(("block1_conv1", "block2_conv1", "block2_conv3"), _CHAIN_FILE["y"])
    report = match(_file(layers, ordered=False), slots)
    assert not report.matched
    with pytest.raises(WeightsError, match="8 ambiguous"):
        report.require()


_LAYERS = st.dictionaries(st.sampled_from("abcxyz"), st.integers(1, 3), max_size=6).map(lambda found: [*found.items()])


@given(
    _LAYERS,
    _LAYERS.filter(len),
    st.booleans(),
    st.lists(st.sampled_from("abcxyz"), max_size=2),
)
@settings(deadline=None)
def test_the_account_adds_up(
    file: list[tuple[str, int]], model: list[tuple[str, int]], ordered: bool, skip: list[str]
) -> None:
    weights = _file({name: {"kernel": (1, 1, width, width), "bias": (width,)} for name, width in file}, ordered=ordered)
    names = [name for name, _ in model]
    slots = _slots(
        {name: ("conv", (width, width, 1, 1), [names[at - 1] if at else ""]) for at, (name, width) in enumerate(model)}
    )
    known = {name for name, _ in (*file, *model)}
    report = match(weights, slots, skip=[name for name in skip if name in known])
    assert report.totals["model"]["total"] == len(slots)
    assert report.totals["file"]["total"] == len(weights)
    assert {found.target for found in report.matched} <= {slot.name for slot in slots}
    used = [source.name for found in report.matched for source in found.sources]
    assert len(used) == len(set(used))
    assert report.to_dict()["counts"] == report.counts
    assert report.render()


def test_strides_that_no_shape_shows_are_found() -> None:
    """Keras's ResNets stride in the first convolution of a block, torchvision's in the second."""
    names = {"conv1": "conv1_conv", "layer1.0.downsample.0": "conv2_block1_0_conv"}
    names |= {f"layer1.0.conv{i}": f"conv2_block1_{i}_conv" for i in (1, 2, 3)}
    weights = _file({name: {"kernel": (1, 1, 4, 4), "bias": (4,)} for name in names.values()}, ordered=False)

    def report(strides: Mapping[str, int]) -> MatchReport:
        slots = _slots({name: ("conv", (4, 4, 1, 1), [""]) for name in names})
        return match(
            weights, [replace(slot, attributes={"stride": (strides.get(slot.layer, 1),) * 2}) for slot in slots]
        )

    torch_form = {"layer1.0.downsample.0": 2, "layer1.0.conv2": 2}
    with pytest.raises(WeightsError, match="stride"):
        report(torch_form).require()
    assert {layer for finding in report(torch_form).findings for layer in finding.layers} == {
        *("layer1.0.conv1", "layer1.0.conv2")
    }
    assert report(torch_form).require(adjust=True)
    assert not report({"layer1.0.downsample.0": 2, "layer1.0.conv1": 2}).require().findings


@pytest.mark.parametrize("from_keras", [True, False])
@pytest.mark.parametrize("rows", ["CHW", "HWC"])
def test_rows_of_flattened_features_follow_the_order_of_either_side(from_keras: bool, rows: str) -> None:
    """A dense layer behind a flatten, in files and models that flatten channels last or first."""
    values = np.arange(5 * 24, dtype=np.float32).reshape(5, 4, 2, 3)  # outputs, channels, height, width
    of_rows = {"CHW": values.reshape(5, 24), "HWC": values.transpose(0, 2, 3, 1).reshape(5, 24)}
    stored = of_rows["HWC"].T if from_keras else of_rows["CHW"]
    weights = WeightFile(
        path=Path("w"),
        format="keras_h5" if from_keras else "torch_pth",
        producer="",
        tensors={
            "fc/kernel": SourceTensor(
                "fc/kernel", stored.shape, "float32", "fc", lambda: stored, "kernel", "IO" if from_keras else None
            )
        },
    )
    slot = Slot("fc.weight", (5, 24), "dense_kernel", "fc", 0, "head", "Linear", ("conv",), {}, (4, 2, 3), (), rows)
    (found,) = match(weights, [slot]).matched
    assert np.array_equal(convert([stored], found.steps), of_rows[rows])
