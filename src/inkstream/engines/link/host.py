"""The engine's end of the link: ``Host`` and its connections."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from inkstream.engines import (
    Capabilities,
    Emitted,
    Engine,
    Message,
    Phase,
    Request,
    Status,
)
from inkstream.engines.link.codec import (
    End,
    error_end,
    finish_end,
    read_emitted,
    read_messages,
    read_request,
)
from inkstream.engines.link.outbox import Frame, Mailbox
from inkstream.engines.link.wire import VERSION, Frames, is_proof, proof
from inkstream.errors import EngineError, EngineFailed, EngineLost

logger = logging.getLogger(__name__)


class Host:
    """Offers one engine to any number of gateways, each of which hears every status at once.

    A gateway that disconnects cancels its own calls and nobody else's.
    """

    def __init__(self, key: str, *, handshake_seconds: float = 5.0) -> None:
        """Raises ValueError for an empty key: it would serve everybody on this machine."""
        if not key:
            raise ValueError("the link needs a key")
        self.key = key.encode()
        self.handshake_seconds = handshake_seconds
        self.status = Status(Phase.LOADING)
        self.capabilities: Capabilities | None = None
        self._engine: Engine | None = None
        self._notice: Mapping[str, str] | None = None
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_refusal = ""
        self._follower: asyncio.Task[None] | None = None

    async def listen(self, address: str, port: int) -> str:
        """Accept gateways and return the URL for them. Port 0 picks a free one. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), address, port)
        port = self._server.sockets[0].getsockname()[1]
        return f"tcp://[{address}]:{port}" if ":" in address else f"tcp://{address}:{port}"

    def report(self, status: Status) -> None:
        """Tell how far the engine is while there is none yet."""
        self._publish(status, None)

    def attach(self, engine: Engine, notice: Mapping[str, str] | None = None) -> None:
        """Offer this engine. From now on gateways hear its own status.

        ``notice`` is what users of this engine must be told, by language; it stands in every status.
        """
        self._unfollow()
        self._engine, self._notice = engine, notice
        status = engine.status
        self._publish_status_of(engine, status)
        self._follower = self.spawn(self._follow(engine, status))

    def detach(self, status: Status) -> None:
        """Take the engine back, for instance because it is given up; ``status`` says why.

        Open calls end as lost. The engine is not closed.
        """
        self._unfollow()
        self._engine = None
        for connection in self._connections:
            connection.lose_calls(EngineLost(status.message or f"the engine is {status.phase}"))
        self._publish(status, None)

    async def aclose(self) -> None:
        """Stop listening, cancel all calls and hang up. The engine is not closed."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.hang_up()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def engine(self) -> Engine:
        """Raises EngineLost while none is attached."""
        if self._engine is None:
            raise EngineLost(self.status.message or f"the engine is {self.status.phase}")
        return self._engine

    @property
    def cache_usage(self) -> float | None:
        return None if self._engine is None else self._engine.cache_usage

    def add(self, connection: _Connection) -> None:
        self._connections.add(connection)

    def remove(self, connection: _Connection) -> None:
        self._connections.discard(connection)

    def warn(self, refusal: str) -> None:
        """Log why a peer was turned away, once: it will try again and again."""
        if refusal != self._last_refusal:
            self._last_refusal = refusal
            logger.warning("turned away a connection to the engine: %s", refusal)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run work that ``aclose`` cancels and awaits."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _follow(self, engine: Engine, seen: Status) -> None:
        while True:
            seen = await engine.status_after(seen)
            self._publish_status_of(engine, seen)

    def _unfollow(self) -> None:
        if self._follower is not None:
            self._follower.cancel()

    def _publish_status_of(self, engine: Engine, status: Status) -> None:
        capabilities = engine.describe() if status.phase is Phase.READY else None
        if self._notice is not None:
            status = replace(status, detail={**status.detail, "notice": self._notice})
        self._publish(status, capabilities)

    def _publish(self, status: Status, capabilities: Capabilities | None) -> None:
        self.status, self.capabilities = status, capabilities
        for connection in self._connections:
            connection.tell_status()


class _Connection(Frames):
    """One gateway. What its calls say within one turn of the event loop leaves in one frame."""

    def __init__(self, host: Host) -> None:
        super().__init__()
        self.on_frame = self._on_hello
        self._host = host
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._boxes: dict[int, Mailbox] = {}
        self._due: dict[int, Mailbox] = {}
        self._news: dict[str, Any] = {}
        self._is_flushing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(self._host.handshake_seconds, self.drop)
        self._host.add(self)
        self.send({"version": VERSION, "nonce": self.nonce})

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._deadline.cancel()
        self._host.remove(self)
        for task in self._calls.values():
            task.cancel()

    def on_stranger(self, reason: str) -> None:
        self._host.warn(reason)
        self.drop()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._flush_soon()

    def hang_up(self) -> None:
        self._flush()
        super().hang_up()

    def tell_status(self) -> None:
        self._news["status"] = self._host.status
        self._news["capabilities"] = self._host.capabilities
        self._flush_soon()

    def lose_calls(self, error: EngineLost) -> None:
        for call, task in self._calls.items():
            self._end(self._boxes[call], error_end(error))
            task.cancel()

    def _on_hello(self, hello: Any) -> None:
        if not isinstance(hello, dict):
            self.on_stranger("it did not say hello")
        elif hello.get("version") != VERSION:
            theirs = hello.get("version")
            self._refuse(
                "link_version",
                f"this engine speaks version {VERSION} of the link, the gateway {theirs!r}: "
                "run the same release of inkstream on both sides",
            )
        elif not is_proof(hello.get("proof"), self._host.key, "gateway", self.nonce, str(hello.get("nonce"))):
            self._refuse(
                "link_key", "the gateway's engine key is not the one that this engine was started with"
            )
        else:
            self._accept(str(hello["nonce"]))

    def _refuse(self, code: str, message: str) -> None:
        self._host.warn(message)
        self.send({"refused": {"code": code, "message": message}})
        self.hang_up()

    def _accept(self, gateway_nonce: str) -> None:
        self._deadline.cancel()
        self.is_proven = True
        self.on_frame = self._on_request
        self.send({"proof": proof(self._host.key, "host", self.nonce, gateway_nonce)})
        self.tell_status()

    def _on_request(self, frame: list[Any]) -> None:
        match frame:
            case ["generate", int(call), request, emitted]:
                self._start(call, partial(self._generate, read_request(request), read_emitted(emitted)))
            case ["render", int(call), messages]:
                self._start(call, partial(self._render, read_messages(messages)))
            case ["cancel", int(call)]:
                if call in self._calls:
                    self._calls[call].cancel()
            case ["ping"]:
                self._news |= {"pong": True, "cache": self._host.cache_usage}
                self._flush_soon()
            case _:
                raise ValueError(f"the gateway asked for something unknown: {frame[:1]!r:.50}")

    def _start(self, call: int, work: Callable[[Mailbox], Awaitable[None]]) -> None:
        box = self._boxes[call] = Mailbox(call, self.put)
        task = self._calls[call] = self._host.spawn(self._answer(box, work))
        # Not in the task: one that is cancelled before its first step runs none of its code.
        task.add_done_callback(lambda _: self._forget(call))

    def _forget(self, call: int) -> None:
        del self._calls[call], self._boxes[call]

    async def _answer(self, box: Mailbox, work: Callable[[Mailbox], Awaitable[None]]) -> None:
        try:
            await work(box)
        except EngineError as error:
            self._end(box, error_end(error))
        except Exception as error:
            logger.exception("the engine failed in a way that it does not declare")
            self._end(box, error_end(EngineFailed(f"the engine failed: {error!r}")))

    async def _render(self, messages: list[Message], box: Mailbox) -> None:
        self._end(box, ("prompt", await self._host.engine().render(messages)))

    async def _generate(self, request: Request, emitted: Emitted, box: Mailbox) -> None:
        finish = await self._host.engine().generate(request, emitted, box.take)
        self._end(box, finish_end(replace(finish, last=box.take_all(finish.last))))

    def _end(self, box: Mailbox, end: End) -> None:
        if box.end is None:
            box.end = end
            self.put(box)

    def put(self, box: Mailbox) -> None:
        """The box has something to say."""
        self._due[box.call] = box
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._is_flushing:
            self._is_flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flushing = False
        if self.is_proven and self.is_open and not self.is_paused and (self._due or self._news):
            self.send_encoded(self._take_frame())

    def _take_frame(self) -> bytes:
        frame = Frame(self._news)
        self._news = {}
        due, self._due = self._due, {}
        for box in due.values():
            frame.add(box)
        try:
            return frame.encode()
        except TypeError:
            return self._without_unencodable(frame)

    def _without_unencodable(self, frame: Frame) -> bytes:
        """One call that says what JSON cannot hold (half a surrogate pair, say) fails alone."""
        bad = frame.unencodable()
        for call, why in bad.items():
            logger.error("an answer of the engine cannot be encoded: %s", why)
            if call in self._calls:
                self._calls[call].cancel()
        error = EngineFailed("the engine answered with something that cannot be encoded")
        return frame.failing(bad, error_end(error)).encode()
