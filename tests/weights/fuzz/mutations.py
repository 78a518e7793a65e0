"""Ways to damage a file: blind ones for any bytes, and ones that know JSON, pickles, protobuf, zip and TF tables.

Those that know a format repair what would give the damage away at once (lengths, checksums), so that it gets deeper.
"""

from __future__ import annotations

import io
import json
import random
import re
import struct
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import protobuf_writer as proto
from seeds import Seed

from regraft.weights.readers.tensorflow import sstable

__all__ = ["mutated"]

NUMBERS = [
    0,
    1,
    2,
    7,
    31,
    32,
    33,
    64,
    127,
    128,
    255,
    256,
    4096,
    65535,
    65536,
    2**20,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
]
NUMBERS += [2**32, 2**40, 2**53, 2**56, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
PIECES = [
    b"(", b"t", b"}", b"]", b")", b"\x85", b"\x86", b"\x87", b"2", b"0", b"1", b"u", b"e", b"a", b"s", b"R", b"b", b"Q",
    b"\x81", b"\x8f", b"\x90", b"\x91", b"\x93", b"N", b"q\x00", b"h\x00", b"h\x01", b"K\x00", b"J\xff\xff\xff\xff",
    b"cos\nsystem\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"c__builtin__\nset\n", b"c_codecs\nencode\n",
    b"ctorch\nFloatStorage\n", b"ccollections\nOrderedDict\n", b"L99999999999999999999999999L\n",
    b"\x8a\x21" + b"\x7f" * 33,
    b"X\x04\x00\x00\x00name", b"PK\x01\x02", b"\x89HDF\r\n\x1a\n", b"TREE", b"SNOD", b"GCOL", b"HEAP", b"OHDR",
    b"\0" * 8, b"\xff" * 8, b'{"', b"[[", b"../", b"a/", b"a.", b"\xf0\x9f\x98\x80", b"\xff\xfe", b"1e999", b"-1",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, -1, 0, 1, 2**63, 2**64, 10**30, 1.5, 1e308, "", "x", "../x", "/etc/passwd", "F64", "BOOL", "a" * 5000,
    "7" * 5000, "a." * 5000, [], {}, [[]], [0], [1, 1], [2**62, 0], [1] * 70, {"a": {"a": {}}}, "\ud800", "\u202e",
]  # fmt: skip


def mutated(seed: Seed, others: list[Seed], numbers: random.Random) -> bytes:
    """The seed's bytes, damaged in one to four places."""
    content = seed.content
    for _ in range(numbers.choice((1, 1, 1, 2, 2, 3, 4))):
        knowing = [change for knows, change in _KNOWING if knows(content)]
        if knowing and numbers.random() < 0.5:
            content = numbers.choice(knowing)(content, numbers)
        else:
            content = _blind(content, others, numbers)
        content = content[: 1 << 20]
    return content


# Any bytes


def _blind(content: bytes, others: list[Seed], numbers: random.Random) -> bytes:
    if not content:
        return numbers.choice(PIECES)
    at = numbers.randrange(len(content))
    kind = numbers.randrange(9)
    if kind == 0:
        return _set(content, at, bytes([content[at] ^ (1 << numbers.randrange(8))]))
    if kind == 1:
        return _set(content, at, numbers.randbytes(numbers.randint(1, 8)))
    if kind == 2:
        return content[:at]
    if kind == 3:
        return content[:at] + numbers.choice(PIECES) * numbers.choice((1, 1, 1, 2, 50)) + content[at:]
    if kind == 4:
        return content[:at] + content[at + numbers.choice((1, 2, 4, 8, 40)) :]
    if kind == 5:
        size = numbers.randint(1, 64)
        return content[:at] + content[at : at + size] * numbers.choice((2, 2, 3, 200)) + content[at + size :]
    if kind == 6:
        other = numbers.choice(others).content
        start = numbers.randrange(len(other))
        return content[:at] + other[start : start + numbers.randint(1, 200)] + content[at + numbers.randint(0, 200) :]
    if kind == 7:
        return _number(content, at, numbers)
    return _digits(content, numbers)


def _set(content: bytes, at: int, value: bytes) -> bytes:
    return content[:at] + value + content[at + len(value) :]


def _number(content: bytes, at: int, numbers: random.Random) -> bytes:
    """A field of 1, 2, 4 or 8 bytes, as a length may be stored."""
    form = numbers.choice(("B", "<H", "<I", "<Q", ">I", ">Q"))
    at -= at % struct.calcsize(form) if numbers.random() < 0.5 else 0
    value = numbers.choice([*NUMBERS, len(content), len(content) - at, max(0, at - 1)])
    return _set(content, at, struct.pack(form, value % (1 << 8 * struct.calcsize(form))))


def _digits(content: bytes, numbers: random.Random) -> bytes:
    """A number in text."""
    found = [match.span() for match in re.finditer(rb"\d+", content[:65536])]
    if not found:
        return content
    start, end = numbers.choice(found)
    value = numbers.choice([b"0", b"-1", b"1", b"9" * 5000, b"9" * 30, b"1e9", str(numbers.choice(NUMBERS)).encode()])
    return content[:start] + value + content[end:]


# JSON: alone, and in the header of safetensors


def _json(content: bytes, numbers: random.Random) -> bytes:
    lead = content[:8] if content[:1] != b"{" else b""
    size = struct.unpack("<Q", lead)[0] if lead else len(content)
    try:
        root = json.loads(content[len(lead) : len(lead) + size])
    except (ValueError, RecursionError):
        return content
    _change(root, numbers)
    try:
        text = json.dumps(root).encode()
    except (ValueError, RecursionError):
        return content
    if numbers.random() < 0.1:
        text = text.replace(b"[", b"[" * numbers.choice((2, 2000))).replace(b"}", b"}" * numbers.choice((1, 2)))
    return (struct.pack("<Q", len(text)) if lead else b"") + text + content[len(lead) + size :]


def _change(root: Any, numbers: random.Random) -> None:
    """Change one value, key or entry somewhere in it."""
    places = [root]
    for place in places[:2000]:
        inside = place.values() if isinstance(place, dict) else place
        places += [value for value in inside if isinstance(value, dict | list) and value]
    place = numbers.choice(places[:2000])
    if isinstance(place, list):
        if place:
            place[numbers.randrange(len(place))] = numbers.choice(VALUES)
        return
    if not isinstance(place, dict) or not place:
        return
    key = numbers.choice(list(place))
    value = place.pop(key) if numbers.random() < 0.4 else place[key]
    if numbers.random() < 0.4:
        place[str(numbers.choice(VALUES))] = value
    else:
        place[key] = numbers.choice(VALUES)


# Pickles: instructions put in or taken out


def _pickle(content: bytes, numbers: random.Random) -> bytes:
    start = max(content.find(b"\x80\x02"), content.find(b"\x80\x04"), 0)
    end = content.rfind(b".")
    if end <= start:
        return content
    at = numbers.randint(start, end)
    piece = b"".join(numbers.choices(PIECES[:37], k=numbers.choice((1, 1, 2, 3, 30))))
    return content[:at] + piece + content[at + numbers.choice((0, 0, 1, 3)) :]


# Protobuf: fields dropped, doubled, exchanged, changed, with the lengths around them


def _protobuf(content: bytes, numbers: random.Random, depth: int = 0) -> bytes:
    fields = _fields(content)
    if not fields:
        return content
    at = numbers.randrange(len(fields))
    number, kind, value = fields[at]
    choice = numbers.randrange(7)
    if kind == 2 and depth < 6 and len(value) > 2 and choice > 1:
        fields[at] = number, kind, _protobuf(value, numbers, depth + 1)
    elif choice == 0:
        del fields[at]
    elif choice == 1:
        fields += [fields[at]] * numbers.choice((1, 1, 20))
    elif choice == 2:
        fields[at] = numbers.choice((1, 2, 3, 5, 7, 8, 13, 14, number + 1)), kind, value
    elif kind == 0:
        fields[at] = number, kind, proto.varint(numbers.choice(NUMBERS))
    else:
        fields[at] = number, kind, value[: numbers.randint(0, len(value))] + numbers.randbytes(numbers.randint(0, 9))
    return b"".join(_field(*field) for field in fields)


def _field(number: int, kind: int, value: bytes) -> bytes:
    return proto.varint(number << 3 | kind) + (proto.varint(len(value)) if kind == 2 else b"") + value


def _fields(content: bytes) -> list[tuple[int, int, bytes]]:
    found, at = [], 0
    try:
        while at < len(content):
            tag, at = _varint(content, at)
            kind, start = tag & 7, at
            if kind == 0:
                _, at = _varint(content, at)
            elif kind == 2:
                size, start = _varint(content, at)
                at = start + size
            else:
                at += {1: 8, 5: 4}[kind]
            if at > len(content):
                return []
            found.append((tag >> 3, kind, content[start:at]))
    except (IndexError, KeyError):
        return []
    return found


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


# Zip: one member changed, its checksum with it


def _zip(content: bytes, numbers: random.Random) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(info, archive.read(info)) for info in archive.infolist()]
    except Exception:
        return content
    if not members:
        return content
    at = numbers.randrange(len(members))
    pickles = [place for place, (info, _) in enumerate(members) if info.filename.endswith(".pkl")]
    if pickles and numbers.random() < 0.7:
        at = pickles[0]
    info, inner = members[at]
    if numbers.random() < 0.15:
        info.filename = numbers.choice(["x.npy", "../x", "archive/data.pkl", "a" * 9000, info.filename + "/x", ""])
    members[at] = info, mutated(Seed("", "", inner), [Seed("", "", content)], numbers) if inner else b"x"
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as archive:
        warnings.simplefilter("ignore")
        for info, inner in members:
            archive.writestr(info.filename or "x", inner, info.compress_type)
    return out.getvalue()


