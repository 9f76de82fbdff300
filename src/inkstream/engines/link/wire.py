"""What both ends of the link share: frames and proofs."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Callable
from typing import Any, cast

import orjson

VERSION = 2
HANDSHAKE_BYTES = 4096
LENGTH_BYTES = 4


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
