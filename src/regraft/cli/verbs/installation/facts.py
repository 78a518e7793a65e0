"""Facts about this installation. Versions are read from what is installed; torch is imported for its devices alone."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import Any

__all__ = ["collect"]

_ENVIRONMENT = (
    *("HF_ENDPOINT", "HF_HUB_OFFLINE", "REGRAFT_CACHE", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"),
    *("PYTORCH_CUDA_ALLOC_CONF", "LANG"),
)
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_EXTRA = re.compile(r"extra == ['\"]([^'\"]+)['\"]")


def collect() -> dict[str, Any]:
    """Return the facts by name, as plain data. A part of this installation that is broken says so in its place."""
    from regraft.version import __version__

    return {
        "regraft": __version__,
        "python": f"{platform.python_version()} ({platform.platform()})",
        "packages": _packages(),
        "devices": _devices(),
        "threads": _threads(),
        "memory": _memory(),
        "extras": _extras(),
        "weights": _weights_packages(),
        "caches": _caches(),
        "set": {name: _at_home(os.environ[name]) for name in _ENVIRONMENT if name in os.environ} or "none",
    }


def _packages() -> dict[str, str]:
    required = (text for text in _requirements() if "extra ==" not in text)
    return {name: _version(name) for name in sorted(map(_distribution, required))}


def _requirements() -> list[str]:
    """Return what regraft asks for; nothing where it runs from a checkout that is not installed."""
    try:
        return importlib.metadata.requires("regraft") or []
    except importlib.metadata.PackageNotFoundError:
        return []


def _distribution(requirement: str) -> str:
    match = _NAME.match(requirement)
    return match.group() if match else requirement


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _devices() -> list[str]:
    try:
        import torch
    except (ImportError, OSError) as error:  # a broken build is what a bug report is about
        return [f"torch cannot be imported: {error}"]
    gpus = [f"cuda:{number} {torch.cuda.get_device_name(number)}" for number in range(_num_gpus(torch))]
    built_for = f" (torch is built for CUDA {torch.version.cuda})" if torch.version.cuda else ""
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return [*gpus, *mps, "cpu" if gpus else f"cpu{built_for}"]


def _num_gpus(torch: Any) -> int:
    return int(torch.cuda.device_count()) if torch.cuda.is_available() else 0


def _threads() -> str:
    from regraft.machine.budget import num_cpus

    return f"{num_cpus()} of {os.cpu_count()} processors may be used"


def _memory() -> str:
    import psutil

    memory = psutil.virtual_memory()
    return f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free"


def _extras() -> dict[str, str]:
    """Return each extra of regraft: installed, or what to type for it."""
    wanted: dict[str, list[str]] = {}
    for requirement in _requirements():
        if found := _EXTRA.search(requirement):
            wanted.setdefault(found.group(1), []).append(_distribution(requirement))
    return {extra: _state(extra, names) for extra, names in sorted(wanted.items())}


def _state(extra: str, distributions: list[str]) -> str:
    versions = {name: _version(name) for name in distributions}
    if "not installed" in versions.values():
        return f"not installed (`pip install 'regraft[{extra}]'`)"
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _weights_packages() -> list[str]:
    from regraft.models.zoo.families import WEIGHTS_PACKAGES, installed_weights

    return [name for name in WEIGHTS_PACKAGES if installed_weights(name) is not None]


def _caches() -> dict[str, str]:
    from huggingface_hub import constants

    from regraft.machine.cache_folder import cache_folder

    return {"regraft": _at_home(str(cache_folder())), "hub": _at_home(str(constants.HF_HUB_CACHE))}


def _at_home(path: str) -> str:
    """Return a path with the home folder as `~`: a bug report need not tell who somebody is."""
    home = str(Path.home())
    return path.replace(home, "~") if len(home) > 1 else path
