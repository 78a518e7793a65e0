"""How fast `regraft serve` answers 32 clients, as a share of `predict` in the same run, and whether its memory grows.

    uv run python benchmarks/serve.py NAME.onnx PHOTOS [--requests 2000] [--clients 32]
    uv run python benchmarks/serve.py --tiny --requests 100000      # a network of 0.5 MB, images of 40 x 48 pixels

Memory is what the server's process holds, after each tenth of the requests. `grows by` is the slope of a line through
the later half of these, so that what is filled once (caches, pools of the allocator) does not count.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

import regraft as rg
from regraft.exports.running.predictor import SealedPredictor

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
WARM, TENTHS = 200, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("photos", type=Path, nargs="?")
    parser.add_argument("--tiny", action="store_true", help="take a tiny network and tiny images instead")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=32)
    asked = parser.parse_args()
    if asked.tiny:
        with tempfile.TemporaryDirectory() as folder:
            file, photos = tiny(Path(folder))
            measured(file, photos, asked.requests, asked.clients)
    else:
        measured(asked.file, asked.photos, asked.requests, asked.clients)


def tiny(folder: Path) -> tuple[Path, Path]:
    """A network that answers in less than a millisecond, and photos for it."""
    rng = np.random.default_rng(0)
    for place in range(60):
        path = folder / "photos" / ("cat", "dog")[place % 2] / f"{place}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(path)
    data = rg.open_data(folder / "photos")
    model = rg.adapt(rg.build_model("test_efficientnet"), classes=data.class_names, image_size=32)
    run = rg.train(model, rg.make_plan(model, [rg.Stage("head", epochs=1)]), data, out=folder / "run", show=False)
    return rg.export(run.path, folder / "tiny.onnx", verify=0).path, folder / "photos"


def measured(file: Path, photos: Path, requests: int, clients: int) -> None:
    """Print how fast a file answers, and what it holds."""
    paths = sorted(path for path in photos.rglob("*") if path.suffix.lower() in SUFFIXES)[:400]
    bodies = [path.read_bytes() for path in paths]
    predictor = SealedPredictor(file)
    list(predictor.predict(map(str, paths[:16])))
    command = [sys.executable, "-m", "regraft", "serve", str(file), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        lines = server.stderr or io.StringIO()
        port = next(int(found[1]) for line in lines if (found := re.search(r":(\d+)$", line)))
        process = psutil.Process(server.pid)
        asyncio.run(load(port, bodies, WARM, clients))
        done, held, rates, alone = [WARM], [process.memory_info().rss / 1e6], [], []
        for tenth in range(TENTHS):
            if tenth % 4 == 0:  # in between, so that a busy machine slows both
                alone.append(rate(lambda: list(predictor.predict(map(str, paths))), len(paths)))
            num = requests // TENTHS
            rates.append(rate(lambda: asyncio.run(load(port, bodies, num, clients)), num))  # noqa: B023
            done.append(done[-1] + num)
            held.append(process.memory_info().rss / 1e6)
            print(f"after {done[-1]:,} requests: {held[-1]:.1f} MB, {rates[-1]:.1f} images/s", flush=True)
        server.terminate()
    best = max(rates) / max(alone)
    print(f"predict {max(alone):.1f} images/s, serve {max(rates):.1f}: {best:.0%} with {clients} clients")
    later = slice(len(held) // 2, None)
    slope = float(np.polyfit(done[later], held[later], 1)[0])
    print(f"memory: {held[0]:.1f} MB after {WARM}, {held[-1]:.1f} MB after {done[-1]:,}; ", end="")
    print(f"grows by {1e4 * slope:+.2f} MB in 10,000 requests over the later half")


def rate(work: Callable[[], object], num: int) -> float:
    """Return images per second."""
    began = time.perf_counter()
    work()
    return num / (time.perf_counter() - began)


async def load(port: int, bodies: list[bytes], num: int, clients: int) -> None:
    """Send so many requests, each client its next one when the last one is answered, over one connection."""
    numbers = iter(range(num))

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in numbers:
            body = bodies[number % len(bodies)]
            writer.write(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n")
            writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            if length is None or not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"it answered {head!r}")
            await reader.readexactly(int(length[1]))
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))


if __name__ == "__main__":
    main()
