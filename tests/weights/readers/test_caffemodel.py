"""Caffe networks of both schemas: blobs, joined norms, the graph, and damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hostile import fuzz
from protobuf_writer import blob, caffe_layer, caffe_v1_layer, number, packed, real
from shared_cases import case, logits_error

from regraft.errors import WeightsError
from regraft.weights.readers.caffe import caffemodel


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


CONVOLUTION = blob(106, number(1, 8) + number(3, 2) + number(4, 5) + number(5, 2) + number(6, 4))
NORM = [draw(8) * 10, np.abs(draw(8, seed=1)) * 10, np.array([10.0])]


def network(*, scale_reads: str = "bn1", gap: bytes = b"", seed: int = 0) -> bytes:
    return (
        blob(1, "net")
        + caffe_layer("data", "Input", [], ["data"])
        + caffe_layer("conv1", "Convolution", ["data"], ["conv1"], [draw(8, 2, 5, 5, seed=seed), draw(8)], CONVOLUTION)
        + caffe_layer("bn1", "BatchNorm", ["conv1"], ["bn1"], NORM, blob(139, real(3, 0.001)))
        + gap
        + caffe_layer(
            "scale1", "Scale", [scale_reads], ["scale1"], [draw(8, seed=2), draw(8, seed=3)], blob(142, number(4, 1))
        )
        + caffe_layer("relu1", "ReLU", ["scale1"], ["scale1"])
        + caffe_layer("fc", "InnerProduct", ["scale1"], ["fc"], [draw(5, 32), draw(5)], blob(117, number(1, 5)))
    )


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["caffemodel_alexnet", "caffemodel_bn_scale"])
def test_framework_numbers_come_out(name: str) -> None:
    folder = case(name)
    (path,) = folder.glob("*.caffemodel")
    assert caffemodel.sniff(path, path.read_bytes()[:4096])
    assert logits_error(folder, caffemodel.read(path)) <= 1e-4


def test_values_roles_and_axes(tmp_path: Path) -> None:
    weights = caffemodel.read(write(tmp_path / "n.caffemodel", network()))
    known = {name: (tensor.layer, tensor.role, tensor.axes) for name, tensor in weights.tensors.items()}
    assert known == {
        "conv1/0": ("conv1", "kernel", "OIHW"),
        "conv1/1": ("conv1", "bias", "C"),
        "bn1/0": ("bn1", "mean", "C"),
        "bn1/1": ("bn1", "variance", "C"),
        "scale1/0": ("bn1", "gamma", "C"),
        "scale1/1": ("bn1", "beta", "C"),
        "fc/0": ("fc", "kernel", "OI"),
        "fc/1": ("fc", "bias", "C"),
    }
    assert weights.ordered
    assert np.array_equal(weights.tensors["conv1/0"].load(), draw(8, 2, 5, 5))
    assert np.array_equal(weights.tensors["bn1/0"].load(), NORM[0] / np.float32(10))
    assert any("divided by their moving-average factor" in note for note in weights.notes)
    assert any("joined with their BatchNorm by the wiring" in note for note in weights.notes)


def test_graph_holds_what_the_values_cannot(tmp_path: Path) -> None:
    graph = caffemodel.read(write(tmp_path / "n.caffemodel", network())).graph
    assert graph is not None
    assert graph["wired"]
    nodes = {node["name"]: node for node in graph["nodes"]}
    assert [node["name"] for node in graph["nodes"]] == ["data", "conv1", "bn1", "scale1", "relu1", "fc"]
    convolution = nodes["conv1"]["attributes"]
    assert (convolution["pad"], convolution["stride"], convolution["group"]) == ([2, 2], [4, 4], 2)
    assert nodes["bn1"]["attributes"]["eps"] == pytest.approx(1e-3)
    assert nodes["scale1"]["joined"] == "bn1"
    assert nodes["fc"]["weights"] == {"kernel": "fc/0", "bias": "fc/1"}


def test_in_place_layers_are_followed(tmp_path: Path) -> None:
    """Real networks write BatchNorm and Scale in place: every top is called as the convolution's."""
    content = (
        caffe_layer("conv", "Convolution", ["data"], ["conv"], [draw(8, 3, 1, 1)])
        + caffe_layer("bn", "BatchNorm", ["conv"], ["conv"], NORM)
        + caffe_layer("scale", "Scale", ["conv"], ["conv"], [draw(8), draw(8)])
    )
    weights = caffemodel.read(write(tmp_path / "n.caffemodel", blob(3, "data") + content))
    assert weights.tensors["scale/0"].layer == "bn"


def test_a_norm_that_something_else_reads_keeps_its_scale_apart(tmp_path: Path) -> None:
    gap = caffe_layer("side", "ReLU", ["bn1"], ["side"])
    weights = caffemodel.read(write(tmp_path / "n.caffemodel", network(gap=gap)))
    assert weights.tensors["scale1/0"].layer == "scale1"


def test_a_scale_of_something_else_is_not_joined(tmp_path: Path) -> None:
    weights = caffemodel.read(write(tmp_path / "n.caffemodel", network(scale_reads="conv1")))
    assert weights.tensors["scale1/0"].layer == "scale1"
    assert not any("joined" in note for note in weights.notes)


def test_factor_of_zero_is_said(tmp_path: Path) -> None:
    norm = [draw(4), np.abs(draw(4)), np.array([0.0])]
    weights = caffemodel.read(write(tmp_path / "n.caffemodel", caffe_layer("bn", "BatchNorm", ["x"], ["bn"], norm)))
    assert np.array_equal(weights.tensors["bn/0"].load(), np.zeros(4))
    assert any("never trained" in note for note in weights.notes)


