from __future__ import annotations

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hostile import cut, flipped, fuzz, survive
from hypothesis import given, settings
from hypothesis import strategies as st
from keras_files import fill, h5py, layer, legacy, model, random
from shared_cases import case

from regraft.errors import WeightsError
from regraft.weights.file import read_weights
from regraft.weights.readers.keras import keras_h5

KERNEL, BIAS = random(3, 3, 3, 8), random(8)
NORM = {name: random(8, seed=index) for index, name in enumerate(("gamma", "beta", "moving_mean", "moving_variance"))}


def read(path: Path):
    assert keras_h5.sniff(path, path.read_bytes()[:4096])
    return keras_h5.read(path)


def found(weights) -> list[tuple[str, str | None, str | None]]:
    return [(tensor.layer, tensor.role, tensor.axes) for tensor in weights]


def assert_same_values(path: Path, weights) -> None:
    with h5py.File(path) as file:
        for tensor in weights:
            expected = file[tensor.name][()]
            values = tensor.load()
            assert values.shape == tensor.shape == expected.shape
            assert values.tobytes() == expected.astype(expected.dtype.newbyteorder("=")).tobytes()


def test_a_conv_and_a_norm_have_layer_role_and_axes(tmp_path):
    layers = [
        ("input_1", []),
        ("conv1", [("conv1/kernel:0", KERNEL), ("conv1/bias:0", BIAS)]),
        ("bn1", [(f"bn1/{name}:0", values) for name, values in NORM.items()]),
        ("fc", [("fc/kernel:0", random(8, 5)), ("fc/bias:0", random(5))]),
    ]
    path = legacy(tmp_path / "w.h5", layers)
    weights = read(path)
    assert found(weights) == [
        ("conv1", "kernel", "HWIO"),
        ("conv1", "bias", "C"),
        ("bn1", "gamma", "C"),
        ("bn1", "beta", "C"),
        ("bn1", "mean", "C"),
        ("bn1", "variance", "C"),
        ("fc", "kernel", "IO"),
        ("fc", "bias", "C"),
    ]
    assert weights.producer == "keras 2.15.0"
    assert weights.ordered
    assert_same_values(path, weights)


@pytest.mark.parametrize(
    ("group", "name", "role"),
    [
        ("conv1", "conv1/kernel:0", "kernel"),
        ("conv1", "conv1_2/kernel:0", "kernel"),
        ("conv1", "sequential/conv1/kernel", "kernel"),
        ("conv1", "conv1_W", "kernel"),
        ("conv1", "conv1_W_1:0", "kernel"),
        ("conv1", "conv1_b_1:0", "bias"),
        ("bn", "bn_running_std_1:0", "variance"),
        ("bn", "bn_running_mean", "mean"),
        ("conv1/bn", "conv1/bn/moving_mean:0", "mean"),
        ("dw", "dw/depthwise_kernel:0", "depthwise_kernel"),
        ("p", "p/alpha:0", "alpha"),
        ("odd", "odd/something:0", None),
    ],
)
def test_every_spelling_of_a_weight_name(tmp_path, group, name, role):
    shape = (3, 3, 4, 8) if role in ("kernel", "depthwise_kernel") else (8,)
    path = legacy(tmp_path / "w.h5", [(group, [(name, random(*shape))])])
    weights = read(path)
    assert [(tensor.layer, tensor.role) for tensor in weights] == [(group, role)]
    assert_same_values(path, weights)


def test_a_nested_model_gives_its_inner_layers(tmp_path):
    inner = [("conv_a/kernel:0", KERNEL), ("conv_a/bias:0", BIAS), *((f"bn/{n}:0", v) for n, v in NORM.items())]
    weights = read(legacy(tmp_path / "w.h5", [("resnet50", inner), ("head", [("head/kernel:0", random(8, 2))])]))
    assert list(weights.layers) == ["conv_a", "bn", "head"]


def test_two_nested_models_with_equal_inner_names_stay_apart(tmp_path):
    weights = read(
        legacy(
            tmp_path / "w.h5",
            [("left", [("c/kernel:0", KERNEL)]), ("right", [("c/kernel:0", KERNEL + 1)])],
        )
    )
    assert list(weights.layers) == ["left/c", "right/c"]
    assert weights.tensors["right/c/kernel:0"].load().tobytes() == (KERNEL + 1).tobytes()


