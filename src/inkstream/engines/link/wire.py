"""What both ends of the link share: frames, proofs and mailboxes."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Callable
from typing import Any, cast

import orjson

from inkstream.engines.link.codec import End

VERSION = 1
HANDSHAKE_BYTES = 4096
LENGTH_BYTES = 4
PIECES = 256


class Frames(asyncio.Protocol):
    """Frames over one connection.

    ``on_frame`` is what the next frame means; the ends replace it as the handshake proceeds, and set
    ``is_proven`` when the peer has shown that it knows the key.
    """

    on_frame: Callable[[Any], None]
    transport: asyncio.Transport

    def __init__(self) -> None:
        self.is_open = False
        self.is_paused = False
        self.is_proven = False
        self.nonce = secrets.token_hex(16)
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # TCP transports carry both directions
        self.is_open = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False

    def pause_writing(self) -> None:
        self.is_paused = True

    def resume_writing(self) -> None:
        self.is_paused = False

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        start, end = 0, len(received)
        while self.is_open and end - start >= LENGTH_BYTES:
            body = start + LENGTH_BYTES
            length = int.from_bytes(received[start:body], "big")
            if length > HANDSHAKE_BYTES and not self.is_proven:
                return self.on_stranger(f"it sent a frame of {length} bytes before it had proven itself")
            if end - body < length:
                break
            start = body + length
            self._decode(received[body:start])
        del received[:start]
        return None

    def _decode(self, body: bytearray) -> None:
        try:
            frame = orjson.loads(body)
        except orjson.JSONDecodeError:
            self.on_stranger("it sent a frame that is not JSON")
        else:
            self.on_frame(frame)

    def on_stranger(self, reason: str) -> None:
        """The peer does not speak this protocol."""
        self.drop()

    def send(self, message: Any) -> None:
        self.send_encoded(orjson.dumps(message))

    def send_encoded(self, body: bytes) -> None:
        self.transport.write(len(body).to_bytes(LENGTH_BYTES, "big") + body)

    def drop(self) -> None:
        """Close at once; nothing more is sent or received."""
        self.is_open = False
        self.transport.abort()

    def hang_up(self) -> None:
        """Close behind what has been sent."""
        self.is_open = False
        self.transport.close()


def proof(key: bytes, role: str, host_nonce: str, gateway_nonce: str) -> str:
    """What only a holder of the key can say. ``role`` keeps one side's proof from serving as the other's."""
    return hmac.digest(key, f"{role}:{host_nonce}:{gateway_nonce}".encode(), "sha256").hex()


def is_proof(given: object, key: bytes, role: str, host_nonce: str, gateway_nonce: str) -> bool:
    expected = proof(key, role, host_nonce, gateway_nonce).encode()
    return isinstance(given, str) and hmac.compare_digest(given.encode(), expected)


class Mailbox:
    """What one call has said and nobody has taken yet: at most one share, one chunk and one end.

    It has one taker. Chunks that meet are joined, so the box grows with the text and the ids only.
    """

    __slots__ = ("call", "end", "ids", "logprobs", "pieces", "share", "tokens", "waiter")

    def __init__(self, call: int) -> None:
        self.call = call
        self.share: float | None = None
        self.pieces: list[str] = []
        self.tokens = 0
        self.ids: list[int] | None = None
        self.logprobs: Any = None
        self.end: End | None = None
        self.waiter: asyncio.Future[None] | None = None

    def put_chunk(self, text: str, tokens: int, ids: list[int] | None, logprobs: Any) -> None:
        """``ids`` belong to the box from now on."""
        if self.pieces:
            self._join(tokens, ids, logprobs)
        else:
            self.tokens, self.ids, self.logprobs = tokens, ids, logprobs
        self.pieces.append(text)

    def _join(self, tokens: int, ids: list[int] | None, logprobs: Any) -> None:
        # Joining the text for each chunk would be quadratic in a stall, never joining it an object per token.
        if len(self.pieces) == PIECES:
            self.pieces = ["".join(self.pieces)]
        self.tokens += tokens
        if self.ids is None or ids is None:
            self.ids = None
        else:
            self.ids += ids
        both = isinstance(self.logprobs, list) and isinstance(logprobs, list)
        self.logprobs = [*self.logprobs, *logprobs] if both else None

    def take_chunk(self) -> tuple[str, int, list[int] | None, Any]:
        pieces, self.pieces = self.pieces, []
        text = pieces[0] if len(pieces) == 1 else "".join(pieces)
        return text, self.tokens, self.ids, self.logprobs

    def take_share(self) -> float | None:
        share, self.share = self.share, None
        return share

    def wake(self) -> None:
        waiter = self.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def filled(self) -> None:
        """Wait for ``wake``. Call it only on a box that holds nothing."""
        self.waiter = asyncio.get_running_loop().create_future()
        try:
            await self.waiter
        finally:
            self.waiter = None
