"""ONNX models: every way to store values, what nodes use them for, external data and its traps, and damage."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from hostile import fuzz
from protobuf_writer import (
    ONNX_TYPES,
    blob,
    number,
    onnx_external,
    onnx_int,
    onnx_ints,
    onnx_model,
    onnx_node,
    onnx_tensor,
    packed,
)
from shared_cases import case, logits_error

from regraft.errors import WeightsError
from regraft.models.graft.graft import graft
from regraft.models.graft.match import match_weights
from regraft.weights.readers.onnx import onnx


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


CONV = onnx_node("Conv", ["x", "onnx::Conv_7", "onnx::Conv_8"], ["h"], name="/layer1/layer1.0/conv1/Conv")
TENSORS = [onnx_tensor("onnx::Conv_7", draw(8, 3, 3, 3)), onnx_tensor("onnx::Conv_8", draw(8))]


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["onnx_bn_kept", "onnx_external_data"])
def test_framework_numbers_come_out(name: str) -> None:
    folder = case(name)
    path = folder / "model.onnx"
    assert onnx.sniff(path, path.read_bytes()[:4096])
    weights = onnx.read(path)
    assert weights.producer.startswith("pytorch 2.15.0")
    assert weights.graph is not None
    assert weights.graph["batch_norm"] == "kept"
    assert logits_error(folder, weights) <= 1e-4


def test_a_model_is_known_wherever_the_first_bytes_end(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", onnx_model([CONV] * 3, [onnx_tensor("v", draw(100)), *TENSORS]))
    whole = path.read_bytes()
    assert all(onnx.sniff(path, whole[:end]) for end in range(40, len(whole)))


def test_folded_norms_are_a_finding() -> None:
    weights = onnx.read(case("onnx_bn_folded_names_kept") / "model.onnx")
    assert weights.graph is not None
    assert weights.graph["batch_norm"] == "folded"
    assert any("folded into the convolutions" in note for note in weights.notes)
    convolutions = [node["weights"] for node in weights.graph["nodes"] if node["type"] == "Conv"]
    assert len(convolutions) == 20
    assert convolutions[0] == {"kernel": "conv1.weight", "bias": "conv1.weight_bias"}
    assert list(weights.tensors)[:2] == ["conv1.weight", "conv1.weight_bias"]


@pytest.mark.parametrize("dtype", sorted(ONNX_TYPES))
def test_raw_values_come_back_bit_equal(tmp_path: Path, dtype: str) -> None:
    values = (draw(3, 4) * 50).astype(dtype)
    content = onnx_model([CONV], [*TENSORS, onnx_tensor("v", values)])
    tensor = onnx.read(write(tmp_path / "m.onnx", content)).tensors["v"]
    assert tensor.dtype == dtype
    assert np.array_equal(tensor.load(), values)


@pytest.mark.parametrize(
    ("kind", "field", "stored", "expected"),
    [
        (1, blob(4, draw(4).tobytes()), draw(4), "float32"),
        (11, blob(10, draw(4).astype(np.float64).tobytes()), draw(4).astype(np.float64), "float64"),
        (7, packed(7, [1, -2, 1 << 40, 0]), np.array([1, -2, 1 << 40, 0]), "int64"),
        (3, packed(5, [1, -2, 127, -128]), np.array([1, -2, 127, -128], np.int8), "int8"),
        (10, packed(5, [0x3C00, 0xC000, 1, 0]), np.array([1, -2, 2.0**-24, 0], np.float16), "float16"),
        (16, packed(5, [0x3FC0, 0xC020, 0, 1]), np.array([1.5, -2.5, 0, 2.0**-133], np.float32), "bfloat16"),
    ],
)
def test_typed_values_come_back_bit_equal(
    tmp_path: Path, kind: int, field: bytes, stored: np.ndarray, expected: str
) -> None:
    tensor = number(1, 4) + number(2, kind) + blob(8, "v") + field
    found = onnx.read(write(tmp_path / "m.onnx", onnx_model([CONV], [*TENSORS, tensor]))).tensors["v"]
    assert found.dtype == expected
    assert found.load().dtype == stored.dtype
    assert np.array_equal(found.load(), stored)


def test_numbered_names_get_the_module_that_they_belong_to(tmp_path: Path) -> None:
    weights = onnx.read(write(tmp_path / "m.onnx", onnx_model([CONV], TENSORS)))
    kernel, bias = weights
    assert (kernel.layer, kernel.role, kernel.axes) == ("layer1.0.conv1", "kernel", "OIHW")
    assert (bias.layer, bias.role, bias.axes) == ("layer1.0.conv1", "bias", "C")


def test_the_exporters_notes_name_the_module_too(tmp_path: Path) -> None:
    scopes = blob(9, blob(1, "pkg.torch.onnx.name_scopes") + blob(2, "['', 'stem', 'stem.conv', 'conv2d']"))
    node = onnx_node("Conv", ["x", "val_1"], ["h"], name="node_conv2d", attributes=scopes)
    (kernel,) = onnx.read(write(tmp_path / "m.onnx", onnx_model([node], [onnx_tensor("val_1", draw(8, 3, 3, 3))])))
    assert kernel.layer == "stem.conv"


def test_tensors_come_in_the_order_of_their_use(tmp_path: Path) -> None:
    tensors = [onnx_tensor(name, draw(4, 4, 1, 1)) for name in ("a.weight", "b.weight", "c.weight")]
    nodes = [onnx_node("Conv", [f"h{place}", f"{name}.weight"], [f"h{place + 1}"]) for place, name in enumerate("cab")]
    assert list(onnx.read(write(tmp_path / "m.onnx", onnx_model(nodes, tensors))).tensors) == [
        "c.weight",
        "a.weight",
        "b.weight",
    ]


def test_dense_kernels_in_every_dress(tmp_path: Path) -> None:
    nodes = [
        onnx_node("Gemm", ["x", "a.weight", "a.bias"], ["h1"], attributes=onnx_int("transB", 1)),
        onnx_node("Gemm", ["h1", "b.weight"], ["h2"]),
        onnx_node("Transpose", ["c.weight"], ["c_t"], attributes=onnx_ints("perm", [1, 0])),
        onnx_node("MatMul", ["h2", "c_t"], ["h3"]),
        onnx_node("Add", ["c.bias", "h3"], ["h4"]),
        onnx_node("MatMul", ["h4", "MatMul_9"], ["h5"], name="/head/MatMul"),
        onnx_node("Add", ["h5", "head_bias"], ["y"]),
    ]
    shapes = {"a.weight": (4, 3), "a.bias": (4,), "b.weight": (4, 4), "c.weight": (4, 4), "c.bias": (4,)}
    shapes |= {"MatMul_9": (4, 2), "head_bias": (2,)}
    tensors = [onnx_tensor(name, draw(*shape)) for name, shape in shapes.items()]
    weights = onnx.read(write(tmp_path / "m.onnx", onnx_model(nodes, tensors)))
    known = {name: (tensor.layer, tensor.role, tensor.axes) for name, tensor in weights.tensors.items()}
    assert known == {
        "a.weight": ("a", "kernel", "OI"),
        "a.bias": ("a", "bias", "C"),
        "b.weight": ("b", "kernel", "IO"),
        "c.weight": ("c", "kernel", "OI"),
        "c.bias": ("c", "bias", "C"),
        "MatMul_9": ("head", "kernel", "IO"),
        "head_bias": ("head", "bias", "C"),
    }


def test_depthwise_transposed_and_norms(tmp_path: Path) -> None:
    nodes = [
        onnx_node("Conv", ["x", "dw.weight"], ["h1"], attributes=onnx_int("group", 8)),
        onnx_node("BatchNormalization", ["h1", "n.weight", "n.bias", "n.running_mean", "n.running_var"], ["h2"]),
        onnx_node("ConvTranspose", ["h2", "up.weight"], ["y"]),
    ]
    shapes = {"dw.weight": (8, 1, 3, 3), "up.weight": (8, 4, 2, 2)}
    shapes |= {f"n.{word}": (8,) for word in ("weight", "bias", "running_mean", "running_var")}
    weights = onnx.read(
        write(tmp_path / "m.onnx", onnx_model(nodes, [onnx_tensor(n, draw(*s)) for n, s in shapes.items()]))
    )
    assert [tensor.role for tensor in weights] == [
        "depthwise_kernel",
        "gamma",
        "beta",
        "mean",
        "variance",
        "transpose_kernel",
    ]
    assert weights.tensors["up.weight"].axes == "IOHW"


def test_constants_and_shared_copies_are_weights_where_a_layer_uses_them(tmp_path: Path) -> None:
    constant = blob(5, blob(1, "value") + blob(5, onnx_tensor("", draw(8, 3, 1, 1))) + number(20, 4))
    norm = ["n.weight", "n.bias", "n.running_mean", "n.running_var"]
    nodes = [
        onnx_node("Constant", [], ["kernel"], attributes=constant),
        onnx_node("Constant", [], ["unused"], attributes=constant),
        onnx_node("Identity", ["m.weight"], ["n.weight"]),
        onnx_node("Conv", ["x", "kernel"], ["h"]),
        onnx_node("BatchNormalization", ["h", *norm], ["y"]),
    ]
    tensors = [onnx_tensor(name, draw(8)) for name in ("m.weight", *norm[1:])]
    weights = onnx.read(write(tmp_path / "m.onnx", onnx_model(nodes, tensors)))
    assert list(weights.tensors) == ["kernel", *norm, "m.weight"]
    assert np.array_equal(weights.tensors["n.weight"].load(), draw(8))
    assert any("1 constants or copies" in note for note in weights.notes)


def test_convolutions_with_biases_and_no_norm_may_be_folded(tmp_path: Path) -> None:
    named = onnx_node("Conv", ["x", "f.0.weight", "f.0.bias"], ["h"])
    tensors = [onnx_tensor("f.0.weight", draw(8, 3, 3, 3)), onnx_tensor("f.0.bias", draw(8))]
    for node, stored, finding in ((named, tensors, "perhaps folded"), (CONV, TENSORS, "folded")):
        graph = onnx.read(write(tmp_path / "m.onnx", onnx_model([node], stored))).graph
        assert graph is not None
        assert graph["batch_norm"] == finding


def test_a_quantised_model_is_a_finding(tmp_path: Path) -> None:
    node = onnx_node("DequantizeLinear", ["q", "s"], ["w"])
    tensors = [onnx_tensor("q", np.ones((8, 3, 3, 3), np.int8)), onnx_tensor("s", draw(8))]
    weights = onnx.read(write(tmp_path / "m.onnx", onnx_model([node, onnx_node("Conv", ["x", "w"], ["y"])], tensors)))
    assert any("quantized" in note for note in weights.notes)
    assert all(tensor.role is None for tensor in weights)


def _quantised(values: np.ndarray, axis: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Integers, scales and zero points, and the real numbers that they stand for up to rounding."""
    others = None if axis is None else tuple(one for one in range(values.ndim) if one != axis)
    scale = np.asarray(abs(values).max(others, keepdims=True) / 100, np.float32)
    zero = np.full(scale.shape, 3, np.int8)
    integers = (np.round(values / scale) + 3).astype(np.int8)
    return integers, scale.reshape(-1 if axis is not None else ()), zero.reshape(-1 if axis is not None else ())