def nested_network(num_blocks: int) -> list[tuple[str, str, np.ndarray]]:
    """(layer, weight, values) of a chain conv, norm, conv, norm, ... in the order of creation."""
    tensors = []
    channels = 3
    for index in range(num_blocks):
        tensors.append((f"conv_{index}", "kernel", random(3, 3, channels, 6, seed=index)))
        tensors += [(f"bn_{index}", name, random(6, seed=10 * index + at)) for at, name in enumerate(NORM)]
        channels = 6
    return tensors


def as_saved(tensors, frozen) -> list[tuple[str, np.ndarray]]:
    """What Keras lists: trainable weights first."""
    moving = ("moving_mean", "moving_variance")
    first = [t for t in tensors if t[0] not in frozen and t[1] not in moving]
    rest = [t for t in tensors if not (t[0] not in frozen and t[1] not in moving)]
    return [(f"{name}/{weight}:0", values) for name, weight, values in [*first, *rest]]


@settings(max_examples=100, deadline=None)
@given(flags=st.lists(st.booleans(), min_size=10, max_size=10))
def test_trainable_flags_never_change_a_tensor_and_never_prove_a_wrong_order(tmp_path_factory, flags):
    tensors = nested_network(5)
    layers = list(dict.fromkeys(name for name, _, _ in tensors))
    frozen = {name for name, flag in zip(layers, flags, strict=True) if flag}
    path = legacy(tmp_path_factory.mktemp("w") / "w.h5", [("backbone", as_saved(tensors, frozen))])
    weights = read(path)
    got = {(tensor.layer, tensor.role): tensor.load().tobytes() for tensor in weights}
    words = {"moving_mean": "mean", "moving_variance": "variance"}
    assert got == {(name, words.get(weight, weight)): values.tobytes() for name, weight, values in tensors}
    if weights.ordered:
        assert list(weights.layers) == layers


@pytest.mark.parametrize("frozen", [(), "all"])
def test_the_usual_flags_leave_the_order_known(tmp_path, frozen):
    tensors = nested_network(5)
    layers = list(dict.fromkeys(name for name, _, _ in tensors))
    path = legacy(tmp_path / "w.h5", [("backbone", as_saved(tensors, layers if frozen == "all" else frozen))])
    weights = read(path)
    assert weights.ordered
    assert list(weights.layers) == layers


def test_automatic_names_count_the_layers_whatever_was_frozen(tmp_path):
    names = {"conv": "conv2d", "bn": "batch_normalization"}
    tensors = [(f"{names[n[:-2]]}_{int(n[-1]) + 8}", weight, values) for n, weight, values in nested_network(5)]
    frozen = {"conv2d_8", "batch_normalization_8", "conv2d_9", "batch_normalization_9"}
    weights = read(legacy(tmp_path / "w.h5", [("backbone", as_saved(tensors, frozen))]))
    assert weights.ordered
    assert list(weights.layers) == [f"{kind}_{number}" for kind in sorted(names.values()) for number in range(8, 13)]


def test_a_nested_model_without_norms_has_no_proven_order(tmp_path):
    tensors = [t for t in nested_network(4) if t[1] == "kernel"]
    weights = read(legacy(tmp_path / "w.h5", [("vgg", as_saved(tensors, {"conv_0", "conv_1"}))]))
    assert not weights.ordered
    assert "'vgg'" in weights.notes[0]


def test_the_graph_of_a_full_model_gives_classes_and_order(tmp_path):
    config = model(
        layer("InputLayer", "input_1"),
        model(layer("Conv2D", "a"), layer("DepthwiseConv2D", "b"), layer("Conv2DTranspose", "c"), name="inner"),
        layer("Dense", "out"),
    )
    inner = [("c/kernel", random(2, 2, 4, 4)), ("b/kernel", random(3, 3, 4, 1)), ("a/kernel", random(3, 3, 3, 4))]
    path = tmp_path / "w.h5"
    legacy(path, [("inner", inner), ("out", [("sequential/out/kernel", random(4, 2))])], config=config, version="3.9.0")
    with h5py.File(path, "a") as file:
        file.create_dataset("optimizer_weights/Adam/m/a/kernel", data=KERNEL)
    weights = read(path)
    assert found(weights) == [
        ("a", "kernel", "HWIO"),
        ("b", "depthwise_kernel", "HWCM"),
        ("c", "transpose_kernel", "HWOI"),
        ("out", "kernel", "IO"),
    ]
    assert weights.ordered
    assert weights.graph == config
    assert any("optimizer" in note for note in weights.notes)
    assert all(name.startswith("model_weights/") for name in weights.tensors)
    assert_same_values(path, weights)


