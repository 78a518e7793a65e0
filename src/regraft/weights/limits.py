"""What reading one weights file may cost, for all readers in one place: steps, memory, nesting, shapes, names, time.

A stranger's file decides what work it asks for, this module what it gets: a floor that every real network fits in,
and a share that grows with the bytes on the disk. `read_weights` opens a `Budget` for each file; a reader spends from
`budget()`, and whatever goes beyond it is a `LimitError`, which the file's reader, or `guarded`, puts into words.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any

from regraft.errors import RegraftError, WeightsError

__all__ = [
    "MAX_CLASSES",
    "MAX_DEPTH",
    "MAX_NAME",
    "MAX_RANK",
    "Budget",
    "LimitError",
    "budget",
    "check_name",
    "check_shape",
    "guarded",
    "is_hollow",
    "is_own_file",
    "load_json",
    "shown",
]

MIB = 2**20
# NumPy stops at 64 axes (32 before 2.0), and no layer has more than 5.
MAX_RANK = 32
MAX_VALUES = 2**56
MAX_DEPTH = 64
# The longest names of real networks have some 300 characters in 30 parts; Keras writes what a user makes up.
MAX_NAME = 8192
MAX_PARTS = 64
MAX_CLASSES = 2**20
_LONG_NUMBER = re.compile(r"\d{100}")
_MAX_DIGITS = 20
_DIGITS = re.compile(rb"\d{21}")

# (floor, share of the bytes on the disk, ceiling) of each allowance. 100,000 tensors of torch need 4 M steps.
_STEPS = (4_000_000, 1 / 16, 8_000_000)
_MEMORY = (256 * MIB, 2, None)
_TEXT = (128 * MIB, 2, None)
_JSON = (16 * MIB, 1 / 4, 128 * MIB)
_ITEMS = (3_000_000, 0, None)
_VALUES = (512 * MIB, 8, None)
_UNPACKED = (192 * MIB, 4, None)
# A larger compressed part may be at most so many times its stored size.
_RATIO, _RATIO_FROM = 100, 16 * MIB
# A safety net behind the steps, for a machine that is slow: seconds, and seconds for each byte.
_SECONDS = (120, 1 / (16 * MIB), None)
_LOOK = 50_000  # steps between looks at the clock
# A file that is larger and has less than this share of its bytes on the disk is made of holes.
_HOLLOW_FROM = 256 * MIB
_HOLLOW_SHARE = 64
_MAX_EXTENTS = 4096


class LimitError(ValueError):
    """More than any real network needs; the text goes on after "it"."""


class Budget:
    """What is left to one file, and to the files that it names.

    Args:
        remembered: What was parsed already (the directory of a zip, that several formats look at), by file.
    """

    def __init__(self, remembered: dict[object, Any] | None = None) -> None:
        self.remembered: dict[object, Any] = {} if remembered is None else remembered
        self.num_bytes = 0
        self._seen: set[object] = set()
        self._steps = self._memory = self._values = 0
        self._step_limit = self._allowed(_STEPS)
        self._next_look = _LOOK
        self._started = time.monotonic()

    def opened(self, identity: object, num_bytes: int) -> None:
        """Count the bytes of a file that is read; each file once."""
        if identity not in self._seen:
            self._seen.add(identity)
            self.num_bytes += num_bytes
            self._step_limit = self._allowed(_STEPS)

    @property
    def steps_left(self) -> int:
        return self._step_limit - self._steps

    def step(self, count: int = 1) -> None:
        """Spend steps of parsing (about a microsecond each)."""
        self._steps += count
        if self._steps > self._step_limit:
            raise LimitError("it has more elements than a file of its size needs")
        if self._steps > self._next_look:
            self._next_look = self._steps + _LOOK
            if time.monotonic() - self._started > self._allowed(_SECONDS):
                raise LimitError(f"reading it took more than {self._allowed(_SECONDS)} s")

    def hold(self, num_bytes: int) -> None:
        """Spend memory that stays in use while the file is read."""
        self._memory += num_bytes
        if self._memory > self._allowed(_MEMORY):
            raise LimitError(f"its table of contents needs more than {self._allowed(_MEMORY) // MIB} MB of memory")

    def values(self, num_bytes: int) -> None:
        """Count the numbers that the tensors of the file declare, in bytes once they are unpacked.

        Twice the file is normal (tied weights), more is not: compressed weights hardly shrink.
        """
        self._values += num_bytes
        if self._values > self._allowed(_VALUES):
            raise LimitError(
                f"its tensors declare more than {self._allowed(_VALUES) // MIB} MB, and the file has "
                f"{self.num_bytes:,} bytes (a decompression bomb, or tensors that share the same bytes)"
            )

    def unpack(self, num_bytes: int, stored: int, what: str) -> None:
        """Refuse one compressed part that unfolds to too much at once (weights hardly shrink)."""
        if num_bytes > self._allowed(_UNPACKED) or num_bytes > max(_RATIO * stored, _RATIO_FROM):
            raise LimitError(f"{what} has {stored:,} bytes and declares {num_bytes:,} (a decompression bomb)")

    def json(self, text: bytes | bytearray, what: str) -> None:
        """Refuse a JSON text that takes too long, or too much memory, to parse."""
        if len(text) > self._allowed(_JSON):
            raise LimitError(f"{what} has {len(text):,} bytes")
        num_items = sum(text.count(sign) for sign in (b",", b"[", b"{"))
        if num_items > self._allowed(_ITEMS):
            raise LimitError(f"{what} has {num_items:,} items")

    def text(self, names: Iterable[str]) -> None:
        """Check the names of all tensors and layers, with what is made of their parts later."""
        total = 0
        for name in names:
            total += len(name) * check_name(name)
        if total > self._allowed(_TEXT):
            raise LimitError("its tensor names are longer than those of any real network")

    def _allowed(self, allowance: tuple[int, float, int | None]) -> int:
        floor, share, ceiling = allowance
        allowed = floor + int(self.num_bytes * share)
        return allowed if ceiling is None else min(allowed, ceiling)


_current: ContextVar[Budget | None] = ContextVar("budget", default=None)


def budget() -> Budget:
    """Return the budget of the file that is being read; a fresh one outside of `guarded`."""
    return _current.get() or Budget()


@contextmanager
def guarded(path: Path, remembered: dict[object, Any] | None = None) -> Iterator[Budget]:
    """Read a file within a budget of its own; whatever a reader did not put into words is an error of the file.

    Raises:
        WeightsError: The budget is spent, or a reader stumbled over what the file holds.
    """
    token = _current.set(Budget(remembered))
    try:
        yield budget()
    except LimitError as error:
        raise _refused(path, str(error)) from error
    except RegraftError:
        raise
    except OSError as error:
        raise _refused(path, f"it cannot be read ({(error.strerror or type(error).__name__).lower()})") from error
    except _DAMAGE as error:
        raise _refused(path, f"it is damaged ({type(error).__name__}: {shown(str(error))})") from error
    finally:
        _current.reset(token)


_DAMAGE = (
    ValueError, TypeError, LookupError, AttributeError, ArithmeticError, BufferError, MemoryError, RecursionError,
    EOFError, NotImplementedError, SyntaxError, SystemError, struct.error, zlib.error,
)  # fmt: skip


def load_json(
    data: bytes | bytearray | str, what: str, *, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None
) -> Any:
    """Return a JSON text as plain data.

    Args:
        data: The text.
        what: What it is, for errors: `its header`.
        pairs: Makes the tables, as `json.loads` wants it.

    Raises:
        ValueError: It is damaged, nested too deeply, or larger than that of any real network.
    """
    text = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    budget().json(text, what)
    # A whole number of many digits makes every sum with it slow, and Python refuses to print it.
    number = _short_number if _DIGITS.search(text) else None
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=pairs, parse_int=number)
    except RecursionError as error:
        raise ValueError(f"{what} is nested too deeply") from error


def _short_number(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise LimitError(f"it holds a number of {len(digits):,} digits")
    return int(digits)


def check_shape(shape: Any) -> tuple[int, ...]:
    """Return the shape, when an array can have it: also one with a zero in it.

    Args:
        shape: A tuple or list of lengths, as a file has them.

    Raises:
        LimitError: Too many axes, or lengths that no array has.
    """
    if not isinstance(shape, tuple | list):
        raise LimitError(f"it holds a tensor whose shape is {shown(shape)}, not a list of lengths")
    if len(shape) > MAX_RANK:
        raise LimitError(f"it holds a tensor of more than {MAX_RANK} axes")
    lengths = tuple(shape)
    count = 1
    for length in lengths:
        if type(length) is not int or length < 0 or length > MAX_VALUES:
            raise LimitError(f"it holds a tensor with an axis of length {shown(length)}")
        count *= length or 1
    if count > MAX_VALUES:
        raise LimitError(f"it holds a tensor of shape {lengths}, which does not fit in memory")
    return lengths


def check_name(name: str) -> int:
    """Return the number of parts of a name of a tensor or a layer.

    Raises:
        LimitError: It is longer, or has more parts, than names of networks have.
    """
    num_parts = 1 + name.count(".") + name.count("/")
    if len(name) > MAX_NAME or num_parts > MAX_PARTS or (len(name) > 100 and _LONG_NUMBER.search(name)):
        raise LimitError(f"it holds a name of {len(name):,} characters in {num_parts:,} parts ({shown(name)})")
    return num_parts


def shown(value: object) -> str:
    """Return a value of a file for the text of an error: short, and never more of a container than its type."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if abs(value) < 10**20 else f"a number of {value.bit_length()} bits"
    if isinstance(value, bytes):
        return repr(value[:80])
    if isinstance(value, str):
        return repr(value[:80]) + ("..." if len(value) > 80 else "")
    return repr(value) if value is None or isinstance(value, bool | float) else f"a {type(value).__name__}"


