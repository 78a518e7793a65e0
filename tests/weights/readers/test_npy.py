from __future__ import annotations

import io
import json
import pickle
import struct
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hostile import fuzz
from shared_cases import case

from regraft.errors import WeightsError
from regraft.weights.file import read_weights
from regraft.weights.readers.numpy import npy


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype("f4")


KERNEL, BIAS = random(3, 3, 4, 8), random(8)
HEADER = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '|O', 'fortran_order': False, 'shape': (), }".ljust(117) + b"\n"


def read(path: Path):
    assert npy.sniff(path, path.read_bytes()[:4096])
    return npy.read(path)


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        _ = [tensor.load() for tensor in read_weights(path)]
    return str(caught.value)


def pickled(path: Path, content: object, protocol: int) -> Path:
    """As `np.save` writes it, with any protocol."""
    path.write_bytes(HEADER + pickle.dumps(np.array(content, dtype=object), protocol))
    return path


@pytest.mark.parametrize(
    "values", [KERNEL, np.asfortranarray(KERNEL), KERNEL.astype(">f8"), np.array(2.5, "f2"), np.zeros((0, 3))]
)
def test_a_plain_array(tmp_path, values):
    np.save(tmp_path / "fc1.npy", values)
    (tensor,) = read(tmp_path / "fc1.npy")
    assert (tensor.name, tensor.role) == ("fc1", None)
    assert np.array_equal(tensor.load(), values)
    assert tensor.load().dtype.isnative


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_header(tmp_path, version):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, KERNEL, version=version)
    (tmp_path / "a.npy").write_bytes(stream.getvalue())
    assert np.array_equal(next(iter(read(tmp_path / "a.npy"))).load(), KERNEL)


