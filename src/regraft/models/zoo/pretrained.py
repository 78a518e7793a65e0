"""Where pretrained weights come from: a file given, an installed weights package, the hub (with its cache)."""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from regraft.errors import WeightsError
from regraft.models.zoo.families import WEIGHTS_PACKAGES, installed_weights

__all__ = ["find_pretrained"]

_log = logging.getLogger("regraft")


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


def _from_hub(name: str) -> Path:
    import timm

    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        raise WeightsError(
            f"timm has no pretrained weights for {name!r} on the hub.",
            "a model with pretrained weights, or a weights file",
            f"`regraft inspect '{name.split('.')[0]}*'` for the names, or set model.weights to a file or to none",
        )
    repository = config.hf_hub_id if "/" in config.hf_hub_id else f"timm/{config.hf_hub_id}"
    if repository.endswith("/"):
        repository += f"{config.architecture}.{config.tag}"
    try:
        path = _download(repository, config.hf_hub_filename or "model.safetensors")
    except OSError as error:  # also what the hub's library raises
        raise WeightsError(
            f"The pretrained weights of {name!r} ({repository}) are not in the local cache, "
            f"and the hub cannot be reached ({type(error).__name__}).",
            "a network connection, an installed weights package "
            f"(there is one for: {', '.join(WEIGHTS_PACKAGES)}) or a weights file",
            "connect once so that the cache is filled, type `--set model.weights=FILE`, "
            "or `--set model.weights=none` to start from random weights",
        ) from error
    _log.info("pretrained weights of %s: hub %s", name, repository)
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


def _require_reachable(address: str) -> None:
    """Raise OSError at once where the hub's library would try again for half a minute; a proxy is trusted."""
    if getproxies():
        return
    parts = urlsplit(address)
    port = parts.port or (80 if parts.scheme == "http" else 443)
    socket.create_connection((parts.hostname or "", port), timeout=10).close()
