"""HTTP/1.1 of uvicorn, with a limit of time for headers, a limit of connections, and answers in JSON."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from regraft.serving.limits import Limits

__all__ = ["guarded_protocol"]


def guarded_protocol(limits: Limits) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol with these limits."""

    class Guarded(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                self._end("503 Service Unavailable", "busy", "The server has too many connections.")
            else:
                self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            self._end("400 Bad Request", "bad_request", msg)

        def _watch(self) -> None:
            """Let the connection end where the headers of a request take too long."""
            if self.cycle is not None and not self.cycle.response_complete:
                self._forget()
            elif self._timer is None and not self.transport.is_closing():
                self._timer = self.loop.call_later(limits.header_seconds, self._expire)

        def _expire(self) -> None:
            self._timer = None
            if self.cycle is None or self.cycle.response_complete:
                said = f"The headers were not complete within {limits.header_seconds:g} seconds."
                self._end("408 Request Timeout", "too_slow", said)

        def _forget(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _end(self, status: str, kind: str, message: str) -> None:
            if self.transport.is_closing():
                return
            body = json.dumps({"error": {"type": kind, "message": message}}).encode()
            head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n"
            self.transport.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            self.transport.close()

    return Guarded