@pytest.mark.parametrize("axis", [None, 0])
def test_integers_before_plain_nodes_are_dequantised(tmp_path: Path, axis: int | None) -> None:
    values = draw(8, 3, 3, 3)
    integers, scale, zero = _quantised(values, axis)
    names = ["c.weight_quantized", "c.weight_scale", "c.weight_zero_point"]
    nodes = [
        onnx_node("DequantizeLinear", names, ["c.weight_real"], attributes=onnx_int("axis", axis or 0)),
        onnx_node("QuantizeLinear", ["x", "x_scale"], ["x_q"]),
        onnx_node("DequantizeLinear", ["x_q", "x_scale"], ["x_r"]),
        onnx_node("Conv", ["x_r", "c.weight_real"], ["y"]),
    ]
    tensors = [onnx_tensor(name, array) for name, array in zip(names, (integers, scale, zero), strict=True)]
    content = onnx_model(nodes, [*tensors, onnx_tensor("x_scale", np.ones((), np.float32))])
    weights = onnx.read(write(tmp_path / "m.onnx", content))
    assert list(weights.tensors) == ["c.weight"]
    tensor = weights.tensors["c.weight"]
    assert (tensor.dtype, tensor.role, tensor.axes) == ("float32", "kernel", "OIHW")
    assert abs(tensor.load() - values).max() <= abs(values).max() / 190
    assert "1 tensors of integers dequantised" in weights.notes[0]


