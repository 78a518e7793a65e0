"""TensorFlow checkpoints of every form against the framework's own numbers, and against damage."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from hostile import flipped, fuzz
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from protobuf_writer import (
    MAGIC,
    blob,
    checksum,
    entry,
    number,
    shape_proto,
    snappy_literals,
    table,
    varint,
    write_v1,
    write_v2,
)
from shared_cases import case, logits_error

from regraft.errors import WeightsError
from regraft.machine.crc32c import crc32c, masked
from regraft.weights.readers.protobuf import ProtobufError
from regraft.weights.readers.tensorflow import sstable, tf_checkpoint


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {
        "conv1/weights": draw.normal(size=(3, 3, 3, 8)).astype(np.float32),
        "conv1/biases": draw.normal(size=8).astype(np.float32),
        "conv1/BatchNorm/gamma": draw.normal(size=8).astype(np.float64),
        "conv1/BatchNorm/moving_variance": draw.random(8).astype(np.float16),
        "conv2/depthwise_weights": draw.normal(size=(3, 3, 8, 1)).astype(np.float32),
        "fc/weights": draw.normal(size=(32, 5)).astype(np.float32),
        "table": draw.integers(-100, 100, (4, 3)).astype(np.int8),
        "ids": draw.integers(-(2**40), 2**40, (7,)),
        "mask": draw.random(5) > 0.5,
    }


def write(version: int, path: Path, values: dict[str, np.ndarray], *, compress: bool = False) -> Path:
    if version == 1:
        write_v1(path, values, compress=compress)
        return path
    write_v2(path, values, compress=compress)
    return path.with_name(path.name + ".index")


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("version", [1, 2])
def test_values_come_back_bit_equal(tmp_path: Path, version: int, compress: bool) -> None:
    values = arrays()
    weights = tf_checkpoint.read(write(version, tmp_path / "model.ckpt", values, compress=compress))
    assert set(weights.tensors) == set(values)
    for name, value in values.items():
        loaded = weights.tensors[name].load()
        assert loaded.dtype == value.dtype
        assert np.array_equal(loaded, value)
    assert not weights.ordered


def test_names_tell_layers_roles_and_axes(tmp_path: Path) -> None:
    tensors = tf_checkpoint.read(write(2, tmp_path / "m", arrays())).tensors
    known = {name: (tensor.layer, tensor.role, tensor.axes) for name, tensor in tensors.items()}
    assert known["conv1/weights"] == ("conv1", "kernel", "HWIO")
    assert known["conv1/biases"] == ("conv1", "bias", "C")
    assert known["conv1/BatchNorm/moving_variance"] == ("conv1/BatchNorm", "variance", "C")
    assert known["conv2/depthwise_weights"] == ("conv2", "depthwise_kernel", "HWCM")
    assert known["fc/weights"] == ("fc", "kernel", "IO")


@pytest.mark.parametrize(
    "name", ["alexnet_tf1_ckpt_v1", "alexnet_tf1_ckpt_v2", "mbv1_savedmodel_k215", "tiny_ckpt_obj"]
)
def test_framework_numbers_come_out(name: str) -> None:
    folder = case(name)
    first = next(path for path in sorted(folder.iterdir()) if path.is_dir() or path.suffix in (".index", ".ckpt"))
    assert logits_error(folder, tf_checkpoint.read(first)) <= 1e-4


def test_v1_and_v2_of_one_network_are_equal() -> None:
    old = tf_checkpoint.read(case("alexnet_tf1_ckpt_v1") / "model.ckpt")
    new = tf_checkpoint.read(case("alexnet_tf1_ckpt_v2") / "model.ckpt.index")
    assert set(old.tensors) == set(new.tensors)
    assert all(np.array_equal(old.tensors[name].load(), new.tensors[name].load()) for name in old.tensors)


def test_every_way_to_name_one_checkpoint(tmp_path: Path) -> None:
    write(2, tmp_path / "model.ckpt-7", arrays())
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/home/somebody/train/model.ckpt-7"\n')
    (tmp_path / "model.ckpt-7.meta").write_bytes(b"the graph, which is not read")
    ways = [
        "model.ckpt-7.meta",
        "model.ckpt-7",
        "model.ckpt-7.index",
        "model.ckpt-7.data-00000-of-00001",
        "checkpoint",
        ".",
    ]
    for way in ways:
        path = tmp_path / way
        head = path.read_bytes()[:4096] if path.is_file() else b""
        assert tf_checkpoint.sniff(path, head), way
        assert len(tf_checkpoint.read(path)) == len(arrays()), way


def test_savedmodel_carries_the_keras_graph_and_its_layer_names() -> None:
    weights = tf_checkpoint.read(case("mbv1_savedmodel_k215") / "saved")
    assert weights.producer == "tensorflow 2.15.1"
    assert weights.ordered
    assert weights.graph is not None
    assert weights.graph["class_name"] == "Functional"
    assert [tensor.layer for tensor in weights][:2] == ["conv1", "conv1_bn"]
    assert weights.tensors["layer_with_weights-2/depthwise_kernel/.ATTRIBUTES/VARIABLE_VALUE"].axes == "HWCM"


def test_layers_of_an_object_checkpoint_are_counted_as_numbers() -> None:
    weights = tf_checkpoint.read(case("tiny_ckpt_obj") / "ckpt.index")
    assert weights.ordered
    places = [int(tensor.name.split("/")[3]) for tensor in weights]
    assert places == sorted(places)
    assert any("step" in note for note in weights.notes)


def test_optimizer_slots_and_counters_are_left_out_and_noted(tmp_path: Path) -> None:
    kernel = np.ones((2, 3), np.float32)
    extra = {"fc/weights/Adam": kernel, "fc/weights/Adam_1": kernel, "beta1_power": np.float32(0.9).reshape(())}
    counter = {"global_step": np.asarray(7)}
    weights = tf_checkpoint.read(write(2, tmp_path / "m", {"fc/weights": kernel, **extra, **counter}))
    assert list(weights.tensors) == ["fc/weights"]
    assert any("2 optimizer variables were skipped" in note for note in weights.notes)
    assert any("beta1_power, global_step" in note for note in weights.notes)


def test_moving_averages_are_a_set_of_their_own(tmp_path: Path) -> None:
    raw, average = np.zeros(3, np.float32), np.ones(3, np.float32)
    path = write(2, tmp_path / "m", {"conv/biases": raw, "conv/biases/ExponentialMovingAverage": average})
    (taken,) = tf_checkpoint.read(path)
    assert np.array_equal(taken.load(), raw)
    (taken,) = tf_checkpoint.read(path, key="ema")
    assert np.array_equal(taken.load(), average)
    assert (taken.layer, taken.role) == ("conv", "bias")
    with pytest.raises(WeightsError, match="no set of tensors named 'state_dict'"):
        tf_checkpoint.read(path, key="state_dict")


def graph_node(children: dict[str, int], variable: tuple[str, str] | None = None, slots: tuple[int, ...] = ()) -> bytes:
    out = b"".join(blob(1, number(1, place) + blob(2, name)) for name, place in children.items())
    if variable:
        out += blob(2, blob(1, "VARIABLE_VALUE") + blob(2, variable[0]) + blob(3, variable[1]))
    return blob(1, out + b"".join(blob(3, number(3, place)) for place in slots))


def test_weights_stored_under_the_optimizer_are_found(tmp_path: Path) -> None:
    """Keras 3 names the trained kernels after the optimizer's list of them, because that way is shorter."""
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    stored = {
        "opt/_trainable_variables/0" + suffix: np.ones((2, 3), np.float32),
        "opt/_variables/1" + suffix: np.full((2, 3), 9, np.float32),
        "opt/_iterations" + suffix: np.asarray(3),
    }
    graph = (
        graph_node({"model": 1, "opt": 2})
        + graph_node({"_functional": 3})
        + graph_node({"_iterations": 4, "_trainable_variables": 5, "_variables": 6})
        + graph_node({"_operations": 7})
        + graph_node({}, ("adam/iteration", "opt/_iterations" + suffix))
        + graph_node({"0": 8})
        + graph_node({"1": 9})
        + graph_node({"0": 10})
        + graph_node({}, ("net/fc/kernel", "opt/_trainable_variables/0" + suffix))
        + graph_node({}, ("adam/fc_kernel_momentum", "opt/_variables/1" + suffix))
        + graph_node({"_kernel": 8})
    )
    data = b"".join(array.tobytes() for array in stored.values())
    write_v2(tmp_path / "m", stored)
    place, text = len(data), varint(len(graph)) + b"\0\0\0\0" + graph
    entries = {
        b"": number(1, 1),
        b"_CHECKPOINTABLE_OBJECT_GRAPH": number(1, 7) + number(4, place) + number(5, len(text)),
    }
    offset = 0
    for name, array in stored.items():
        entries[name.encode()] = entry(str(array.dtype), array.shape, offset, array.nbytes)
        offset += array.nbytes
    (tmp_path / "m.index").write_bytes(table(entries))
    (tmp_path / "m.data-00000-of-00001").write_bytes(data + text)
    (kernel,) = weights = tf_checkpoint.read(tmp_path / "m.index")
    assert (kernel.layer, kernel.role, kernel.axes) == ("net/fc", "kernel", "IO")
    assert np.array_equal(kernel.load(), stored[kernel.name])
    assert weights.ordered
    assert any("2 optimizer variables were skipped" in note for note in weights.notes)


