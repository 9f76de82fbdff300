"""What one reader has been sent of one run, and what may never happen to it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from inkstream.events import Cursor, Event, Kind, Parts, fold, framed
from tests.torture.sse import Block

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, slots=True)
class Received:
    """``at`` is when it was read, on the monotonic clock."""

    epoch: int
    seq: int
    kind: Kind
    data: bytes
    at: float

    @property
    def identity(self) -> tuple[int, int, Kind, bytes]:
        return self.epoch, self.seq, self.kind, self.data

    @property
    def payload(self) -> dict[str, Any]:
        payload: dict[str, Any] = orjson.loads(self.data)
        return payload


@dataclass(slots=True)
class Transcript:
    """``connected`` says from where the present connection was asked to read; ``take`` gets what it sends."""

    run: str
    events: list[Received] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    notes: int = 0
    _next: int = 1

    @property
    def is_ended(self) -> bool:
        return bool(self.events) and self.events[-1].kind.is_terminal

    def connected(self, after: int) -> None:
        self._next = after + 1

    def take(self, block: Block, at: float) -> Received | None:
        """Note it down. Returns the event if it was new to this reader."""
        if block.event == b"note":
            self.notes += 1
            if block.id:
                self.blame(f"a note has the id {block.id!r}")
            return None
        try:
            cursor = Cursor.parse(block.id.decode("ascii"))
            received = Received(
                cursor.epoch or 0, cursor.seq, Kind(block.event.decode("ascii")), block.data, at
            )
            self._look_at(received)
        except ValueError as error:
            self.blame(f"an event cannot be read: {block!r}: {error}")
            return None
        return self._place(received)

    def blame(self, what: str) -> None:
        self.violations.append(f"run {self.run}: {what}")

    def _look_at(self, received: Received) -> None:
        """Raises ValueError for bytes that are no characters."""
        text = (
            received.payload.get("text", "") if received.kind is Kind.TEXT else received.data.decode("utf-8")
        )
        if REPLACEMENT in text:
            self.blame(f"event {received.seq} has a broken character: {text!r}")
        if received.kind is Kind.TEXT and not text:
            self.blame(f"event {received.seq} is a text without text")

    def _place(self, received: Received) -> Received | None:
        if received.seq != self._next:
            self.blame(f"event {received.seq} came where {self._next} was due")
            return None
        self._next += 1
        if received.seq <= len(self.events):
            before = self.events[received.seq - 1]
            if before.identity != received.identity:
                self.blame(f"event {received.seq} has changed from {before} to {received}")
            return None
        self._follow_on(received)
        return received

    def _follow_on(self, received: Received) -> None:
        if self.is_ended:
            self.blame(f"{received.kind} came behind the terminal event")
        if self.events and received.epoch < self.events[-1].epoch:
            self.blame(f"the epoch sank from {self.events[-1].epoch} to {received.epoch}")
        if (received.seq == 1) is not (received.kind is Kind.STARTED) and not received.kind.is_terminal:
            self.blame(f"event {received.seq} is {received.kind}")
        self.events.append(received)


def folded(events: Iterable[Received], parts: Parts) -> Parts:
    """The message that the events tell, added to ``parts``."""
    told = (Event(e.epoch, e.seq, e.kind, framed(e.epoch, e.seq, e.kind, e.data)) for e in events)
    return fold(told, parts)