def test_an_old_sequential_config_is_a_list(tmp_path):
    config = {"class_name": "Sequential", "config": [layer("Conv2D", "conv2d_1")]}
    weights = read(legacy(tmp_path / "w.h5", [("conv2d_1", [("conv2d_1/kernel:0", KERNEL)])], config=config))
    assert found(weights) == [("conv2d_1", "kernel", "HWIO")]


@pytest.mark.parametrize(
    ("name", "shape", "bias", "role"),
    [
        ("expanded_conv_depthwise", (3, 3, 8, 1), None, "depthwise_kernel"),
        ("block1a_dwconv", (3, 3, 8, 1), None, "depthwise_kernel"),
        ("depthwise_conv2d_4", (3, 3, 8, 2), None, "depthwise_kernel"),
        ("conv2d_transpose_1", (2, 2, 8, 8), None, "transpose_kernel"),
        ("some", (2, 2, 8, 4), 8, "transpose_kernel"),
        ("some", (2, 2, 8, 4), 4, "kernel"),
        ("some", (3, 3, 8, 1), 8, "depthwise_kernel"),
        ("some", (3, 3, 8, 1), 1, "kernel"),
        ("some", (3, 3, 8, 1), None, None),
        ("some", (3, 3, 1, 1), None, "kernel"),
    ],
)
def test_what_keras_3_calls_kernel(tmp_path, name, shape, bias, role):
    weights = [(f"{name}/kernel", random(*shape)), *([(f"{name}/bias", random(bias))] if bias else [])]
    assert next(iter(read(legacy(tmp_path / "w.h5", [(name, weights)])))).role == role


def test_lists_that_were_split_over_attributes(tmp_path):
    names = [f"conv_{index}/kernel:0" for index in range(7)]
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names0"], file.attrs["layer_names1"] = [b"first"], [b"second"]
        file.attrs["keras_version"] = b"2.4.0"
        for outer in ("first", "second"):
            group = file.create_group(outer)
            for index, part in enumerate((names[:3], names[3:5], names[5:])):
                group.attrs[f"weight_names{index}"] = [f"{outer}_{name}".encode() for name in part]
            for name in names:
                group.create_dataset(f"{outer}_{name}", data=KERNEL)
    assert len(read(path)) == 14


@pytest.mark.parametrize("dtype", ["f2", "f8", ">f4", "i8", "u1", "?"])
def test_dtypes_come_back_as_stored(tmp_path, dtype):
    values = (random(4, 4) * 10).astype(dtype)
    path = legacy(tmp_path / "w.h5", [("a", [("a/kernel:0", values)])])
    (tensor,) = read(path)
    assert tensor.dtype == values.dtype.name
    assert np.array_equal(tensor.load(), values)
    assert tensor.load().dtype.isnative


def test_bfloat16_is_widened_exactly(tmp_path):
    exact = np.array([1.0, -2.5, 3e38, 1e-38, 0.0], "f4")
    bits = (exact.view("u4") >> 16).astype("u2")
    (tensor,) = read(legacy(tmp_path / "w.h5", [("a", [("a/bias", bits.view("V2"))])]))
    assert tensor.dtype == "bfloat16"
    assert tensor.load().tobytes() == (bits.astype("u4") << 16).view("f4").tobytes()


@pytest.mark.parametrize(
    "settings", [{"compression": "gzip", "shuffle": True}, {"chunks": (2, 2, 3, 5)}, {"compression": "lzf"}]
)
def test_chunked_and_compressed_datasets(tmp_path, settings):
    values = random(3, 3, 3, 8)
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        fill(file, [("a", [])])
        file["a"].attrs["weight_names"] = [b"a/kernel:0"]
        file["a"].create_dataset("a/kernel:0", data=values, **settings)
    assert next(iter(read(path))).load().tobytes() == values.tobytes()


