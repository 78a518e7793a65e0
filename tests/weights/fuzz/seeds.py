"""Small whole files of every format, from the writers of the readers' tests; each is the start of a fuzzing run."""

from __future__ import annotations

import io
import json
import pickle
import tempfile
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras_files
import numpy as np
import other_files
import protobuf_writer as proto
import torch
from safetensors.numpy import save

__all__ = ["Seed", "seeds"]


@dataclass(frozen=True)
class Seed:
    """One file: its format (a reader's name), the name it is stored under, its bytes, and the files beside it."""

    format: str
    name: str
    content: bytes
    beside: tuple[tuple[str, bytes], ...] = ()


def _random(*shape: int) -> np.ndarray:
    return keras_files.random(*shape)


ARRAYS = {
    "conv1.weight": _random(4, 3, 3, 3),
    "conv1.bias": _random(4),
    "bn1.running_mean": _random(4),
    "bn1.running_var": abs(_random(4)),
    "fc.weight": _random(2, 4).astype("f2"),
    "count": np.zeros((), "i8"),
}
KERAS = [
    ("conv2d", [("kernel:0", _random(3, 3, 3, 4)), ("bias:0", _random(4))]),
    ("dense", [("kernel:0", _random(4, 2))]),
]


def seeds() -> list[Seed]:
    """All of them, in an order of their own."""
    with tempfile.TemporaryDirectory() as folder:
        return [
            *_plain(),
            *_numpy(),
            *_torch(),
            *_pickles(),
            *_others(),
            *_keras(Path(folder)),
            *_tensorflow(Path(folder)),
            *_protobuf(),
        ]


def _plain() -> Iterator[Seed]:
    yield Seed("safetensors", "w.safetensors", save(ARRAYS, {"format": "pt", "class_names": '["cat", "dog"]'}))
    shard = save({"a": ARRAYS["conv1.bias"]})
    index = b'{"metadata": {"total_size": 16}, "weight_map": {"a": "s-1.safetensors"}}'
    yield Seed("safetensors", "w.safetensors.index.json", index, (("s-1.safetensors", shard),))


def _numpy() -> Iterator[Seed]:
    for write in (np.savez, np.savez_compressed):
        stream = io.BytesIO()
        write(stream, classes=np.array(["cat", "dog"]), **ARRAYS)
        yield Seed("npz", "w.npz", stream.getvalue())
    stream = io.BytesIO()
    np.save(stream, ARRAYS["conv1.weight"])
    yield Seed("npy", "w.npy", stream.getvalue())
    head = stream.getvalue()[:8]
    text = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }\n"
    nested = {"conv1": [ARRAYS["conv1.weight"], ARRAYS["conv1.bias"]], "bn": {"mean": ARRAYS["bn1.running_mean"]}}
    for protocol in (0, 2, 4):
        content = pickle.dumps(np.array(nested, dtype=object), protocol)
        yield Seed("npy", "w.npy", head + len(text).to_bytes(2, "little") + text + content)


def _torch() -> Iterator[Seed]:
    state = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in ARRAYS.items()}
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    wrapped = {"state_dict": state, "epoch": 3, "args": Namespace(lr=0.1), "optimizer": {"state": {0: state}}}
    for legacy in (False, True):
        for content in (state, wrapped, module):
            stream = io.BytesIO()
            torch.save(content, stream, _use_new_zipfile_serialization=not legacy)
            yield Seed("torch_pth", "w.pth", stream.getvalue())
    stream = io.BytesIO()
    torch.save({"a": state["conv1.bias"]}, stream)
    index = b'{"metadata": {"total_size": 16}, "weight_map": {"a": "s-1.bin"}}'
    yield Seed("torch_shards", "w.bin.index.json", index, (("s-1.bin", stream.getvalue()),))
    stream = io.BytesIO()
    torch.save(ARRAYS, stream)
    yield Seed("torch_pth", "w.pth", stream.getvalue())
    yield Seed("torch_pth", "w.pt", _frozen(module))
    yield Seed("pt2", "w.pt2", _exported())
    stream, inner = io.BytesIO(), io.BytesIO()
    torch.save(state, inner)
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("w/data/weights/model.pt", inner.getvalue())
    yield Seed("pt2", "w.pt2", stream.getvalue())


