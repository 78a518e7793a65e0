"""What the name of a TensorFlow variable says: its layer, its role, and whether names count the layers."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from regraft.weights.file import SourceTensor
from regraft.weights.readers.keras.keras_layers import axes_of, class_in_name, kernel_role
from regraft.weights.readers.spelling import natural, role_of
from regraft.weights.readers.tensorflow.tf_bundle import Variable
from regraft.weights.readers.tensorflow.tf_objects import Owner

__all__ = ["AVERAGE", "SUFFIX", "Placed", "place"]

SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
AVERAGE = "ExponentialMovingAverage"
_COUNTED = re.compile(r"^(layer_with_weights|layer)-\d+$")
_LISTS = {"_operations", "_layers", "layers", "variables"}
_ROLE_ORDER = ("depthwise_kernel", "pointwise_kernel", "kernel", "bias", "gamma", "beta", "mean", "variance")


@dataclass(frozen=True)
class Placed:
    """A variable with its place in the network.

    Attributes:
        variable: The entry of the checkpoint.
        path: The names of the objects (or scopes) that lead to it, its own name last.
        own_name: The name that the program gave it (`conv1/kernel`), or an empty string.
        layer: The layer that it belongs to.
        role: What it is there, where that is clear.
    """

    variable: Variable
    path: tuple[str, ...]
    own_name: str
    layer: str = ""
    role: str | None = None

    @property
    def counting(self) -> str | None:
        """The word that counts the layers in the path (`layer_with_weights`, `_operations`), or None without one."""
        for name, number in itertools.pairwise((*self.path, "")):
            counted = _COUNTED.match(name)
            if counted:
                return counted[1]
            if name in _LISTS and number.isdecimal():
                return name
        return None

    @property
    def rank(self) -> tuple[object, ...]:
        """Sorts variables by layer number, then by role."""
        home = self.path if self.path[-2:-1] == ("variables",) else self.path[:-1]
        role = _ROLE_ORDER.index(self.role) if self.role in _ROLE_ORDER else len(_ROLE_ORDER)
        return tuple(natural(part) for part in home), role, self.path[-1]

    def tensor(self) -> SourceTensor:
        variable = self.variable
        return SourceTensor(
            name=variable.name,
            shape=variable.shape,
            dtype=variable.dtype or "",
            layer=self.layer,
            load=variable.load,
            role=self.role,
            axes=axes_of(self.role, variable.shape),
        )


def place(variables: Sequence[Variable], owned: Mapping[str, Owner]) -> list[Placed]:
    """Find layer and role of each variable, from the object graph where there is one, else from its name."""
    found = [_located(variable, owned) for variable in variables]
    named = [replace(item, layer=layer) for item, layer in zip(found, _layers(found), strict=True)]
    biases = {item.layer: item.variable.shape for item in named if _word_role(item) == "bias"}
    return [replace(item, role=_role(item, biases.get(item.layer))) for item in named]


def _located(variable: Variable, owned: Mapping[str, Owner]) -> Placed:
    name = variable.name.removesuffix(SUFFIX).removesuffix("/" + AVERAGE)
    owner = owned.get(variable.name)
    if owner is None:
        return Placed(variable, tuple(name.split("/")), "")
    return Placed(variable, owner.path or tuple(name.split("/")), owner.full_name.removesuffix(":0"))


def _layers(found: Sequence[Placed]) -> list[str]:
    """Return the layer of each: as the program called it where one object has that name, else the path to the
    object.
    """
    own = [item.own_name.rpartition("/")[0] for item in found]
    paths = ["/".join(item.path[:-1]) or item.path[-1] for item in found]
    homes: dict[str, set[str]] = {}
    for name, path in zip(own, paths, strict=True):
        homes.setdefault(name, set()).add(path)
    return [name if name and len(homes[name]) == 1 else path for name, path in zip(own, paths, strict=True)]


def _word_role(item: Placed) -> str | None:
    """Return the role that the last word stands for: the program's own name first, then the attribute's."""
    words = [item.own_name.rpartition("/")[2], item.path[-1].lstrip("_")]
    return next((role for word in words if word and (role := role_of(word))), None)


def _role(item: Placed, bias: tuple[int, ...] | None) -> str | None:
    role = _word_role(item)
    if role != "kernel":
        return role
    kind = class_in_name(item.layer.rpartition("/")[2])
    return kernel_role(item.layer, kind, item.variable.shape, bias[0] if bias and len(bias) == 1 else None)