@pytest.mark.parametrize("how", ["latest", "track_order", "userblock"])
def test_newer_layouts_are_read_too(tmp_path, how):
    layers = [(f"conv_{i}", [(f"conv_{i}/kernel:0", random(3, 3, 3, 8, seed=i))]) for i in range(20)]
    path = tmp_path / "w.h5"
    settings = {
        "latest": {"libver": "latest"},
        "track_order": {"track_order": True},
        "userblock": {"userblock_size": 1024},
    }
    with h5py.File(path, "w", **settings[how]) as file:
        fill(file, layers)
    weights = read(path)
    assert list(weights.layers) == [name for name, _ in layers]
    assert_same_values(path, weights)


def test_theano_kernels_are_turned(tmp_path):
    weights = read(
        legacy(
            tmp_path / "w.h5",
            [("conv", [("conv/kernel", KERNEL), ("conv/bias", BIAS)]), ("fc", [("fc/kernel", random(8, 5))])],
            version="2.0.8",
            backend="theano",
        )
    )
    kernel, bias, dense = (tensor.load() for tensor in weights)
    assert np.array_equal(kernel, KERNEL[::-1, ::-1])
    assert np.array_equal(bias, BIAS)
    assert np.array_equal(dense, random(8, 5))
    assert any("Theano" in note for note in weights.notes)


@pytest.mark.parametrize(("shape", "axes"), [((8, 3, 3, 3), "OIHW"), ((3, 3, 3, 8), "HWIO"), ((8, 8, 8, 8), None)])
def test_keras_1_kernels_are_oihw_or_hwio_as_the_bias_tells(tmp_path, shape, axes):
    layers = [("conv1", [("conv1_W", random(*shape)), ("conv1_b", random(8))])]
    weights = read(legacy(tmp_path / "w.h5", layers, version=None, backend=None))
    assert weights.producer == "keras 1"
    assert next(iter(weights)).axes == axes
    assert any("Keras 1" in note for note in weights.notes) == (axes != "HWIO")


def test_keras_0_has_numbers_for_names(tmp_path):
    path = tmp_path / "vgg.h5"
    with h5py.File(path, "w") as file:
        file.attrs["nb_layers"] = 3
        for index, params in enumerate([[], [random(64, 3, 3, 3), random(64)], [random(25, 10), random(10)]]):
            group = file.create_group(f"layer_{index}")
            group.attrs["nb_params"] = len(params)
            for at, values in enumerate(params):
                group.create_dataset(f"param_{at}", data=values)
    assert found(read(path)) == [
        ("layer_1", "kernel", "OIHW"),
        ("layer_1", "bias", "C"),
        ("layer_2", "kernel", "IO"),
        ("layer_2", "bias", "C"),
    ]


# Files that are refused


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        _ = [tensor.load() for tensor in read_weights(path)]
    return str(caught.value)


def one_tensor(path: Path, make) -> Path:
    with h5py.File(path, "w") as file:
        fill(file, [("a", [])])
        file["a"].attrs["weight_names"] = [b"k"]
        make(file)
    return path


def test_links_and_foreign_bytes_are_refused(tmp_path):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(b"s" * 64)
    other = legacy(tmp_path / "other.h5", [("a", [("k", BIAS)])])
    layout = h5py.VirtualLayout((8,), "f4")
    layout[:] = h5py.VirtualSource(str(other), "a/k", (8,))
    makers = {
        "external storage": lambda f: f["a"].create_dataset("k", (16,), "f4", external=[(str(secret), 0, 64)]),
        "link": lambda f: f["a"].__setitem__("k", h5py.ExternalLink("other.h5", "/a/k")),
        "is a link": lambda f: f["a"].__setitem__("k", h5py.SoftLink("/b")),
        "virtual|another file": lambda f: f["a"].create_virtual_dataset("k", layout),
    }
    for reason, make in makers.items():
        text = refusal(one_tensor(tmp_path / "bad.h5", make))
        assert any(word in text for word in reason.split("|")), text


def test_a_linked_group_is_refused(tmp_path):
    legacy(tmp_path / "other.h5", [("a", [("k", BIAS)])])
    for link in (h5py.ExternalLink("other.h5", "/a"), h5py.SoftLink("/hidden")):
        path = tmp_path / "bad.h5"
        with h5py.File(path, "w") as file:
            file.attrs["layer_names"] = [b"a"]
            fill(file.create_group("hidden"), [])
            file["a"] = link
        assert "link" in refusal(path)


