"""Server-sent events, read from bytes that may be cut anywhere. Checked against httpx-sse in its test."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Block:
    """One dispatched event, its fields as bytes. ``id`` is empty where the block has none."""

    id: bytes
    event: bytes
    data: bytes


class Blocks:
    """Feed it what came; it returns the events that are complete. Lines end with LF, as our server's do."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, received: bytes) -> list[Block]:
        *complete, self._rest = (self._rest + received).split(b"\n\n")
        return [block for text in complete if (block := _block(text)) is not None]


def _block(text: bytes) -> Block | None:
    fields: dict[bytes, list[bytes]] = {}
    for line in text.split(b"\n"):
        name, _, value = line.partition(b":")
        fields.setdefault(name, []).append(value.removeprefix(b" "))
    if b"data" not in fields:
        return None
    last = {name: values[-1] for name, values in fields.items()}
    return Block(last.get(b"id", b""), last.get(b"event", b"message"), b"\n".join(fields[b"data"]))
