"""What a run writes before it begins: its recipe, the command, the machine, the class names, the match."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from regraft import commit
from regraft.machine.processes import launch_id, num_processes
from regraft.models.describe.info import info_of
from regraft.run.folder import RunFolder
from regraft.run.invocation import command_line
from regraft.visible import visible

__all__ = ["environment", "plain", "recipe_text", "write_records"]


def write_records(run: RunFolder, recipe: Mapping[str, Any], model: nn.Module, chosen: Sequence[str] = ()) -> None:
    """Write what is known before the first step; recipe.yaml comes last: a folder with it is a run.

    Args:
        run: The run folder.
        recipe: The whole run as plain data.
        model: The model.
        chosen: What was chosen in the recipe and why, a line each: comments at its head.
    """
    info = info_of(model)
    commit.write_text(run.command, command_line() + "\n")
    if launch_id():
        commit.write_text(run.launch, launch_id() + "\n")
    commit.write_json(run.environment, environment())
    commit.write_json(run.classes, list(info.class_names or ()))
    if info.origin.match is not None:
        commit.write_json(run.match, info.origin.match)
    else:
        commit.remove_file(run.match)  # of an earlier try at this run
    comments = "".join(f"# {visible(line)}\n" for line in chosen)
    commit.write_text(run.recipe, comments + recipe_text(recipe))


def recipe_text(recipe: Mapping[str, Any]) -> str:
    """Return resolved settings as recipe.yaml holds them."""
    return yaml.safe_dump(plain(recipe), sort_keys=False, allow_unicode=True)


def plain(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as they come back from a file: tuples are lists."""
    values: dict[str, Any] = json.loads(json.dumps(recipe))
    return values


def environment() -> dict[str, Any]:
    """Return the machine, and the packages that a run's numbers depend on."""
    packages = ("regraft", "torch", "torchvision", "timm", "accelerate", "safetensors", "numpy", "pillow")
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "processes": num_processes(),
        **{package: importlib.metadata.version(package) for package in packages},
    }
    if torch.cuda.is_available():
        facts |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda or ""}
    return facts


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