def test_a_shape_bomb_is_refused_without_memory(tmp_path):
    bombs = (
        lambda f: f["a"].create_dataset("k", (2**40, 1000), "f4", chunks=(1, 1000)),
        lambda f: f["a"].create_dataset("k", (2**50,), "f4"),
        lambda f: f["a"].create_dataset("k", (0, 2**40, 2**40), "f4"),
        lambda f: f["a"].create_dataset("k", (2**40,), "f4", chunks=(2**29,), compression="gzip"),
    )
    for make in bombs:
        text = refusal(one_tensor(tmp_path / "bomb.h5", make))
        assert any(word in text for word in ("refused", "pieces", "beyond all memory")), text


def test_strings_and_structures_are_no_weights(tmp_path):
    for values in (np.array([b"x", b"y"]), np.zeros(3, [("a", "f4"), ("b", "i4")]), np.zeros(3, "c8")):
        assert "not numeric" in refusal(
            one_tensor(tmp_path / "bad.h5", lambda f, v=values: f["a"].create_dataset("k", data=v))
        )


def test_a_missing_or_doubled_tensor_is_named(tmp_path):
    assert "'k'" in refusal(one_tensor(tmp_path / "missing.h5", lambda f: None))
    path = one_tensor(tmp_path / "twice.h5", lambda f: f["a"].create_dataset("k", data=BIAS))
    with h5py.File(path, "a") as file:
        file["a"].attrs["weight_names"] = [b"k", b"k"]
    assert "twice" in refusal(path)


@pytest.mark.parametrize("name", ["../a/k", "/a/k", ".", "k/../../b"])
def test_names_that_are_no_plain_paths_are_refused(tmp_path, name):
    path = one_tensor(tmp_path / "bad.h5", lambda f: f["a"].create_dataset("k", data=BIAS))
    with h5py.File(path, "a") as file:
        file["a"].attrs["weight_names"] = [name.encode()]
    assert refusal(path)


def test_a_model_without_weights_and_a_file_without_keras(tmp_path):
    assert "without tensors" in refusal(legacy(tmp_path / "empty.h5", [("a", [])]))
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["images"] = np.zeros(3)
    assert "'images'" in refusal(tmp_path / "data.h5")


def test_a_lambda_layer_is_only_read(tmp_path):
    config = model(layer("Lambda", "evil", function={"class_name": "__lambda__", "config": {"code": "4wEAAAA"}}))
    weights = read(legacy(tmp_path / "w.h5", [("a", [("a/kernel", KERNEL)])], config=config))
    assert weights.graph == config


def test_a_damaged_config_is_left_out(tmp_path):
    path = legacy(tmp_path / "w.h5", [("a", [("a/kernel", KERNEL)])], config={})
    with h5py.File(path, "a") as file:
        file.attrs["model_config"] = "[" * 100_000
    assert read(path).graph is None


def test_there_is_no_set_to_choose(tmp_path):
    with pytest.raises(WeightsError, match="one set"):
        keras_h5.read(legacy(tmp_path / "w.h5", [("a", [("a/kernel", KERNEL)])]), key="ema")


def test_a_file_that_changed_after_it_was_opened_is_an_error(tmp_path):
    path = legacy(tmp_path / "w.h5", [("a", [("a/kernel", KERNEL)])])
    tensor = next(iter(read(path)))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="changed"):
        tensor.load()


@pytest.mark.parametrize("kind", ["plain", "gzip"])
def test_cut_and_flipped_files_are_survived(tmp_path, kind):
    path = tmp_path / "w.h5"
    config = model(layer("Conv2D", "a"), layer("Dense", "b"))
    legacy(path, [("a", [("a/kernel", KERNEL[..., :2])]), ("b", [("b/kernel", random(2, 2))])], config=config)
    if kind == "gzip":
        with h5py.File(path, "a") as file:
            del file["model_weights/a/a/kernel"]
            file["model_weights/a"].create_dataset("a/kernel", data=KERNEL, compression="gzip", shuffle=True)
    num_cut, num_flipped = fuzz(keras_h5, path, seed=len(kind))
    assert num_cut == 0
    assert 0 < num_flipped <= 200


