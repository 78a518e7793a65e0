"""Puts the writers of test files beside the tests (`keras_files`, `hostile`, ...) on the path, in every import mode."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
