"""Position embeddings of another image size, or that embed the class token where the model's do not."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

from regraft.weights.axes import AddPosition, Reshape, ResizeGrid, Rows, Step
from regraft.weights.file import SourceTensor
from regraft.weights.match.bind import Bound
from regraft.weights.naming.layers import Slot
from regraft.weights.report import Finding, Match

__all__ = ["place_positions"]

_TOKENS = ("cls_token", "dist_token", "class_token", "class_embedding")


def place_positions(slot: Slot, tensor: SourceTensor, slots: Sequence[Slot], bound: Bound) -> bool:
    """Match position embeddings whose number differs, and say so; return whether there is a way.

    The model's grid must be square, and so must the file's. One row more than these is the class token's: the model
    has one too, or its class token takes it on.
    """
    if not _is_positions(slot) or len(tensor.shape) not in (2, 3) or tensor.shape[-1] != slot.shape[-1]:
        return False
    tokens = [one for one in slots if one.layer == slot.layer and one.name.rpartition(".")[2] in _TOKENS]
    here, there = _grid(slot.shape[1], len(tokens)), _grid(tensor.num_values // tensor.shape[-1], len(tokens))
    if here is None or there is None:
        return False
    steps: list[Step] = [Reshape((1, tensor.num_values // tensor.shape[-1], tensor.shape[-1]))]
    said = []
    if there[0] > here[0]:
        if not _given_to(tokens, tensor, there[0] - here[0], bound):
            return False
        steps.append(Rows(there[0] - here[0], steps[0].shape[1], 1))  # type: ignore[union-attr]
        said.append("its rows for class tokens were added to the tokens")
    elif there[0] < here[0]:
        return False
    if there[1] != here[1]:
        steps.append(ResizeGrid(here[0], (there[1], there[1]), (here[1], here[1])))
        said.append(
            f"its grid of {there[1]}x{there[1]} was interpolated to {here[1]}x{here[1]}, bicubic: the model works on "
            "another image size than the file's network"
        )
    bound.matches[slot.name] = Match(slot.name, (tensor,), "position embedding", tuple(steps))
    bound.findings.append(Finding("note", slot.layer, f"the position embedding {tensor.name}: {' and '.join(said)}"))
    return True


def _is_positions(slot: Slot) -> bool:
    return slot.name.rpartition(".")[2] == "pos_embed" and len(slot.shape) == 3 and slot.shape[0] == 1


def _grid(length: int, num_tokens: int) -> tuple[int, int] | None:
    """Return the rows of tokens, and the side of the square grid behind them; all tokens have one, or none has."""
    for tokens in (num_tokens, 0):
        side = isqrt(max(length - tokens, 0))
        if side and side * side == length - tokens:
            return tokens, side
    return None


def _given_to(tokens: Sequence[Slot], tensor: SourceTensor, num_rows: int, bound: Bound) -> bool:
    """Add the first rows of the embedding to the tokens that they belong to; return whether all tokens are matched."""
    if num_rows != len(tokens) or any(token.name not in bound.matches for token in tokens):
        return False
    for row, token in enumerate(tokens):
        match = bound.matches[token.name]
        if len(match.sources) != 1:
            return False
        steps = (*match.steps, AddPosition(row))
        bound.matches[token.name] = Match(token.name, (*match.sources, tensor), match.rule, steps)
    return True
