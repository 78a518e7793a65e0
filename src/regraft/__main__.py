"""The `regraft` command, and `python -m regraft` for launchers that start modules (`torchrun -m regraft train ...`)."""

from __future__ import annotations

import sys

__all__ = ["run"]


def run() -> None:
    """Run the command line; Ctrl-C while it is still being imported ends it as it does later."""
    try:
        from regraft.cli import main
    except KeyboardInterrupt:
        print("Interrupted; nothing was begun.", file=sys.stderr)
        sys.exit(130)
    main.run()


if __name__ == "__main__":
    run()
