"""How fast `regraft serve` answers 32 clients, as a share of `predict` in the same run, and whether its memory grows.

`uv run python benchmarks/serve.py NAME.onnx PHOTOS [--requests 2000] [--clients 32]`
"""

from __future__ import annotations

import argparse
import asyncio
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil

from regraft.exports.running.predictor import SealedPredictor

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=32)
    asked = parser.parse_args()
    paths = sorted(path for path in asked.photos.rglob("*") if path.suffix.lower() in SUFFIXES)[:400]
    predictor = SealedPredictor(asked.file)
    list(predictor.predict(map(str, paths[:16])))
    rates = {"predict": [], "serve": []}
    command = [sys.executable, "-m", "regraft", "serve", str(asked.file), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        lines = server.stderr or ()
        port = next(int(found[1]) for line in lines if (found := re.search(r":(\d+)$", line)))
        memory = psutil.Process(server.pid)
        bodies = [path.read_bytes() for path in paths]
        asyncio.run(load(port, bodies, 200, asked.clients))
        began, done = memory.memory_info().rss, 200
        for _ in range(3):
            rates["predict"].append(rate(lambda: list(predictor.predict(map(str, paths))), len(paths)))
            num = asked.requests // 3
            rates["serve"].append(rate(lambda: asyncio.run(load(port, bodies, num, asked.clients)), num))  # noqa: B023
            done += num
            print(f"after {done:,} requests: {memory.memory_info().rss / 1e6:.0f} MB (after 200: {began / 1e6:.0f})")
        server.terminate()
    best = {name: max(values) for name, values in rates.items()}
    told = ", ".join(f"{name} {value:.1f} images/s" for name, value in best.items())
    print(f"{told}: {best['serve'] / best['predict']:.0%} with {asked.clients} clients")


def rate(work: object, num: int) -> float:
    """Return images per second."""
    began = time.perf_counter()
    work()  # type: ignore[operator]
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
