"""A run's model folder as others get it: the network and what is known of it, without images of the data set."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from regraft import commit
from regraft.errors import SettingsError, StorageError
from regraft.evaluation.probes import make_probes
from regraft.exports.proving.proof import contents_of, replay
from regraft.models.describe.info import preprocessing_of
from regraft.models.describe.inputs import Normaliser
from regraft.models.store.folder import (
    CONFIG,
    PROBES,
    WEIGHTS,
    find_model_folder,
    load_model,
    load_probes,
    read_config,
)
from regraft.models.store.license import weights_license
from regraft.models.store.trust_file import TRUST
from regraft.models.zoo.pretrained import hub_file
from regraft.run.folder import RunFolder
from regraft.run.folds_folder import fold_runs
from regraft.run.invocation import typed_path
from regraft.run.stored import stored_json, stored_text
from regraft.sharing.card import hub_card
from regraft.sharing.layout import CARD, RECIPE, REPORT, RESULTS
from regraft.sharing.results import recipe_text, results_of

__all__ = ["write_shared"]


def write_shared(
    run: str | Path,
    out: Path,
    *,
    repo: str,
    photos: bool = False,
    license: str | None = None,
    model: nn.Module | None = None,
) -> None:
    """Write the folder that is uploaded, in one commit, after the run's golden probes have been replayed.

    Args:
        run: A run folder or a model folder.
        out: The new folder.
        repo: Where it goes, for its card.
        photos: Whether images of the data set go along: its golden probes, else drawn ones, and report.html.
        license: Of the model, for its card.
        model: The module itself, for a run that trained a module of the user's own.

    Raises:
        SettingsError: There is no model, or several.
        StorageError: The model folder is damaged, or the new one cannot be written.
        WeightsError: The network does not give the logits of its golden probes.
    """
    folder = _intact_folder(run)
    network = load_model(folder, model=model)
    probes = load_probes(folder)
    replay(network, probes, str(run))
    config, trained = read_config(folder), _trained(folder)
    known = _known(folder, trained)
    with commit.folder(out) as target:
        for name in (WEIGHTS, TRUST):
            if (folder / name).is_file():
                shutil.copyfile(folder / name, target / name)
        save_file(probes if photos else _drawn_probes(network), target / PROBES)
        commit.write_json(target / CONFIG, _with_labels(config))
        card = hub_card(
            config,
            known,
            repo=repo,
            base_model=_base_model(config, known),
            weights_license="none were taken" if known.get("weights") == "none" else weights_license(network),
            license=license,
        )
        commit.write_text(target / CARD, card)
        (target / RESULTS).parent.mkdir()
        if known:
            commit.write_json(target / RESULTS, known)
        if trained is not None:
            commit.write_text(target / RECIPE, recipe_text(trained))
            if photos and trained.report.is_file():
                shutil.copyfile(trained.report, target / REPORT)
        elif (folder / RECIPE).is_file():
            commit.write_text(target / RECIPE, stored_text(folder / RECIPE))


def _intact_folder(run: str | Path) -> Path:
    if fold_runs(run):
        raise SettingsError(
            f"{str(run)!r} is a cross-validation, which is several networks.",
            "one run",
            f"one of its folds: `regraft push {typed_path(Path(run) / 'fold-1')} REPO`",
        )
    folder = find_model_folder(run)
    reason = commit.damage(folder)
    if reason is not None:
        raise StorageError(
            f"The model in {str(folder)!r} is damaged: {reason}.",
            "the files that regraft wrote there",
            "restore the folder from a copy, or train again",
        )
    return folder


def _trained(folder: Path) -> RunFolder | None:
    """Return the run that a model folder belongs to; None for one that stands alone."""
    run = RunFolder(folder.parent)
    return run if folder.name == run.model.name and run.recipe.is_file() else None


def _known(folder: Path, trained: RunFolder | None) -> dict[str, Any]:
    """Return what is known of the training: of the run, or as the folder was fetched with it."""
    if trained is not None:
        return results_of(trained)
    stored: dict[str, Any] = stored_json(folder / RESULTS) if (folder / RESULTS).is_file() else {}
    return stored


def _with_labels(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config.json with its labels as the hub's widgets, and transformers, read them."""
    names = config["label_names"]
    return {
        **config,
        "id2label": {str(place): name for place, name in enumerate(names)},
        "label2id": {name: place for place, name in enumerate(names)},
    }


def _base_model(config: dict[str, Any], known: dict[str, Any]) -> str | None:
    """Return the hub's repository of the pretrained weights; None where they came from elsewhere."""
    import timm

    name = config["regraft"]["build"]["name"]
    place = hub_file(name) if known.get("weights") == "pretrained" and timm.is_model(name) else None
    return None if place is None else place.repository


def _drawn_probes(network: nn.Module) -> dict[str, Tensor]:
    """Return golden probes that show nothing of the data set: drawn clouds, and the logits that they give."""
    preprocessing = preprocessing_of(network)
    height, width = preprocessing.pixels.size
    drawn = [
        np.stack([np.asarray(Image.fromarray(band).resize((width, height))) for band in cloud.transpose(2, 0, 1)], 2)
        for cloud in contents_of(network, None)
    ]
    with torch.no_grad():
        return make_probes(network, np.stack(drawn), Normaliser(preprocessing))
