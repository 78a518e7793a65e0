"""Images out of a request: its body, or the files of a form; never more bytes, and never longer, than allowed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from regraft.serving.limits import Limits
from regraft.serving.problem import Problem

__all__ = ["Uploads"]

_FORM = "multipart/form-data"


class Uploads:
    """Reads requests of one server.

    Args:
        limits: Of a request, and of all that are being read.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held = 0

    @asynccontextmanager
    async def images(self, request: Request) -> AsyncIterator[list[tuple[str, bytes]]]:
        """Give names and bytes of a request's images, and count them as held until they are no longer used.

        Raises:
            Problem: The request is too large, too slow or damaged, or holds no image.
        """
        taken = [0]
        try:
            body = await self._body(request, taken)
            yield await self._parts(request, body)
        finally:
            self._held -= taken[0]

    async def _body(self, request: Request, taken: list[int]) -> bytes:
        stated = request.headers.get("content-length", "0")
        if stated.isdigit() and int(stated) > self._limits.upload_bytes:
            raise self._too_large()
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(self._limits.seconds):
                async for chunk in request.stream():
                    self._held += len(chunk)
                    taken[0] += len(chunk)
                    if taken[0] > self._limits.upload_bytes:
                        raise self._too_large()
                    if self._held > self._limits.held_bytes:
                        raise Problem(429, "busy", "The server is reading too much already.", {"retry-after": "1"})
                    chunks.append(chunk)
        except TimeoutError:
            said = f"The request was not complete within {self._limits.seconds:g} seconds."
            raise Problem(408, "too_slow", said) from None
        except ClientDisconnect:
            raise Problem(400, "incomplete", "The request ended before it was complete.") from None
        return b"".join(chunks)

    def _too_large(self) -> Problem:
        return Problem(413, "too_large", f"The request is larger than {self._limits.upload_bytes:,} bytes.")

    async def _parts(self, request: Request, body: bytes) -> list[tuple[str, bytes]]:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind in ("application/json", "application/x-www-form-urlencoded", "text/plain"):
            said = f"{kind} holds no image: send the bytes of one file, or {_FORM}."
            raise Problem(415, "unsupported_type", said)
        if kind != _FORM:
            if not body:
                raise Problem(400, "no_image", "The request has no body.")
            return [("", body)]

        async def whole() -> AsyncGenerator[bytes, None]:
            yield body

        try:
            parser = MultiPartParser(request.headers, whole(), max_files=self._limits.images, max_fields=8)
            form = await parser.parse()
        except MultiPartException as error:
            raise Problem(400, "bad_form", f"The form cannot be read: {error.message}") from None
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        found = [(file.filename or "", await file.read()) for file in files]
        await form.close()
        if not found:
            raise Problem(400, "no_image", "The form has no file.")
        return found
