from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hostile import survive
from shared_cases import case

from regraft.errors import WeightsError
from regraft.weights.file import read_weights
from regraft.weights.readers.numpy import npz


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype("f4")


KERNEL, BIAS = random(3, 3, 4, 8), random(8)


def read(path: Path):
    assert npz.sniff(path, path.read_bytes()[:4096])
    return npz.read(path)


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        _ = [tensor.load() for tensor in read_weights(path)]
    return str(caught.value)


def member(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_values_names_layers_and_axes(tmp_path, save):
    arrays = {
        "conv1_1_W": KERNEL,
        "conv1_1_b": BIAS,
        "fc8_W": random(8, 5),
        "fc8_b": random(5),
        "bn/moving_mean": random(8, seed=1),
        "fortran_W": np.asfortranarray(random(3, 3, 4, 8, seed=2)),
        "big_b": random(8).astype(">f4"),
        "half": random(3).astype("f2"),
        "step": np.array(7),
    }
    path = tmp_path / "w.npz"
    save(path, **arrays)
    weights = read(path)
    assert not weights.ordered
    assert {tensor.name for tensor in weights} == set(arrays)
    for tensor in weights:
        expected = arrays[tensor.name]
        assert tensor.shape == expected.shape
        assert tensor.dtype == expected.dtype.name
        assert np.array_equal(tensor.load(), expected)
        assert tensor.load().dtype.isnative
    assert [(t.layer, t.role, t.axes) for t in list(weights)[:6]] == [
        ("conv1_1", "kernel", "HWIO"),
        ("conv1_1", "bias", "C"),
        ("fc8", "kernel", "IO"),
        ("fc8", "bias", "C"),
        ("bn", "mean", "C"),
        ("fortran", "kernel", "HWIO"),
    ]
    assert (weights.tensors["half"].role, weights.tensors["half"].layer) == (None, "half")


def test_torch_names_prove_their_own_layout(tmp_path):
    arrays = {
        "layer1.conv.weight": random(8, 4, 3, 3),
        "layer1.conv.bias": BIAS,
        "layer1.bn.weight": BIAS,
        "layer1.bn.bias": BIAS,
        "layer1.bn.running_mean": BIAS,
        "layer1.bn.running_var": BIAS,
        "fc.weight": random(8, 8),
    }
    np.savez(tmp_path / "w.npz", **arrays)
    found = {t.name: (t.layer, t.role, t.axes) for t in read(tmp_path / "w.npz")}
    assert found["layer1.conv.weight"] == ("layer1.conv", "kernel", "OIHW")
    assert found["layer1.bn.weight"] == ("layer1.bn", "gamma", "C")
    assert found["layer1.bn.bias"] == ("layer1.bn", "beta", "C")
    assert found["layer1.bn.running_var"] == ("layer1.bn", "variance", "C")
    assert found["fc.weight"] == ("fc", "kernel", "OI")


def test_a_layout_that_nothing_proves_stays_open(tmp_path):
    np.savez(tmp_path / "w.npz", a_W=random(8, 8), a_b=random(8))
    assert read(tmp_path / "w.npz").tensors["a_W"].axes is None
    np.savez(tmp_path / "w.npz", a_W=random(4, 8), a_b=random(8), b_W=random(8, 4), b_b=random(8))
    weights = read(tmp_path / "w.npz")
    assert weights.tensors["a_W"].axes is None
    assert "no layout" in weights.notes[0]


def test_class_names_are_taken_and_other_texts_left_out(tmp_path):
    np.savez(tmp_path / "w.npz", a_W=KERNEL, class_names=np.array(["cat", "dog"]), date=np.array(["today"]))
    weights = read(tmp_path / "w.npz")
    assert weights.class_names == ("cat", "dog")
    assert list(weights.tensors) == ["a_W"]
    assert "'date'" in weights.notes[0]


def test_a_pickled_member_is_refused_and_not_run(tmp_path, monkeypatch):
    class Evil:
        def __reduce__(self):
            return exec, ("open('PWNED', 'w')",)

    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "w.npz", a_W=KERNEL, evil=np.array(Evil(), dtype=object))
    assert "pickle" in refusal(tmp_path / "w.npz")
    assert not (tmp_path / "PWNED").exists()


