"""A server of files behind a line: so many bytes in a second for all, and a time for every way there and back.

    uv run python benchmarks/link.py FOLDER --mbit 100 --milliseconds 50

Prints its port, and serves until it is ended. A new connection waits for one round trip, each answer for one more; a
connection's first bytes come in TCP's windows, of 14,600 bytes and twice as many with each round trip (RFC 6928,
RFC 5681), which a connection that is used again has behind it. Nothing is lost on this line.
"""

from __future__ import annotations

import argparse
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_FIRST_WINDOW = 14_600


class Line:
    """What all connections share."""

    def __init__(self, mbit: float, milliseconds: float) -> None:
        self.speed, self.round_trip = mbit * 1e6 / 8, milliseconds / 1e3
        self._free = time.monotonic()
        self._lock = threading.Lock()

    def carry(self, num_bytes: int) -> None:
        """Wait until these bytes are through, behind those of all others."""
        with self._lock:
            self._free = max(self._free, time.monotonic()) + num_bytes / self.speed
            until = self._free
        time.sleep(max(0.0, until - time.monotonic()))


def server(folder: Path, line: Line) -> ThreadingHTTPServer:
    """Return a server of a folder behind a line, at a free port of this machine."""

    class Handler(SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        window = _FIRST_WINDOW
        disable_nagle_algorithm = True  # as servers do: or a kept connection waits 40 ms between header and body

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(folder))

        def setup(self) -> None:
            time.sleep(line.round_trip)
            super().setup()

        def copyfile(self, source: Any, outputfile: Any) -> None:
            time.sleep(line.round_trip)
            while part := source.read(self.window):
                line.carry(len(part))
                outputfile.write(part)
                if len(part) == self.window:
                    time.sleep(line.round_trip)
                    self.window *= 2

        def do_HEAD(self) -> None:
            time.sleep(line.round_trip)
            super().do_HEAD()

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 512

    return Server(("127.0.0.1", 0), Handler)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mbit", type=float, default=100)
    parser.add_argument("--milliseconds", type=float, default=50)
    options = parser.parse_args()
    made = server(options.folder, Line(options.mbit, options.milliseconds))
    print(made.server_port, flush=True)
    made.serve_forever()


if __name__ == "__main__":
    main()
