"""Model hubs, their CDN and proxies on loopback, with everything that goes wrong on the way to them.

One server speaks the protocols of the Hugging Face hub and of ModelScope, over plain HTTP or TLS. What it was
asked is in ``requests``; ``faults`` are used up one per download, ``probe_faults`` one per look-up.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    target: str
    headers: dict[str, str]

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> dict[str, str]:
        return {key: values[0] for key, values in parse_qs(urlsplit(self.target).query).items()}


@dataclass(frozen=True, slots=True)
class Reply:
    """A header with an empty value is left out, ``Content-Length`` too."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection is reset after so many bytes of the body."""

    after: int


@dataclass(frozen=True, slots=True)
class Stall:
    """Nothing more comes after so many bytes, and the connection stays open."""

    after: int


class Swallow:
    """The request is never answered."""


@dataclass(frozen=True, slots=True)
class Wait:
    """The answer comes as usual, but not before this is set."""

    event: asyncio.Event


@dataclass(frozen=True, slots=True)
class Change:
    """Something happens to the hub before it answers as usual."""

    do: Callable[[], None]


Fault = Cut | Stall | Swallow | Wait | Change | Reply


class FakeHub:
    def __init__(self) -> None:
        self.url = ""
        self.cdn_url = ""
        self.port = 0
        self.repos: dict[str, dict[str, bytes]] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.probe_faults: list[Fault] = []
        self.tells_hash = True
        self.tells_etag = True
        self.honours_range = True
        self.honours_if_range = True
        self.token: str | None = None
        self.revoked_token: str | None = None
        self.promised_hash: str | None = None
        self.closing = asyncio.Event()

    def add(self, repo: str, name: str, content: bytes) -> None:
        self.repos.setdefault(repo, {})[name] = content

    @property
    def downloads(self) -> list[Request]:
        return [request for request in self.requests if request.path.startswith("/cdn/")]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader)
        if request is None:
            return
        self.requests.append(request)
        faults = self.faults if request.path.startswith("/cdn/") else self.probe_faults
        fault = faults.pop(0) if faults else None
        if isinstance(fault, Change):
            fault.do()
        if isinstance(fault, Wait):
            await fault.event.wait()
        if isinstance(fault, Swallow):
            await self.closing.wait()
            return
        await self._send(writer, request, fault if isinstance(fault, Reply) else self._reply(request), fault)

    async def _send(
        self, writer: asyncio.StreamWriter, request: Request, reply: Reply, fault: Fault | None
    ) -> None:
        headers = {"Content-Length": str(len(reply.body)), "Connection": "close", **reply.headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items() if value)
        writer.write(f"HTTP/1.1 {reply.status} Whatever\r\n{lines}\r\n".encode())
        body = b"" if request.method == "HEAD" else reply.body
        if isinstance(fault, Cut | Stall):
            body = body[: fault.after]
        writer.write(body)
        await writer.drain()
        if isinstance(fault, Stall):
            await self.closing.wait()

    def _reply(self, request: Request) -> Reply:
        if request.path.startswith("/cdn/"):
            return self._content(request)
        authorization = request.headers.get("authorization")
        if self.token and authorization != f"Bearer {self.token}":
            return Reply(401, {"X-Error-Code": "GatedRepo"})
        if self.revoked_token and authorization == f"Bearer {self.revoked_token}":
            return Reply(401)
        if request.path.startswith("/api/v1/models/"):
            return self._modelscope(request)
        if request.path.startswith("/api/models/"):
            return self._listing(request.path.removeprefix("/api/models/").removesuffix("/tree/main"))
        repo, _, name = request.path.removeprefix("/").partition("/resolve/main/")
        return self._resolve(repo, name)

    def _resolve(self, repo: str, name: str) -> Reply:
        if repo not in self.repos:
            return Reply(401, {"X-Error-Code": "RepoNotFound"})
        if name not in self.repos[repo]:
            return Reply(404, {"X-Error-Code": "EntryNotFound"})
        content = self.repos[repo][name]
        tag = self.hash_of(content) if self.tells_hash else hashlib.md5(content).hexdigest()
        headers = {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{tag}"', "X-Repo-Commit": "c" * 40}
        return Reply(302, {**headers, "Location": f"{self.cdn_url}/cdn/{repo}/{name}"})

    def _listing(self, repo: str) -> Reply:
        if repo not in self.repos:
            return Reply(401, {"X-Error-Code": "RepoNotFound"})
        files = [
            {"type": "file", "path": name, "size": len(content), "lfs": {"oid": self.hash_of(content)}}
            for name, content in self.repos[repo].items()
        ]
        return as_json([{"type": "directory", "path": "docs", "size": 0}, *files])

    def _modelscope(self, request: Request) -> Reply:
        repo, _, call = request.path.removeprefix("/api/v1/models/").partition("/repo")
        if repo not in self.repos:
            return Reply(404, body=b'{"Code":10010205001,"Success":false}')
        if call == "/files":
            files = [
                {
                    "Path": name,
                    "Name": name,
                    "Type": "blob",
                    "Size": len(content),
                    "Sha256": self.hash_of(content) if self.tells_hash else "",
                }
                for name, content in self.repos[repo].items()
            ]
            return as_json({"Code": 200, "Success": True, "Data": {"Files": files}})
        return Reply(302, {"Location": f"{self.cdn_url}/cdn/{repo}/{request.query['FilePath']}"})

    def _content(self, request: Request) -> Reply:
        owner, name, file = request.path.removeprefix("/cdn/").split("/", 2)
        content = self.repos[f"{owner}/{name}"][file]
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        headers = {"ETag": tag} if self.tells_etag else {}
        wanted = request.headers.get("range", "")
        same = not self.honours_if_range or request.headers.get("if-range", tag) == tag
        if not wanted or not self.honours_range or not same:
            return Reply(200, headers, content)
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            return Reply(416, {"Content-Range": f"bytes */{len(content)}"})
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return Reply(206, {**headers, "Content-Range": span}, content[start:])

    def hash_of(self, content: bytes) -> str:
        return self.promised_hash or hashlib.sha256(content).hexdigest()


def as_json(answer: object) -> Reply:
    return Reply(200, {"Content-Type": "application/json"}, json.dumps(answer).encode())


@asynccontextmanager
async def fake_hub(*, tls: ssl.SSLContext | None = None) -> AsyncIterator[FakeHub]:
    hub = FakeHub()
    async with _server(hub.serve, tls) as port:
        scheme = "https" if tls else "http"
        hub.port = port
        hub.url = f"{scheme}://127.0.0.1:{port}"
        # Another host than the hub's, as a CDN is: credentials must not follow there.
        hub.cdn_url = f"{scheme}://localhost:{port}"
        try:
            yield hub
        finally:
            hub.closing.set()


@dataclass
class FakeProxy:
    """``seen`` are the addresses that it was asked to connect to, all of which it takes for the hub."""

    port: int = 0
    seen: list[str] = field(default_factory=list)


@asynccontextmanager
async def http_proxy(hub_port: int) -> AsyncIterator[FakeProxy]:
    """Forwards absolute addresses and tunnels ``CONNECT``."""
    proxy = FakeProxy()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader)
        if request is None:
            return
        upstream = await asyncio.open_connection("127.0.0.1", hub_port)
        if request.method == "CONNECT":
            proxy.seen.append(request.target)
            writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        else:
            proxy.seen.append(urlsplit(request.target).netloc)
            path = request.target.removeprefix(f"http://{urlsplit(request.target).netloc}")
            lines = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
            upstream[1].write(f"{request.method} {path} HTTP/1.1\r\n{lines}\r\n".encode())
        await _relay((reader, writer), upstream)

    async with _server(serve) as proxy.port:
        yield proxy


