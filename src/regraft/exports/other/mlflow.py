"""A sealed file as a folder that `mlflow.pyfunc.load_model` takes; MLflow is not needed to write it."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path

import yaml

from regraft import commit
from regraft.exports.running.mlflow_model import COLUMN, FILE, MlflowModel
from regraft.exports.script import card_text
from regraft.exports.sealed_run import SealedRun
from regraft.version import __version__

__all__ = ["CARD", "write_mlflow"]

CARD = "README.md"
_LOADER = "regraft.exports.running.mlflow_model"
_NEEDS = ("numpy", "onnxruntime", "pillow")
_RUNS = (
    "`regraft predict {name} IMAGES` runs the file; `mlflow.pyfunc.load_model(FOLDER)` loads the folder, and takes a "
    "table with the bytes of image files in the column `" + COLUMN + "`."
)


def write_mlflow(out: Path, file: SealedRun) -> None:
    """Write a sealed file, with what MLflow reads beside it, as one new folder.

    Args:
        out: The folder.
        file: Proven.

    Raises:
        StorageError: It cannot be written, or does not open.
    """
    python = platform.python_version()
    needed = [f"regraft=={__version__}", *(f"{name}=={version(name)}" for name in _NEEDS)]
    environment = {"python": python, "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]}
    conda = {
        "name": "regraft",
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", {"pip": needed}],
    }
    with commit.folder(out) as folder:
        (folder / FILE).write_bytes(file.data)
        MlflowModel(folder / FILE)
        commit.write_text(folder / "MLmodel", _yaml(_model(python, file)))
        commit.write_text(folder / "requirements.txt", "\n".join(needed) + "\n")
        commit.write_text(folder / "python_env.yaml", _yaml(environment))
        commit.write_text(folder / "conda.yaml", _yaml(conda))
        commit.write_text(folder / CARD, card_text(file.seal, file.card, FILE, runs=_RUNS.format(name=FILE)))


def _model(python: str, file: SealedRun) -> dict[str, object]:
    """Return what MLmodel says."""
    flavor = {
        "loader_module": _LOADER,
        "data": FILE,
        "python_version": python,
        "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
    }
    inputs = [{"type": "binary", "name": COLUMN, "required": True}]
    params = [
        {"name": "threshold", "type": "double", "default": None, "shape": None},
        {"name": "sets", "type": "double", "default": None, "shape": None},
        {"name": "reject", "type": "boolean", "default": False, "shape": None},
    ]
    names_pixels = file.seal.output == "segmentation"
    signature = {
        "inputs": json.dumps(inputs),
        "outputs": None,
        "params": None if names_pixels else json.dumps(params),
    }
    return {
        "flavors": {"python_function": flavor},
        "metadata": {"architecture": file.seal.architecture, "model_sha256": file.seal.model_sha256},
        "signature": signature,
    }


def _yaml(value: object) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
