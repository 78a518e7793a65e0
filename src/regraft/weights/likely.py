"""Which known network a weights file most likely belongs to, by the shapes of its kernels.

`networks.txt` holds, for each network, its name, the number of its normalisations, and its kernels' sides in rising
order; `scripts/list_networks.py` writes it from timm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

from regraft.weights.file import WeightFile

__all__ = ["NETWORKS", "kernel_sides", "likely_architectures"]

NETWORKS = "networks.txt"
_FLATTENED = 10_000_000  # from this size on, a convolution over a whole map stands for a dense layer
_LEAST = 0.05

Sides = tuple[int, ...]


def likely_architectures(weights: WeightFile, *, num_best: int = 3) -> list[tuple[str, float]]:
    """Return names with a score from 0 to 1, best first: the share of kernels that file and network have in common.

    The score is the overlap (Jaccard index) of the two multisets of kernel shapes, whatever the order of their axes, so
    that it is the same for every framework; of equal ones the network whose number of normalisations is nearer comes
    first. It says nothing of strides, padding or epsilon.
    """
    kernels = kernel_sides(tensor.shape for tensor in weights)
    num_norms = sum(_is_variance(tensor.role, tensor.name) for tensor in weights)
    ranked = sorted(
        (-_overlap(kernels, shapes), abs(norms - num_norms), name) for name, (norms, shapes) in _networks().items()
    )
    return [(name, -score) for score, _, name in ranked[:num_best] if -score > _LEAST]


def kernel_sides(shapes: Iterable[tuple[int, ...]]) -> Counter[Sides]:
    """Return the sides of all kernels, in rising order and without those of length 1."""
    return Counter(_sides(shape) for shape in shapes if len(shape) >= 2)


def _sides(shape: tuple[int, ...]) -> Sides:
    sides = tuple(sorted(side for side in shape if side > 1))
    if len(sides) == 4 and sides[0] == sides[1] and sides[0] ** 2 * sides[2] * sides[3] > _FLATTENED:
        return tuple(sorted((sides[0] ** 2 * sides[2], sides[3])))
    return sides


def _is_variance(role: str | None, name: str) -> bool:
    return role == "variance" or name.endswith(("running_var", "moving_variance", "moving_variance:0"))


@cache
def _networks() -> dict[str, tuple[int, Counter[Sides]]]:
    text = files("regraft.weights").joinpath(NETWORKS).read_text(encoding="ascii")
    return {name: (int(norms), _parsed(rest)) for name, norms, *rest in map(str.split, text.splitlines())}


def _parsed(words: Iterable[str]) -> Counter[Sides]:
    shapes: Counter[Sides] = Counter()
    for word in words:
        sides, _, count = word.partition("*")
        shapes[tuple(map(int, sides.split("x")))] = int(count or 1)
    return shapes


def _overlap(left: Counter[Sides], right: Counter[Sides]) -> float:
    union = sum((left | right).values())
    return sum((left & right).values()) / union if union else 0.0
