"""`serve`: a run or an exported file answers HTTP requests until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from regraft.errors import SettingsError
from regraft.serving.limits import Limits

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from regraft.exports.running.session import SealedSession

__all__ = ["require_servable", "serve"]

TOKEN = "REGRAFT_TOKEN"
_log = logging.getLogger(__name__)


def serve(
    run: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    open_to_all: bool = False,
    sets: float | None = None,
    reject: bool = False,
    threads: int | None = None,
    limits: Limits | None = None,
    started: Callable[[str], None] = lambda address: None,
) -> None:
    """Answer HTTP requests until a signal says to stop: images in, JSON out, and a page to try it at `/`.

    A run is exported once, into the cache. Requests that are being answered when it is told to stop are finished.

    Args:
        run: A run folder, a model folder, a cross-validation, or a file that `export` wrote.
        host: The address to listen at.
        port: 0 takes any that is free.
        token: What clients have to send as `Authorization: Bearer TOKEN`; None takes REGRAFT_TOKEN, or asks for none.
        open_to_all: Whether other computers may be answered without a token.
        sets: The share of images whose set of classes is to hold the true one; None takes 0.9, where the run keeps
            enough for it.
        reject: Whether images that are like none of training and validation are `unknown`.
        threads: None takes all processors.
        limits: Of clients; None takes the default ones.
        started: Called with the address once requests are answered.

    Raises:
        SettingsError: The server would be open to other computers; packages are not installed; there is no such model;
            or the address is in use.
        StorageError: The file is damaged, or regraft did not write it.
    """
    token = os.environ.get(TOKEN, "") if token is None else token
    require_servable(host, token, open_to_all)
    from regraft.serving.answers import Answers
    from regraft.serving.app import server_app

    limits = limits or Limits()
    answers = Answers(_session(run, threads), limits.pixels, sets=sets, reject=reject)
    app = server_app(answers, limits, token, Path(run).stem, local=_is_local(host) and not token)
    listener = _listener(host, port)
    try:
        _run(app, limits, listener, lambda: started(_address(host, listener)))
    finally:
        listener.close()


def require_servable(host: str, token: str, open_to_all: bool) -> None:
    """Raise where nothing can be served, whatever the model is.

    Raises:
        SettingsError: The server would be open to other computers, or packages are not installed.
    """
    if not token and not open_to_all and not _is_local(host):
        raise SettingsError(
            f"At {host!r} other computers may ask this server, and no token was given.",
            "a token, or the address of this computer alone (127.0.0.1)",
            f"set {TOKEN}, which clients send as `Authorization: Bearer TOKEN`; or `--open-to-all`",
        )
    try:
        import python_multipart  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            f"Serving takes {error.name}, which is not installed.", "", "pip install 'regraft[serve]'"
        ) from None


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _session(run: str | Path, threads: int | None) -> SealedSession:
    from regraft.exports.engines.cached import made_export
    from regraft.exports.engines.engine import is_export
    from regraft.exports.running.session import SealedSession

    return SealedSession(run, threads=threads) if is_export(run) else made_export(run, threads)


def _listener(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=512
        )
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SettingsError(
            f"The address {host}:{port} cannot be listened at: {reason}.", "an address that is free", "`--port 0`"
        ) from None


def _address(host: str, listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _run(app: Starlette, limits: Limits, listener: socket.socket, started: Callable[[], None]) -> None:
    import uvicorn

    from regraft.serving.protocol import guarded_protocol

    class Server(uvicorn.Server):
        """Ends as if nothing had happened where a signal told it to stop."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            if threading.current_thread() is not threading.main_thread():
                yield
                return
            kept = {one: signal.signal(one, self.handle_exit) for one in (signal.SIGINT, signal.SIGTERM)}
            try:
                yield
            finally:
                for one, handler in kept.items():
                    signal.signal(one, handler)

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                started()

    config = uvicorn.Config(
        app,
        http=guarded_protocol(limits),
        ws="none",
        h11_max_incomplete_event_size=limits.header_bytes,
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=round(limits.stop_seconds),
    )
    asyncio.run(Server(config).serve([listener]))
