"""What MkDocs does beside rendering the pages of docs/.

Pages of reference are written from the code while the site is built, so that none is ever out of date. Links to files
outside docs/ become plain text, since the site does not hold them. What lets the search run without a server is taken
from this folder instead of another host.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))
import commands
import python_names

WRITTEN = {"reference/commands.md": commands.page, "reference/python.md": python_names.page}
STAND_IN = Path(__file__).parent / "frame_worker.js"  # for Worker, which pages at file:// do not have
STAND_IN_ELSEWHERE = re.compile(r'https://[^"\s]*iframe-worker/shim')  # where the theme would fetch one
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((\.\./[^)\s#]*)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add the pages that are written from the code."""
    for path, write in WRITTEN.items():
        files.append(File.generated(config, path, content=write()))
    files.append(File.generated(config, STAND_IN.name, content=STAND_IN.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Take out links that leave docs/."""
    folder = posixpath.dirname(page.file.src_uri)

    def shown(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link.group(2)))
        return link.group(1) if target.startswith("..") else link.group(0)

    return LINK.sub(shown, markdown)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Have the page load what its search needs from the site."""
    return STAND_IN_ELSEWHERE.sub("../" * page.file.dest_uri.count("/") + STAND_IN.name, output)