def test_nodes_on_integers_are_dequantised(tmp_path: Path) -> None:
    values, bias = draw(8, 3, 3, 3), draw(8, seed=1)
    integers, scale, zero = _quantised(values, 0)
    arrays = {
        "xs": np.full((), 0.5, np.float32), "xz": np.zeros((), np.int8), "w_quantized": integers, "w_scale": scale,
        "w_zero": zero, "b_quantized": np.round(bias / (0.5 * scale)).astype(np.int32),
        "fc_quantized": integers[:, :, 0, 0],
        "fc_scale": scale[:1].reshape(()), "fc_zero": zero[:1].reshape(()),
    }  # fmt: skip
    inputs = ["x", "xs", "xz", "w_quantized", "w_scale", "w_zero", "xs", "xz", "b_quantized"]
    nodes = [
        onnx_node("QLinearConv", inputs, ["h"], attributes=onnx_ints("strides", [2, 2])),
        onnx_node("QLinearGlobalAveragePool", ["h", "xs", "xz", "xs", "xz"], ["p"]),
        onnx_node(
            "QGemm", ["p", "xs", "xz", "fc_quantized", "fc_scale", "fc_zero"], ["y"], attributes=onnx_int("transB", 1)
        ),
    ]
    content = onnx_model(nodes, [onnx_tensor(name, array) for name, array in arrays.items()])
    weights = onnx.read(write(tmp_path / "m.onnx", content))
    assert {name: (one.role, one.axes) for name, one in weights.tensors.items()} == {
        "w": ("kernel", "OIHW"),
        "b": ("bias", "C"),
        "fc": ("kernel", "OI"),
    }
    assert abs(weights.tensors["w"].load() - values).max() <= abs(values).max() / 190
    assert abs(weights.tensors["b"].load() - bias).max() <= 0.5 * scale.max()
    assert weights.graph is not None
    assert [node["type"] for node in weights.graph["nodes"]] == ["Conv", "AveragePool", "Gemm"]
    assert weights.graph["nodes"][0]["attributes"]["strides"] == [2, 2]


