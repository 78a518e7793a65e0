"""The layers of a network as people list them: index, name, alias, type, output shape, parameters.

A layer is a module that owns parameters or buffers. They stand in execution order; the index counts the backbone's own
layers, never those of a decoder or a head. A model in a Keras form lists Keras's own rows instead, also those without
weights: its `Provenance.keras_rows` holds (Keras's name, Keras's class, module name or None) for each row of
the backbone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from regraft.errors import SettingsError
from regraft.models.describe.info import ModelInfo, info_of, is_under
from regraft.models.describe.trace import Call, own_tensors, plain, trace
from regraft.models.keras.layer import kind_of
from regraft.models.layers.aliases import aliases_of
from regraft.wording import quantity

__all__ = ["Layer", "Survey", "format_table", "list_layers", "num_parameters", "survey"]

_CHANNELS_LAST = {"Linear", "LayerNorm", "RmsNorm"}


@dataclass(frozen=True)
class Layer:
    """One row of a model's listing.

    Attributes:
        name: The module's full name in `named_modules()` ("" for the model itself, as where it owns a class token);
            of a Keras row without weights, Keras's name.
        aliases: Its names in Keras, newest spelling first.
        kind: The module's class, or Keras's class of a row without weights.
        output_shape: (channels, height, width) or (features,), without the batch; None where it does not run.
        num_parameters: As Keras counts: moving mean and variance count, `num_batches_tracked` does not.
        num_trainable: How many of these get gradients now.
        part: "backbone" (of a network for segmentation: its encoder), "decoder" or "head".
        index: The place in the backbone's own listing; None for layers of the decoder and the head.
        owns: Whether it owns parameters or buffers (False only for some Keras rows).
        also: Further modules of the same row: the pointwise half of Keras's separable convolutions.
    """

    name: str
    aliases: tuple[str, ...]
    kind: str
    output_shape: tuple[int, ...] | None
    num_parameters: int
    num_trainable: int
    part: str
    index: int | None
    owns: bool = True
    also: tuple[str, ...] = ()

    @property
    def modules(self) -> tuple[str, ...]:
        """All modules of the row that own parameters or buffers."""
        return (self.name, *self.also) if self.owns else ()

    @property
    def alias(self) -> str | None:
        """Its newest name in Keras, if it has one."""
        return self.aliases[0] if self.aliases else None

    @property
    def num_non_trainable(self) -> int:
        """How many of its parameters get no gradients now, moving mean and variance among them."""
        return self.num_parameters - self.num_trainable


@dataclass(frozen=True)
class Survey:
    """A model looked at once: its description, what ran when, all Keras names of its modules, and its layers."""

    info: ModelInfo
    calls: dict[str, Call]
    aliases: dict[str, tuple[str, ...]]
    layers: tuple[Layer, ...]


def list_layers(model: nn.Module, image_size: int | tuple[int, int] | None = None) -> tuple[Layer, ...]:
    """Return all layers of a model: its backbone's in execution order, then its decoder's (if it has one) and its
    head's.

    Modules that do not run stand behind the module that they are registered after.

    Args:
        model: Any module; it is run once on a blank image (shapes only) and not changed.
        image_size: Side, or (height, width), in pixels, for the output shapes; None for the model's own.

    Raises:
        SettingsError: The network does not take an image of the given size.
    """
    return survey(model, image_size).layers


def survey(model: nn.Module, image_size: int | tuple[int, int] | None = None) -> Survey:
    """Return the layers of `list_layers`, with the trace they were found by; same arguments and errors."""
    model = plain(model)
    info, modules = info_of(model), dict(model.named_modules())
    calls = _calls(model, image_size)
    aliases = aliases_of(model, info)
    names = _order([name for name, module in modules.items() if own_tensors(module)], calls)
    rows = _rows(names, info, aliases)
    backbone = [_layer(row, "backbone", index, modules, calls) for index, row in enumerate(rows["backbone"])]
    others = [_layer(row, part, None, modules, calls) for part in ("decoder", "head") for row in rows[part]]
    return Survey(info, calls, aliases, (*backbone, *others))


def num_parameters(module: nn.Module) -> tuple[int, int]:
    """Return a module's (all, trainable) own parameters as Keras counts: with moving mean and variance, without
    counters.
    """
    parameters = [p for p in module._parameters.values() if p is not None]
    buffers = [
        b
        for name, b in module._buffers.items()
        if b is not None and b.is_floating_point() and name not in module._non_persistent_buffers_set
    ]
    trainable = sum(p.numel() for p in parameters if p.requires_grad)
    return sum(t.numel() for t in (*parameters, *buffers)), trainable


def format_table(layers: Sequence[Layer]) -> str:
    """Return the listing as plain text, one line for each layer; shapes are height×width×channels, or features."""
    head = ("index", "name", "alias", "type", "output", "parameters", "trainable")
    rows = [head, *(_cells(layer) for layer in layers)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    right = {0, 5, 6}
    lines = [
        "  ".join(c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    total, trainable = sum(layer.num_parameters for layer in layers), sum(layer.num_trainable for layer in layers)
    lines.append(f"{quantity(total, 'parameter')}: {trainable:,} trainable, {total - trainable:,} not")
    return "\n".join(line.rstrip() for line in lines)


@dataclass(frozen=True)
class _Row:
    name: str
    aliases: tuple[str, ...]
    kind: str | None = None  # of a row without a module
    also: tuple[str, ...] = ()


def _calls(model: nn.Module, image_size: int | tuple[int, int] | None) -> dict[str, Call]:
    try:
        return trace(model, image_size)
    except SettingsError:
        if image_size is not None:
            raise
        return {}  # a model that takes something else than images: registration order, no shapes


def _order(owners: Sequence[str], calls: dict[str, Call]) -> list[str]:
    """Return owners by the start of their first call; those that never run follow the owner registered before them."""
    keys: dict[str, tuple[int, int]] = {}
    last = -1
    for place, name in enumerate(owners):
        last = calls[name].start if name in calls else last
        keys[name] = (last, place if name not in calls else -1)
    return sorted(owners, key=keys.__getitem__)


def _rows(names: Sequence[str], info: ModelInfo, aliases: dict[str, tuple[str, ...]]) -> dict[str, list[_Row]]:
    rows = {
        part: [_Row(name, aliases.get(name, ())) for name in names if info.part_of(name) == part]
        for part in ("backbone", "decoder", "head")
    }
    keras = info.origin.keras_rows
    if keras:
        backbone = [_keras_row(row, aliases, names) for row in keras]
        listed = {name for row in backbone for name in (row.name, *row.also)}
        rows["backbone"] = [*backbone, *(row for row in rows["backbone"] if row.name not in listed)]
    return rows


def _keras_row(row: Sequence[str | None], aliases: dict[str, tuple[str, ...]], owners: Sequence[str]) -> _Row:
    name, kind, module = row
    if module is None:
        return _Row(str(name), (str(name),), str(kind))
    first, *others = [owner for owner in owners if is_under(owner, (module,))] or [module]
    return _Row(first, tuple(dict.fromkeys((str(name), *aliases.get(module, ())))), also=tuple(others))


def _layer(row: _Row, part: str, index: int | None, modules: dict[str, nn.Module], calls: dict[str, Call]) -> Layer:
    if row.kind is not None:
        return Layer(row.name, row.aliases, row.kind, None, 0, 0, part, index, owns=False)
    names = (row.name, *row.also)
    counts = [num_parameters(modules[name]) for name in names]
    call = calls.get(names[-1])
    return Layer(
        name=row.name,
        aliases=row.aliases,
        kind=kind_of(modules[row.name]),
        output_shape=call.shape if call else None,
        num_parameters=sum(total for total, _ in counts),
        num_trainable=sum(trainable for _, trainable in counts),
        part=part,
        index=index,
        also=row.also,
    )


def _cells(layer: Layer) -> tuple[str, ...]:
    index = layer.part if layer.index is None else str(layer.index)
    shape = layer.output_shape or ()
    turned = (*shape[1:], shape[0]) if len(shape) == 3 and layer.kind not in _CHANNELS_LAST else shape
    return (
        index,
        layer.name or "(model)",
        " ".join(layer.aliases),
        layer.kind,
        "×".join(map(str, turned)),
        f"{layer.num_parameters:,}",
        f"{layer.num_trainable:,}",
    )