@pytest.mark.parametrize("width", [2, 8])
def test_files_with_overwritten_parts_are_survived(tmp_path, width):
    """Damage of the kind that makes the HDF5 library itself crash."""
    path = legacy(tmp_path / "w.h5", [(name, [(f"{name}/kernel", BIAS), (f"{name}/bias", BIAS)]) for name in "abc"])
    whole, places = path.read_bytes(), np.random.default_rng(width)
    for _ in range(300):
        wrong = bytearray(whole)
        for at in places.integers(0, len(whole) - width, 3):
            wrong[at : at + width] = places.bytes(width) if places.random() < 0.5 else b"\xff" * width
        path.write_bytes(wrong)
        survive(keras_h5, path)


def test_damage_to_the_newer_layout_is_survived(tmp_path):
    """There the HDF5 library reads, in a process of its own."""
    path = legacy(tmp_path / "w.h5", [("a", [("a/kernel", BIAS)])], libver="latest")
    whole, places = path.read_bytes(), Random(5)
    for content in [*cut(whole, 3, places), *flipped(whole, 4, places)]:
        path.write_bytes(content)
        survive(keras_h5, path)


# Real files

CASES = [
    "incv3_flat_offset_names",
    "mbv2_flat_k231",
    "mbv2_nested_last30_k3",
    "rn50_flat_old_names_py2",
    "rn50_nested_allfrozen_h5",
    "rn50_nested_alltrainable_hdf5",
    "rn50_nested_last26_h5",
    "tiny_nested_chunked_names_h5",
    "tiny_seq_full_h5",
    "tiny_seq_h5_k224",
    "twobranch_names_h5",
    "twobranch_nested_dupnames_h5",
    "vgg16_full_224_h5",
    "vgg16_nested_block5_full_h5",
]
TRANSFORMS = {
    "conv": "kernel",
    "dw": "depthwise_kernel",
    "lin": "kernel",
    "fcnchw": "kernel",
    "fcconv": "kernel",
    "lin1x1": "kernel",
}


@pytest.mark.parametrize("name", CASES)
def test_real_files(name):
    folder = case(name)
    path = next(folder / file for file in json.loads((folder / "case.json").read_text())["files"])
    weights = read_weights(path)
    assert weights.format == "keras_h5"
    assert_same_values(path, weights)
    for transform, sources in json.loads((folder / "map.json").read_text()).values():
        tensor = weights.tensors[sources[0]]
        assert tensor.role == TRANSFORMS.get(transform.split(":")[0], tensor.role)
        assert tensor.role
        assert tensor.axes


@pytest.mark.parametrize(
    ("name", "reason"),
    [("adv_truncated_h5", "truncated"), ("adv_h5_not_weights", "'images'"), ("adv_empty_file", "empty")],
)
def test_real_files_that_are_refused(name, reason):
    folder = case(name)
    (path,) = folder.glob("*.h5")
    assert reason in refusal(path)


@pytest.mark.oracle
@pytest.mark.parametrize("seed", range(4))
def test_keras_under_random_trainable_flags(tmp_path, monkeypatch, seed):
    """Real Keras writes the same nested network under random flags: every tensor stays what it is."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(seed)
    keras.utils.clear_session()
    inner = keras.applications.MobileNetV2(input_shape=(96, 96, 3), alpha=0.35, weights=None, include_top=False)
    outer = keras.Sequential(
        [keras.Input((96, 96, 3)), inner, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
    )
    flags = np.random.default_rng(seed).random(len(inner.layers)) < 0.5
    for one, flag in zip(inner.layers, flags, strict=True):
        one.trainable = bool(flag)
    words = {"moving_mean": "mean", "moving_variance": "variance"}
    expected = {
        (one.name, words.get(v.name, v.name)): np.asarray(v.value.detach()) for one in inner.layers for v in one.weights
    }
    outer.save_weights(tmp_path / "w.weights.h5")
    outer.save(tmp_path / "full.h5")
    for path in (tmp_path / "full.h5", tmp_path / "w.weights.h5"):
        weights = read_weights(path)
        got = {(t.layer, (t.role or "").removeprefix("depthwise_")): t.load() for t in weights}
        for key, values in expected.items():
            assert got[key].tobytes() == values.tobytes()
        assert len(got) == len(expected) + 2