SHAPES = {
    "lists": {"conv1": [KERNEL, BIAS], "fc6": [random(8, 5), random(5)]},
    "dicts": {"conv1": {"weights": KERNEL, "biases": BIAS}, "fc6": {"weights": random(8, 5), "biases": random(5)}},
    "flat": {
        "conv1/weights:0": KERNEL,
        "conv1/biases:0": BIAS,
        "fc6/weights:0": random(8, 5),
        "fc6/biases:0": random(5),
    },
    "tuples": {"conv1": (KERNEL, BIAS), "fc6": (random(8, 5), random(5))},
    "ordered": OrderedDict({"conv1": [KERNEL, BIAS], "fc6": [random(8, 5), random(5)]}),
    "bytes": {b"conv1": [KERNEL, BIAS], b"fc6": {b"weights": random(8, 5), b"biases": random(5)}},
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("form", SHAPES)
def test_every_form_of_a_dict_in_every_protocol(tmp_path, form, protocol):
    if form == "bytes" and protocol < 3:
        pytest.skip("Python 3 writes bytes keys of these protocols with a call; Python 2's own are in the shared files")
    weights = read(pickled(tmp_path / "w.npy", SHAPES[form], protocol))
    assert not weights.ordered
    assert [(t.layer, t.role, t.axes) for t in weights] == [
        ("conv1", "kernel", "HWIO"),
        ("conv1", "bias", "C"),
        ("fc6", "kernel", "IO"),
        ("fc6", "bias", "C"),
    ]
    assert [t.load().tobytes() for t in weights] == [v.tobytes() for v in (KERNEL, BIAS, random(8, 5), random(5))]


@pytest.mark.parametrize("protocol", range(6))
def test_unusual_arrays(tmp_path, protocol):
    arrays = {
        "fortran": np.asfortranarray(KERNEL),
        "big": KERNEL.astype(">f4"),
        "double": KERNEL.astype("f8"),
        "half": KERNEL.astype("f2"),
        "whole": np.arange(6).reshape(2, 3),
        "flags": np.array([True, False]),
        "scalar": np.float32(2.5),
        "none": None,
        "text": "caffe",
        "number": 3,
    }
    weights = read(pickled(tmp_path / "w.npy", arrays, protocol))
    assert list(weights.tensors) == ["fortran", "big", "double", "half", "whole", "flags", "scalar"]
    for tensor in weights:
        assert tensor.dtype == np.asarray(arrays[tensor.name]).dtype.name
        assert np.array_equal(tensor.load(), arrays[tensor.name])


def test_batch_norms_of_caffe_converters(tmp_path):
    parts = {"mean": BIAS, "variance": BIAS + 1, "scale": BIAS + 2, "offset": BIAS + 3}
    weights = read(pickled(tmp_path / "w.npy", {"bn_conv1": parts}, 2))
    assert [(t.layer, t.role) for t in weights] == [
        ("bn_conv1", "mean"),
        ("bn_conv1", "variance"),
        ("bn_conv1", "gamma"),
        ("bn_conv1", "beta"),
    ]


def test_lists_that_are_no_weights_and_biases_have_no_role(tmp_path):
    weights = read(
        pickled(tmp_path / "w.npy", {"a": [BIAS, BIAS], "b": [KERNEL, random(5)], "c": [KERNEL, BIAS, BIAS]}, 4)
    )
    assert {t.role for t in weights} == {None}
    assert set(weights.layers) == {"a", "b", "c"}


class Call:
    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("function", [exec, eval, open, np.load, getattr, bytearray])
def test_a_pickle_that_calls_anything_is_refused_by_name(tmp_path, monkeypatch, protocol, function):
    monkeypatch.chdir(tmp_path)
    content = {"conv1": [KERNEL, Call(function, "open('PWNED', 'w')")]}
    assert function.__name__ in refusal(pickled(tmp_path / "w.npy", content, protocol))
    assert not (tmp_path / "PWNED").exists()


def body(content: bytes) -> bytes:
    return HEADER + b"\x80\x02" + content


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'touch PWNED'\ntR.",
        b"(S'touch PWNED'\nios\nsystem\n.",
        b"(cos\nsystem\nS'touch PWNED'\no.",
        b"Pevil\n.",
        b"\x82\x01.",
        b"cnumpy\nndarray\n)\x81.",
        b"cnumpy\nndarray\n)R.",
        b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR.",
        b"ccollections\nOrderedDict\n(]tR}b.",
        b"c__builtin__\neval\n0}.",
        b"\x8a\xff" + b"\xff" * 255 + b".",
        b"j\xff\xff\xff\xff.",
        b"r\xff\xff\xff\xff.",
        b"]]" + b"2" * 5 + b".",
        b"B\xff\xff\xff\xff" + b"x" * 10,
        b"\x8e" + b"\xff" * 8 + b"x",
        b"(" * 1000 + b".",
        b"]q\x00h\x00a.",
        b"",
        b".",
    ],
)
def test_hostile_programs(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.npy").write_bytes(body(content))
    assert "cannot be read as weights" in refusal(tmp_path / "w.npy")
    assert not (tmp_path / "PWNED").exists()


def test_containers_that_unfold_without_end(tmp_path):
    bomb: list = []
    for _ in range(14):
        bomb = [bomb] * 100
    assert "nested" in refusal(pickled(tmp_path / "w.npy", {"a": bomb}, 4))
    loop: list = []
    loop.append(loop)
    assert "nested" in refusal(pickled(tmp_path / "w.npy", {"a": loop}, 4))


def test_what_follows_a_pickle_or_an_array(tmp_path):
    path = pickled(tmp_path / "w.npy", {"a": KERNEL}, 4)
    path.write_bytes(path.read_bytes() + b"rubbish")
    assert "follow" in refusal(path)
    np.save(path, KERNEL)
    path.write_bytes(path.read_bytes() + b"rubbish")
    assert "declares" in refusal(path)


def test_headers_that_declare_more_than_there_is(tmp_path):
    for shape in ("(1000000000000,)", "(16777216, 16777216, 4)"):
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
        (tmp_path / "w.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text)
        assert "declares" in refusal(tmp_path / "w.npy")


def test_an_array_that_declares_more_than_its_pickle_holds(tmp_path):
    path = pickled(tmp_path / "w.npy", {"a": np.zeros((3, 7), "f4")}, 2)
    whole = path.read_bytes()
    at = whole.rindex(b"K\x03K\x07")
    path.write_bytes(whole[:at] + b"K\x03K\x63" + whole[at + 4 :])
    assert "declares an array" in refusal(path)


def test_two_arrays_of_one_name(tmp_path):
    assert "same name" in refusal(pickled(tmp_path / "w.npy", {"a/b": KERNEL, "a": {"b": BIAS}}, 4))


def test_a_file_without_numbers(tmp_path):
    assert "no array" in refusal(pickled(tmp_path / "w.npy", {"a": "text"}, 4))
    np.save(tmp_path / "w.npy", np.array(["a"]))
    assert "not of numbers" in refusal(tmp_path / "w.npy")


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_cut_and_flipped_files_are_survived(tmp_path, protocol):
    path = pickled(tmp_path / "w.npy", {"a": [BIAS, BIAS], "b": {"weights": random(2, 2)}}, protocol)
    num_cut, _ = fuzz(npy, path, seed=protocol)
    assert num_cut == 0


CASES = ["alexnet_dicts_npy_py2", "alexnet_flatnamed_npy_py2", "alexnet_list_npy_py2", "vgg16_list_npy"]


@pytest.mark.parametrize("name", CASES)
def test_real_files(name):
    folder = case(name)
    (path,) = folder.glob("*.npy")
    weights = read_weights(path)
    # The shared files are known, so numpy's own way is allowed here.
    expected = np.load(path, allow_pickle=True, encoding="latin1").item()
    for tensor in weights:
        content = expected
        for word in [tensor.name] if tensor.name in expected else tensor.name.split("/"):
            content = content[int(word) if word.isdecimal() else word]
        assert tensor.load().tobytes() == content.tobytes()
    for transform, sources in json.loads((folder / "map.json").read_text()).values():
        tensor = weights.tensors[sources[0]]
        assert tensor.role == ("bias" if transform == "id" else "kernel")
        assert tensor.axes


def test_a_real_malicious_file(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert "'builtins.exec'" in refusal(case("adv_malicious_npy") / "weights.npy")
    assert not (tmp_path / "REGRAFT_PWNED").exists()
