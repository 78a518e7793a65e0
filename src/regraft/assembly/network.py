"""The network of a recipe: weights into their own architecture first, surgery second."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from regraft.assembly.preprocessing import preprocessing_for
from regraft.data.dataset import DataSet
from regraft.errors import SettingsError
from regraft.models.describe.info import info_of
from regraft.models.store.folder import load_model
from regraft.models.surgery.surgery import adapt
from regraft.models.zoo.arguments import check_arguments
from regraft.models.zoo.build import build_model
from regraft.models.zoo.modelscope import local_weights
from regraft.recipe.recipe import Recipe
from regraft.run.folder import RunFolder
from regraft.settings.head import Output
from regraft.weights.file import read_weights

__all__ = ["before_surgery", "network_for", "resumed_network", "surgery_for", "unfilled_network"]


def network_for(recipe: Recipe, data: DataSet, *, weights: str | None = None) -> nn.Module:
    """Return the recipe's network for the data's classes.

    Args:
        recipe: Checked settings.
        data: The images.
        weights: Instead of the recipe's.
    """
    weights = recipe.model.weights if weights is None else weights
    model = _earlier(recipe, Path(weights)) if weights != "none" else None
    if model is None:
        model = build_model(recipe.model.name, weights=weights, **_matching(recipe, weights), **_arguments(recipe))
    model = before_surgery(recipe, model)
    return adapt(model, **surgery_for(recipe, model, data))


def resumed_network(run: RunFolder, recipe: Recipe, data: DataSet, own: nn.Module | None) -> nn.Module:
    """Return the network of a resumed run, without its weights, which are in the checkpoint.

    Args:
        run: The run's folder.
        recipe: The settings to go on with.
        data: The rows that the run began with.
        own: The module itself, for a run that trained a module of the user's own.

    Raises:
        SettingsError: The run trained a module of the user's own, which was not given.
    """
    if own is None and recipe.model.args.get("own_module"):
        raise SettingsError(
            f"{str(run.path)!r} trained a module of your own, which regraft cannot build.",
            "that module as well",
            f"`rg.resume({str(run.path)!r}, model=module)` in Python",
        )
    if own is None:
        return network_for(recipe, data, weights="none")
    return own if info_of(own).class_names is not None else adapt(own, **surgery_for(recipe, own, data))


def unfilled_network(recipe: Recipe) -> nn.Module:
    """Return the recipe's network before surgery: the model of an earlier run, else the network without its weights.

    Raises:
        RegraftError: The weights are a file that is not there or cannot be read.
    """
    weights = recipe.model.weights
    if weights not in ("none", "pretrained"):
        earlier = _earlier(recipe, Path(weights))
        if earlier is not None:
            return earlier
        read_weights(local_weights(weights))
    return build_model(recipe.model.name, **_arguments(recipe))


def before_surgery(recipe: Recipe, model: nn.Module) -> nn.Module:
    """Return the network after the changes of its channels that came before the recipe's own surgery."""
    for step in recipe.model.channels_before:
        model = adapt(model, **step.model_dump())
    return model


def surgery_for(recipe: Recipe, model: nn.Module, data: DataSet) -> dict[str, Any]:
    """Return the recipe's arguments of `adapt`."""
    usual: Output = "segmentation" if data.segmentation else "multilabel" if data.multilabel else "softmax"
    output = recipe.head.output or usual
    return {
        "classes": data.class_names,
        "head": replace(recipe.head, output=output),
        "in_channels": recipe.model.in_channels,
        "bands": recipe.model.bands,
        "preprocessing": preprocessing_for(recipe, model),
        "seed": _seed(recipe),
    }


def _earlier(recipe: Recipe, weights: Path) -> nn.Module | None:
    """Return the model of an earlier run, where the recipe's weights name one; it knows its classes and its head.

    Raises:
        SettingsError: It is another network than the recipe's.
    """
    if not any((folder / "config.json").is_file() for folder in (weights, weights / "model")):
        return None
    model = load_model(weights)
    name = info_of(model).architecture
    if name != recipe.model.name:
        raise SettingsError(
            f"The model in {str(weights)!r} is {name!r}, the recipe's network is {recipe.model.name!r}.",
            "weights of the same network",
            f"`--model {name}`",
        )
    info_of(model).origin.weights = str(weights)
    return model


def _matching(recipe: Recipe, weights: str) -> dict[str, Any]:
    """Return the matching options of `build_model`; empty for a network without weights."""
    if weights == "none":
        return {}
    match = recipe.model.match
    return {"skip": recipe.model.skip, "match": match.model_dump(exclude_defaults=True) if match else None}


def _arguments(recipe: Recipe) -> dict[str, Any]:
    """Return the arguments of `build_model`, beside name and weights.

    Raises:
        SettingsError: Something that does not describe a network, as a file or an address.
    """
    check_arguments(recipe.model.name, recipe.model.args)
    arguments = {"seed": _seed(recipe), **recipe.model.args}
    if "in_chans" in arguments:
        arguments["in_channels"] = arguments.pop("in_chans")
    return arguments


def _seed(recipe: Recipe) -> int:
    """Return the seed of new layers: the network's own, else the run's."""
    return recipe.seed if recipe.model.seed is None else recipe.model.seed
