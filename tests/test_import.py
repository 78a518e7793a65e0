"""What importing costs: neither `import regraft` nor `regraft --help` imports torch."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import pytest

HEAVY = ("torch", "timm", "torchvision", "accelerate", "sklearn", "h5py")


def loaded_after(code: str) -> str:
    check = f"{code}\nimport sys\nprint([name for name in {HEAVY} if name in sys.modules])"
    return subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout


def test_import_is_light() -> None:
    assert loaded_after("import regraft").strip() == "[]"


def test_help_is_light() -> None:
    code = "import sys\nfrom regraft.cli.main import app\ntry:\n    app(['--help'])\nexcept SystemExit:\n    pass"
    assert loaded_after(code).strip().splitlines()[-1] == "[]"


@pytest.mark.slow
def test_help_costs_a_fraction_of_importing_torch() -> None:
    """A ratio in the same run: these machines are noisy, and `--help` must never wait for torch."""

    def seconds(code: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
        return time.perf_counter() - began

    helps = [seconds("from regraft.cli.main import app; app(['--help'])") for _ in range(3)]
    assert statistics.median(helps) < seconds("import torch, timm") / 3
