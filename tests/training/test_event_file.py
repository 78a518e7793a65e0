"""Event files: their checksums, their framing, and what TensorBoard itself reads back from them."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.errors import StorageError
from regraft.machine.crc32c import crc32c
from regraft.training.loggers.event_file import EventFile, event_files, graph_node, histogram, picture, scalar

tensorboard = pytest.importorskip("tensorboard", reason="TensorBoard, which reads the files back, is not installed")


def test_the_checksum_of_rfc_3720() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"") == 0


@settings(deadline=None, max_examples=25)
@given(st.sampled_from([0, 1, 8, 9, 11]), st.integers(0, 1023), st.integers(0, 99))
def test_checksums_of_all_lengths_are_those_of_tensorboard(num_rows: int, num_left: int, seed: int) -> None:
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import crc32c as theirs

    data = random.Random(seed).randbytes(num_rows * 1024 + num_left)
    assert crc32c(data) == theirs(data)


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    file = EventFile(tmp_path / "tensorboard")
    file.add_graph([graph_node("input", "input", [], {}), graph_node("a/b", "Conv2d", ["input"], {"weight": "3 x 3"})])
    file.add_values(7, [scalar("curve", 0.25), scalar("other", -1e30)])
    file.add_values(300, [scalar("curve", float("inf")), histogram("h", [-1, 3, 4, 2, 20], [0, 1, 3], [1, 0, 3])])
    file.add_values(1 << 40, [picture("größe", b"not really a PNG" * 1000, height=2, width=300, channels=3)])
    file.flush()
    read = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={}).Reload()
    assert [(event.step, event.value) for event in read.Scalars("curve")] == [(7, 0.25), (300, float("inf"))]
    assert read.Scalars("other")[0].value == struct.unpack("<f", struct.pack("<f", -1e30))[0]
    (counts,) = read.Histograms("h")
    assert counts.step == 300
    assert list(counts.histogram_value.bucket_limit) == [0, 1, 3]
    assert list(counts.histogram_value.bucket) == [1, 0, 3]
    assert (counts.histogram_value.min, counts.histogram_value.max, counts.histogram_value.num) == (-1, 3, 4)
    assert (counts.histogram_value.sum, counts.histogram_value.sum_squares) == (2, 20)
    (image,) = read.Images("größe")
    assert (image.step, image.height, image.width) == (1 << 40, 2, 300)
    assert image.encoded_image_string == b"not really a PNG" * 1000
    input_node, node = read.Graph().node
    assert (input_node.name, node.name, node.op, list(node.input)) == ("input", "a/b", "Conv2d", ["input"])
    assert node.attr["weight"].s == b"3 x 3"


def test_files_of_the_same_second_are_read_in_the_order_in_which_they_were_begun(tmp_path: Path) -> None:
    made = []
    for _ in range(12):
        file = EventFile(tmp_path)
        file.flush()
        made.append(file.path)
    assert event_files(tmp_path) == made


def test_a_folder_that_cannot_be_made_is_an_error_of_the_disk(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("a file")
    with pytest.raises(StorageError, match="there is a file of that name"):
        EventFile(tmp_path / "tensorboard")