def test_dynamic_products_of_scales_are_dequantised(tmp_path: Path) -> None:
    values, dense = draw(8, 3, 3, 3), draw(8, 5, seed=1)
    arrays: dict[str, np.ndarray] = {"c.bias": draw(8, seed=2), "shape": np.array([1, 8, 1, 1]), "fc.bias": draw(5)}
    for name, array in (("c.weight", values), ("fc.weight_Transposed", dense)):
        integers, scale, zero = _quantised(array, None)
        arrays |= {f"{name}_quantized": integers, f"{name}_scale": scale, f"{name}_zero": zero}
    nodes = []
    layers = (("ConvInteger", "x", "c.weight", "h"), ("MatMulInteger", "p", "fc.weight_Transposed", "m"))
    for op, value, name, output in layers:
        nodes += [
            onnx_node("DynamicQuantizeLinear", [value], [f"{value}q", f"{value}s", f"{value}z"]),
            onnx_node("Mul", [f"{value}s", f"{name}_scale"], [f"{name}_product"]),
            onnx_node(op, [f"{value}q", f"{name}_quantized", f"{value}z", f"{name}_zero"], [f"{output}_q"]),
            onnx_node("Cast", [f"{output}_q"], [f"{output}_f"]),
            onnx_node("Mul", [f"{output}_f", f"{name}_product"], [output]),
        ]
        if op == "ConvInteger":
            nodes += [onnx_node("Reshape", ["c.bias", "shape"], ["b"]), onnx_node("Add", ["h", "b"], ["a"])]
            nodes += [onnx_node("GlobalAveragePool", ["a"], ["g"]), onnx_node("Flatten", ["g"], ["p"])]
    nodes.append(onnx_node("Add", ["m", "fc.bias"], ["y"]))
    content = onnx_model(nodes, [onnx_tensor(name, array) for name, array in arrays.items()])
    weights = onnx.read(write(tmp_path / "m.onnx", content))
    assert {name: (one.role, one.axes) for name, one in weights.tensors.items()} == {
        "c.weight": ("kernel", "OIHW"),
        "c.bias": ("bias", "C"),
        "fc.weight": ("kernel", "IO"),
        "fc.bias": ("bias", "C"),
    }
    assert abs(weights.tensors["c.weight"].load() - values).max() <= abs(values).max() / 190
    assert abs(weights.tensors["fc.weight"].load() - dense).max() <= abs(dense).max() / 190