# TensorFlow tables: one entry changed, the blocks written anew


def _table(content: bytes, numbers: random.Random) -> bytes:
    try:
        entries = {entry.key: bytes(entry.value) for entry in sstable.entries(memoryview(content))}
    except Exception:
        return content
    if not entries:
        return content
    key = numbers.choice(list(entries))
    value = entries.pop(key)
    if numbers.random() < 0.1:
        key = numbers.choice([b"", b"\0", b"x" * 9000, b"\xff\xfe", key + b"/x", b"_CHECKPOINTABLE_OBJECT_GRAPH"])
    entries[key] = _protobuf(value, numbers)
    return proto.table(entries, per_block=numbers.choice((1, 3)), compress=numbers.random() < 0.3)


def _checked_table(content: bytes, numbers: random.Random) -> bytes:
    """A byte of the first block changed, its checksum with it."""
    size = numbers.randint(1, min(200, max(1, len(content) - 6)))
    at = numbers.randrange(size)
    block = _set(content[:size], at, numbers.randbytes(1))
    return block[:size] + proto.checksum(block[:size]) + content[size + 4 :]


Change = Callable[[bytes, random.Random], bytes]
_KNOWING: list[tuple[Callable[[bytes], bool], Change]] = [
    (lambda content: content[:1] == b"{" or content[8:9] == b"{", _json),
    (lambda content: b"\x80\x02" in content[:200] or b"\x80\x04" in content[:200] or b"(dp" in content[:200], _pickle),
    (lambda content: content[:1] in b"\x08\x0a\x12" and content[:1] != b"", _protobuf),
    (lambda content: content[:2] == b"PK", _zip),
    (lambda content: sstable.is_table(content[-8:]), _table),
    (lambda content: sstable.is_table(content[-8:]), _checked_table),
]
