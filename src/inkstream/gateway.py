"""The gateway process: the app on a real server, connected to an engine that runs elsewhere."""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from starlette.types import ASGIApp

from inkstream.api import create_app, open_services
from inkstream.api.sse import OpenStreams
from inkstream.config import Settings
from inkstream.connection import Bounds, Protocol, connections_possible
from inkstream.engines import Engine
from inkstream.engines.link import LinkEngine
from inkstream.engines.llama import LlamaEngine
from inkstream.errors import ConfigError
from inkstream.supervised import Supervised

GRACE_SECONDS = 1  # for requests under way; the supervisor's patience, twice that, is for the clean-up too
BACKLOG = 2048
SEND_BUFFER_BYTES = 64 * 1024
LONGEST_TIMEOUT_MS = 2**31 - 1  # that a socket option can hold


class Server(uvicorn.Server):
    """Says when it listens, and ends the open streams before it waits for connections to close."""

    def __init__(self, config: uvicorn.Config, streams: OpenStreams, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._streams, self._on_ready = streams, on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._streams.close()
        await super().shutdown(sockets)


class Gateway:
    """One gateway, from its data folder to its last connection. ``say`` reports to whoever supervises it."""

    def __init__(
        self, settings: Settings, say: Callable[[dict[str, Any]], None], *, has_engine: bool = False
    ) -> None:
        """``has_engine``: whoever supervises it keeps the engine too. Raises ConfigError for an engine URL
        that is none.
        """
        self._settings, self._say = settings, say
        self._server: Server | None = None
        self._is_stopped = False
        self._engine = joined_engine(settings)
        self._supervised: Supervised | None = None
        if has_engine and isinstance(self._engine, LinkEngine):
            self._supervised = Supervised(settings, self._engine, say)
        self._has_said_progress = False  # of the engine that the supervisor has started last

    async def serve(self) -> None:
        """Serve until told to stop.

        Raises ConfigError for a port that cannot be had, FolderInUse, LogUnwritable, LogError.
        """
        streams = OpenStreams(self._settings.heartbeat_seconds, self._settings.patience_seconds)
        with contextlib.closing(listen(self._settings)) as sock:
            port = sock.getsockname()[1]
            async with (
                _connected(self._engine),
                open_services(
                    self._settings, self._engine, streams, self._progress, self._supervised
                ) as services,
            ):
                config = server_config(create_app(services), self._settings, services.errors)
                self._server = Server(config, streams, lambda: self._ready(port))
                self._server.should_exit = self._is_stopped
                await self._server.serve(sockets=[sock])

    def stop(self) -> None:
        self._is_stopped = True
        if self._server is not None:
            self._server.should_exit = True

    def hear(self, message: dict[str, Any]) -> None:
        """Take the supervisor's word on what became of the engine."""
        word = message.get("engine")
        if self._supervised is not None and isinstance(word, dict):
            self._has_said_progress = False
            self._supervised.hear(word)

    def _ready(self, port: int) -> None:
        host = f"[{self._settings.host}]" if ":" in self._settings.host else self._settings.host
        self._say({"ready": f"http://{host}:{port}{self._settings.base_path}"})

    def _progress(self) -> None:
        if not self._has_said_progress:
            self._has_said_progress = True
            self._say({"progress": True})


def joined_engine(settings: Settings) -> LinkEngine | LlamaEngine:
    """The engine at ``engine_url``: one of ours behind its link, or a llama-server. Raises ConfigError."""
    url = settings.engine_url
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return LlamaEngine.remote(url, settings.engine_key, settings.model)
        return LinkEngine(url, settings.engine_key)
    except ValueError as error:
        raise ConfigError(
            f"engine URL {url!r} is not of the form tcp://ADDRESS:PORT,"
            " nor http://ADDRESS:PORT of a llama-server."
        ) from error


def _connected(engine: LinkEngine | LlamaEngine) -> AbstractAsyncContextManager[Engine]:
    """The engine connects while the block runs; nobody waits for it to answer."""
    return engine if isinstance(engine, LinkEngine) else engine.loading()


def server_config(app: ASGIApp, settings: Settings, errors: Counter[str]) -> uvicorn.Config:
    """``errors`` counts, by its code, what is refused before the app hears of it."""
    bounds = Bounds(settings.header_seconds, connections_possible(settings.connections))
    return uvicorn.Config(
        app,
        http=partial(Protocol, bounds=bounds, errors=errors),  # type: ignore[arg-type]  # it is only ever called
        ws="none",  # an upgrade that nobody serves is an ordinary request
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # the app does that, for the proxies that the settings name
        backlog=BACKLOG,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


def listen(settings: Settings) -> socket.socket:
    """Take the port. Raises ConfigError."""
    # Accepted connections inherit the send buffer. Left alone the system grows it to megabytes for a reader
    # that takes nothing, and a slow reader may cost no more than this.
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        sock = socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        # asyncio does this only for sockets whose protocol is spelled out: without it a reply in two parts
        # waits for the reader's delayed acknowledgement, 40 ms.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
            # Inherited too: it ends connections whose reader takes nothing, whatever is being sent.
            milliseconds = min(int(settings.patience_seconds * 1000), LONGEST_TIMEOUT_MS)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        return sock
    except OSError as error:
        raise ConfigError(
            f"port {settings.port} on {settings.host} cannot be used: {error.strerror}."
            f" Choose another one, for example: inkstream serve --port {settings.port + 1}",
            code="port_in_use",
        ) from error
