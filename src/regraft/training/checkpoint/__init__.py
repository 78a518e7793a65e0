"""The exact state of a run: saved, read back, resumed from."""
