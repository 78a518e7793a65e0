"""`explain`: heat maps of images, for the class that was predicted or any other, without naming a layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from regraft.compute.numerics import Numerics, choose_numerics
from regraft.data.decode.memory import MemoryImage
from regraft.data.inputs import list_inputs
from regraft.evaluation.predict import Inputs
from regraft.explanation.images import explained_images
from regraft.explanation.pixels import explained_masks
from regraft.explanation.question import question
from regraft.explanation.record import Explanation
from regraft.models.describe.info import info_of, named
from regraft.models.store.folder import loaded_model

__all__ = ["explain", "explained"]


def explain(
    model: str | Path | nn.Module,
    inputs: Inputs,
    *,
    classes: str | Sequence[str] = (),
    top: int | None = None,
    numerics: Numerics | None = None,
    checkpoint: str | None = None,
) -> list[Explanation]:
    """Return heat maps: where in each image the network finds what speaks for a class.

    A place counts by its gradient times its value in the last map before the head, in fp32; behind global pooling and
    a linear layer that is exactly what it adds to the class's logit. It shows what the network used, not whether it is
    right to use it, and nothing of what it would do without it.

    Args:
        model: A run folder, a model folder, or a model from `load_model`.
        inputs: As for `predict`: files, folders, patterns, and images in memory.
        classes: Names of classes to explain; none takes the predicted one, of labels all that are named, of masks the
            one with the most pixels.
        top: Instead, the most probable classes, so many; of masks those with the most pixels.
        numerics: Device, layout, threads; None chooses for this machine.
        checkpoint: Of a run folder, another network than the one it has chosen, as for `load_model`.

    Returns:
        For each image, in input order, one row for each class; one with an `error` where it cannot be read.

    Raises:
        SettingsError: There is no model there, or no such class; or the network has no map of places, as one that works
            on tokens (ViT, MLP-Mixer).
        DataError: There is no such file or folder.
    """
    loaded = loaded_model(model, checkpoint)
    sources, _ = list_inputs(inputs)
    names = [classes] if isinstance(classes, str) else list(classes)
    return [row for rows in explained(loaded, sources, names, top, numerics) for row in rows]


def explained(
    model: nn.Module,
    sources: Sequence[str | MemoryImage],
    classes: Sequence[str] = (),
    top: int | None = None,
    numerics: Numerics | None = None,
) -> Iterator[list[Explanation]]:
    """Return the rows of each image, as they are computed.

    Raises:
        SettingsError: As `explain`.
    """
    info = info_of(model)
    class_names, _ = named(info)
    asked = question(class_names, classes, top)
    numerics = replace((numerics or choose_numerics()).for_inference, precision="fp32")
    made = explained_masks if info.output == "segmentation" else explained_images
    return made(model, numerics, asked, sources)