def test_partitioned_variables_are_put_together_and_noted(tmp_path: Path) -> None:
    whole = np.arange(700, dtype=np.float32).reshape(100, 7)

    def extents(start: int, rows: int) -> bytes:
        return blob(1, number(1, start) + number(2, rows)) + blob(1, b"")

    def key(start: bytes, rows: bytes) -> bytes:  # TensorFlow's ordered code: 70 = c046, 30 = 9e, all = 7f
        return b"\0" + b"w\0\1" + b"\1\2" + start + rows + b"\x80\x7f"

    entries = {
        b"": number(1, 1),
        b"w": number(1, 1) + blob(2, shape_proto((100, 7))) + blob(7, extents(0, 70)) + blob(7, extents(70, 30)),
        key(b"\x80", b"\xc0\x46"): entry("float32", (70, 7), 0, 70 * 28),
        key(b"\xc0\x46", b"\x9e"): entry("float32", (30, 7), 70 * 28, 30 * 28),
    }
    (tmp_path / "m.index").write_bytes(table(entries))
    (tmp_path / "m.data-00000-of-00001").write_bytes(whole.tobytes())
    weights = tf_checkpoint.read(tmp_path / "m.index")
    assert np.array_equal(weights.tensors["w"].load(), whole)
    assert any("w (2 parts)" in note for note in weights.notes)
    del entries[key(b"\xc0\x46", b"\x9e")]
    (tmp_path / "m.index").write_bytes(table(entries))
    with pytest.raises(WeightsError, match="a part of 'w' is missing"):
        tf_checkpoint.read(tmp_path / "m.index")


