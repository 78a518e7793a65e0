from __future__ import annotations

import json
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hostile import fuzz, survive
from keras_files import archive, h5py, layer, model, random, variables
from shared_cases import case

from regraft.errors import WeightsError
from regraft.weights.file import read_weights
from regraft.weights.readers.keras import keras_v3

KERNEL, BIAS = random(3, 3, 3, 8), random(8)


def read(path: Path):
    assert keras_v3.sniff(path, path.read_bytes()[:4096])
    return keras_v3.read(path)


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        _ = [tensor.load() for tensor in read_weights(path)]
    return str(caught.value)


def weights_file(path: Path, tensors, names=None):
    variables(path, tensors, names or {})
    return read(path)


def norm(prefix: str, count: int = 4) -> dict[str, np.ndarray]:
    return {f"{prefix}/vars/{index}": random(8, seed=index) for index in range(count)}


@pytest.mark.parametrize("container", ["layers", "_layer_checkpoint_dependencies"])
def test_layers_come_in_the_order_of_their_numbers(tmp_path, container):
    tensors = {
        f"{container}/conv2d{suffix}/vars/0": KERNEL + at for at, suffix in enumerate(["", "_1", "_2", "_10", "_11"])
    }
    weights = weights_file(tmp_path / "m.weights.h5", tensors)
    assert list(weights.layers) == ["conv2d", "conv2d_1", "conv2d_2", "conv2d_10", "conv2d_11"]
    assert weights.ordered
    for tensor in weights:
        assert tensor.load().tobytes() == tensors[tensor.name].tobytes()


@pytest.mark.parametrize(
    ("kind", "shapes", "roles", "axes"),
    [
        ("conv2d", [(3, 3, 4, 8), (8,)], ["kernel", "bias"], ["HWIO", "C"]),
        ("conv2d_transpose", [(2, 2, 8, 4), (8,)], ["transpose_kernel", "bias"], ["HWOI", "C"]),
        ("depthwise_conv2d", [(3, 3, 8, 2)], ["depthwise_kernel"], ["HWCM"]),
        (
            "separable_conv2d",
            [(3, 3, 8, 1), (1, 1, 8, 4), (4,)],
            ["depthwise_kernel", "pointwise_kernel", "bias"],
            ["HWCM", "HWIO", "C"],
        ),
        ("dense", [(8, 4), (4,)], ["kernel", "bias"], ["IO", "C"]),
        ("batch_normalization", [(8,)] * 4, ["gamma", "beta", "mean", "variance"], ["C"] * 4),
        ("batch_normalization", [(8,)] * 3, [None, "mean", "variance"], [None, "C", "C"]),
        ("batch_normalization", [(8,)] * 2, ["mean", "variance"], ["C"] * 2),
        ("layer_normalization", [(8,)] * 2, ["gamma", "beta"], ["C"] * 2),
        ("layer_normalization", [(8,)], [None], [None]),
        ("normalization", [(3,), (3,), ()], ["mean", "variance", "count"], ["C", "C", None]),
        ("my_own_layer", [(3, 3, 4, 8), (8,)], ["kernel", "bias"], ["HWIO", "C"]),
        ("my_own_layer", [(3, 3, 8, 1)], [None], [None]),
        ("my_dwconv", [(3, 3, 8, 1)], ["depthwise_kernel"], ["HWCM"]),
        ("my_own_layer", [(7, 5), (3,)], [None, None], [None, None]),
    ],
)
def test_roles_by_class_and_position(tmp_path, kind, shapes, roles, axes):
    tensors = {f"layers/{kind}_1/vars/{at}": random(*shape) for at, shape in enumerate(shapes)}
    weights = weights_file(tmp_path / "m.weights.h5", tensors)
    assert [tensor.role for tensor in weights] == roles
    assert [tensor.axes for tensor in weights] == axes


def test_names_of_keras_3_6_and_nested_models(tmp_path):
    tensors = {
        "layers/functional/layers/conv2d/vars/0": KERNEL,
        "layers/functional_1/layers/conv2d/vars/0": KERNEL + 1,
        "layers/dense/vars/0": random(8, 2),
    }
    names = {
        "layers/functional": "left",
        "layers/functional_1": "right",
        "layers/functional/layers/conv2d": "c",
        "layers/functional_1/layers/conv2d": "c",
        "layers/dense": "head",
    }
    weights = weights_file(tmp_path / "m.weights.h5", tensors, names)
    assert {tensor.layer: tensor.load().tobytes() for tensor in weights} == {
        "left/c": KERNEL.tobytes(),
        "right/c": (KERNEL + 1).tobytes(),
        "head": random(8, 2).tobytes(),
    }


