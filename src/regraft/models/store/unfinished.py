"""A network of a run that is not in its model folder: the best of one that has not finished, of a stage, the last."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from regraft import commit
from regraft.errors import SettingsError, StorageError, did_you_mean
from regraft.run.file_suffix import refuse_export
from regraft.run.folder import RunFolder
from regraft.run.invocation import typed_path
from regraft.run.stored import stored_json

__all__ = ["LAST", "StoredEpoch", "best_epoch", "named_epoch", "stored_config"]

LAST = "last"
_WEIGHTS = "model.safetensors"


class StoredEpoch(NamedTuple):
    """An epoch whose weights a run keeps.

    Attributes:
        config: As a model folder has it, with the image size and the thresholds of this epoch.
        weights: The file that holds all of its tensors.
        step: After which step of the run.
        told: Which epoch of which stage, for people.
    """

    config: dict[str, Any]
    weights: Path
    step: int
    told: str


def best_epoch(path: str | Path) -> StoredEpoch | None:
    """Return the best epoch of a run without a model; None where there is no such run, or no epoch has ended.

    Raises:
        StorageError: A record of the run, or the checkpoint, is damaged.
    """
    run = RunFolder(Path(path))
    if (run.model / "config.json").is_file():
        return None
    config, best = run.read(run.architecture), run.read(run.best)
    return None if config is None or best is None else _epoch(run, config, best)


def named_epoch(path: str | Path, checkpoint: str) -> StoredEpoch:
    """Return the best epoch of a stage, or the last one, of a run that has finished or not.

    Args:
        path: The run's folder.
        checkpoint: A stage's name, or `last`.

    Raises:
        SettingsError: It is no run, or one that does not keep such a network.
        StorageError: A record of the run, or the weights, are damaged.
    """
    refuse_export(path)
    run = RunFolder(Path(path))
    networks = run.read(run.networks)
    if networks is None:
        what = "keeps the delivered network alone" if run.recipe.is_file() else "is not a run's folder"
        raise SettingsError(
            f"{str(path)!r} {what} ({run.networks.name} is missing), and the network {checkpoint!r} was asked for.",
            "a run of which an epoch has ended, trained by this version of regraft",
            "leave `--checkpoint` out for the network that is there, or train again",
        )
    stages = {str(epoch.get("stage")): epoch for epoch in networks.get("stages") or ()}
    found = networks.get("last") if checkpoint == LAST else stages.get(checkpoint)
    if found is None:
        raise SettingsError(
            f"The run {str(path)!r} keeps no network {checkpoint!r}{did_you_mean(checkpoint, [*stages, LAST])}",
            f"one of: {', '.join([*stages, LAST])}",
            "name one of them with `--checkpoint`, or leave it out for the one that the run has chosen",
        )
    config = run.read(run.model / "config.json") or run.read(run.architecture)
    if config is None:
        raise StorageError(
            f"The run {str(path)!r} has neither a model nor {run.architecture.name}.",
            "the records that regraft wrote",
            "restore the folder from a copy, or train again",
        )
    return _epoch(run, config, found)


def _epoch(run: RunFolder, config: dict[str, Any], epoch: Mapping[str, Any]) -> StoredEpoch:
    """Return the network of an epoch, of which the run's records say where and at which image size it was."""
    try:
        step, stage, number = int(epoch["step"]), str(epoch["stage"]), int(epoch["epoch"])
        section = config["regraft"]
        sizes = section.pop("sizes", None) or _sizes(run)
        size = sizes.get(stage)
        if size is not None:
            section["preprocessing"]["pixels"]["size"] = size
        if "thresholds" in section:
            section["thresholds"] |= {name: float(value) for name, value in epoch.get("thresholds", {}).items()}
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise StorageError(
            f"The records of the run {str(run.path)!r} cannot be understood ({type(error).__name__}: {error}).",
            "the records that regraft wrote",
            "restore the folder from a copy, or continue the run",
        ) from error
    folder = run.weights(step)
    reason = commit.damage(folder, only=[_WEIGHTS])
    if reason is not None:
        raise StorageError(
            f"The network of stage {stage!r}, epoch {number}, of {str(run.path)!r} cannot be read: {reason}.",
            "the weights that regraft wrote",
            f"restore the folder from a copy; an unfinished run continues from the last intact checkpoint with "
            f"`regraft resume {typed_path(run.path)}`",
        )
    return StoredEpoch(config, folder / _WEIGHTS, step, f"stage {stage}, epoch {number}")


def _sizes(run: RunFolder) -> dict[str, Any]:
    """Return height and width that each stage of a finished run has looked at; its model folder has those of one
    stage.
    """
    recipe = run.settings()
    usual = recipe["data"]["preprocess"]["pixels"]["size"]
    sizes = {str(stage["name"]): stage.get("image_size") or usual for stage in recipe["stages"]}
    return {name: [size, size] if isinstance(size, int) else size for name, size in sizes.items()}


def stored_config(path: Path, checkpoint: str | None = None) -> dict[str, Any]:
    """Return the config of the model at `path`: a model folder, a run, or one that has not finished; unchecked.

    Raises:
        FileNotFoundError: There is none.
        SettingsError: The run does not keep the network that `checkpoint` names.
        StorageError: It, or a record of the run, is damaged.
    """
    if checkpoint is not None:
        return named_epoch(path, checkpoint).config
    for folder in (path / "model", path):
        if (folder / "config.json").is_file():
            config: dict[str, Any] = stored_json(folder / "config.json", linked=True)
            return config
    best = best_epoch(path)
    if best is None:
        raise FileNotFoundError(str(path))
    return best.config