@pytest.mark.parametrize("op", ["ConvInteger", "MatMulInteger", "QLinearConv", "QGemm", "DequantizeLinear", "QLinearX"])
@pytest.mark.parametrize("inputs", [[], ["q"], ["x", "q", "x", "q", "q", "q", "q", "q", "q"], ["q"] * 3])
def test_nodes_without_their_scales_stay_as_they_are(tmp_path: Path, op: str, inputs: list[str]) -> None:
    nodes = [onnx_node(op, inputs, ["y"]), onnx_node("Cast", ["y"], ["z"]), onnx_node("Mul", ["z", "z"], [])]
    tensors = [onnx_tensor("q", np.ones((4, 3, 3, 3), np.int8)), onnx_tensor("w", draw(3, 3))]
    for tensor in onnx.read(write(tmp_path / "m.onnx", onnx_model(nodes, tensors))):
        tensor.load()


def test_fused_convolutions_are_convolutions(tmp_path: Path) -> None:
    node = onnx_node("FusedConv", ["x", "onnx::Conv_7", "onnx::Conv_8"], ["h"], name="c")
    weights = onnx.read(write(tmp_path / "m.onnx", onnx_model([node], TENSORS)))
    assert [tensor.role for tensor in weights] == ["kernel", "bias"]


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["dynamic", "qdq", "operators"])
def test_what_onnx_runtime_quantised_is_the_network_up_to_rounding(tmp_path: Path, kind: str) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")
    torch.manual_seed(0)
    made, filled = (timm.create_model("test_resnet", num_classes=10).eval() for _ in range(2))
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr,operator]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr,operator]
    x = torch.randn(2, 3, 64, 64)
    source, path = tmp_path / "m.onnx", tmp_path / "q.onnx"
    torch.onnx.export(made, (x[:1],), source, dynamo=False, input_names=["x"])

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc,name-defined]
        left = 4

        def get_next(self) -> dict[str, np.ndarray] | None:
            self.left -= 1
            return {"x": draw(1, 3, 64, 64, seed=self.left)} if self.left >= 0 else None

    if kind == "dynamic":
        quantization.quantize_dynamic(source, path)
    else:
        form = quantization.QuantFormat.QDQ if kind == "qdq" else quantization.QuantFormat.QOperator
        quantization.quantize_static(source, path, Reader(), quant_format=form, per_channel=kind == "qdq")
    weights = onnx.read(path)
    assert "dequantised" in weights.notes[0]
    graft(filled, match_weights(weights, filled).require("all"))
    assert (filled(x) - made(x)).abs().max() < 0.05 * made(x).abs().max()


def test_graph_is_plain_data(tmp_path: Path) -> None:
    settings = onnx_ints("strides", [2, 2]) + onnx_ints("pads", [1, 1, 1, 1]) + onnx_int("group", 1)
    node = onnx_node("Conv", ["x", "c.weight"], ["y"], name="c", attributes=settings)
    graph = onnx.read(write(tmp_path / "m.onnx", onnx_model([node], [onnx_tensor("c.weight", draw(8, 3, 3, 3))]))).graph
    assert graph is not None
    assert graph["nodes"] == [
        {
            "name": "c",
            "type": "Conv",
            "inputs": ["x", "c.weight"],
            "outputs": ["y"],
            "attributes": {"strides": [2, 2], "pads": [1, 1, 1, 1], "group": 1},
            "weights": {"kernel": "c.weight"},
        }
    ]


