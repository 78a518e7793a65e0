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
SHIM = Path(__file__).parent / "iframe-worker.js"
SHIM_ELSEWHERE = "https://unpkg.com/iframe-worker/shim"
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((\.\./[^)\s#]*)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add the pages that are written from the code."""
    for path, write in WRITTEN.items():
        files.append(File.generated(config, path, content=write()))
    files.append(File.generated(config, SHIM.name, content=SHIM.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Take out links that leave docs/."""
    folder = posixpath.dirname(page.file.src_uri)

    def shown(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link.group(2)))
        return link.group(1) if target.startswith("..") else link.group(0)

    return LINK.sub(shown, markdown)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Have the page load the shim of the search from the site."""
    return output.replace(SHIM_ELSEWHERE, "../" * page.file.dest_uri.count("/") + SHIM.name)
