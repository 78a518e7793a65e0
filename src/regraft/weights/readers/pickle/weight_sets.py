"""Which of the tensors in a pickle are the weights: containers in containers, with optimizers and settings beside them.

A reader says what a tensor is (`Leaves`); here is which set of them is taken, and what its members are called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from regraft.errors import WeightsError
from regraft.weights.limits import MAX_DEPTH, budget, check_name, shown
from regraft.weights.readers.pickle.pickled import Stub

__all__ = ["Leaves", "choose_set", "class_names", "collect", "is_no_weights", "plain", "unwrapped"]

# Where one file holds several sets of weights, the first of these that it has is taken: the raw weights.
_RAW_SETS = (
    "state_dict", "model_state_dict", "model", "net", "network", "module", "params", "weights", "backbone", "blobs",
)  # fmt: skip
_NOT_WEIGHTS: tuple[str, ...] = (
    "optim",
    "scheduler",
    "scaler",
    "sched",
    "rng",
    "hparams",
    "hyper_parameters",
    "loops",
    "callbacks",
)
_WRAPPERS = ("module.", "_orig_mod.")
_MAX_TENSORS = 1_000_000


@dataclass(frozen=True)
class Leaves:
    """What counts as a tensor, and how the file is named in errors.

    Attributes:
        where: The file.
        is_one: Whether a value is a tensor.
        damaged: Makes the error of a damaged file, from what is wrong.
    """

    where: str
    is_one: Callable[[Any], bool]
    damaged: Callable[[str], WeightsError]


def plain(value: Any) -> Any:
    """Return a stub's state in the place of the stub (modules: their parameters, buffers and children by name)."""
    if not isinstance(value, Stub):
        return value
    state = value.state
    if "_parameters" not in state and "_modules" not in state:
        return state
    inside: dict[str, Any] = {}
    for part in ("_parameters", "_buffers", "_modules"):
        members = state.get(part)
        if isinstance(members, Mapping):
            skipped = state.get("_non_persistent_buffers_set") if part == "_buffers" else None
            inside |= {
                name: member for name, member in members.items() if not isinstance(skipped, set) or name not in skipped
            }
    return inside


def is_no_weights(name: str) -> bool:
    """Return whether something of this name beside the weights is an optimizer, a scheduler, or settings."""
    return name.lower().startswith(_NOT_WEIGHTS)


class _Counts:
    """How many tensors are below each container; one that is shared is counted once and then known."""

    def __init__(self, leaves: Leaves) -> None:
        self._leaves = leaves
        self._known: dict[int, tuple[Any, int]] = {}

    def below(self, value: Any, depth: int = 0) -> int:
        """Return the number of tensors, each as often as a path leads to it."""
        if self._leaves.is_one(value):
            return 0 if depth == 0 else 1
        if id(value) in self._known:
            return self._known[id(value)][1]
        members = plain(value)
        if not isinstance(members, Mapping):
            return 0
        if depth > MAX_DEPTH:
            raise self._leaves.damaged("its containers are nested too deeply")
        self._known[id(value)] = value, 0  # a container that holds itself
        budget().step(1 + len(members))
        count = min(sum(self.below(member, depth + 1) for member in members.values()), _MAX_TENSORS + 1)
        self._known[id(value)] = value, count
        return count

    def is_set(self, name: Any, value: Any) -> bool:
        """Return whether it may be a set of weights, by its name and by what it holds."""
        return not (isinstance(name, str) and is_no_weights(name)) and self.below(value) > 0


def choose_set(root: Any, key: str | None, leaves: Leaves) -> tuple[Any, list[str]]:
    """Return the set of weights that a key names, or the raw one, and notes on what was chosen.

    Raises:
        WeightsError: There is no such set.
    """
    counts = _Counts(leaves)
    if key is not None:
        return _follow(root, key, leaves, counts), [f"using the set {key!r}, as requested"]
    notes: list[str] = []
    while isinstance(root, Mapping) and len(notes) < MAX_DEPTH:  # the children of a module are never sets
        sets = {name: counts.below(value) for name, value in root.items() if counts.is_set(name, value)}
        num_direct = sum(leaves.is_one(value) for value in root.values())
        raw = next((name for name in _RAW_SETS if sets.get(name, 0) > num_direct), None)
        if raw is None:
            break
        others = [_text(name)[:80] for name, count in sets.items() if name != raw and count > 1]
        more = ", ..." if others[8:] else ""
        also = f"; the file also contains {', '.join(others[:8])}{more}" if others else ""
        notes.append(f"using the set {raw!r}{also}")
        root = root[raw]
    return root, notes


def _text(name: Any) -> str:
    """Return a key of a container as a part of a name."""
    return name if isinstance(name, str) else shown(name)


def _follow(root: Any, key: str, leaves: Leaves, counts: _Counts) -> Any:
    root = value = plain(root)
    for part in key.split("."):
        value = plain(value)
        if not isinstance(value, Mapping) or part not in value:
            inside = root.items() if isinstance(root, Mapping) else ()
            sets = [_text(name)[:80] for name, member in inside if counts.is_set(name, member)]
            raise WeightsError(
                f"{leaves.where!r} holds no set of weights {key!r}.",
                f"it holds: {', '.join(sets[:20]) or 'none'}",
                "leave out the key to take the raw weights",
            )
        value = value[part]
    return plain(value)


def collect(root: Any, leaves: Leaves) -> dict[str, Any]:
    """Return all tensors by the path of their keys; only containers with tensors in them are entered.

    Raises:
        WeightsError: Two of one name, too many, or containers nested too deeply.
    """
    counts = _Counts(leaves)
    if counts.below(plain(root)) > _MAX_TENSORS:
        raise leaves.damaged(f"its containers hold more than {_MAX_TENSORS:,} tensors")
    found: dict[str, Any] = {}

    def walk(value: Any, prefix: str, depth: int) -> None:
        if leaves.is_one(value):
            if prefix in found:
                raise leaves.damaged(f"two tensors are named {shown(prefix)}")
            check_name(prefix)
            found[prefix] = value
            return
        members = plain(value)
        if not isinstance(members, Mapping) or not counts.below(value, depth + 1):
            return
        if depth >= MAX_DEPTH:
            raise leaves.damaged("its containers are nested too deeply, or contain themselves")
        budget().step(len(members))
        for name, member in members.items():
            text = _text(name)
            if depth or not is_no_weights(text):
                walk(member, f"{prefix}.{text}" if prefix else text, depth + 1)

    walk(root, "", 0)
    return found


def unwrapped(found: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """Return the tensors without the prefix that a wrapper (DistributedDataParallel, torch.compile) gave all names."""
    prefix = ""
    while True:
        more = next((word for word in _WRAPPERS if all(name.startswith(prefix + word) for name in found)), "")
        if not more or not found:
            break
        prefix += more
    if prefix:
        notes.append(f"prefix {prefix!r} removed from every name")
    return {name[len(prefix) :]: tensor for name, tensor in found.items()}


def class_names(root: Any) -> tuple[str, ...] | None:
    """Return class names beside the weights, where the file keeps them as a list of strings."""
    if isinstance(root, Mapping):
        for key in ("class_names", "classes", "CLASSES", "label_names"):
            names = root.get(key)
            if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
                return tuple(names)
    return None