def test_a_subclassed_model_with_automatic_names_is_in_the_order_of_creation(tmp_path):
    attributes = ["zeta", "alpha", "mid"]
    tensors = {f"{name}/layers/conv2d/vars/0": KERNEL + at for at, name in enumerate(attributes)}
    names = {f"{name}/layers/conv2d": "conv2d" + (f"_{at}" if at else "") for at, name in enumerate(attributes)}
    weights = weights_file(tmp_path / "m.weights.h5", tensors, names)
    assert weights.ordered
    assert [tensor.load().tobytes() for tensor in weights] == [(KERNEL + at).tobytes() for at in range(3)]


def test_a_subclassed_model_with_own_names_has_no_order(tmp_path):
    tensors = {"stem/vars/0": KERNEL, "stem/vars/1": BIAS, "blocks/conv2d_1/vars/0": KERNEL, **norm("norm_a")}
    names = {"stem": "conv2d_17", "blocks/conv2d_1": "second", "norm_a": "batch_normalization_3"}
    weights = weights_file(tmp_path / "m.weights.h5", tensors, names)
    assert not weights.ordered
    assert [(t.layer, t.role) for t in weights if t.layer in ("stem", "norm_a")] == [
        ("norm_a", "gamma"),
        ("norm_a", "beta"),
        ("norm_a", "mean"),
        ("norm_a", "variance"),
        ("stem", "kernel"),
        ("stem", "bias"),
    ]


def test_state_that_is_no_weight_is_left_out_and_said(tmp_path):
    tensors = {
        "layers/conv2d/vars/0": KERNEL,
        "layers/dropout/seed_generator/vars/0": np.zeros(2, "u4"),
        "optimizer/vars/0": KERNEL,
        "metrics/mean/vars/0": BIAS,
    }
    weights = weights_file(tmp_path / "m.weights.h5", tensors)
    assert list(weights.tensors) == ["layers/conv2d/vars/0"]
    assert sum("skipped" in note for note in weights.notes) == 2


def test_bfloat16(tmp_path):
    path = tmp_path / "m.weights.h5"
    bits = np.array([0x3F80, 0xC020], "u2")
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("layers/dense/vars/0", data=bits.view("V2"))
        dataset.attrs["dtype"] = "bfloat16"
    (tensor,) = read(path)
    assert tensor.dtype == "bfloat16"
    assert tensor.load().tolist() == [1.0, -2.5]


CONFIG = model(
    layer("InputLayer", "in"),
    layer("Conv2D", "right"),
    layer("BatchNormalization", "bn_scale_off", scale=False, center=True),
    model(layer("Conv2D", "inner"), layer("BatchNormalization", "bn_center_off", scale=True, center=False), name="sub"),
    layer("Conv2D", "left"),
)
TENSORS = {
    "layers/conv2d/vars/0": KERNEL,
    "layers/conv2d_1/vars/0": KERNEL + 1,
    "layers/functional/layers/conv2d/vars/0": KERNEL + 2,
    **norm("layers/batch_normalization", 3),
    **norm("layers/functional/layers/batch_normalization", 3),
}


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_takes_names_roles_and_order_from_its_config(tmp_path, compression):
    weights = read(archive(tmp_path / "m.keras", TENSORS, CONFIG, compression=compression))
    assert list(weights.layers) == ["right", "bn_scale_off", "inner", "bn_center_off", "left"]
    assert [t.role for t in weights.layers["bn_scale_off"]] == ["beta", "mean", "variance"]
    assert [t.role for t in weights.layers["bn_center_off"]] == ["gamma", "mean", "variance"]
    assert weights.layers["left"][0].load().tobytes() == (KERNEL + 1).tobytes()
    assert weights.ordered
    assert weights.graph == CONFIG
    assert weights.producer == "keras 3.9.0"
    for tensor in weights:
        assert tensor.load().tobytes() == TENSORS[tensor.name].tobytes()


def test_numbers_with_gaps_are_ranks(tmp_path):
    tensors = {f"_layer_checkpoint_dependencies/conv2d_{number}/vars/0": KERNEL + number for number in (2, 0, 10)}
    config = model(*(layer("Conv2D", name) for name in "abc"))
    weights = read(archive(tmp_path / "m.keras", tensors, config))
    assert [(t.layer, t.load().tobytes()) for t in weights] == [
        (name, (KERNEL + number).tobytes()) for name, number in zip("abc", (0, 2, 10), strict=True)
    ]


def test_a_config_of_another_model_is_not_believed(tmp_path):
    weights_path, path = tmp_path / "w.h5", tmp_path / "m.keras"
    variables(weights_path, {"layers/conv2d/vars/0": KERNEL}, {"layers/conv2d": "mine"})
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", json.dumps(model(layer("Conv2D", "yours"))))
        file.write(weights_path, "model.weights.h5")
    weights = read(path)
    assert list(weights.layers) == ["mine"]
    assert "'yours'" in weights.notes[0]


