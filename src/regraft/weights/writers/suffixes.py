"""The suffixes of the weights files that regraft writes."""

from __future__ import annotations

__all__ = ["SUFFIXES"]

SUFFIXES = (".safetensors", ".h5", ".weights.h5", ".hdf5")
