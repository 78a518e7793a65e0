"""Tables with images in a column: Parquet, and Arrow files as Hugging Face's library saves them (extra `hf`).

Each row is a member, `COLUMN/00000012.png`, whatever the format of its image. In an Arrow file the bytes of an image
lie as they are, and are read from their place; of a Parquet file the last groups of rows are kept in memory.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from regraft.data.files.disk_file import ChangedError, DiskFile
from regraft.data.files.index import Index
from regraft.data.files.members import Members
from regraft.errors import DataError

__all__ = [
    "IMAGE_COLUMNS",
    "ParquetRows",
    "TableLabels",
    "image_name",
    "is_arrow",
    "is_parquet",
    "list_arrow",
    "list_parquet",
    "table_labels",
]

_MOST_GROUPS = 2  # kept in memory; threads that read in order meet in one or two
_LARGEST_GROUP = 1 << 31
_BYTES = "bytes"
IMAGE_COLUMNS = ("image", "img", "photo", "picture", "jpg", "jpeg", "png", "pixel_values", "bytes")
_NULL = "is empty in the table"


@dataclass(frozen=True)
class TableLabels:
    """The labels of a table's rows.

    Attributes:
        column: The name of their column.
        values: One for each row, as plain Python values; None where there is none.
        names: What numbers stand for, as `ClassLabel` says it; empty where nothing does.
    """

    column: str
    values: list[Any]
    names: tuple[str, ...] = ()


def is_parquet(head: bytes) -> bool:
    """Return whether a file that begins like this is a Parquet file."""
    return head.startswith(b"PAR1")


def is_arrow(head: bytes, name: str) -> bool:
    """Return whether a file that begins like this is an Arrow file; a stream of them is told by its name too."""
    return head.startswith(b"ARROW1") or (head.startswith(b"\xff\xff\xff\xff") and name.lower().endswith(".arrow"))


def image_name(row: int) -> str:
    """Return what the image of a row is called in the folder of its column."""
    return f"{row:08}.png"


def list_arrow(file: DiskFile) -> Index:
    """Return the index of an Arrow file, each image with its place in the file.

    Raises:
        DataError: It cannot be read, has no images, or is compressed.
    """
    members, row = Members("arrow"), 0
    with _opened(file) as pa, pa.memory_map(file.path) as mapped:
        whole = mapped.read_buffer()
        reader = _reader(pa, whole)
        columns = _image_columns(file, pa, reader.schema)
        for batch in _batches(reader):
            for name in columns:
                _add_batch(members, file, name, batch.column(name), row, (whole.address, whole.size))
            row += batch.num_rows
    return members.index()


def list_parquet(file: DiskFile) -> Index:
    """Return the index of a Parquet file, each image with its group and its row there.

    Raises:
        DataError: It cannot be read, has no images, or groups of rows that are too large.
    """
    members, row = Members("parquet"), 0
    with _opened(file):
        rows = ParquetRows(file)
        for group in range(rows.num_groups):
            for name in rows.columns:
                for place, size in enumerate(_sizes(rows.group(group, name))):
                    fault = _NULL if size < 0 else ""
                    path = f"{name}/{image_name(row + place)}"
                    members.add_file(path, group, max(size, 0), packed=place, fault=fault)
            row += rows.group_size(group)
    return members.index()


class ParquetRows:
    """The images of a Parquet file, by group of rows.

    Args:
        file: It.

    Attributes:
        columns: The columns with images.
        num_groups: How many groups of rows it has.
    """

    def __init__(self, file: DiskFile) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._file, self._parquet = file, pq
        with pq.ParquetFile(file.path) as table:
            self._metadata = table.metadata
            self.columns = _image_columns(file, pa, table.schema_arrow)
            self._is_struct = {name: pa.types.is_struct(table.schema_arrow.field(name).type) for name in self.columns}
        self.num_groups = self._metadata.num_row_groups
        self._kept: dict[tuple[int, str], Any] = {}
        self._lock = threading.Lock()

    def group_size(self, group: int) -> int:
        """Return the number of rows in a group."""
        return int(self._metadata.row_group(group).num_rows)

    def group(self, group: int, column: str) -> Any:
        """Return the bytes of one column's images in one group of rows, as an Arrow array.

        Raises:
            ChangedError: The file is another one by now.
            DataError: The group is too large.
        """
        with self._lock:
            found = self._kept.pop((group, column), None)
            if found is None:
                found = self._read(group, column)
            self._kept[group, column] = found  # the last one that was asked for
            while len(self._kept) > _MOST_GROUPS * len(self.columns):
                del self._kept[next(iter(self._kept))]
        return found

    def read(self, index: Index, row: int, column: str) -> bytes | str:
        """Return the bytes of a member of the file's index, or the reason as text why there are none."""
        group, place = int(index.table["offset"][row]), int(index.table["packed"][row])
        value = self.group(group, column)[place]
        return value.as_py() if value.is_valid else _NULL

    def _read(self, group: int, column: str) -> Any:
        if DiskFile.at(self._file.path) != self._file:
            raise ChangedError
        num_bytes = self._metadata.row_group(group).total_byte_size
        if num_bytes > _LARGEST_GROUP:
            raise DataError(
                f"{self._file.path!r} has {num_bytes / 2**30:.1f} GiB in one group of rows.",
                "groups of at most 2 GiB, each of which is read at once",
                "write it again with small groups: `to_parquet(..., row_group_size=100)`",
            )
        name = f"{column}.{_BYTES}" if self._is_struct[column] else column
        with _opened(self._file), self._parquet.ParquetFile(self._file.path, metadata=self._metadata) as table:
            found = table.read_row_group(group, columns=[name], use_threads=False).column(column).combine_chunks()
        return _of_struct(found)


