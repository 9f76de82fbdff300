"""What calls have said and a host has not sent yet: a mailbox for each, a frame for all of them."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import Any

import orjson

from inkstream.engines import Chunk, Progress, merged
from inkstream.engines.link.codec import End, chunk_columns

UNMERGED = 256


class Mailbox:
    """What one call has said and nobody has sent yet: at most one share, a few chunks and one end."""

    __slots__ = ("_chunks", "_put", "call", "end", "share")

    def __init__(self, call: int, put: Callable[[Mailbox], None]) -> None:
        self.call, self._put = call, put
        self.share: float | None = None
        self.end: End | None = None
        self._chunks: list[Chunk] = []

    def take(self, item: Chunk | Progress) -> None:
        if self.end is not None:
            return  # the engine was taken back meanwhile: this call is lost
        if isinstance(item, Progress):
            self.share = item.share
        else:
            # Merging for each chunk would be quadratic in a stall, never merging it an object per token.
            if len(self._chunks) == UNMERGED:
                self._chunks = [merged(self._chunks)]
            self._chunks.append(item)
        self._put(self)

    def take_all(self, last: Chunk | None = None) -> Chunk | None:
        """What is unsent, and ``last`` behind it, as one chunk."""
        chunks, self._chunks = self._chunks, []
        if last is not None:
            chunks.append(last)
        return merged(chunks) if chunks else None


@dataclass(slots=True)
class Frame:
    """What leaves together. ``chunks`` has one for each of ``calls``."""

    news: dict[str, Any]
    calls: list[int] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    progress: list[tuple[int, float]] = field(default_factory=list)
    ends: dict[int, End] = field(default_factory=dict)

    def add(self, box: Mailbox) -> None:
        """What the box holds leaves with this frame."""
        if (chunk := box.take_all()) is not None:
            self.calls.append(box.call)
            self.chunks.append(chunk)
        if box.share is not None:
            self.progress.append((box.call, box.share))
            box.share = None
        if box.end is not None:
            self.ends[box.call] = box.end

    def encode(self) -> bytes:
        """Raises TypeError for what JSON cannot hold."""
        frame = self.news | {"chunks": chunk_columns(self.calls, self.chunks)}
        if self.progress:
            frame["progress"] = self.progress
        if self.ends:
            frame["ends"] = [(call, *end) for call, end in self.ends.items()]
        return orjson.dumps(frame)

    def unencodable(self) -> dict[int, str]:
        """The calls that keep the frame from being encoded, and why."""
        said = (*zip(self.calls, map(tuple, self.chunks), strict=True), *self.ends.items())
        return {call: why for call, item in said if (why := _why_unencodable(item))}

    def failing(self, bad: Container[int], end: End) -> Frame:
        """The same without what these calls say, and ``end`` for each of them."""
        good = [pair for pair in zip(self.calls, self.chunks, strict=True) if pair[0] not in bad]
        return Frame(
            self.news,
            [call for call, _ in good],
            [chunk for _, chunk in good],
            self.progress,
            self.ends | {call: end for call in (*self.calls, *self.ends) if call in bad},
        )


def _why_unencodable(item: object) -> str | None:
    try:
        orjson.dumps(item)
    except TypeError as error:
        return str(error)
    return None
