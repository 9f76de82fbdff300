"""A live server for attackers: plain sockets, and a watch on what the server says of itself."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal

from inkstream.engines.scripted import Script
from tests.live import Live, serving

PATIENCE_SECONDS = 10.0
GOOD_REPLY_SECONDS = 1.0


class Faults(logging.Handler):
    """Keeps what is logged as an error: an attack that makes a traceback has found something."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(self.format(record))

    def require_none(self) -> None:
        seen, self.seen = self.seen, []
        assert seen == []


@dataclass(frozen=True, slots=True)
class Target:
    live: Live
    portal: BlockingPortal
    faults: Faults = field(default_factory=Faults)

    def client(self, **headers: str) -> httpx.Client:
        return httpx.Client(
            base_url=self.live.url, trust_env=False, headers=headers, timeout=PATIENCE_SECONDS
        )

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.live.port), timeout=PATIENCE_SECONDS)

    def require_well(self) -> None:
        """The server answers a good client in time, and nothing has surprised it."""
        reply = httpx.get(f"{self.live.url}/healthz", trust_env=False, timeout=GOOD_REPLY_SECONDS)
        assert reply.json() == {"status": "ok"}
        self.faults.require_none()


@contextmanager
def target(folder: Path, script: Script | None = None, **settings: Any) -> Iterator[Target]:
    """A server in a thread of its own, so that tests may block."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(serving(folder, script, **settings)) as live,
    ):
        found = Target(live, portal)
        logging.getLogger().addHandler(found.faults)
        try:
            yield found
        finally:
            logging.getLogger().removeHandler(found.faults)


@dataclass(frozen=True, slots=True)
class Reply:
    """``status`` is 0 where the connection closed without an answer; ``missing`` bytes are still to come."""

    status: int
    head: bytes
    body: bytes
    missing: int = 0


def say(target: Target, *pieces: bytes) -> list[Reply]:
    """Send all of it and read what comes until the server closes, or nothing more is due.

    What is sent must make the server close: by being wrong, or by ``Connection: close``.
    """
    with target.connect() as sock:
        try:
            for piece in pieces:
                sock.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has heard enough; its answer may be there all the same
        return replies_in(_until_closed(sock))


def _until_closed(sock: socket.socket) -> bytes:
    heard = bytearray()
    try:
        while piece := sock.recv(65536):
            heard += piece
    except ConnectionResetError:
        pass
    return bytes(heard)


def replies_in(heard: bytes) -> list[Reply]:
    """The replies one behind the other. Each must have a length, or be the last."""
    replies = []
    while heard:
        head, blank, rest = heard.partition(b"\r\n\r\n")
        assert blank, f"half a head: {heard[:200]!r}"
        fields = httpx.Headers(
            [(n, v) for n, _, v in (line.partition(b": ") for line in head.split(b"\r\n")[1:])]
        )
        length = int(fields.get("content-length", len(rest) if "transfer-encoding" in fields else 0))
        missing = max(0, length - len(rest))
        replies.append(Reply(int(head.split(b" ")[1]), head, rest[:length], missing))
        heard = rest[length:]
    return replies or [Reply(0, b"", b"")]