def table_labels(path: str, named: Sequence[str]) -> TableLabels | None:
    """Return the labels of a table's rows: of the column that is a `ClassLabel`, or that has one of these names.

    Args:
        path: A Parquet or Arrow file.
        named: Names of columns, the best one first.

    Raises:
        DataError: It cannot be read.
    """
    file = DiskFile.at(path)
    with _opened(file) as pa:
        import pyarrow.parquet as pq

        if is_parquet(file.read(0, 4)):
            with pq.ParquetFile(path) as table:
                column = _label_column(table.schema_arrow, named)
                values = [] if column is None else table.read(columns=[column], use_threads=False)[column].to_pylist()
                schema = table.schema_arrow
        else:
            with pa.memory_map(path) as mapped:
                reader = _reader(pa, mapped.read_buffer())
                schema, column = reader.schema, _label_column(reader.schema, named)
                values = [] if column is None else [v for batch in _batches(reader) for v in batch[column].to_pylist()]
    return None if column is None else TableLabels(column, values, _class_names(_features(schema).get(column)))


def _add_batch(members: Members, file: DiskFile, name: str, column: Any, row: int, whole: tuple[int, int]) -> None:
    content = _of_struct(column)
    is_there = (
        column.is_valid().to_numpy(zero_copy_only=False) & content.is_valid().to_numpy(zero_copy_only=False)
    ).tolist()
    buffers = content.buffers()
    start = buffers[2].address - whole[0] if buffers[2] is not None else 0
    if not 0 <= start <= whole[1]:
        raise DataError(
            f"{file.path!r} is compressed inside.",
            "an Arrow file whose images lie as they are",
            "save it with `save_to_disk` of the library datasets, or as Parquet",
        )
    wide = np.int64 if str(content.type).startswith("large") else np.int32
    ends = np.frombuffer(buffers[1], dtype=wide)[content.offset : content.offset + len(content) + 1].tolist()
    for place, valid in enumerate(is_there):
        size = ends[place + 1] - ends[place] if valid else 0
        path = f"{name}/{image_name(row + place)}"
        members.add_file(path, start + ends[place], size, fault="" if valid else _NULL)


def _sizes(content: Any) -> list[int]:
    import pyarrow.compute as pc

    return [-1 if size is None else int(size) for size in pc.binary_length(content).to_pylist()]


def _of_struct(column: Any) -> Any:
    """Return the bytes of a column of images, which a struct of bytes and path may hold."""
    import pyarrow as pa

    return column.field(_BYTES) if pa.types.is_struct(column.type) else column


def _reader(pa: Any, buffer: Any) -> Any:
    is_file = buffer[:6].to_pybytes() == b"ARROW1"
    source = pa.BufferReader(buffer)
    return pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)


def _batches(reader: Any) -> Iterator[Any]:
    if hasattr(reader, "num_record_batches"):
        return (reader.get_batch(number) for number in range(reader.num_record_batches))
    return iter(reader)


def _features(schema: Any) -> dict[str, Any]:
    """Return what Hugging Face's library wrote of the columns; empty for other tables, and for what is damaged."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _image_columns(file: DiskFile, pa: Any, schema: Any) -> tuple[str, ...]:
    features = _features(schema)
    said = {name for name, told in features.items() if isinstance(told, dict) and told.get("_type") == "Image"}
    found = [
        field.name
        for field in schema
        if _holds_bytes(pa, field.type) and (field.name in said or not said) and "/" not in field.name
    ]
    if found:
        return tuple(found)
    outside = " (the images that it names lie elsewhere)" if said else ""
    raise DataError(
        f"{file.path!r} has no column of images{outside}; its columns are {', '.join(schema.names)}.",
        "a column with the bytes of each image, as Hugging Face's Image() writes it",
        "embed the images, or save a table of their paths and labels as CSV",
    )


def _holds_bytes(pa: Any, kind: Any) -> bool:
    if pa.types.is_struct(kind):
        place = kind.get_field_index(_BYTES)
        return place >= 0 and _holds_bytes(pa, kind.field(place).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _label_column(schema: Any, named: Sequence[str]) -> str | None:
    features = _features(schema)
    names: list[str] = list(schema.names)
    said = [name for name in names if _class_names(features.get(name))]
    if len(said) == 1:
        return said[0]
    lower = {name.lower(): name for name in (said or names)}
    return next((lower[name] for name in named if name in lower), said[0] if said else None)


def _class_names(feature: Any) -> tuple[str, ...]:
    """Return the names of a ClassLabel, or of a list of such."""
    if isinstance(feature, list):  # as older versions write a list
        return _class_names(feature[0]) if feature else ()
    if not isinstance(feature, dict):
        return ()
    names = feature.get("names")
    if feature.get("_type") == "ClassLabel" and isinstance(names, list):
        return tuple(map(str, names))
    return _class_names(feature.get("feature"))


@contextmanager
def _opened(file: DiskFile) -> Iterator[Any]:
    """Give the library, and turn its errors into DataError."""
    try:
        import pyarrow as pa
        import pyarrow.ipc
    except ImportError:
        raise DataError(
            f"{file.path!r} is a table, and reading tables of images takes pyarrow, which is not installed.",
            "",
            "pip install 'regraft[hf]'",
        ) from None
    try:
        yield pa
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError, OverflowError) as error:
        raise DataError(
            f"{file.path!r} cannot be read as a table ({' '.join(str(error).split())[:120]}).",
            "a whole Parquet or Arrow file",
            "copy or download it again",
        ) from error
