"""TIFF files of any number of bands."""

from __future__ import annotations

import struct
import zlib

import numpy as np


def tiff(
    pixels: np.ndarray,
    *,
    rows: int = 4,
    tile: tuple[int, int] | None = None,
    planar: bool = False,
    compression: int = 1,
    predictor: int = 1,
    order: str = "<",
    big: bool = False,
    **other: int,
) -> bytes:
    """A TIFF written by hand: the test must not share regraft's or Pillow's idea of the format."""
    height, width, bands = pixels.shape
    parts = []
    for planes in np.split(pixels, bands, axis=2) if planar else [pixels]:
        block = tile or (rows, width)
        for top in range(0, height, block[0]):
            for left in range(0, width, block[1]):
                part = planes[top : top + block[0], left : left + block[1]]
                if tile:
                    padding = [(0, side - have) for side, have in zip(tile, part.shape, strict=False)]
                    part = np.pad(part, [*padding, (0, 0)])
                if predictor == 2:
                    part = np.diff(part, axis=1, prepend=part.dtype.type(0))
                raw = np.ascontiguousarray(part).astype(part.dtype.newbyteorder(order)).tobytes()
                parts.append(zlib.compress(raw) if compression in (8, 32946) else raw)
    size_type = "Q" if big else "I"
    header = struct.pack(order + "2sH", b"II" if order == "<" else b"MM", 43 if big else 42)
    header += struct.pack(order + "HHQ", 8, 0, 16) if big else struct.pack(order + "I", 8)
    numbers = {
        256: (width,), 257: (height,), 258: (pixels.dtype.itemsize * 8,) * bands, 259: (compression,), 262: (1,),
        277: (bands,), 284: (2 if planar else 1,), 317: (predictor,), 339: (1,) * bands,
    }  # fmt: skip
    numbers |= {322: (tile[1],), 323: (tile[0],)} if tile else {278: (rows,)}
    numbers |= {int(name[1:]): (value,) for name, value in other.items()}
    places, lengths = (324, 325) if tile else (273, 279)
    entry, slot = (20, 8) if big else (12, 4)
    start = len(header) + (8 if big else 2) + entry * (len(numbers) + 2) + slot
    longs = struct.calcsize(f"{order}{len(parts)}{size_type}")
    shorts = sum(2 * len(values) for values in numbers.values() if 2 * len(values) > slot)
    first = start + shorts + 2 * longs
    offsets = [first + sum(map(len, parts[:n])) for n in range(len(parts))]
    tables: dict[int, tuple[int, ...]] = {**numbers, places: tuple(offsets), lengths: tuple(map(len, parts))}
    body, tail = b"", b""
    for tag, values in sorted(tables.items()):
        kind, code = ("H", 3) if tag in numbers and max(values) < 2**16 else (size_type, 16 if big else 4)
        raw = struct.pack(f"{order}{len(values)}{kind}", *values)
        if len(raw) > slot:
            raw, tail = struct.pack(order + size_type, start + len(tail)), tail + raw
        body += struct.pack(order + "HH" + size_type, tag, code, len(values)) + raw.ljust(slot, b"\0")
    directory = struct.pack(order + ("Q" if big else "H"), len(tables)) + body + bytes(slot)
    tail = tail.ljust(first - start, b"\0")
    return header + directory + tail + b"".join(parts)
