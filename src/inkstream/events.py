"""The words that everybody shares: what a run can be, what can happen to it, and how that is written down.

A run is one answer being generated. All that happens to it is a sequence of events, numbered from 1
without gaps, ended by exactly one terminal event. The table ``NEXT`` says which event may follow in
which state; whoever appends asks it, nobody branches on states elsewhere.

An event has a public part (``kind`` and ``data``, encoded once, the only part that is ever sent) and a
private ``seam``: what a continuing engine needs to go on behind this event.

This module imports nothing of ours and does no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Self

import orjson


class RunState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def is_terminal(self) -> bool:
        return self in (RunState.DONE, RunState.STOPPED, RunState.FAILED)


class Kind(StrEnum):
    """What an event says.

    ``started``  ``{model, seed, left_out?}``: the run is pinned and the engine has been asked.
    ``text``     ``{text, channel?, logprobs?}``: text was added; without ``channel`` it is the answer itself.
    ``done``     ``{finish: stop|length, usage, timings}``
    ``stopped``  ``{usage?, timings?}``: somebody asked for it.
    ``failed``   ``{code, message, retryable, usage?, timings?}``
    """

    STARTED = "started"
    TEXT = "text"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def is_terminal(self) -> bool:
        return self in ENDINGS


ENDINGS = frozenset({Kind.DONE, Kind.STOPPED, Kind.FAILED})


NEXT: dict[tuple[RunState, Kind], RunState] = {
    (RunState.QUEUED, Kind.STARTED): RunState.RUNNING,
    (RunState.QUEUED, Kind.STOPPED): RunState.STOPPED,
    (RunState.QUEUED, Kind.FAILED): RunState.FAILED,
    (RunState.RUNNING, Kind.TEXT): RunState.RUNNING,
    (RunState.RUNNING, Kind.DONE): RunState.DONE,
    (RunState.RUNNING, Kind.STOPPED): RunState.STOPPED,
    (RunState.RUNNING, Kind.FAILED): RunState.FAILED,
}


class Draft(NamedTuple):
    """An event before the log has numbered it. ``data`` is JSON in UTF-8, without a line break.

    Like everything that is made once per token it is a tuple: a frozen dataclass takes four times as long.
    """

    kind: Kind
    data: bytes
    seam: bytes = b""


class Event(NamedTuple):
    """An event as the log holds it. ``epoch`` is that of the claim under which it was appended.

    ``frame`` is the server-sent event exactly as it goes over the wire: encoded once, when it is appended.
    """

    epoch: int
    seq: int
    kind: Kind
    frame: bytes
    seam: bytes = b""

    @property
    def data(self) -> bytes:
        """The public part, JSON."""
        return self.frame.split(b"\n", 2)[2][len(b"data: ") : -len(FRAME_END)]

    @property
    def payload(self) -> dict[str, Any]:
        payload: dict[str, Any] = orjson.loads(self.data)
        return payload


FRAME_END = b"\n\n"
_KIND_LINES = {kind: b"\nevent: %b\ndata: " % kind.value.encode() for kind in Kind}
_KINDS = {b"event: %b" % kind.value.encode(): kind for kind in Kind}


def framed(epoch: int, seq: int, kind: Kind, data: bytes) -> bytes:
    """One server-sent event, exactly as ``wire/`` has it. ``data`` is JSON without a line break."""
    return b"id: %d:%d%b%b\n\n" % (epoch, seq, _KIND_LINES[kind], data)


def unframed(frame: bytes, seam: bytes = b"") -> Event:
    """The event that ``framed`` wrote down."""
    number, kind, _ = frame.split(b"\n", 2)
    epoch, _, seq = number[len(b"id: ") :].partition(b":")
    return Event(int(epoch), int(seq), _KINDS[kind], frame, seam)


def cut(frames: bytes) -> list[bytes]:
    """Frames that lie one after the other, each by itself. No data has a line break, so none is cut."""
    return [frame + FRAME_END for frame in frames.split(FRAME_END)[:-1]]


@dataclass(frozen=True, slots=True)
class Note:
    """A volatile remark beside the events (queue place, loading, prefill): last value per key, no number."""

    key: str
    data: bytes

    @property
    def frame(self) -> bytes:
        return b"event: note\ndata: %b\n\n" % self.data


class Batch:
    """What a reader is given: a stretch of one run, its notes first. One object for all readers.

    ``frames`` is all of it as the wire has it. ``last_seq`` is how far a reader has come that has taken it,
    and ``is_last`` says that it ends with the terminal event.
    """

    __slots__ = ("_events", "frames", "is_last", "last_seq", "notes")

    def __init__(
        self, frames: bytes, last_seq: int, *, is_last: bool = False, notes: tuple[Note, ...] = ()
    ) -> None:
        """``frames`` are those of the events alone; those of the notes come before them."""
        self.frames = b"".join([*(note.frame for note in notes), frames]) if notes else frames
        self.last_seq, self.is_last, self.notes = last_seq, is_last, notes
        self._events: list[Event] | None = None

    @property
    def events(self) -> list[Event]:
        """The events, without their seams, which no reader is given. Decoded when first asked for."""
        if self._events is None:
            self._events = [unframed(frame) for frame in cut(self.frames)[len(self.notes) :]]
        return self._events


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a reader has come. ``epoch`` is None where the reader knows only the number."""

    seq: int = 0
    epoch: int | None = None

    @classmethod
    def parse(cls, wire_id: str) -> Self:
        """Read ``EPOCH:SEQ`` or a plain ``SEQ``. Raises ValueError."""
        epoch, colon, seq = wire_id.rpartition(":")
        if not (seq.isascii() and seq.isdigit() and (not colon or (epoch.isascii() and epoch.isdigit()))):
            raise ValueError(f"cursor {wire_id!r} is neither EPOCH:SEQ nor a number")
        return cls(int(seq), int(epoch) if colon else None)


def encode(payload: object) -> bytes:
    """The one encoding of what is stored and sent."""
    # Copied: the bytes that orjson returns keep its buffer of 4 KiB, and events are kept by the thousand.
    return b"%b" % orjson.dumps(payload)


Parts = list[dict[str, Any]]
"""The ordered parts of a message: ``{"type": "text" | "thinking", "text": str}``."""


def fold(events: Iterable[Event], parts: Parts | None = None) -> Parts:
    """The message that the events tell, added to ``parts`` (which stays as it was)."""
    pieces: list[tuple[str, list[str]]] = [(p["type"], [p["text"]]) for p in parts or []]
    for event in events:
        if event.kind is not Kind.TEXT:
            continue
        payload = event.payload
        channel = payload.get("channel", "text")
        if not pieces or pieces[-1][0] != channel:
            pieces.append((channel, []))
        pieces[-1][1].append(payload["text"])
    return [{"type": channel, "text": "".join(texts)} for channel, texts in pieces]


def text_of(parts: Parts) -> str:
    """The answer itself, without thinking."""
    return "".join(part["text"] for part in parts if part["type"] == "text")
