"""One export of the tiny run, which many tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest

import regraft as rg


@pytest.fixture(scope="session")
def sealed(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> rg.Export:
    """The tiny run's network as tiny.onnx, with its script and its card."""
    return rg.export(tiny_run, tmp_path_factory.mktemp("exports") / "tiny.onnx", verify=12)
