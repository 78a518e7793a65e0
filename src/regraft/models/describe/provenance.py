"""Where a model's weights come from, and what surgery has made of it since."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["KerasRow", "Provenance", "Rows", "SourceNetwork"]

KerasRow = tuple[str, str, str | None]  # Keras's name, Keras's class, module name or None


@dataclass(frozen=True)
class Rows:
    """What became of the rows of a classifier.

    Attributes:
        kept: Class names whose rows stayed, in the new order.
        added: Class names with random rows.
        dropped: Class names of the old head that are gone.
        reason: Why names that both heads have were not kept; empty where all were.
    """

    kept: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class SourceNetwork:
    """The classification network that an encoder was cut from.

    Attributes:
        name: A timm name, or that of a form of keras.applications.
        arguments: Further arguments that it was built with.
    """

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass
class Provenance:
    """Where a model's weights come from, and what surgery has made of it since.

    Attributes:
        weights: A file, `pretrained`, a model folder, or `none`.
        match: The match report of the weights as plain data; None where no file was matched.
        match_options: What `match_weights` was asked for, where it was not the default.
        new_layers: Module-name prefixes of layers with random weights (a new head).
        stem: How surgery changed the first layer, in words.
        stem_steps: The changes of the image's channels, in order, each as keywords of `adapt`.
        rows: What became of the classifier's rows, where surgery gave it new classes.
        keras_rows: Keras's own listing of the network without its top (see `models.layers`).
        encoder: The network that the encoder was cut from, in segmentation.
        initial: The first values of each kernel as it was drawn; None where regraft did not build the network.
        build_seed: What the weights were drawn from when the network was built.
        seed: What the layers that surgery added were drawn from.
    """

    weights: str = "none"
    match: dict[str, Any] | None = None
    match_options: dict[str, Any] = field(default_factory=dict)
    new_layers: tuple[str, ...] = ()
    stem: str = ""
    stem_steps: tuple[dict[str, Any], ...] = ()
    rows: Rows | None = None
    keras_rows: tuple[KerasRow, ...] = ()
    encoder: SourceNetwork | None = None
    initial: dict[str, tuple[float, ...]] | None = None
    build_seed: int | None = None
    seed: int | None = None
