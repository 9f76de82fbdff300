"""An address, asked as a browser would ask it, and when what it says arrives."""

from __future__ import annotations

import json
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx

from inkstream.api.echo import TICKS
from inkstream.config import LOOPBACK
from inkstream.errors import ConfigError

ECHO = "api/echo"
REPLY_SECONDS = 10.0
SEEN = {"http", "scheme", "has_key", "base_path", "heartbeat_seconds", "text"}


@dataclass(frozen=True, slots=True)
class Block:
    """An event; a comment has no name. ``at`` is in seconds since it was asked for."""

    event: str
    data: dict[str, Any]
    at: float


@dataclass(slots=True)
class Heard:
    """A stream of events, from outside. ``seconds`` is how long it was open."""

    status: int = 0
    headers: httpx.Headers = field(default_factory=httpx.Headers)
    body: bytes = b""
    blocks: list[Block] = field(default_factory=list)
    seconds: float = 0.0
    _taken: int = 0

    @property
    def is_whole(self) -> bool:
        return bool(self.blocks) and self.blocks[-1].event == "end"

    @property
    def seen(self) -> dict[str, Any]:
        """What the server has seen of the request; empty if it does not say all of it."""
        told = (block.data for block in self.blocks if block.event == "seen")
        return next((data for data in told if data.keys() >= SEEN), {})

    @property
    def silent_seconds(self) -> float:
        """How long nothing had come when it ended."""
        return self.seconds - (self.blocks[-1].at if self.blocks else 0)

    @property
    def spread_seconds(self) -> float:
        """From the first word to the last tick, which the server has sent half a second apart."""
        at = [block.at for block in self.blocks if block.event in ("seen", "tick")]
        return at[-1] - at[0] if at else 0.0

    @property
    def fell_silent(self) -> bool:
        """Whether nothing has come behind the last tick."""
        return bool(self.blocks) and self.blocks[-1] == Block("tick", {"tick": TICKS}, self.blocks[-1].at)

    def take(self, piece: bytes, at: float) -> None:
        self.body += piece
        while (end := self.body.find(b"\n\n", self._taken)) >= 0:
            self.blocks.append(_block(self.body[self._taken : end].decode("utf-8", "replace"), at))
            self._taken = end + 2


def _block(text: str, at: float) -> Block:
    fields = dict(line.partition(": ")[::2] for line in text.split("\n"))
    data = None
    with suppress(json.JSONDecodeError):  # somebody else's, or garbled: then nothing is known of it
        data = json.loads(fields.get("data", "{}"))
    return Block(fields.get("event", ""), data if isinstance(data, dict) else {}, at)


class Visit:
    """Requests to the server whose page is at ``url``. Redirects are shown, not followed."""

    def __init__(self, url: str, key: str = "") -> None:
        """Raises ConfigError for what is no address of a page."""
        self.base = base_of(url)
        given = httpx.URL(url)  # with a proxy's password, perhaps, which is used and never shown
        headers = {"user-agent": "inkstream doctor", "accept-encoding": "gzip"}
        self._key: dict[bytes, bytes] = {b"authorization": f"Bearer {key}".encode()} if key else {}
        trusted = httpx.create_ssl_context()
        trusted.load_default_certs()  # a company's own authority is known to its machines, not to certifi
        self._http = httpx.Client(
            verify=trusted,
            # A proxy of the environment is on the way to other machines; to this one it would lead nowhere.
            trust_env=not self.is_local,
            headers=headers,
            auth=(given.username, given.password) if given.username else None,
            timeout=REPLY_SECONDS,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    @property
    def is_local(self) -> bool:
        return self.base.host in LOOPBACK

    @property
    def has_key(self) -> bool:
        return bool(self._key)

    @property
    def prefix(self) -> str:
        """The path under which the page is; empty for none."""
        return self.base.path.rstrip("/")

    @property
    def origin(self) -> str:
        return f"{self.base.scheme}://{self.base.netloc.decode('ascii')}"

    def goes_through_proxy(self) -> bool:
        """Whether the environment names a proxy for this address."""
        proxies = urllib.request.getproxies()
        named = {self.base.scheme, "all"} & set(proxies)
        return bool(named) and not self.is_local and not urllib.request.proxy_bypass(self.base.host)

    def get(self, path: str, headers: dict[str, str] | dict[bytes, bytes] | None = None) -> httpx.Response:
        """``path`` is relative to the page's. Raises httpx.RequestError."""
        return self._http.get(self.base.join(path), headers=headers)

    def get_signed_in(self, path: str) -> httpx.Response:
        """With the key, if there is one. Raises httpx.RequestError."""
        return self.get(path, self._key)

    def listen(self, seconds: float, patience_seconds: float = REPLY_SECONDS) -> Heard:
        """The server's echo with so many seconds of silence, as far as it comes.

        Raises httpx.RequestError where there is no reply at all.
        """
        heard, begun = Heard(), time.monotonic()
        timeout = httpx.Timeout(REPLY_SECONDS, read=patience_seconds)
        url = self.base.join(f"{ECHO}?seconds={seconds:g}")
        with self._http.stream("GET", url, headers=self._key, timeout=timeout) as reply:
            heard.status, heard.headers = reply.status_code, reply.headers
            with suppress(httpx.RequestError):  # one that is cut is what we are looking for
                for piece in reply.iter_bytes():
                    heard.take(piece, time.monotonic() - begun)
        heard.seconds = time.monotonic() - begun
        return heard


def base_of(url: str) -> httpx.URL:
    """The address of a page: what stands below it is relative to it. Raises ConfigError."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigError(f"{url!r} is no address: {error}.") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError(f"{url!r} is no address of a page. Write, for example, https://chat.example.org/")
    path = f"{parsed.path.rstrip('/')}/"
    return parsed.copy_with(userinfo=b"", path=path, query=None, fragment=None)