def _exported() -> bytes:
    """An archive of torch.export, as torch 2.9 and later write it (exporting takes seconds)."""
    stream, config = io.BytesIO(), {}
    with zipfile.ZipFile(stream, "w") as archive:
        for number, name in enumerate(("conv1.weight", "conv1.bias")):
            array = ARRAYS[name]
            strides = [{"as_int": stride // array.itemsize} for stride in array.strides]
            meta = {"dtype": 7, "sizes": [{"as_int": length} for length in array.shape], "strides": strides}
            meta |= {"storage_offset": {"as_int": 0}, "layout": 7, "device": {"type": "cpu", "index": None}}
            config[name] = {"path_name": f"weight_{number}", "use_pickle": False, "tensor_meta": meta}
            archive.writestr(f"w/data/weights/weight_{number}", array.astype("f4").tobytes())
        archive.writestr("w/data/weights/model_weights_config.json", json.dumps({"config": config}))
    return stream.getvalue()


def _frozen(module: torch.nn.Module) -> bytes:
    """A frozen TorchScript module, which has constants only."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.freeze(torch.jit.script(module.eval())), stream)
    return stream.getvalue()


def _pickles() -> Iterator[Seed]:
    for protocol in (0, 2, 4):
        yield Seed("pkl", "w.pkl", pickle.dumps({"model": ARRAYS, "__author__": "x"}, protocol))
    named = {"StructuredToParameterName@@": {"fc.weight": "linear_0.w_0"}}
    yield Seed("pdparams", "w.pdparams", pickle.dumps({**ARRAYS, **named}, 4))
    yield Seed("pdparams", "w.pdparams", pickle.dumps({"m": {"fc.weight": ("linear_0.w_0", ARRAYS["fc.weight"])}}, 2))


def _others() -> Iterator[Seed]:
    layers = {"conv": {"kernel": _random(3, 3, 3, 4).astype("f4"), "bias": _random(4).astype("f4")}}
    chunk = {"__msgpack_chunked_array__": True, "shape": {"0": 4}, "chunks": {"0": ARRAYS["conv1.bias"]}}
    tree = {
        "params": {**layers, "fc": {"bias": chunk}},
        "batch_stats": {"bn": {"mean": ARRAYS["conv1.bias"]}},
        "step": 3,
    }
    yield Seed("flax_msgpack", "w.msgpack", other_files.packed(tree))
    arrays = {f"arg:{name}": array for name, array in ARRAYS.items() if array.shape}
    symbol = {"nodes": [{"op": "null", "name": "conv1.weight", "inputs": []}]}
    yield Seed(
        "mxnet_params", "w-0001.params", other_files.mxnet(arrays), (("w-symbol.json", json.dumps(symbol).encode()),)
    )
    yield Seed("mxnet_params", "w.params", other_files.mxnet(arrays, 0))
    model = other_files.TfliteModel()
    scales = {2: np.ones(2, "f4"), 3: np.zeros(2, "i8")}
    kernel = model.tensor("k", np.ones((2, 3), "i1"), scales)
    half = model.operator(6, [model.tensor("h", np.ones((4, 3, 3, 2), "f2"))])
    image = model.operator(3, [model.tensor("x"), half], {0: ("b", 0), 1: ("i", 2), 2: ("i", 2)})
    model.operator(9, [image, kernel, model.tensor("b", np.ones(2, "f4"))])
    yield Seed("tflite", "w.tflite", model.content())
    numbers = [_random(4), _random(4), _random(4), abs(_random(4)), _random(4, 3, 3, 3)]
    cfg = b"[net]\nchannels=3\n[convolutional]\nbatch_normalize=1\nfilters=4\nsize=3\n[maxpool]\nsize=2\n"
    yield Seed("darknet", "w.weights", other_files.darknet(numbers), (("w.cfg", cfg),))


def _keras(folder: Path) -> Iterator[Seed]:
    config = keras_files.model(
        keras_files.layer("Conv2D", "conv2d", strides=[2, 2]), keras_files.layer("Dense", "dense", units=2)
    )
    yield Seed("keras_h5", "w.h5", keras_files.legacy(folder / "a.h5", KERAS).read_bytes())
    yield Seed("keras_h5", "w.h5", keras_files.legacy(folder / "b.h5", KERAS, config=config).read_bytes())
    with keras_files.h5py.File(folder / "c.h5", "w") as file:
        keras_files.fill(file, [])
        file.attrs["layer_names"] = [b"dense"]
        group = file.create_group("dense")
        group.attrs["weight_names"] = [b"kernel:0"]
        group.create_dataset("kernel:0", data=_random(8, 8), chunks=(3, 3), compression="gzip", shuffle=True)
    yield Seed("keras_h5", "w.h5", (folder / "c.h5").read_bytes())
    tensors = {"layers/conv2d/vars/0": _random(3, 3, 3, 4), "layers/conv2d/vars/1": _random(4)}
    keras_files.variables(folder / "d.weights.h5", tensors, {"layers/conv2d": "stem"})
    yield Seed("keras_v3", "w.weights.h5", (folder / "d.weights.h5").read_bytes())
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = keras_files.archive(folder / "e.keras", tensors, config, compression=compression)
        yield Seed("keras_v3", "w.keras", path.read_bytes())
    index = b'{"weight_map": {"/layers/conv2d/vars": ["s.weights.h5"]}}'
    yield Seed("keras_v3", "w.weights.json", index, (("s.weights.h5", (folder / "d.weights.h5").read_bytes()),))


def _tensorflow(folder: Path) -> Iterator[Seed]:
    arrays = {name.replace(".", "/"): array for name, array in ARRAYS.items()}
    for compress in (False, True):
        proto.write_v1(folder / "v1.ckpt", arrays, compress=compress)
        yield Seed("tf_checkpoint", "v1.ckpt", (folder / "v1.ckpt").read_bytes())
        proto.write_v2(folder / "v2", arrays, compress=compress)
        data = (folder / "v2.data-00000-of-00001").read_bytes()
        yield Seed("tf_checkpoint", "v2.index", (folder / "v2.index").read_bytes(), (("v2.data-00000-of-00001", data),))


def _protobuf() -> Iterator[Seed]:
    names: Any = ["conv1.weight", "conv1.bias"]
    nodes = [
        proto.onnx_node(
            "Conv", ["x", *names], ["y"], name="/conv1/Conv", attributes=proto.onnx_ints("strides", [2, 2])
        ),
        proto.onnx_node("Gemm", ["y", "fc.weight"], ["z"], name="/fc/Gemm", attributes=proto.onnx_int("transB", 1)),
    ]
    tensors = [proto.onnx_tensor(name, ARRAYS[name]) for name in (*names, "fc.weight")]
    yield Seed("onnx", "w.onnx", proto.onnx_model(nodes, tensors, metadata={"names": "{0: 'cat', 1: 'dog'}"}))
    integers = [proto.onnx_tensor("q", np.ones((4, 3, 3, 3), "i1")), proto.onnx_tensor("s", np.ones(4, "f4"))]
    quantised = [
        proto.onnx_node("DequantizeLinear", ["q", "s"], ["w"], attributes=proto.onnx_int("axis", 0)),
        proto.onnx_node("Conv", ["x", "w"], ["y"]),
        proto.onnx_node("QLinearConv", ["y", "s", "", "q", "s", "", "s", "", "b"], ["z"]),
        proto.onnx_node("ConvInteger", ["z", "q"], ["c"]),
        proto.onnx_node("Cast", ["c"], ["f"]),
        proto.onnx_node("Mul", ["f", "s"], ["m"]),
    ]
    yield Seed("onnx", "w.onnx", proto.onnx_model(quantised, integers))
    outside = proto.onnx_external("fc.weight", (2, 4), location="w.bin", offset=0, length=32)
    yield Seed("onnx", "w.onnx", proto.onnx_model(nodes, [*tensors[:2], outside]), (("w.bin", bytes(64)),))
    layers = [
        proto.caffe_layer("c", "Convolution", ["x"], ["c"], [ARRAYS["conv1.weight"], ARRAYS["conv1.bias"]]),
        proto.caffe_layer("n", "BatchNorm", ["c"], ["n"], [ARRAYS["conv1.bias"], ARRAYS["conv1.bias"], np.ones(1)]),
        proto.caffe_layer("s", "Scale", ["n"], ["s"], [ARRAYS["conv1.bias"], ARRAYS["conv1.bias"]]),
    ]
    yield Seed("caffemodel", "w.caffemodel", proto.blob(1, "net") + b"".join(layers))
    old = proto.caffe_v1_layer("c", 4, ["x"], ["c"], [ARRAYS["conv1.weight"], ARRAYS["conv1.bias"]])
    yield Seed("caffemodel", "w.caffemodel", proto.blob(1, "net") + old)
