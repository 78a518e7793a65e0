"""The protobuf wire format: numbers of any size come back, and any bytes are read or refused."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hostile import survive
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from protobuf_writer import blob, number, packed, real, varint

from regraft.weights.readers.caffe import caffemodel
from regraft.weights.readers.onnx import onnx
from regraft.weights.readers.protobuf import Message, ProtobufError, fields, read_varint, varints
from regraft.weights.readers.tensorflow import tf_checkpoint

INTEGERS = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(INTEGERS))
def test_packed_and_single_numbers_come_back(values: list[int]) -> None:
    content = packed(1, values) + b"".join(number(2, value) for value in values)
    message = Message(memoryview(content))
    assert message.integers(1) == values
    assert message.integers(2) == values
    assert varints(memoryview(b"".join(varint(value) for value in values))).tolist() == values


@given(st.lists(st.floats(width=32, allow_nan=False)))
def test_floats_packed_or_not(values: list[float]) -> None:
    message = Message(memoryview(blob(1, np.array(values, "<f4").tobytes()) + b"".join(real(2, v) for v in values)))
    assert message.floats(1) == values
    assert message.floats(2) == values


def test_the_last_of_several_values_counts() -> None:
    message = Message(memoryview(number(1, 3) + blob(2, "old") + number(1, 4) + blob(2, "new")))
    assert (message.integer(1), message.text(2), message.integer(9, 7), message.text(9, "none")) == (
        4,
        "new",
        7,
        "none",
    )


def test_places_are_those_of_the_file() -> None:
    content = number(1, 1) + blob(2, blob(3, b"values"))
    inner = Message(memoryview(content)).message(2)
    assert inner is not None
    ((offset, size),) = inner.places(3)
    assert content[offset : offset + size] == b"values"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x0a\x05abc", "has 5 bytes, and only 3 are left"),
        (b"\x0b", "wire type 3"),
        (b"\x07", "field number 0"),
        (b"\x00\x01", "field number 0"),
        (b"\x08", "a truncated varint"),
        (b"\x08" + b"\xff" * 11, "more than 10 bytes"),
        (b"\x0d\1\2", "has 4 bytes, and only 2 are left"),
        (b"\x0a" + b"\xff" * 9 + b"\1", "and only 0 are left"),
    ],
)
def test_damage_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(ProtobufError, match=said):
        list(fields(memoryview(content)))


def test_numbers_of_more_than_ten_bytes_are_refused() -> None:
    for read in (lambda data: read_varint(data, 0), varints):
        with pytest.raises(ProtobufError, match="more than 10 bytes"):
            read(memoryview(b"\xff" * 12 + b"\1"))


def test_a_message_of_endless_fields_is_refused() -> None:
    with pytest.raises(ProtobufError, match="more elements"):
        Message(memoryview(number(1, 1) * 1_100_000))


@pytest.mark.parametrize("reader", [caffemodel, onnx, tf_checkpoint])
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=st.binary(min_size=1, max_size=400))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, reader: ModuleType, content: bytes
) -> None:
    path: Path = tmp_path_factory.getbasetemp() / f"any.{reader.FORMAT}"
    path.write_bytes(content)
    survive(reader, path)
