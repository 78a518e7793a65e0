"""Layout steps as values: how a tensor of a file becomes a tensor of a torch model.

A match holds the steps it needs, in order, and `convert` carries them out. Nothing here decides anything. Axis
letters: O out channels, I in channels, H height, W width, C channels, M depth multiplier; torch wants convolutions
as OIHW, transposed convolutions as IOHW, depthwise ones as (C*M)1HW and dense kernels as OI.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.errors import WeightsError
from regraft.machine.budget import num_cpus

__all__ = [
    "AddPosition",
    "Divide",
    "Fill",
    "Flip",
    "Join",
    "Lengthen",
    "Reshape",
    "ResizeGrid",
    "Rows",
    "Step",
    "Subtract",
    "SumChannels",
    "Take",
    "Transpose",
    "WidenChannels",
    "convert",
    "kernel_steps",
    "torch_shape",
]

_TILE_VALUES = 1 << 16  # one tile of a large transpose: 256 KiB of float32, so source and target stay in the cache
_TILE_RUN = 128  # what of it is read in one run
_TILED_FROM = 1 << 20  # smaller transposes are not worth cutting up


@dataclass(frozen=True)
class Transpose:
    """Reorder the axes."""

    axes: tuple[int, ...]

    def __str__(self) -> str:
        return f"transpose {self.axes}"


@dataclass(frozen=True)
class Reshape:
    """Read the same numbers, in the same order, as another shape."""

    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"reshape {self.shape}"


@dataclass(frozen=True)
class Fill:
    """A constant, for what the file's layer does not have (a scale of 1, a bias of 0)."""

    value: float
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"fill {self.value:g}"


@dataclass(frozen=True)
class Subtract:
    """First source minus the second: a convolution's bias folded into the mean of the normalisation behind it."""

    def __str__(self) -> str:
        return "subtract"


@dataclass(frozen=True)
class Divide:
    """First source divided by the second, a single number (Caffe's moving-average scale)."""

    def __str__(self) -> str:
        return "divide"


@dataclass(frozen=True)
class Flip:
    """Reverse one axis: a stem made for BGR on RGB input, or the other way round."""

    axis: int

    def __str__(self) -> str:
        return f"flip axis {self.axis}"


@dataclass(frozen=True)
class Take:
    """Pick along one axis: the class permutation of a classifier."""

    indices: tuple[int, ...]
    axis: int

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.indices[:6])) + (", ..." if len(self.indices) > 6 else "")
        return f"take [{shown}] of axis {self.axis}"


@dataclass(frozen=True)
class SumChannels:
    """Add up the input channels of a stem, for grey images in the place of colour (source: timm's adapt_input_conv)."""

    def __str__(self) -> str:
        return "sum the input channels"


@dataclass(frozen=True)
class WidenChannels:
    """Repeat a stem's input channels in turn, scaled to keep the size of the sum (timm's adapt_input_conv)."""

    count: int

    def __str__(self) -> str:
        return f"repeat the input channels to {self.count}"


@dataclass(frozen=True)
class Join:
    """All sources one behind the other (queries, keys and values), with zeros where a place is None (no bias of keys).

    Attributes:
        places: For each part of the result the number of its source, or None.
    """

    places: tuple[int | None, ...]

    def __str__(self) -> str:
        return "join " + " + ".join("zeros" if place is None else f"#{place + 1}" for place in self.places)


@dataclass(frozen=True)
class Rows:
    """A part of one axis: the queries of a kernel that holds queries, keys and values."""

    start: int
    stop: int
    axis: int = 0

    def __str__(self) -> str:
        return f"rows {self.start}:{self.stop}" + (f" of axis {self.axis}" if self.axis else "")


@dataclass(frozen=True)
class AddPosition:
    """First source plus one row of the second: a class token with its own position embedded."""

    row: int

    def __str__(self) -> str:
        return f"add row {self.row} of the position embedding"


@dataclass(frozen=True)
class ResizeGrid:
    """Position embeddings (1, tokens + rows x columns, channels) for a grid of another size, bicubic with antialiasing
    (as timm's resample_abs_pos_embed); the leading tokens are kept.
    """

    num_tokens: int
    size: tuple[int, int]
    target: tuple[int, int]

    def __str__(self) -> str:
        return f"resize the grid {_by(self.size)} to {_by(self.target)}"


@dataclass(frozen=True)
class Lengthen:
    """The second source, brought to the lengths that the first one holds: weight normalisation.

    Lengths are those over all axes along which the first source has one number.
    """

    def __str__(self) -> str:
        return "bring the second to these lengths"


