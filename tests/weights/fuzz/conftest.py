"""Puts the fuzzer's modules and the writers of the readers' tests on the path, in every import mode."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "readers")]
