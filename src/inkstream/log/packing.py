"""How events lie in the journal and in the pages: one after the other, each behind a head of fixed size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import Struct

from inkstream.events import Event, Kind

KINDS = tuple(Kind)  # their order is stored: new kinds go to the end
KIND_CODES = {kind: code for code, kind in enumerate(KINDS)}
HEAD = Struct("<QIIBII")  # run's row, epoch, seq, kind, length of data, length of seam


def pack(n: int, events: Iterable[Event]) -> bytes:
    pieces: list[bytes] = []
    for event in events:
        kind = KIND_CODES[event.kind]
        pieces.append(HEAD.pack(n, event.epoch, event.seq, kind, len(event.data), len(event.seam)))
        pieces.append(event.data)
        pieces.append(event.seam)
    return b"".join(pieces)


def unpack(body: bytes) -> Iterator[tuple[int, Event]]:
    at = 0
    while at < len(body):
        n, epoch, seq, kind, data_length, seam_length = HEAD.unpack_from(body, at)
        seam_at = at + HEAD.size + data_length
        at_next = seam_at + seam_length
        yield n, Event(epoch, seq, KINDS[kind], body[at + HEAD.size : seam_at], body[seam_at:at_next])
        at = at_next
