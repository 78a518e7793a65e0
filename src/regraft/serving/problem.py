"""What a server answers where it does not answer the question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

__all__ = ["Problem"]


class Problem(Exception):  # noqa: N818 - it is an answer
    """An answer that says what is wrong.

    Args:
        status: The HTTP status.
        kind: A word for programs.
        message: A sentence for people.
        headers: Of the answer.
    """

    def __init__(self, status: int, kind: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.headers = status, kind, message, dict(headers or {})

    def to_dict(self) -> dict[str, Any]:
        """Return the answer's JSON."""
        return {"error": {"type": self.kind, "message": self.message}}

    def response(self) -> JSONResponse:
        """Return the answer; the connection ends where a part of the request may not have been read."""
        closing = {"connection": "close"} if self.status in (400, 403, 408, 413, 429, 431, 503) else {}
        return JSONResponse(self.to_dict(), self.status, {**self.headers, **closing})
