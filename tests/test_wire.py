"""The golden transcripts and the one encoder, against readers that we did not write."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from httpx_sse._decoders import SSEDecoder
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from sseclient import SSEClient

from inkstream.events import Cursor, Event, Kind, Note, encode, fold, framed

WIRE = Path(__file__).parent.parent / "wire"
SCHEMAS = WIRE.parent / "src/inkstream/api/wire"
SCHEMA = json.loads((SCHEMAS / "events.schema.json").read_text(encoding="utf-8"))
# ``dialect`` is for readers: nothing of ours encodes it.
NAMES = sorted(path.stem for path in (WIRE / "transcripts").glob("*.sse") if path.stem != "dialect")


def parse(stream: bytes, cuts: list[int] | None = None) -> list[tuple[str, str, str]]:
    """(id, event, data) of each event, read from pieces cut at the given bytes."""
    borders = [0, *sorted(cuts or []), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(borders)]
    return [(e.id or "", e.event, e.data) for e in SSEClient(iter(pieces)).events() if e.data]


def transcript(name: str) -> tuple[bytes, dict[str, Any]]:
    folder = WIRE / "transcripts"
    return (folder / f"{name}.sse").read_bytes(), json.loads((folder / f"{name}.json").read_bytes())


def events_of(parsed: list[tuple[str, str, str]]) -> list[Event]:
    events = []
    for last_id, kind, data in parsed:
        if kind in set(Kind):
            cursor = Cursor.parse(last_id)
            frame = framed(cursor.epoch or 0, cursor.seq, Kind(kind), data.encode())
            events.append(Event(cursor.epoch or 0, cursor.seq, Kind(kind), frame))
    return events


@pytest.mark.parametrize("name", NAMES)
def test_a_transcript_folds_to_what_stands_beside_it(name: str) -> None:
    stream, expected = transcript(name)
    events = events_of(parse(stream))
    assert fold(events) == expected["parts"]
    assert [e.seq for e in events] == list(range(1, len(events) + 1))
    if events:
        assert expected["last_id"] == f"{events[-1].epoch}:{events[-1].seq}"


@pytest.mark.parametrize("name", NAMES)
def test_a_transcript_says_what_the_schema_allows(name: str) -> None:
    for _, kind, data in parse(transcript(name)[0]):
        if kind in SCHEMA["$defs"]:
            Draft202012Validator({**SCHEMA, "$ref": f"#/$defs/{kind}"}).validate(json.loads(data))


@pytest.mark.parametrize("name", NAMES)
def test_the_encoder_writes_a_transcript_byte_for_byte(name: str) -> None:
    stream, _ = transcript(name)
    blocks = [block + b"\n\n" for block in stream.split(b"\n\n")[1:] if block and not block.startswith(b":")]
    written = []
    last_id = ""
    for given_id, kind, data in parse(stream):
        last_id = given_id or last_id
        cursor = Cursor.parse(last_id) if last_id else Cursor()
        if kind == "note":
            written.append(Note(json.loads(data).get("key", ""), data.encode()).frame)
        else:
            written.append(framed(cursor.epoch or 0, cursor.seq, Kind(kind), data.encode()))
    assert written == blocks


EVENTS = st.lists(st.tuples(st.integers(1, 10**6), st.text(max_size=40)), min_size=1, max_size=8)


@given(EVENTS, st.lists(st.integers(0, 2000), max_size=12))
def test_any_text_survives_the_stream_however_it_is_cut(
    items: list[tuple[int, str]], cuts: list[int]
) -> None:
    frames = [
        framed(epoch, seq, Kind.TEXT, encode({"text": text})) for seq, (epoch, text) in enumerate(items, 1)
    ]
    stream = b"retry: 2000\n: ok\n\n" + b"".join(frames) + b":\n\n"
    parsed = parse(stream, [min(cut, len(stream)) for cut in cuts])
    assert [json.loads(data)["text"] for _, _, data in parsed] == [text for _, text in items]
    cursors = [Cursor(seq, epoch) for seq, (epoch, _) in enumerate(items, 1)]
    assert [Cursor.parse(last_id) for last_id, _, _ in parsed] == cursors


@given(EVENTS)
def test_another_reader_agrees(items: list[tuple[int, str]]) -> None:
    decoder, texts = SSEDecoder(), []
    for seq, (epoch, text) in enumerate(items, 1):
        for line in framed(epoch, seq, Kind.TEXT, encode({"text": text})).decode().split("\n")[:-1]:
            if (event := decoder.decode(line)) is not None:
                texts.append((event.event, event.id, json.loads(event.data)["text"]))
    assert texts == [("text", f"{epoch}:{seq}", text) for seq, (epoch, text) in enumerate(items, 1)]


@pytest.mark.parametrize("wrong", ["", ":", "1:", ":1", "a", "-1", "1:2:3", "1:-2", "１", "1.5", " 1"])
def test_a_cursor_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="neither"):
        Cursor.parse(wrong)
