"""What differs between the recipes of the runs in a folder: each setting that is not the same in all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from regraft.errors import StorageError
from regraft.run.stored import stored_yaml
from regraft.visible import visible

__all__ = ["differences_of_runs", "recipe_differences"]

_ABSENT = "–"
_LONGEST = 60


def recipe_differences(root: str | Path) -> dict[str, dict[str, Any]]:
    """Return, for each setting that differs, its value in each run that has it.

    Args:
        root: A folder of runs; a recipe that cannot be read is left out.
    """
    settings: dict[str, dict[str, Any]] = {}
    for path in sorted(Path(root).iterdir()):
        if (path / "recipe.yaml").is_file():
            try:
                settings[path.name] = dict(_flat(stored_yaml(path / "recipe.yaml")))
            except StorageError:
                continue
    keys = dict.fromkeys(key for values in settings.values() for key in values)
    found = {}
    for key in keys:
        own = {run: values[key] for run, values in settings.items() if key in values}
        if len(own) < len(settings) or len({repr(value) for value in own.values()}) > 1:
            found[key] = own
    return found


def differences_of_runs(root: str | Path) -> str:
    """Return the settings that differ as lines, with the value of each run; a sentence where none does."""
    found = recipe_differences(root)
    runs = sorted({path.parent.name for path in Path(root).glob("*/recipe.yaml")})
    if len(runs) < 2:
        return "One run has nothing to differ from."
    if not found:
        return "The recipes of these runs are the same."
    width = max(len(visible(run)) for run in runs)
    lines = []
    for key, values in found.items():
        lines.append(visible(key))
        lines += [f"  {visible(run):<{width}}  {_short(values.get(run, _ABSENT))}" for run in runs]
    return "\n".join(lines)


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield settings with dotted keys, as `--set` takes them."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if items is None or not value:
        yield prefix, value
        return
    for key, item in items:
        yield from _flat(item, f"{prefix}.{key}" if prefix else str(key))


def _short(value: Any) -> str:
    text = visible(str(value))
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