@pytest.mark.parametrize(
    "names",
    [
        "{0: 'cat', 1: 'dog'}",
        '["cat", "dog"]',
        '{"1": "dog", "0": "cat"}',
        "['cat', \"dog\"]",
        "{ 1:'d\\og', 0:'cat', }",
    ],
)
def test_class_names_in_the_metadata(tmp_path: Path, names: str) -> None:
    content = onnx_model([CONV], TENSORS, metadata={"names": names})
    assert onnx.read(write(tmp_path / "m.onnx", content)).class_names == ("cat", "dog")


@pytest.mark.parametrize(
    "names", ["{0: 'cat', 2: 'dog'}", "[" * 100_000, "(" + "-" * 100_000 + "1)", "{0: open('x')}", "[]", "7"]
)
def test_metadata_that_names_no_classes(tmp_path: Path, names: str) -> None:
    content = onnx_model([CONV], TENSORS, metadata={"names": names})
    assert onnx.read(write(tmp_path / "m.onnx", content)).class_names is None


def test_types_without_numbers_are_noted(tmp_path: Path) -> None:
    text = number(1, 1) + number(2, 8) + blob(8, "words") + blob(6, b"hello")
    weights = onnx.read(write(tmp_path / "m.onnx", onnx_model([CONV], [*TENSORS, text])))
    assert "words" not in weights.tensors
    assert any("words (string)" in note for note in weights.notes)


# External data


def external(folder: Path, location: str, *, offset: int = 0, length: int = 32) -> Path:
    tensor = onnx_external("f.weight", (8,), location=location, offset=offset, length=length)
    return write(folder / "m.onnx", onnx_model([CONV], [*TENSORS, tensor]))


def test_external_data_in_the_own_folder(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    write(tmp_path / "parts" / "w.bin", b"\0" * 8 + draw(8).tobytes())
    tensor = onnx.read(external(tmp_path, "parts/w.bin", offset=8)).tensors["f.weight"]
    assert np.array_equal(tensor.load(), draw(8))


@pytest.mark.parametrize(
    "location",
    [
        "../secret",
        "a/../../secret",
        "./secret",
        "a//secret",
        "/etc/hostname",
        "C:\\secret",
        "a\\..\\secret",
        "",
        "a\nb",
        "..",
    ],
)
def test_external_data_elsewhere_is_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "model" / "a").mkdir(parents=True)
    write(tmp_path / "secret", bytes(64))
    write(tmp_path / "model" / "secret", bytes(64))
    with pytest.raises(WeightsError, match="refused"):
        onnx.read(external(tmp_path / "model", location))


@pytest.mark.parametrize("kind", ["file", "folder", "hard", "device"])
def test_external_data_over_a_link_is_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "away").mkdir()
    secret = write(tmp_path / "away" / "secret", bytes(64))
    model = tmp_path / "model"
    model.mkdir()
    location = "w.bin"
    if kind == "file":
        (model / location).symlink_to(secret)
    elif kind == "folder":
        (model / "sub").symlink_to(secret.parent)
        location = "sub/secret"
    elif kind == "hard":
        os.link(secret, model / location)
    else:
        os.mkfifo(model / location)
    with pytest.raises(WeightsError, match="refused"):
        onnx.read(external(model, location))


def test_external_data_that_is_missing_or_short(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"needs the file 'w\.bin'"):
        onnx.read(external(tmp_path, "w.bin"))
    write(tmp_path / "w.bin", bytes(31))
    with pytest.raises(WeightsError, match="truncated"):
        onnx.read(external(tmp_path, "w.bin"))


@pytest.mark.parametrize(("offset", "length"), [("-8", 32), ("1e3", 32), ("9" * 30, 32), (0, 31), (0, "x")])
def test_external_data_with_wrong_places(tmp_path: Path, offset: object, length: object) -> None:
    write(tmp_path / "w.bin", bytes(64))
    tensor = onnx_external("f.weight", (8,), location="w.bin", offset=offset, length=length)
    with pytest.raises(WeightsError, match="external data"):
        onnx.read(write(tmp_path / "m.onnx", onnx_model([CONV], [*TENSORS, tensor])))