@pytest.mark.parametrize(
    "entry",
    [
        {"module": "os", "class_name": "system", "config": {"name": "x", "command": "touch PWNED"}},
        {"class_name": "Lambda", "config": {"name": "l", "function": "__import__('os')"}},
        {"class_name": "TFSMLayer", "config": {"name": "t", "filepath": "/etc/passwd"}},
        {"class_name": "StringLookup", "config": {"name": "s", "vocabulary": "https://example.org/x"}},
        {"class_name": 3, "config": []},
        "text",
    ],
)
def test_nothing_that_a_config_names_is_touched(tmp_path, entry, monkeypatch):
    path = archive(tmp_path / "m.keras", {"layers/conv2d/vars/0": KERNEL}, model(layer("Conv2D", "a"), entry))
    monkeypatch.chdir(tmp_path)
    assert list(read(path).layers) == ["a"]
    assert not (tmp_path / "PWNED").exists()


def sharded(folder: Path) -> Path:
    (folder / "x_00000.weights.h5").unlink(missing_ok=True)
    variables(folder / "x_00000.weights.h5", {"layers/conv2d/vars/0": KERNEL})
    variables(folder / "x_00001.weights.h5", {"layers/conv2d/vars/1": BIAS, "layers/dense/vars/0": random(8, 2)})
    index = {
        "metadata": {"total_size": 1},
        "weight_map": {
            "/layers/conv2d/vars": ["x_00000.weights.h5", "x_00001.weights.h5"],
            "/layers/dense/vars": "x_00001.weights.h5",
        },
    }
    (folder / "x.weights.json").write_text(json.dumps(index))
    return folder / "x.weights.json"


def test_a_sharded_set(tmp_path):
    weights = read(sharded(tmp_path))
    assert [(t.layer, t.role) for t in weights] == [("conv2d", "kernel"), ("conv2d", "bias"), ("dense", "kernel")]
    assert [t.load().tobytes() for t in weights] == [v.tobytes() for v in (KERNEL, BIAS, random(8, 2))]


def test_a_shard_that_is_missing_a_link_or_elsewhere(tmp_path):
    index = sharded(tmp_path)
    shard, text = tmp_path / "x_00001.weights.h5", index.read_text()
    moved = shard.rename(tmp_path / "moved.h5")
    assert "x_00001" in refusal(index)
    shard.symlink_to(moved)
    assert "link" in refusal(index)
    for name in ("../x_00001.weights.h5", "/etc/passwd", 7):
        index.write_text(text.replace('"x_00001.weights.h5"', json.dumps(name)))
        assert refusal(index)


def test_a_shard_that_lacks_what_the_index_promises(tmp_path):
    index = sharded(tmp_path)
    index.write_text(index.read_text().replace("/layers/dense/vars", "/layers/dense_1/vars"))
    assert "dense_1" in refusal(index)