def test_v1_layers_with_four_axes_are_squeezed(tmp_path: Path) -> None:
    content = (
        blob(1, "old")
        + caffe_v1_layer("conv1", 4, ["data"], ["conv1"], [draw(8, 3, 3, 3), draw(8)])
        + caffe_v1_layer("fc6", 14, ["conv1"], ["fc6"], [draw(5, 32), draw(5)])
        + caffe_v1_layer("one", 14, ["fc6"], ["one"], [draw(1, 5), draw(1)])
    )
    weights = caffemodel.read(write(tmp_path / "old.caffemodel", content))
    assert {name: tensor.shape for name, tensor in weights.tensors.items()} == {
        "conv1/0": (8, 3, 3, 3),
        "conv1/1": (8,),
        "fc6/0": (5, 32),
        "fc6/1": (5,),
        "one/0": (1, 5),
        "one/1": (1,),
    }
    assert np.array_equal(weights.tensors["fc6/0"].load(), draw(5, 32))
    assert weights.graph is not None
    assert [node["type"] for node in weights.graph["nodes"]] == ["Convolution", "InnerProduct", "InnerProduct"]
    assert any("four axes" in note for note in weights.notes)


def test_first_schema_is_refused_with_what_to_run(tmp_path: Path) -> None:
    path = write(tmp_path / "v0.caffemodel", blob(1, "net") + blob(2, blob(1, blob(1, "conv1") + blob(2, "conv"))))
    with pytest.raises(WeightsError, match="upgrade_net_proto_binary"):
        caffemodel.read(path)


def test_depthwise_and_transposed_kernels(tmp_path: Path) -> None:
    depthwise = blob(106, number(1, 6) + number(4, 3) + number(5, 6))
    content = caffe_layer("dw", "Convolution", ["x"], ["dw"], [draw(6, 1, 3, 3)], depthwise) + caffe_layer(
        "up", "Deconvolution", ["dw"], ["up"], [draw(6, 2, 4, 4)], blob(106, number(1, 2) + number(4, 4))
    )
    weights = caffemodel.read(write(tmp_path / "n.caffemodel", content))
    assert (weights.tensors["dw/0"].role, weights.tensors["dw/0"].axes) == ("depthwise_kernel", "OIHW")
    assert (weights.tensors["up/0"].role, weights.tensors["up/0"].axes) == ("transpose_kernel", "IOHW")


def test_layers_of_one_name_are_numbered(tmp_path: Path) -> None:
    content = caffe_layer("fc", "InnerProduct", ["x"], ["a"], [draw(2, 3)]) + caffe_layer(
        "fc", "InnerProduct", ["a"], ["b"], [draw(4, 2)]
    )
    weights = caffemodel.read(write(tmp_path / "n.caffemodel", content))
    assert list(weights.tensors) == ["fc#0/0", "fc#1/0"]


def test_cut_file_is_refused() -> None:
    with pytest.raises(WeightsError, match="damaged"):
        caffemodel.read(case("adv_truncated_caffemodel") / "net.caffemodel")


@pytest.mark.parametrize(
    ("shape", "values"), [((1 << 30, 1 << 30), 4), ((1 << 20,), 4), ((3,), 16), ((-1, 4), 4), ((1,) * 9, 4)]
)
def test_shapes_that_the_values_do_not_fill(tmp_path: Path, shape: tuple[int, ...], values: int) -> None:
    hostile = blob(5, bytes(values)) + blob(7, packed(1, shape))
    path = write(tmp_path / "n.caffemodel", blob(100, blob(1, "fc") + blob(2, "InnerProduct") + blob(7, hostile)))
    with pytest.raises(WeightsError, match="shape"):
        caffemodel.read(path)


def test_network_without_blobs_is_no_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds no weights"):
        caffemodel.read(write(tmp_path / "n.caffemodel", caffe_layer("relu", "ReLU", ["x"], ["y"])))


def test_endless_fields_stop_soon(tmp_path: Path) -> None:
    path = write(tmp_path / "n.caffemodel", number(7, 1) * 2_100_000)
    with pytest.raises(WeightsError, match="more elements than a file"):
        caffemodel.read(path)


@pytest.mark.parametrize("old", [False, True])
def test_damage_is_refused_or_read_but_nothing_else(tmp_path: Path, old: bool) -> None:
    content = blob(1, "n") + caffe_v1_layer("c", 4, ["x"], ["c"], [draw(8, 3, 3, 3), draw(8)]) if old else network()
    path = write(tmp_path / "n.caffemodel", content)
    num_cut_read, num_flipped_read = fuzz(caffemodel, path)
    assert num_cut_read <= 2  # a cut between two layers leaves a shorter network
    assert num_flipped_read > 0  # most bytes are values


@pytest.mark.parametrize("name", ["safetensors_other_head", "alexnet_tf1_ckpt_v2", "onnx_bn_kept", "pth_whole_module"])
def test_other_formats_are_not_claimed(name: str) -> None:
    for path in case(name).iterdir():
        assert not caffemodel.sniff(path, path.read_bytes()[:4096])


def test_text_is_not_claimed(tmp_path: Path) -> None:
    for content in (b'name: "AlexNet"\nlayer { name: "conv1" }\n', b"\n\n\nhello", b"\n\x05hello\x12\x03abc"):
        assert not caffemodel.sniff(write(tmp_path / "x", content), content)
