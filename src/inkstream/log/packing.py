"""How events lie in journal and pages: as what will be sent, so that a replay need not look inside.

``frames`` are server-sent events, one after the other. Beside them lie their ``seams``, in the same order,
each behind its length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import Struct
from struct import error as StructError
from typing import NamedTuple

from inkstream.errors import Unreadable
from inkstream.events import ENDINGS, FRAME_END, Draft, Event, cut, framed, unframed

HEAD = Struct("<QIIII")  # run's row, number before the first, last number, length of frames, length of seams
LENGTH = Struct("<I")


ENDING_LINES = tuple(b"\nevent: %b\n" % kind.value.encode() for kind in ENDINGS)


class Stretch(NamedTuple):
    """Events of one run without a gap, up to ``last_seq``."""

    frames: bytes
    seams: bytes
    last_seq: int

    @property
    def is_last(self) -> bool:
        """Whether it ends with the terminal event."""
        at = self.frames.rfind(FRAME_END, 0, -len(FRAME_END)) + 1
        return any(self.frames.find(ending, at) >= 0 for ending in ENDING_LINES)

    def events(self) -> list[Event]:
        """Raises Unreadable."""
        try:
            pairs = zip(cut(self.frames), _cut(self.seams), strict=True)
            return [unframed(frame, seam) for frame, seam in pairs]
        except (ValueError, LookupError, StructError) as error:
            raise Unreadable(f"the events of a run cannot be read: {error!r}") from error


def pack(epoch: int, last_seq: int, drafts: Sequence[Draft]) -> tuple[bytes, bytes]:
    """Frames and seams of what comes behind ``last_seq``."""
    if len(drafts) == 1:  # a token of its own, as a rule
        kind, data, seam = drafts[0]
        return framed(epoch, last_seq + 1, kind, data), LENGTH.pack(len(seam)) + seam
    frames = [framed(epoch, seq, draft.kind, draft.data) for seq, draft in enumerate(drafts, last_seq + 1)]
    seams = [LENGTH.pack(len(draft.seam)) + draft.seam for draft in drafts]
    return b"".join(frames), b"".join(seams)


def behind(frames: bytes | bytearray, after: int) -> bytes:
    """The frames with numbers above ``after``, which must be among them or just before them."""
    at = frames.find(b":%d\nevent: " % after)
    return bytes(frames[frames.find(FRAME_END, at) + len(FRAME_END) :] if at >= 0 else frames)


def seams_behind(seams: bytes | bytearray, count: int) -> bytes:
    """All but the first ``count`` seams."""
    at = 0
    for _ in range(count):
        at += LENGTH.size + LENGTH.unpack_from(seams, at)[0]
    return bytes(seams[at:])


def _cut(seams: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(seams):
        start = at + LENGTH.size
        at = start + LENGTH.unpack_from(seams, at)[0]
        yield seams[start:at]


def records(body: bytes) -> Iterator[tuple[int, int, Stretch]]:
    """What a commit wrote: runs' rows, the numbers before, and what came behind them. Zeros end it."""
    at = 0
    while at + HEAD.size <= len(body):
        n, after, last_seq, frames_length, seams_length = HEAD.unpack_from(body, at)
        if n == 0:
            break
        seams_at = at + HEAD.size + frames_length
        frames, at = body[at + HEAD.size : seams_at], seams_at + seams_length
        yield n, after, Stretch(frames, body[seams_at:at], last_seq)