def test_two_ways_of_counting_give_no_order(tmp_path: Path) -> None:
    def ordered(*names: str) -> bool:
        values = {f"{name}/kernel/.ATTRIBUTES/VARIABLE_VALUE": np.ones((2, 2), np.float32) for name in names}
        return tf_checkpoint.read(write(2, tmp_path / "m", values)).ordered

    assert ordered("layer_with_weights-0", "layer_with_weights-1")
    assert ordered("model/_operations/3", "model/_operations/11")
    assert not ordered("layer_with_weights-0", "layer-1")
    assert not ordered("layer_with_weights-0", "head")


def test_bfloat16_is_widened_exactly(tmp_path: Path) -> None:
    bits = np.array([0x3FC0, 0xC020, 0x0001, 0x7F80], np.uint16)
    (tmp_path / "m.index").write_bytes(table({b"": number(1, 1), b"w": entry("bfloat16", (4,), 0, 8)}))
    (tmp_path / "m.data-00000-of-00001").write_bytes(bits.tobytes())
    (tensor,) = tf_checkpoint.read(tmp_path / "m.index")
    assert tensor.dtype == "bfloat16"
    assert np.array_equal(tensor.load(), np.array([1.5, -2.5, 2.0**-133, np.inf], np.float32))


def test_missing_data_file_is_named() -> None:
    with pytest.raises(WeightsError, match=r"needs the file 'model\.ckpt\.data-00000-of-00001'"):
        tf_checkpoint.read(case("adv_ckpt_without_data") / "model.ckpt.index")


def test_short_data_file_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    path = write(2, tmp_path / "m", arrays())
    data = tmp_path / "m.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="truncated"):
        tf_checkpoint.read(path)


def test_a_flipped_byte_never_gives_other_values(tmp_path: Path) -> None:
    values = {"w": np.arange(200, dtype=np.float32)}
    path = write(2, tmp_path / "m", values)
    data = tmp_path / "m.data-00000-of-00001"
    for place in (0, 399, 799):
        wrong = bytearray(values["w"].tobytes())
        wrong[place] ^= 1
        data.write_bytes(wrong)
        with pytest.raises(WeightsError, match="the checksum is wrong"):
            tf_checkpoint.read(path).tensors["w"].load()


