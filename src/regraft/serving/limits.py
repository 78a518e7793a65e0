"""What one client may ask of a server, and all of them together."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """Limits of a server.

    Attributes:
        upload_bytes: Of one request.
        pixels: Of one image, before it is resized.
        images: In one request to `/predict/batch`.
        seconds: For reading a request, and again for answering it.
        header_bytes: Of one request.
        header_seconds: Until the headers of a request are complete.
        queue: Images that are decoded, wait or are computed at once; more are answered with 429.
        held_bytes: Of all requests that are being read or decoded; more are answered with 429.
        connections: At once; more are answered with 503.
        batch: Images that are computed at once.
        wait_seconds: For others to join a batch, while others are on their way.
        stop_seconds: For requests that are being answered when the server is told to stop.
    """

    upload_bytes: int = 20_000_000
    pixels: int = 50_000_000
    images: int = 32
    seconds: float = 30.0
    header_bytes: int = 32_768
    header_seconds: float = 10.0
    queue: int = 64
    held_bytes: int = 500_000_000
    connections: int = 512
    batch: int = 8
    wait_seconds: float = 0.004
    stop_seconds: float = 20.0