def is_own_file(path: Path) -> bool:
    """Return whether it is a regular file of its own folder: no link, but for those of a hub's cache.

    The Hugging Face cache keeps each file once, in `models--x/blobs`, and links it from `models--x/snapshots/<commit>`.
    """
    try:
        if stat.S_ISREG(path.lstat().st_mode):
            return True
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        return False
    return target.is_file() and target.parent == path.parent.resolve().parent.parent / "blobs"


def is_hollow(stream: IO[bytes], size: int) -> bool:
    """Return whether a large file is nearly all holes (a sparse file): its size says nothing about its content."""
    if size < _HOLLOW_FROM or not hasattr(os, "SEEK_DATA"):
        return False
    number, at, num_bytes = stream.fileno(), 0, 0
    try:
        for _ in range(_MAX_EXTENTS):
            try:
                start = os.lseek(number, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole from here on
                    break
                raise
            at = os.lseek(number, start, os.SEEK_HOLE)
            num_bytes += at - start
            if num_bytes * _HOLLOW_SHARE >= size or at >= size:
                break
        else:
            return False
    except OSError:  # the file system does not tell
        return False
    finally:
        os.lseek(number, 0, os.SEEK_SET)
    return num_bytes * _HOLLOW_SHARE < size


def _refused(path: Path, why: str) -> WeightsError:
    return WeightsError(
        f"{str(path)!r} cannot be read as weights: {why}.",
        "a whole file, of the size and depth of a real network",
        "download or copy it again, and compare its size or checksum with the original; if that does not help, "
        "do not use it",
    )
