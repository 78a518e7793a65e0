"""Weights from ModelScope, through its library where that is installed: `modelscope:OWNER/NAME/FILE`."""

from __future__ import annotations

import logging
from pathlib import Path

from regraft.errors import WeightsError

__all__ = ["local_weights"]

_log = logging.getLogger("regraft")
_PREFIX = "modelscope:"
_FILE = "model.safetensors"  # where the address names no file


def local_weights(weights: str | Path) -> str | Path:
    """Return a path to weights that ModelScope has, downloaded once by its library; any other text as it is.

    Raises:
        WeightsError: The library is not installed, the address is not one, or the file cannot be had.
    """
    if not str(weights).startswith(_PREFIX):
        return weights
    address = str(weights).removeprefix(_PREFIX)
    owner, _, rest = address.partition("/")
    name, _, file = rest.partition("/")
    if not owner or not name:
        raise WeightsError(
            f"{str(weights)!r} is not an address of ModelScope.",
            "modelscope:OWNER/NAME, or modelscope:OWNER/NAME/FILE",
            "look at the model's page for the name of its weights file",
        )
    return _download(f"{owner}/{name}", file or _FILE)


def _download(model: str, file: str) -> Path:
    try:
        from modelscope.hub.file_download import model_file_download
    except ImportError as error:
        raise WeightsError(
            f"Weights of {model!r} are to come from ModelScope, whose library is not installed.",
            "",
            "`pip install modelscope`, or download the file and type `--set model.weights=FILE`",
        ) from error
    try:
        path = _cached(model_file_download, model, file) or model_file_download(model, file)
    except Exception as error:  # the library raises errors of its own, of requests, and plain ones
        raise WeightsError(
            f"ModelScope did not give {file!r} of {model!r} ({type(error).__name__}: {error}).",
            "",
            "check the name on the model's page, connect once, or download the file: `--set model.weights=FILE`",
        ) from error
    _log.info("weights from ModelScope: %s, %s", model, file)
    return Path(path)


def _cached(download: object, model: str, file: str) -> str | None:
    """Return the file of the library's cache, which needs no connection; None where it is not there."""
    try:
        return str(download(model, file, local_files_only=True))  # type: ignore[operator]
    except Exception:
        return None