@pytest.mark.parametrize("size", [0, 1, 9, 1023, 1024, 1025, 5000, (1 << 20) + 3])
def test_checksum_of_any_length(size: int) -> None:
    data = np.random.default_rng(size).bytes(min(size, 5000)) * (1 if size <= 5000 else 1 + size // 5000)
    if size <= 5000:
        assert masked(crc32c(data)).to_bytes(4, "little") == checksum(data)
    else:  # in pieces: what goes before counts
        assert crc32c(data) != crc32c(b"\1" + data[1:])
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720


def test_data_file_changed_after_reading_is_an_error(tmp_path: Path) -> None:
    path = write(2, tmp_path / "m", arrays())
    weights = tf_checkpoint.read(path)
    (tmp_path / "m.data-00000-of-00001").write_bytes(b"")
    with pytest.raises(WeightsError, match="has changed"):
        weights.tensors["fc/weights"].load()


@pytest.mark.parametrize("link", ["symbolic", "hard"])
def test_data_file_that_is_a_link_is_refused(tmp_path: Path, link: str) -> None:
    path = write(2, tmp_path / "m", arrays())
    data, elsewhere = tmp_path / "m.data-00000-of-00001", tmp_path / "secret"
    shutil.move(data, elsewhere)
    if link == "hard":
        os.link(elsewhere, data)
    else:
        data.symlink_to(elsewhere)
    with pytest.raises(WeightsError, match="link"):
        tf_checkpoint.read(path)


def test_a_checkpoint_file_leads_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()
    write(2, tmp_path / "away" / "m", arrays())
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "checkpoint").write_text('model_checkpoint_path: "../away/m"\n')
    with pytest.raises(WeightsError, match="'m', which does not exist"):
        tf_checkpoint.read(tmp_path / "here")


def test_folder_with_several_checkpoints_asks_which(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(2, tmp_path / name, arrays())
    with pytest.raises(WeightsError, match=r"a\.index, b\.index"):
        tf_checkpoint.read(tmp_path)


def test_only_an_optimizer_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds no weights"):
        tf_checkpoint.read(write(2, tmp_path / "m", {"global_step": np.asarray(3)}))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("compress", [False, True])
def test_damage_is_refused_or_read_but_nothing_else(tmp_path: Path, version: int, compress: bool) -> None:
    path = write(version, tmp_path / "m.ckpt", arrays(), compress=compress)
    num_cut_read, _ = fuzz(tf_checkpoint, path, seed=version)
    assert num_cut_read == 0


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_read_of_a_damaged_table_is_right(tmp_path: Path, version: int) -> None:
    values = {"conv/weights": np.arange(12, dtype=np.float32).reshape(3, 4), "conv/biases": np.ones(4, np.float32)}
    path = write(version, tmp_path / "m.ckpt", values)
    num_read = 0
    for broken in flipped(path.read_bytes(), 200, random.Random(version)):
        path.write_bytes(broken)
        try:
            weights = tf_checkpoint.read(path)
        except WeightsError:
            continue
        num_read += 1  # a byte of the footer's padding, or of the unused meta index
        assert all(np.array_equal(weights.tensors[name].load(), value) for name, value in values.items())
    assert num_read > 0


def test_declared_sizes_bring_no_memory(tmp_path: Path) -> None:
    huge = number(1, 1) + blob(2, shape_proto((1 << 20, 1 << 18)))
    for hostile, said in (
        (huge + number(5, 1 << 40), rf"should be at 0\.\.{1 << 40}"),
        (huge + number(5, 4), "'w' has 4 bytes for the shape"),
        (number(1, 1) + blob(2, shape_proto((1 << 50,))), "a shape of 1 axes"),
    ):
        (tmp_path / "m.index").write_bytes(table({b"": number(1, 1), b"w": hostile}))
        (tmp_path / "m.data-00000-of-00001").write_bytes(b"0000")
        with pytest.raises(WeightsError, match=said):
            tf_checkpoint.read(tmp_path / "m.index")


def test_variables_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    entries = {f"w{place}".encode(): entry("float32", (256,), 0, 1024) for place in range(50)}
    (tmp_path / "m.index").write_bytes(table({b"": number(1, 1), **entries}))
    (tmp_path / "m.data-00000-of-00001").write_bytes(bytes(1024))
    with pytest.raises(WeightsError, match="overlap"):
        tf_checkpoint.read(tmp_path / "m.index")


def test_blocks_named_over_and_over_are_refused() -> None:
    block = b"\0\1\1ab" + b"\0\0\0\0\1\0\0\0"
    handle = varint(0) + varint(len(block))
    index = b"".join(b"\0\1" + varint(len(handle)) + b"k" + handle for _ in range(200)) + b"\0\0\0\0\1\0\0\0"
    start = len(block) + 5
    body = b"".join(part + b"\0" + checksum(part + b"\0") for part in (block, index))
    footer = (varint(0) + varint(8) + varint(start) + varint(len(index))).ljust(40, b"\0") + MAGIC
    with pytest.raises(ProtobufError, match="overlap"):
        list(sstable.entries(memoryview(body + footer)))


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.binary(max_size=300)
    | st.builds(lambda byte, size: byte * size, st.binary(min_size=1, max_size=3), st.integers(1, 500))
)
def test_snappy_round_trip(data: bytes) -> None:
    assert sstable.snappy(memoryview(snappy_literals(data))) == data


