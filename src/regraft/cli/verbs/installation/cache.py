"""`regraft cache`: where regraft keeps what it can make again, how large it is, and clearing it."""

from __future__ import annotations

from typing import Annotated

import typer

from regraft.cli.say import say
from regraft.commit import as_json as as_json_text

__all__ = ["cache"]


def cache(
    action: Annotated[
        str | None, typer.Argument(help="clear: remove what no process uses.", show_default=False)
    ] = None,
    older: Annotated[
        str | None,
        typer.Option("--older", help="Only what was not used for so long, e.g. 30d or 12h.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what `clear` would remove; remove nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show where the cache is and what it holds: decoded images by data set, exports, indexes of archives.

    `clear` removes it, but for what a run or another command uses now. Everything is made again when it is needed.
    """
    from regraft.data.cache.contents import clear_cache, list_cache
    from regraft.errors import SettingsError

    if action not in (None, "clear"):
        raise SettingsError(f"`regraft cache {action}` is not something that can be done.", "clear, or nothing")
    if action is None and (older is not None or dry_run):
        raise SettingsError(
            "--older and --dry-run are about clearing the cache.", "", "`regraft cache clear --dry-run`"
        )
    found = list_cache() if action is None else clear_cache(older, dry_run=dry_run)
    say(as_json_text(found.to_dict(), indent=2) if as_json else found.render())