def zipped(path: Path, *members: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members:
            file.writestr(name, content)
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name(tmp_path):
    path = zipped(tmp_path / "w.npz", ("a.npy", member(KERNEL)), ("a.npy", member(KERNEL + 1)))
    assert "two members named 'a.npy'" in refusal(path)


def test_zip_bombs(tmp_path):
    bomb = zipped(tmp_path / "w.npz", ("a.npy", member(np.zeros(100 << 20, "u1"))), method=zipfile.ZIP_DEFLATED)
    assert "bomb" in refusal(bomb)
    whole = bytearray(zipped(tmp_path / "w.npz", ("a.npy", member(KERNEL))).read_bytes())
    at = whole.rfind(b"PK\x01\x02")
    struct.pack_into("<LL", whole, at + 20, 2**31, 2**31)
    (tmp_path / "w.npz").write_bytes(whole)
    assert "larger than the file" in refusal(tmp_path / "w.npz")


def test_overlapping_members(tmp_path):
    """Two directory entries for the same bytes: the way to terabytes from one small file."""
    path = zipped(tmp_path / "w.npz", ("a.npy", member(KERNEL)), ("b.npy", member(KERNEL)))
    whole = bytearray(path.read_bytes())
    second = whole.rfind(b"PK\x01\x02")
    struct.pack_into("<L", whole, second + 42, 0)
    path.write_bytes(whole)
    assert "contradict" in refusal(path)


@pytest.mark.parametrize(
    ("shape", "descr", "reason"),
    [
        ((2**50,), "<f4", "declares"),
        ((2**25, 2**25), "<f4", "declares"),
        ((2**31, 2**31), "<f4", "not an array"),
        ((0, 2**40, 2**40), "<f4", "not an array"),
        ((-1,), "<f4", "not an array"),
        ((True,), "<f4", "not an array"),
        ((8,), "<c8", "without a single array"),
        ((8,), "<M8[s]", "without a single array"),
        ((8,), "nonsense", "unknown"),
    ],
)
def test_headers_that_lie(tmp_path, shape, descr, reason):
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    count = 64 if reason.startswith("without") else 32
    assert reason in refusal(zipped(tmp_path / "w.npz", ("a.npy", content + bytes(count))))


@pytest.mark.parametrize("text", [b"__import__('os').system('touch PWNED')", b"(" * 5000, b"{}", b"[1]", b"\xff\xfe"])
def test_headers_that_are_no_description(tmp_path, text, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text
    assert "not an array" in refusal(zipped(tmp_path / "w.npz", ("a.npy", content)))
    assert not (tmp_path / "PWNED").exists()


def test_changed_bits_of_the_zip_itself(tmp_path):
    whole = zipped(tmp_path / "w.npz", ("a.npy", member(KERNEL))).read_bytes()
    directory = whole.rfind(b"PK\x01\x02")
    changes = {
        "another name in the local header": (30, b"z.npy"),
        "encrypted": (directory + 8, b"\x01\x00"),
        "another method": (directory + 10, b"\x63\x00"),
        "bad CRC": (directory + 16, b"\0\0\0\0"),
        "rubbish behind it": (len(whole), b"rubbish"),
    }
    for what, (at, content) in changes.items():
        (tmp_path / "w.npz").write_bytes(whole[:at] + content + whole[at + len(content) :])
        assert refusal(tmp_path / "w.npz"), what


def test_an_archive_of_other_things(tmp_path):
    assert "not an array" in refusal(zipped(tmp_path / "w.npz", ("a.npy", b"hello"), ("b.txt", b"hi")))
    assert "without a single array" in refusal(zipped(tmp_path / "w.npz", ("b.txt", b"hi")))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damage_never_gives_other_values(tmp_path, save):
    path = tmp_path / "w.npz"
    save(path, a_W=KERNEL, a_b=BIAS)
    whole, places = path.read_bytes(), np.random.default_rng(0)
    for at in places.integers(0, len(whole), 200):
        path.write_bytes(whole[:at])
        assert not survive(npz, path)
    expected = {"a_W": KERNEL.tobytes(), "a_b": BIAS.tobytes()}
    for at in places.integers(0, len(whole), 200):
        wrong = bytearray(whole)
        wrong[at] ^= int(places.integers(1, 256))
        path.write_bytes(wrong)
        if survive(npz, path):
            assert sorted(t.load().tobytes() for t in npz.read(path)) == sorted(expected.values())


def test_real_files():
    folder = case("vgg16_npz_frossard")
    weights = read_weights(folder / "vgg16_weights.npz")
    assert weights.format == "npz"
    with np.load(folder / "vgg16_weights.npz") as expected:
        assert all(np.array_equal(tensor.load(), expected[tensor.name]) for tensor in weights)
    for transform, sources in json.loads((folder / "map.json").read_text()).values():
        tensor = weights.tensors[sources[0]]
        assert (tensor.role, tensor.axes) == (
            ("bias", "C") if transform == "id" else ("kernel", "HWIO" if len(tensor.shape) == 4 else "IO")
        )


def test_a_real_file_with_doubled_names():
    assert "'conv1_W.npy'" in refusal(case("adv_duplicate_names_npz") / "weights.npz")