Step = (
    Transpose
    | Reshape
    | Fill
    | Subtract
    | Divide
    | Flip
    | Take
    | SumChannels
    | WidenChannels
    | Join
    | Rows
    | AddPosition
    | ResizeGrid
    | Lengthen
)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def torch_shape(shape: tuple[int, ...], axes: str | None) -> tuple[int, ...]:
    """Return the shape that a tensor with these axes has in torch."""
    if axes is None or len(axes) != len(shape):
        return shape
    if axes == "HWCM":
        height, width, channels, multiplier = shape
        return channels * multiplier, 1, height, width
    order = _torch_order(axes)
    return tuple(shape[axis] for axis in order)


def _torch_order(axes: str) -> tuple[int, ...]:
    """Return the permutation to torch's axis order: `HWIO` -> (3, 2, 0, 1); a transposed kernel, HWOI, becomes IOHW."""
    wanted = {"HWOI": "IOHW", "IOHW": "IOHW", "IODHW": "IODHW"}.get(axes)
    if wanted is None:
        wanted = "".join(letter for letter in "OIDHW" if letter in axes)
    if sorted(wanted) != sorted(axes):
        return tuple(range(len(axes)))
    return tuple(axes.index(letter) for letter in wanted)


def kernel_steps(
    shape: tuple[int, ...],
    axes: str | None,
    target: tuple[int, ...],
    *,
    flattened: tuple[int, int, int] | None = None,
    rows: str = "",
) -> tuple[Step, ...] | None:
    """Return the steps from a stored kernel to a target shape, or None where it does not fit.

    Args:
        shape: The shape as stored.
        axes: Its axes; None when it is in torch's order already.
        target: The shape wanted.
        flattened: Where the target multiplies flattened features: their (channels, height, width).
        rows: `HWC` when the file's flatten ran over NHWC features, `CHW` for NCHW ones, empty when it did not matter.
    """
    plain = torch_shape(shape, axes)
    if plain == target and not (flattened and rows == "HWC"):
        return _to_torch(shape, axes)
    if _product(plain) != _product(target) or not plain or not target or plain[0] != target[0]:
        return None
    if len(target) in (2, 4) and len(plain) in (2, 4):
        return _dense_steps(shape, axes, plain, target, flattened, rows)
    return None


def _dense_steps(
    shape: tuple[int, ...],
    axes: str | None,
    plain: tuple[int, ...],
    target: tuple[int, ...],
    flattened: tuple[int, int, int] | None,
    rows: str,
) -> tuple[Step, ...] | None:
    """Return a dense kernel for a convolution over the whole map or the other way round, and rows of flattened
    features.
    """
    window = target[1:] if len(target) == 4 else flattened if len(plain) == 2 else None
    if len(plain) == 4:  # a convolution over the whole map: its numbers already lie as (channels, height, width)
        same = _product(plain[1:]) == target[1] and len(target) == 2
        return (*_to_torch(shape, axes), Reshape(target)) if same else None
    if window is None or _product(window) != plain[1]:
        return None
    channels, height, width = window
    if height * width == 1 or rows != "HWC":
        return (*_to_torch(shape, axes), *(() if plain == target else (Reshape(target),)))
    if axes == "IO":
        steps: tuple[Step, ...] = (Reshape((height, width, channels, plain[0])), Transpose((3, 2, 0, 1)))
    else:
        steps = (Reshape((plain[0], height, width, channels)), Transpose((0, 3, 1, 2)))
    return steps if len(target) == 4 else (*steps, Reshape(target))


def _to_torch(shape: tuple[int, ...], axes: str | None) -> tuple[Step, ...]:
    if axes is None or len(axes) != len(shape):
        return ()
    if axes == "HWCM":
        height, width, channels, multiplier = shape
        return Transpose((2, 3, 0, 1)), Reshape((channels * multiplier, 1, height, width))
    order = _torch_order(axes)
    return () if order == tuple(range(len(order))) else (Transpose(order),)


def convert(arrays: Sequence[NDArray[Any]], steps: Sequence[Step], dtype: Any = np.float32) -> NDArray[Any]:
    """Carry out the steps; the result is a new contiguous array of the dtype."""
    array = arrays[0] if arrays else np.zeros((), dtype)
    for step in steps:
        array = _apply(step, array, arrays)
    return _contiguous(array, np.dtype(dtype))