def test_external_data_exchanged_for_a_link_after_reading(tmp_path: Path) -> None:
    write(tmp_path / "secret", bytes(64))
    write(tmp_path / "w.bin", bytes(64))
    weights = onnx.read(external(tmp_path, "w.bin"))
    (tmp_path / "w.bin").unlink()
    (tmp_path / "w.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(WeightsError, match="has changed"):
        weights.tensors["f.weight"].load()


# Damage


def test_shape_bomb_is_refused(tmp_path: Path) -> None:
    for dims in ((1 << 20, 1 << 20), (1 << 40, 4), (-4,)):
        tensor = b"".join(number(1, dim) for dim in dims) + number(2, 1) + blob(8, "v") + blob(9, bytes(16))
        with pytest.raises(WeightsError, match=r"shape|needs"):
            onnx.read(write(tmp_path / "m.onnx", onnx_model([CONV], [*TENSORS, tensor])))


def test_two_tensors_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="two initializers"):
        onnx.read(write(tmp_path / "m.onnx", onnx_model([CONV], [*TENSORS, TENSORS[0]])))


def test_model_without_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds no weights"):
        onnx.read(write(tmp_path / "m.onnx", onnx_model([onnx_node("Relu", ["x"], ["y"])], [])))


def test_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="state_dict_ema"):
        onnx.read(write(tmp_path / "m.onnx", onnx_model([CONV], TENSORS)), key="state_dict_ema")


def test_damage_is_refused_or_read_but_nothing_else(tmp_path: Path) -> None:
    dense = onnx_node("Gemm", ["h", "fc.weight", "fc.bias"], ["y"], attributes=onnx_int("transB", 1))
    tensors = [*TENSORS, onnx_tensor("fc.weight", draw(5, 8)), onnx_tensor("fc.bias", draw(5))]
    path = write(tmp_path / "m.onnx", onnx_model([CONV, dense], tensors))
    num_cut_read, num_flipped_read = fuzz(onnx, path)
    assert num_cut_read <= 4  # cut behind the graph, only the list of operator sets is lost
    assert num_flipped_read > 0


@pytest.mark.parametrize(
    "name", ["safetensors_other_head", "alexnet_tf1_ckpt_v2", "caffemodel_alexnet", "pth_whole_module"]
)
def test_other_formats_are_not_claimed(name: str) -> None:
    for path in case(name).iterdir():
        assert not onnx.sniff(path, path.read_bytes()[:4096])


def test_a_savedmodel_is_not_claimed() -> None:
    path = case("mbv1_savedmodel_k215") / "saved" / "saved_model.pb"
    assert not onnx.sniff(path, path.read_bytes()[:4096])


@pytest.mark.oracle
def test_every_type_and_storage_against_the_onnx_package(tmp_path: Path) -> None:
    package = pytest.importorskip("onnx")
    values = draw(3, 4) * 50
    tensors, expected = [], {}
    for kind in (1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 16):
        typed = (np.abs(values) if kind in (2, 4, 12, 13) else values).astype(
            package.helper.tensor_dtype_to_np_dtype(kind)
        )
        for raw in (False, True):
            stored = typed.tobytes() if raw else typed.flatten()
            tensor = package.helper.make_tensor(f"{kind}_{raw}", kind, (3, 4), stored, raw=raw)
            tensors.append(tensor)
            expected[tensor.name] = package.numpy_helper.to_array(tensor)
    graph = package.helper.make_graph([package.helper.make_node("Relu", ["x"], ["y"])], "net", [], [], tensors)
    package.save(package.helper.make_model(graph), tmp_path / "m.onnx")
    weights = onnx.read(tmp_path / "m.onnx")
    assert set(weights.tensors) == set(expected)
    for name, value in expected.items():
        loaded = weights.tensors[name].load()
        assert np.array_equal(loaded, value.astype(np.float32) if name.startswith("16_") else value)