@asynccontextmanager
async def socks_proxy(hub_port: int) -> AsyncIterator[FakeProxy]:
    """SOCKS 5 without authentication (RFC 1928), for names only."""
    proxy = FakeProxy()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, methods = await reader.readexactly(2)
        await reader.readexactly(methods)
        writer.write(b"\x05\x00")
        *_, kind, length = await reader.readexactly(5)
        assert kind == 3, "names are resolved by the proxy"
        host = (await reader.readexactly(length)).decode()
        port = int.from_bytes(await reader.readexactly(2), "big")
        proxy.seen.append(f"{host}:{port}")
        writer.write(b"\x05\x00\x00\x01\x7f\x00\x00\x01" + hub_port.to_bytes(2, "big"))
        await _relay((reader, writer), await asyncio.open_connection("127.0.0.1", hub_port))

    async with _server(serve) as proxy.port:
        yield proxy


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    method, target, _ = head[0].split(" ")
    headers = dict(line.split(": ", 1) for line in head[1:] if line)
    return Request(method, target, {name.lower(): value for name, value in headers.items()})


@asynccontextmanager
async def _server(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]],
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """Serves one request per connection. At the end every connection is closed and its task awaited."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(reader, writer)
        except ConnectionError:
            pass  # The client left: that is its right.
        finally:
            tasks.discard(task)
            writer.close()
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _relay(left: Stream, right: Stream) -> None:
    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while block := await reader.read(65536):
            writer.write(block)
            await writer.drain()
        writer.close()

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(pump(left[0], right[1]))
            group.create_task(pump(right[0], left[1]))
    except* ConnectionError:
        pass
    finally:
        right[1].close()
