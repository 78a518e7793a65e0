"""Take the picture of a report that README shows, with headless Chromium, from the run of the demo.

    uv run regraft demo --out runs/digits
    uv run python scripts/report_picture.py runs/digits/report.html docs/images/report.png

A palette of 64 colours keeps it below 150 kB.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

MOST_BYTES = 150_000


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--width", type=int, default=1100)
    parser.add_argument("--height", type=int, default=1455, help="down to the end of the curves of loss and accuracy")
    given = parser.parse_args()
    saved(screenshot(given.page, given.width, given.height), given.picture)


def saved(shot: Image.Image, picture: Path) -> None:
    """Write a screenshot as a small PNG file, and say how large it is."""
    shot.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(picture, optimize=True)
    size = picture.stat().st_size
    if size > MOST_BYTES:
        raise SystemExit(f"{picture}: {size:,} bytes; at most {MOST_BYTES:,}")
    print(f"{picture}: {size:,} bytes, {shot.width}x{shot.height}")


def screenshot(page: Path, width: int, height: int) -> Image.Image:
    """The top of a page, as a browser shows it."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("no Chromium here; `apt-get install chromium`")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "page.png"
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        size = [f"--window-size={width},{height}", f"--screenshot={target}", page.resolve().as_uri()]
        subprocess.run([*command, *size], check=True, capture_output=True, timeout=120)
        return Image.open(target).copy()


if __name__ == "__main__":
    main()
