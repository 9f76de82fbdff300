"""What the writer remembers of a run that has not ended."""

from __future__ import annotations

from dataclasses import dataclass, field

from inkstream.events import RunState


@dataclass(slots=True)
class Tail:
    """A run that has not ended: where it stands, and its events that are in no page yet."""

    n: int
    epoch: int
    holder: str | None
    state: RunState
    last_seq: int
    stop_requested: bool
    deaths: int
    paged_seq: int = 0
    block: int = 0  # of the journal, with the first event that is in no page
    frames: bytearray = field(default_factory=bytearray)
    seams: bytearray = field(default_factory=bytearray)

    def add(self, frames: bytes, seams: bytes, last_seq: int, block: int) -> int:
        """Returns how many bytes are in no page now."""
        if self.last_seq == self.paged_seq:
            self.block = block
        self.frames += frames
        self.seams += seams
        self.last_seq = last_seq
        return len(self.frames) + len(self.seams)