def test_archives_that_are_refused(tmp_path):
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "hello")
    assert "'readme.txt'" in refusal(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model.weights.h5", bytes(200 << 20))
    assert "bomb" in refusal(path)
    whole = archive(path, TENSORS, CONFIG).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "zip" in refusal(path)
    path.write_bytes(whole.replace(KERNEL.tobytes(), KERNEL[::-1].tobytes()))
    assert "checksum" in refusal(path)


def test_a_group_that_holds_itself_ends(tmp_path):
    path = tmp_path / "m.weights.h5"
    variables(path, {"layers/conv2d/vars/0": KERNEL})
    with h5py.File(path, "a") as file:
        file["layers/again"] = file["layers"]
    assert "too deep" in refusal(path)


@pytest.mark.parametrize("where", ["layers", "layers/conv2d", "layers/conv2d/vars", "layers/conv2d/vars/0"])
def test_links_on_the_way_are_refused(tmp_path, where):
    variables(tmp_path / "other.weights.h5", {"layers/conv2d/vars/0": KERNEL})
    for link in (h5py.ExternalLink("other.weights.h5", f"/{where}"), h5py.SoftLink(f"/hidden/{where}")):
        path = tmp_path / "m.weights.h5"
        variables(path, {"hidden/layers/conv2d/vars/0": KERNEL, "layers/conv2d/vars/1": BIAS})
        with h5py.File(path, "a") as file:
            if where in file:
                del file[where]
            file[where] = link
        assert "link" in refusal(path)


def test_cut_and_flipped_files_are_survived(tmp_path):
    path = tmp_path / "m.weights.h5"
    variables(path, {"layers/conv2d/vars/0": BIAS, "layers/dense/vars/0": BIAS}, {"layers/conv2d": "a"})
    num_cut, num_flipped = fuzz(keras_v3, path)
    assert num_cut == 0
    assert num_flipped > 0


def test_a_damaged_archive_never_gives_other_values(tmp_path):
    path = archive(tmp_path / "m.keras", {"layers/conv2d/vars/0": BIAS}, model(layer("Conv2D", "a")))
    whole, places = path.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        wrong = bytearray(whole)
        wrong[places.integers(len(wrong))] ^= int(places.integers(1, 256))
        path.write_bytes(wrong)
        if survive(keras_v3, path):
            assert next(iter(keras_v3.read(path))).load().tobytes() == BIAS.tobytes()


CASES = [
    "densenet121_flat_weights_h5",
    "effb0_weights_h5",
    "mbv1_h5_k212",
    "rn50_nested_weights_h5_k3",
    "rn50_nested_weights_h5_noname",
    "twobranch_keras_k3",
    "vgg16_subclassed_blocks",
    "xception_flat_keras",
]
TRANSFORMS = {"dw": ("depthwise_kernel",), "conv": ("kernel", "pointwise_kernel"), "lin": ("kernel",)}


@pytest.mark.parametrize("name", CASES)
def test_real_files(name):
    folder = case(name)
    (path,) = (folder / file for file in json.loads((folder / "case.json").read_text())["files"])
    weights = read_weights(path)
    assert weights.format == "keras_v3"
    for transform, sources in json.loads((folder / "map.json").read_text()).values():
        tensor = weights.tensors[sources[0]]
        assert tensor.role in TRANSFORMS.get(transform.split(":")[0], (tensor.role,))
        assert tensor.role
        assert tensor.axes
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            assert all(t.load().tobytes() == file[t.name][()].tobytes() for t in weights)


def test_a_real_zip_without_keras():
    assert "'readme.txt'" in refusal(case("adv_zip_not_keras") / "model.keras")


@pytest.mark.oracle
def test_what_keras_writes(tmp_path, monkeypatch):
    """`.keras`, `.weights.h5` and shards of real Keras, trained a step: every variable under its name."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    keras.utils.clear_session()
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.SeparableConv2D(8, 3, name="sep")(inputs)
    x = keras.layers.BatchNormalization(scale=False, name="no_scale")(x)
    x = keras.layers.Conv2DTranspose(6, 2, name="up")(x)
    x = keras.layers.BatchNormalization(center=False, name="no_center")(x)
    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, name="dw")(x)
    x = keras.layers.Dropout(0.5)(x)
    x = keras.layers.Dense(4, name="head")(keras.layers.GlobalAveragePooling2D()(x))
    network = keras.Model(inputs, x)
    network.compile("adam", "mse")
    network.fit(np.zeros((2, 16, 16, 3), "f4"), np.zeros((2, 4), "f4"), verbose=0)
    words = {"moving_mean": "mean", "moving_variance": "variance"}
    kernels = {"up": "transpose_kernel", "dw": "depthwise_kernel"}
    expected = {}
    for one in network.layers:
        for variable in one.weights:
            role = words.get(variable.name, variable.name)
            role = kernels.get(one.name, role) if role == "kernel" else role
            expected[one.name, role] = np.asarray(variable.value.detach())
    network.save(tmp_path / "m.keras")
    network.save_weights(tmp_path / "m.weights.h5")
    network.save_weights(tmp_path / "s.weights.json", max_shard_size=0.000001)
    for path in (tmp_path / "m.keras", tmp_path / "m.weights.h5", tmp_path / "s.weights.json"):
        weights = read_weights(path)
        got = {(t.layer, t.role): t.load() for t in weights}
        if path.suffix != ".keras":  # which of gamma and beta a norm has is in config.json only
            got["no_scale", "beta"] = got.pop(("no_scale", None))
            got["no_center", "gamma"] = got.pop(("no_center", None))
        assert set(got) == set(expected)
        assert all(got[key].tobytes() == values.tobytes() for key, values in expected.items())


@pytest.mark.slow
def test_twenty_thousand_datasets_are_read_in_seconds(tmp_path):
    layers = range(1, 10_001)
    tensors = {f"layers/conv2d_{number}/vars/{place}": np.full(4, number) for number in layers for place in (0, 1)}
    variables(tmp_path / "x.weights.h5", tensors)
    start = time.process_time()
    weights = read_weights(tmp_path / "x.weights.h5")
    assert len(weights) == len(tensors)
    assert time.process_time() - start < 20
    assert [float(tensor.load()[0]) for tensor in weights][:4] == [1, 1, 2, 2]
