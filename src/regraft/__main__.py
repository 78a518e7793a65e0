"""`python -m regraft`, for launchers that start modules (`torchrun -m regraft train ...`)."""

from __future__ import annotations

from regraft.cli.main import run

if __name__ == "__main__":
    run()
