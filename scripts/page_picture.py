"""Take the picture of the try-out page that README shows: a served model answers photos in headless Chromium.

    uv run regraft demo --out runs/digits
    uv run python -m scripts.page_picture runs/digits docs/images/page.png IMAGE IMAGE ...

It is driven by what drives the browser in the tests.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from PIL import Image
from scripts.report_picture import saved
from tests.browser import browser
from tests.serving.conftest import serving

WIDTH = 900


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("images", type=Path, nargs="+", help="what is dropped onto the page")
    given = parser.parse_args()
    with serving(given.run) as server, browser() as page, tempfile.TemporaryDirectory() as folder:
        page.open(f"http://127.0.0.1:{server.port}/", WIDTH, 2000)  # higher than its content: no scroll bar
        page.drop([path.resolve() for path in given.images])
        page.wait(f"document.querySelectorAll('.photo[aria-busy=false]').length === {len(given.images)}")
        height = page.value("Math.ceil(document.querySelector('footer').getBoundingClientRect().top)")
        page.picture(Path(folder) / "page.png")
        with Image.open(Path(folder) / "page.png") as shot:
            saved(shot.crop((0, 0, WIDTH, height)), given.picture)


if __name__ == "__main__":
    main()
