"""What a run is asked for with, and what has been emitted of it, as they are stored."""

from __future__ import annotations

from inkstream.ask import emitted_by
from inkstream.engines import Emitted
from inkstream.events import Kind, framed, unframed


def test_seams_of_earlier_versions_have_a_fourth_field() -> None:
    event = unframed(framed(1, 1, Kind.TEXT, b'{"text":"ab"}'), b"[null,[5,6],2,null]")
    assert emitted_by([event], Emitted("so ", (4,), 1)) == Emitted("so ab", (4, 5, 6), 3)