def _apply(step: Step, array: NDArray[Any], arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    match step:
        case Transpose(axes):
            return array.transpose(axes)
        case Reshape(shape):
            return (array if array.flags.c_contiguous else _contiguous(array, array.dtype)).reshape(shape)
        case Fill(value, shape):
            return np.full(shape, value, np.float32)
        case Subtract():
            return np.asarray(array - _second(arrays).reshape(array.shape))
        case Divide():
            scale = float(_second(arrays).reshape(-1)[0])
            return np.asarray(array / scale if scale else array * 0)
        case Flip(axis):
            return np.flip(array, axis)
        case Take(indices, axis):
            return np.take(array, indices, axis)
        case SumChannels():
            return np.asarray(array.sum(axis=1, keepdims=True))
        case WidenChannels(count):
            present = array.shape[1]
            return np.asarray(np.take(array, np.arange(count) % present, 1) * (present / count))
        case Join(places):
            zeros = np.zeros_like(array)
            return np.concatenate([zeros if place is None else arrays[place] for place in places])
        case Rows(start, stop, axis):
            return array[(slice(None),) * axis + (slice(start, stop),)]
        case AddPosition(row):
            positions = _second(arrays)
            return np.asarray(array + positions.reshape(-1, positions.shape[-1])[row].reshape(array.shape))
        case ResizeGrid():
            return _resized_grid(array, step)
        case Lengthen():
            return _lengthened(_second(arrays), array)


def _resized_grid(array: NDArray[Any], step: ResizeGrid) -> NDArray[Any]:
    tokens, grid = array[:, : step.num_tokens], array[0, step.num_tokens :].astype(np.float64)
    rows, columns = (_cubic(*sides) for sides in zip(step.size, step.target, strict=True))
    square = grid.reshape(*step.size, -1)
    resized = np.einsum("ai,bj,ijc->abc", rows, columns, square).reshape(1, -1, array.shape[-1])
    return np.concatenate([tokens.astype(np.float64), resized], axis=1)


def _lengthened(directions: NDArray[Any], lengths: NDArray[Any]) -> NDArray[Any]:
    same = lengths.ndim == directions.ndim
    axes = tuple(axis for axis in range(directions.ndim) if not same or lengths.shape[axis] == 1)
    values = directions.astype(np.float64)
    norms = np.sqrt(np.square(values).sum(axis=axes, keepdims=True))
    wanted = lengths if same else lengths.reshape((1,) * directions.ndim)
    return np.asarray(values * np.divide(wanted, norms, out=np.zeros(norms.shape), where=norms > 0))


def _cubic(size: int, target: int) -> NDArray[np.float64]:
    """Return the matrix that resamples one axis, bicubic (a = -0.5) with antialiasing (source: PIL's resize)."""
    scale = size / target
    stretch = max(scale, 1.0)
    centers = (np.arange(target)[:, None] + 0.5) * scale
    x = np.abs((np.arange(size)[None, :] + 0.5 - centers) / stretch)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _second(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    if len(arrays) < 2:
        raise WeightsError(
            "A layout step needs two tensors of the file and was given one.",
            "a match with two sources",
            "report this as a bug of regraft",
        )
    return arrays[1]


def _contiguous(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return a new C-contiguous copy; a large one goes tile by tile on all processors."""
    result = np.empty(array.shape, dtype)
    if array.size < _TILED_FROM or array.ndim < 2:
        np.copyto(result, array, casting="unsafe")
        return result
    in_memory = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    back = np.argsort(in_memory)
    tiles = _tiles(array, in_memory[-1])
    workers = min(len(tiles), num_cpus())

    def copy(share: int) -> None:
        for tile in tiles[share::workers]:
            # First in the order of memory, so that whole runs are read; then turned inside the cache.
            near = np.ascontiguousarray(array[tile].transpose(in_memory))
            np.copyto(result[tile], near.transpose(back), casting="unsafe")

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(copy, range(workers)))
    return result


def _tiles(array: NDArray[Any], fastest: int) -> list[tuple[slice, ...]]:
    """Cut the axis that runs fastest in memory, and the first other one of the result, so that tiles fit the cache."""
    shape = array.shape
    if fastest == array.ndim - 1:  # no transpose: only share out the rows
        rows = max(1, _TILE_VALUES * shape[0] // array.size)
        return [(slice(start, start + rows),) for start in range(0, shape[0], rows)]
    other = 1 if fastest == 0 else 0
    inner = array.size // shape[fastest] // shape[other]
    step = max(1, _TILE_VALUES // (_TILE_RUN * inner))
    tiles = []
    for first in range(0, shape[fastest], _TILE_RUN):
        for second in range(0, shape[other], step):
            tile = [slice(None)] * array.ndim
            tile[fastest], tile[other] = slice(first, first + _TILE_RUN), slice(second, second + step)
            tiles.append(tuple(tile))
    return tiles


def _product(lengths: Sequence[int]) -> int:
    count = 1
    for length in lengths:
        count *= length
    return count
