"""The gateway's end of the link: ``LinkEngine`` and its connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Self, cast
from urllib.parse import urlsplit

from inkstream.engines import (
    Capabilities,
    Emitted,
    Finish,
    Message,
    Phase,
    Progress,
    Prompt,
    Request,
    Status,
    Take,
)
from inkstream.engines.link.codec import End, error_end, read_capabilities, read_chunks, read_end, read_status
from inkstream.engines.link.wire import VERSION, Frames, is_proof, proof
from inkstream.errors import EngineFailed, EngineLost

RETRY_SECONDS = 0.02
RETRY_SECONDS_MAX = 0.5
TICKS_PER_STALL = 4

logger = logging.getLogger(__name__)


class LinkEngine:
    """The engine behind a ``Host``. ``open`` starts connecting; ``async with`` opens and closes.

    When the connection is lost, every open call raises EngineLost at once. A stopped process keeps its
    sockets open, so a host that owes the answer to a ping and is silent for ``stall_seconds`` is lost too.

    A host that refuses this gateway (another key, another version) shows as given up, with the reason, until
    one answers that does not.
    """

    def __init__(self, url: str, key: str, *, stall_seconds: float = 20.0) -> None:
        """Raises ValueError for a URL that is not ``tcp://ADDRESS:PORT``."""
        address = urlsplit(url)
        if address.scheme != "tcp" or not address.hostname or not address.port:
            raise ValueError(f"engine URL {url!r} is not of the form tcp://ADDRESS:PORT")
        self.key = key.encode()
        self.stall_seconds = stall_seconds
        self._address = address.hostname, address.port
        self._connecting: asyncio.Task[None] | None = None
        self._connection: _Connection | None = None
        self._reported = Status(Phase.CONNECTING)
        self._capabilities: Capabilities | None = None
        self.cache_usage: float | None = None
        self._verdict: Status | None = None
        self._changed = asyncio.Event()

    def open(self) -> None:
        self._connecting = asyncio.create_task(self._stay_connected())

    async def aclose(self) -> None:
        """Open calls raise EngineLost; the host cancels them. The engine lives on."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])

    async def __aenter__(self) -> Self:
        self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    @property
    def status(self) -> Status:
        return self._verdict or self._reported

    async def status_after(self, seen: Status) -> Status:
        while self.status == seen:
            await self._changed.wait()
        return self.status

    @property
    def reported(self) -> Status:
        """What the engine itself has said last, whatever stands for it."""
        return self._reported

    async def reported_after(self, seen: Status) -> Status:
        while self._reported == seen:
            await self._changed.wait()
        return self._reported

    async def reconnect(self) -> None:
        """Drop the connection. What is reported from now on comes from whoever is found there next."""
        if self._connection is not None:
            self._connection.drop()
            await self._connection.lost.wait()

    def show(self, verdict: Status) -> None:
        """Let ``verdict`` stand for the status, whatever the connection says, until ``resume``."""
        self._verdict = verdict
        self._wake_watchers()

    def resume(self) -> None:
        self._verdict = None
        self._wake_watchers()

    def describe(self) -> Capabilities:
        if self.status.phase is not Phase.READY or self._capabilities is None:
            raise EngineLost(self.status.message or f"the engine is {self.status.phase}")
        return self._capabilities

    async def render(self, messages: Sequence[Message]) -> Prompt:
        # The host answers a render with a prompt, and takes nothing before.
        return cast(Prompt, await self._ask(_ignore, "render", messages))

    async def generate(self, request: Request, emitted: Emitted, take: Take) -> Finish:
        # The host ends a generation with a finish.
        return cast(Finish, await self._ask(take, "generate", request, emitted))

    async def _ask(self, take: Take, name: str, *arguments: Any) -> Finish | Prompt:
        """One call, cancelled at the host when it is left before its end."""
        self.describe()
        connection = self._connection
        assert connection is not None  # who has capabilities is connected
        call = connection.start(take, name, arguments)
        try:
            return read_end(await call.ended)
        finally:
            connection.leave(call)

    def hear(self, status: Status, capabilities: Capabilities | None = None) -> None:
        self._reported, self._capabilities = status, capabilities
        if status.phase is not Phase.READY:
            self.cache_usage = None
        self._wake_watchers()

    def _wake_watchers(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _stay_connected(self) -> None:
        pause = RETRY_SECONDS
        while True:
            if await self._connect_once():
                pause = RETRY_SECONDS
            await asyncio.sleep(pause)
            pause = min(2 * pause, RETRY_SECONDS_MAX)

    async def _connect_once(self) -> bool:
        """Hold one connection until it is lost. True if both sides had proven themselves."""
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(lambda: _Connection(self), *self._address)
        except OSError:
            self.hear(Status(Phase.CONNECTING))
            return False
        self._connection = connection
        try:
            await connection.lost.wait()
        finally:
            connection.drop()
            await connection.lost.wait()
        return connection.is_proven


class _Call:
    """An open call. Once ``ended`` is done, or its caller is cancelled, nothing more is taken."""

    __slots__ = ("ended", "number", "take")

    def __init__(self, number: int, take: Take) -> None:
        self.number, self.take = number, take
        self.ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()

    def end(self, end: End) -> None:
        if not self.ended.done():
            self.ended.set_result(end)


def _ignore(_: object) -> None: ...


class _Connection(Frames):
    """One connection to a host, with the calls that are open on it."""

    def __init__(self, engine: LinkEngine) -> None:
        super().__init__()
        self.on_frame = self._on_greeting
        self.lost = asyncio.Event()
        self._engine = engine
        self._calls: dict[int, _Call] = {}
        self._last_call = 0
        self._parting = Status(Phase.CONNECTING)
        self._silent_ticks = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # Dialling a dead engine's port over and over, the system may pick that port for our own end: the
        # socket is then connected to itself, and the engine could not listen there again. Not at once:
        # uvloop leaks a socket that is aborted while it is being made.
        if transport.get_extra_info("sockname") == transport.get_extra_info("peername"):
            asyncio.get_running_loop().call_soon(self.drop)
        self._tick_later()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._ticker.cancel()
        self.lost.set()
        self._engine.hear(self._parting)
        end = error_end(EngineLost("the connection to the engine was lost"))
        for call in self._calls.values():
            call.end(end)

    def data_received(self, data: bytes) -> None:
        self._silent_ticks = 0
        super().data_received(data)

    def on_stranger(self, reason: str) -> None:
        self._part(
            Phase.CONNECTING, "link_stranger", f"something else than an engine answers there: {reason}"
        )

    def start(self, take: Take, name: str, arguments: tuple[Any, ...]) -> _Call:
        """Raises EngineFailed if the arguments cannot be sent."""
        self._last_call += 1
        try:
            self.send((name, self._last_call, *arguments))
        except TypeError as error:
            raise EngineFailed(f"the request cannot be encoded: {error}", code="invalid") from error
        call = self._calls[self._last_call] = _Call(self._last_call, take)
        return call

    def leave(self, call: _Call) -> None:
        """The caller takes nothing more. Frames keep their order: the next call starts behind the cancel."""
        del self._calls[call.number]
        if call.ended.cancelled() and self.is_open:
            self.send(("cancel", call.number))

    def _on_greeting(self, greeting: Any) -> None:
        if not isinstance(greeting, dict) or not isinstance(greeting.get("nonce"), str):
            return self.on_stranger("it did not greet")
        host_nonce = greeting["nonce"]
        self.on_frame = lambda answer: self._on_answer(answer, host_nonce)
        own_proof = proof(self._engine.key, "gateway", host_nonce, self.nonce)
        return self.send({"version": VERSION, "nonce": self.nonce, "proof": own_proof})

    def _on_answer(self, answer: Any, host_nonce: str) -> None:
        match answer:
            case {"proof": given} if is_proof(given, self._engine.key, "host", host_nonce, self.nonce):
                self.is_proven = True
                self.on_frame = self._on_news
            case {"refused": {"code": str(code), "message": str(message)}}:
                self._part(Phase.GIVEN_UP, code, message)
            case _:
                self.on_stranger("it does not know the key")

    def _part(self, phase: Phase, code: str, message: str) -> None:
        self._parting = Status(phase, code=code, message=message)
        if self._parting != self._engine.status:
            logger.warning("%s", message)
        self.drop()

    def _on_news(self, frame: dict[str, Any]) -> None:
        calls = self._calls
        if "cache" in frame:
            self._engine.cache_usage = frame["cache"]
        if "status" in frame:
            self._engine.hear(read_status(frame["status"]), read_capabilities(frame["capabilities"]))
        for number, share in frame.get("progress", ()):
            if (call := calls.get(number)) is not None and not call.ended.done():
                call.take(Progress(share))
        for number, chunk in read_chunks(frame["chunks"]):
            if (call := calls.get(number)) is not None and not call.ended.done():
                call.take(chunk)
        for number, kind, value in frame.get("ends", ()):
            if (call := calls.get(number)) is not None:
                call.end((kind, value))

    def _tick_later(self) -> None:
        pause = self._engine.stall_seconds / TICKS_PER_STALL
        self._ticker = asyncio.get_running_loop().call_later(pause, self._tick)

    def _tick(self) -> None:
        # Silence is counted in ticks, not in seconds: a gateway that was stopped itself has missed only one.
        if self._silent_ticks == TICKS_PER_STALL:
            reason = f"the engine has not answered for {self._engine.stall_seconds:g} s"
            return self._part(Phase.CONNECTING, "engine_stalled", reason)
        if self._silent_ticks == 0 and self.is_proven:
            self.send(("ping",))
        self._silent_ticks += 1
        return self._tick_later()
