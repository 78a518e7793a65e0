"""The server's routes: images in, JSON out, and what people and monitors look at."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from regraft.machine.budget import num_cpus
from regraft.serving.answers import Answers
from regraft.serving.batches import Batches
from regraft.serving.limits import Limits
from regraft.serving.metrics import Metrics
from regraft.serving.pages import docs_page, openapi, tryout_page
from regraft.serving.problem import Problem
from regraft.serving.uploads import Uploads

__all__ = ["LOCAL", "server_app"]

LOCAL = ("localhost", "127.0.0.1", "::1")
_OPEN = ("/", "/docs", "/openapi.json", "/healthz")  # without a token: they tell nothing of the images
_SAFE = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_log = logging.getLogger(__name__)
Handler = Callable[[Request], Awaitable[Response]]


class _Server:
    """What the routes share.

    Args:
        answers: The model.
        limits: Of clients.
        token: What clients have to know; empty for nothing.
        title: The name of the model.
        local: Whether only this computer's own names are answered, against pages that point a name of theirs here.
    """

    def __init__(self, answers: Answers, limits: Limits, token: str, title: str, *, local: bool) -> None:
        self.answers, self.limits, self._token, self._local = answers, limits, token.encode(), local
        self.metrics = Metrics()
        self.batches = Batches(answers.rows, limits, self.metrics.on_batch)
        self.uploads = Uploads(limits)
        self.decoders = ThreadPoolExecutor(num_cpus(), "decode")
        self.pages = {
            "/": tryout_page(answers.seal, title, answers.session.outputs),
            "/docs": docs_page(answers.seal, title, limits),
        }

    def require_allowed(self, request: Request) -> None:
        """Raise Problem for huge headers, for requests of pages of others, and for those without the token."""
        if sum(len(name) + len(value) + 4 for name, value in request.headers.raw) > self.limits.header_bytes:
            raise Problem(431, "too_large", f"The headers are larger than {self.limits.header_bytes:,} bytes.")
        host = request.headers.get("host", "")
        if self._local and _name(host) not in LOCAL:
            raise Problem(403, "wrong_host", "This server answers on this computer's own names alone.")
        origin = request.headers.get("origin")
        if origin and request.method == "POST" and urlsplit(origin).netloc != host:
            raise Problem(403, "wrong_origin", "This server answers no pages of others.")
        if self._token and request.url.path not in _OPEN:
            given = request.headers.get("authorization", "").encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(given, b"Bearer " + self._token):
                said = "This server takes a token: `Authorization: Bearer TOKEN`."
                raise Problem(401, "unauthorized", said, {"www-authenticate": "Bearer"})

    async def rows(self, files: list[tuple[str, bytes]]) -> list[dict[str, Any] | Problem]:
        """Return what is said of each file, or why nothing is.

        Raises:
            Problem: There are too many images here already.
        """
        if self.batches.num_coming + len(files) > self.limits.queue:
            raise Problem(429, "busy", "The server has too many images to look at already.", {"retry-after": "1"})
        self.batches.num_coming += len(files)
        try:
            return await asyncio.gather(*(self._row(data) for _, data in files))
        finally:
            self.batches.num_coming -= len(files)

    async def _row(self, data: bytes) -> dict[str, Any] | Problem:
        try:
            loop = asyncio.get_running_loop()
            image = await loop.run_in_executor(self.decoders, self.answers.decode, data)
            return await self.batches.answer(image)
        except Problem as problem:
            return problem

    @asynccontextmanager
    async def running(self, app: Starlette) -> AsyncIterator[None]:
        """Compute batches as long as the server runs."""
        self.batches.start()
        try:
            yield
        finally:
            await self.batches.stop()
            self.decoders.shutdown(wait=False, cancel_futures=True)


def server_app(answers: Answers, limits: Limits, token: str, title: str, *, local: bool) -> Starlette:
    """Return the application; arguments as `_Server` has them."""
    server = _Server(answers, limits, token, title, local=local)
    model = answers.seal.model_sha256

    async def predict(request: Request) -> Response:
        async with server.uploads.images(request) as files:
            if len(files) > 1:
                raise Problem(400, "too_many_images", "One image at a time; `/predict/batch` takes several.")
            (row,) = await server.rows(files)
        if isinstance(row, Problem):
            raise row
        return JSONResponse({"model": model, **row})

    async def batch(request: Request) -> Response:
        async with server.uploads.images(request) as files:
            if len(files) > limits.images:
                raise Problem(413, "too_many_images", f"At most {limits.images} images in one request.")
            rows = await server.rows(files)
            names = [name for name, _ in files]
        told = [row.to_dict() if isinstance(row, Problem) else row for row in rows]
        results = [{"name": name, **row} for name, row in zip(names, told, strict=True)]
        return JSONResponse({"model": model, "results": results})

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", "model": model})

    async def metrics(request: Request) -> Response:
        text = server.metrics.text(answers.seal, server.batches.num_coming)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def description(request: Request) -> Response:
        return JSONResponse(openapi(answers.seal, limits))

    async def page(request: Request) -> Response:
        return HTMLResponse(server.pages[request.url.path])

    routes: list[tuple[str, str, Handler]] = [
        ("/predict", "POST", predict),
        ("/predict/batch", "POST", batch),
        ("/healthz", "GET", health),
        ("/metrics", "GET", metrics),
        ("/openapi.json", "GET", description),
        ("/docs", "GET", page),
        ("/", "GET", page),
    ]
    return Starlette(
        routes=[Route(path, _guarded(server, path, handler), methods=[verb]) for path, verb, handler in routes],
        exception_handlers={HTTPException: _refused, Exception: _failed},
        lifespan=server.running,
    )


def _guarded(server: _Server, path: str, handler: Handler) -> Handler:
    """Return a handler that is allowed, on time, and counted; what goes wrong is an answer."""

    async def guarded(request: Request) -> Response:
        began = time.perf_counter()
        try:
            server.require_allowed(request)
            async with asyncio.timeout(2 * server.limits.seconds):  # reading has its own limit, of half of it
                response = await handler(request)
        except Problem as problem:
            response = problem.response()
        except TimeoutError:
            response = Problem(504, "timeout", "The answer took too long.").response()
        response.headers.update(_SAFE)
        server.metrics.on_request(path, response.status_code, time.perf_counter() - began)
        return response

    return guarded


async def _refused(request: Request, error: Exception) -> Response:
    """Answer what no route takes."""
    status = error.status_code if isinstance(error, HTTPException) else 400
    kinds = {404: "not_found", 405: "method_not_allowed"}
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    detail = str(error.detail) if isinstance(error, HTTPException) else ""
    return Problem(status, kinds.get(status, "bad_request"), f"{detail}.", headers).response()


async def _failed(request: Request, error: Exception) -> Response:
    _log.error("%s %s: %s: %s", request.method, request.url.path, type(error).__name__, error)
    return Problem(500, "internal", "The server made a mistake; its log says which.").response()


def _name(host: str) -> str:
    """Return the name in a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