def test_snappy_bomb_is_refused_before_it_grows() -> None:
    with pytest.raises(ProtobufError, match="claims to hold"):
        sstable.snappy(memoryview(varint(1 << 30) + b"\0a" + b"\xfe\1\0" * 10))


@pytest.mark.parametrize("name", ["safetensors_other_head", "caffemodel_alexnet", "onnx_bn_kept", "pth_whole_module"])
def test_other_formats_are_not_claimed(name: str) -> None:
    for path in case(name).iterdir():
        assert not tf_checkpoint.sniff(path, path.read_bytes()[:4096])


# The framework itself


@pytest.mark.oracle
@pytest.mark.parametrize("version", [1, 2])
def test_what_tensorflow_writes_of_a_graph(tmp_path: Path, version: int) -> None:
    """Partitioned variables, Adam's slots, moving averages and half floats, in both formats of `Saver`."""
    v1 = pytest.importorskip("tensorflow").compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        normal = v1.random_normal_initializer(seed=1)
        whole = {"use_resource": False, "initializer": normal}
        parts = v1.get_variable("conv/weights", (5, 3, 4, 300), partitioner=v1.fixed_size_partitioner(3), **whole)
        biases = v1.get_variable("conv/biases", (300,), **whole)
        half = v1.get_variable("half", (4, 5), dtype=v1.float16, initializer=v1.ones_initializer(), use_resource=False)
        v1.train.get_or_create_global_step()
        v1.train.AdamOptimizer().minimize(v1.reduce_sum(biases**2))
        v1.train.ExponentialMovingAverage(0.9).apply([biases])
        session.run([variable.initializer for variable in v1.trainable_variables()])
        session.run(v1.global_variables_initializer())
        expected = {"conv/weights": np.concatenate(session.run(list(parts))), "half": session.run(half)}
        expected["conv/biases"] = session.run(biases)
        prefix = v1.train.Saver(write_version=version).save(session, str(tmp_path / "model.ckpt"), global_step=7)
    weights = tf_checkpoint.read(Path(prefix))
    assert set(weights.tensors) == set(expected)
    assert all(np.array_equal(weights.tensors[name].load(), value) for name, value in expected.items())
    assert len(weights.notes) == 4  # averages, counters, optimizer, parts


@pytest.mark.oracle
def test_what_keras_writes_of_a_trained_model(tmp_path: Path) -> None:
    """The checkpoint of a nested model with its optimizer, and its exported SavedModel: every weight, once."""
    tensorflow = pytest.importorskip("tensorflow")
    keras = pytest.importorskip("keras")
    layers = [keras.layers.Conv2D(4, 3, name="a"), keras.layers.BatchNormalization(name="b"), keras.layers.Flatten()]
    inner = keras.Sequential([keras.layers.Input((8, 8, 3)), *layers], name="inner")
    model = keras.Sequential([keras.layers.Input((8, 8, 3)), inner, keras.layers.Dense(2, name="out")], name="net")
    model.compile("adam", "mse")
    model.fit(np.random.default_rng(0).random((4, 8, 8, 3)), np.zeros((4, 2)), verbose=0)
    tensorflow.train.Checkpoint(model=model, optimizer=model.optimizer).save(str(tmp_path / "run" / "ckpt"))
    model.export(str(tmp_path / "exported"), verbose=False)
    words = {"kernel": "kernel", "bias": "bias", "gamma": "gamma", "beta": "beta"}
    words |= {"mean": "moving_mean", "variance": "moving_variance"}
    expected = {variable.path: np.asarray(variable) for variable in model.variables}
    for folder in ("run", "exported"):
        weights = tf_checkpoint.read(tmp_path / folder)
        assert weights.ordered
        found = {f"{tensor.layer}/{words[tensor.role or '']}": tensor.load() for tensor in weights}
        assert set(found) == {name for name in expected if "seed" not in name}
        assert all(np.array_equal(value, expected[name]) for name, value in found.items())
        assert next(tensor.layer for tensor in weights).endswith("a")
