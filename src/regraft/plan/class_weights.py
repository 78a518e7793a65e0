"""Weights of classes as a stage has them: one for each class in order, by name, or by class number as in Keras."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from regraft.errors import nearest
from regraft.wording import quantity

__all__ = ["Weights", "by_class_name", "class_weight_mistakes"]

Weights = Literal["balanced", "median_frequency"] | Sequence[float] | Mapping[str, float] | None
_FEW = 10


def by_class_name(weights: Weights, class_names: Sequence[str]) -> Weights:
    """Replace class numbers by class names in the keys of class weights.

    Keras writes `{0: 1, 1: 3}`: keys that are all whole numbers are positions in `class_names`, from 0, unless each of
    them is a class name itself (classes named "0" and "1"). Ambiguous keys are left as they are, and
    `class_weight_mistakes` says why.
    """
    if not isinstance(weights, Mapping) or not class_names:
        return weights
    named = {str(key): weight for key, weight in weights.items()}
    if not named or any(name in class_names for name in named) or not all(_is_number(name) for name in named):
        return named
    positions = {int(name): weight for name, weight in named.items()}
    if max(positions) >= len(class_names):
        return named
    return {class_names[position]: weight for position, weight in sorted(positions.items())}


def class_weight_mistakes(weights: Weights, class_names: Sequence[str]) -> Iterator[str]:
    """Yield one line for each entry of class weights that does not fit these classes."""
    weights = by_class_name(weights, class_names)
    if isinstance(weights, str) or weights is None or not class_names:
        return
    if not isinstance(weights, Mapping):
        if len(weights) != len(class_names):
            yield (
                f"class_weights has {quantity(len(weights), 'weight')} for "
                f"{quantity(len(class_names), 'class', 'classes')}"
            )
        return
    unknown = [name for name in weights if name not in class_names]
    if unknown and all(_is_number(name) for name in weights):
        yield _strange_numbers(list(weights), class_names)
        return
    for name in unknown:
        near = nearest(name, list(class_names))
        yield f"class_weights names {name!r}, which is not a class" + (f"; did you mean {near}?" if near else "")
    if not unknown and all(weights.get(name, 1.0) <= 0 for name in class_names):
        yield "class_weights is 0 for every class, so nothing would train; expected at least one number above 0"


def _strange_numbers(keys: Sequence[str], class_names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, class_names[:_FEW])) + (", ..." if len(class_names) > _FEW else "")
    if any(key in class_names for key in keys):
        return (
            f"class_weights has the keys {', '.join(keys)}, of which some are class names and some are not, so they "
            f"may be names or positions; write the class names: {shown}"
        )
    positions = f"positions from 0 to {len(class_names) - 1}"
    return f"class_weights has the keys {', '.join(keys)}; expected class names ({shown}), or {positions}"


def _is_number(key: str) -> bool:
    return key.isascii() and key.isdecimal()
