"""A short torture of a real server, and proof that its checks can fail. ``make torture`` is the long one."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource
from hypothesis import given
from hypothesis import strategies as st

from inkstream.engines.scripted import Script
from inkstream.events import Event, Kind, RunState, encode, fold, framed
from inkstream.history import Message
from inkstream.log import Run
from tests.torture import load, reckoning, trials
from tests.torture.campaign import Answer, Campaign, StopReply
from tests.torture.chaos import Blow
from tests.torture.questions import Question
from tests.torture.reader import Manner, Reader
from tests.torture.report import Report
from tests.torture.server import Server
from tests.torture.sse import Block, Blocks
from tests.torture.transcript import Transcript

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="processes are held by Linux's pidfd")


def event_of(epoch: int, seq: int, kind: Kind, data: bytes) -> Event:
    return Event(epoch, seq, kind, framed(epoch, seq, kind, data))


def changed(event: Event, **what: Any) -> Event:
    """The event as it would be if it said something else."""
    said = {"epoch": event.epoch, "seq": event.seq, "kind": event.kind, "data": event.data, **what}
    return event_of(**said)


STARTED = event_of(1, 1, Kind.STARTED, b'{"model":"scripted","seed":1}')
HELLO = event_of(1, 2, Kind.TEXT, encode({"text": "流式 hello"}))
WORLD = event_of(2, 3, Kind.TEXT, encode({"text": " world"}))
DONE = event_of(2, 4, Kind.DONE, b'{"finish":"stop","usage":{},"timings":{}}')
STORY = [STARTED, HELLO, WORLD, DONE]


# The real thing, short


def drawn_seed() -> int:
    seed = random.SystemRandom().randrange(1 << 31)
    print(f"seed {seed}; again with: python -m tests.torture --seed {seed} --engine scripted")
    return seed


def passed(report: Report) -> Report:
    report.show()
    assert report.violations == []
    return report


@linux_only
@pytest.mark.real
@pytest.mark.timeout(180)
async def test_killed_stopped_cut_and_stopped_short_every_answer_is_as_if_nothing_had_been(
    tmp_path: Path,
) -> None:
    report = passed(await trials.scripted(tmp_path, drawn_seed(), kills=12, seconds=12, askers=8))
    assert int(report.figures["blows"]) >= 3
    assert int(report.figures["runs"]) >= 8


@linux_only
@pytest.mark.real
@pytest.mark.timeout(120)
async def test_of_prompts_that_crash_the_engine_among_healthy_ones_only_they_fail(tmp_path: Path) -> None:
    report = passed(await trials.poison(tmp_path, drawn_seed(), poisoned=3, healthy=8))
    assert (report.figures["  ended failed"], report.figures["  ended done"]) == (3, 8)


@linux_only
@pytest.mark.real
async def test_a_long_answer_leaves_the_gateways_memory_flat(tmp_path: Path) -> None:
    passed(await load.long_answer(tmp_path, drawn_seed(), tokens=30_000))


@linux_only
@pytest.mark.real
@pytest.mark.timeout(120)
async def test_many_answers_at_once_all_go_on_and_as_many_again_need_no_more_memory(tmp_path: Path) -> None:
    passed(await load.crowd(tmp_path, drawn_seed(), runs=80, tokens_per_second=10))


@linux_only
@pytest.mark.real
async def test_a_traceback_on_the_console_is_blamed(tmp_path: Path) -> None:
    async with Server(tmp_path, {"engine": "scripted"}) as server:
        with (tmp_path / "console.log").open("a", encoding="utf-8") as console:
            console.write("Traceback (most recent call last):\n")
    assert server.failures == ["the console has 1 tracebacks: nobody has foreseen what they tell of"]


# What a reader notices


def block_of(event: Event) -> Block:
    [block] = Blocks().feed(event.frame)
    return block


def transcript_of(*events: Event) -> Transcript:
    transcript = Transcript("run")
    transcript.connected(0)
    for event in events:
        transcript.take(block_of(event), 0.0)
    return transcript


def test_a_faultless_story_is_not_blamed() -> None:
    transcript = transcript_of(*STORY)
    assert (transcript.violations, transcript.is_ended) == ([], True)
    transcript.connected(1)
    for event in STORY[1:]:
        assert transcript.take(block_of(event), 0.0) is None
    assert transcript.violations == []


@pytest.mark.parametrize(
    ("told", "blame"),
    [
        ([STARTED, HELLO, HELLO], "event 2 came where 3 was due"),
        ([STARTED, WORLD], "event 3 came where 2 was due"),
        ([STARTED, changed(HELLO, epoch=2), changed(WORLD, epoch=1)], "sank from 2 to 1"),
        ([STARTED, HELLO, WORLD, DONE, changed(DONE, seq=5)], "behind the terminal event"),
        ([STARTED, changed(STARTED, seq=2)], "event 2 is started"),
        ([STARTED, changed(HELLO, data=encode({"text": "\ufffd"}))], "broken character"),
        ([STARTED, changed(HELLO, data=b'{"text":"\xe6\xb5"}')], "cannot be read"),
        ([STARTED, changed(HELLO, data=b'{"text":""}')], "without text"),
    ],
)
def test_a_reader_blames_what_may_never_happen(told: list[Event], blame: str) -> None:
    assert blame in "".join(transcript_of(*told).violations)


def test_a_reader_that_goes_back_blames_what_has_changed() -> None:
    transcript = transcript_of(STARTED, HELLO)
    transcript.connected(1)
    transcript.take(block_of(changed(HELLO, data=encode({"text": "other"}))), 0.0)
    assert "event 2 has changed" in transcript.violations[0]


# What a reader on a socket notices


@asynccontextmanager
async def answering(*replies: bytes) -> AsyncIterator[int]:
    """A server that gives each connection the next reply, and the last one again and again."""
    left = list(replies)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(left.pop(0) if len(left) > 1 else left[0])
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def reply(*events: Event, is_whole: bool = True) -> bytes:
    body = b"retry: 2000\n: ok\n\n" + b"".join(event.frame for event in events)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%b\r\n" % (len(body), body) + (b"0\r\n\r\n" if is_whole else b"")


NOTHING_MORE = b"HTTP/1.1 204 No Content\r\n\r\n"


async def read_from(*replies: bytes, manner: Manner = "steady") -> Reader:
    async with answering(*replies) as port:
        reader = Reader(port, "run", manner, random.Random(1))
        await reader.read()
    return reader


async def test_a_cut_reader_comes_again_and_has_everything_once() -> None:
    reader = await read_from(
        reply(STARTED, HELLO, is_whole=False)[:-20], reply(HELLO), reply(WORLD, DONE), NOTHING_MORE
    )
    assert [e.seq for e in reader.transcript.events] == [1, 2, 3, 4]
    assert (reader.transcript.violations, reader.counts.connections, reader.counts.broken) == ([], 4, 1)


@pytest.mark.parametrize(
    ("replies", "blame"),
    [
        ([b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n", reply(*STORY), NOTHING_MORE], "answered with 500"),
        ([NOTHING_MORE, reply(*STORY), NOTHING_MORE], "nothing more before the end"),
        ([reply(*STORY), reply(DONE)], "behind its end"),
        ([reply(STARTED, HELLO), reply(*STORY), NOTHING_MORE, NOTHING_MORE], "came where"),
    ],
)
async def test_a_reader_blames_wrong_replies(replies: list[bytes], blame: str) -> None:
    assert blame in "".join((await read_from(*replies)).transcript.violations)


@given(st.lists(st.text(), min_size=1), st.randoms(use_true_random=False))
def test_our_parser_reads_what_httpx_sse_reads_wherever_the_bytes_are_cut(
    texts: list[str], draw: random.Random
) -> None:
    events = [event_of(1, n, Kind.TEXT, encode({"text": text})) for n, text in enumerate(texts, 1)]
    wire = b": ok\n\n" + b":\n\n".join(event.frame for event in events)
    cuts = sorted(draw.choices(range(len(wire) + 1), k=5))
    blocks, ours = Blocks(), []
    for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        ours += blocks.feed(wire[start:end])
    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=wire)
    theirs = EventSource(response).iter_sse()
    told = [(e.id, e.event, e.data) for e in theirs if e.data]
    assert [(b.id.decode(), b.event.decode(), b.data.decode()) for b in ours] == told


# What the reckoning notices

SCRIPT = Script(answer="流式 hello world")
QUESTION = Question("hello", {"temperature": 0, "max_tokens": 100}, ("steady",), None, 0, None, False)
RUN = Run("run", "local", b"", RunState.DONE, 2, 4, False, 0, 0.0, 1.0, True)
ROW = Message(
    "m", "c", None, "assistant", fold(STORY), 0.0, run="run", state=RunState.DONE, ending=DONE.payload
)


def answer_of(*events: Event, question: Question = QUESTION) -> Answer:
    answer = Answer(question, [("user", question.text)], "key", "c", "run", "m", 0.0)
    answer.readers.append(Reader(1, "run", "steady", random.Random(1)))
    answer.readers[0].transcript = transcript_of(*events)
    return answer


def blamed(check: Callable[[Campaign], object]) -> str:
    campaign = Campaign(1)
    check(campaign)
    return "".join(campaign.violations)


def test_a_faultless_answer_passes_the_reckoning() -> None:
    answer = answer_of(*STORY)
    answer.stops = [StopReply("running", 3), StopReply("done", 4)]
    assert blamed(lambda c: reckoning.check_run(c, answer, RUN, STORY)) == ""
    assert blamed(lambda c: reckoning.check_row(c, answer, ROW)) == ""
    assert blamed(lambda c: reckoning.check_stops(c, answer)) == ""
    assert blamed(lambda c: reckoning.check_failure(c, answer)) == ""


@pytest.mark.parametrize(
    ("events", "run", "blame"),
    [
        ([*STORY[:3], changed(DONE, data=b"{}")], RUN, "other events than the log"),
        ([STARTED, HELLO, changed(DONE, seq=3)], RUN, "other events than the log"),
        ([STARTED, WORLD, DONE], RUN, "not contiguous"),
        (STORY[:3], RUN, "0 endings"),
        ([*STORY, changed(DONE, seq=5)], RUN, "2 endings"),
        (STORY, replace(RUN, state=RunState.STOPPED), "stopped, with 1"),
    ],
)
def test_a_log_that_differs_from_what_was_told_is_blamed(events: list[Event], run: Run, blame: str) -> None:
    assert blame in blamed(lambda c: reckoning.check_run(c, answer_of(*STORY), run, events))


@pytest.mark.parametrize(
    ("row", "blame"),
    [
        (replace(ROW, parts=[{"type": "text", "text": "other"}]), "differs from the fold"),
        (replace(ROW, state=RunState.RUNNING), "another end"),
        (replace(ROW, ending=None), "another end"),
        (replace(ROW, run="other"), "another end"),
    ],
)
def test_a_history_that_differs_from_the_events_is_blamed(row: Message, blame: str) -> None:
    assert blame in blamed(lambda c: reckoning.check_row(c, answer_of(*STORY), row))


def test_a_stop_that_is_not_honoured_is_blamed() -> None:
    answer = answer_of(*STORY)
    answer.stops = [StopReply("stopped", 3)]
    assert "a stop was answered" in blamed(lambda c: reckoning.check_stops(c, answer))
    texts = [changed(HELLO, seq=seq) for seq in range(2, 20)]
    answer = answer_of(STARTED, *texts)
    answer.stops = [StopReply("running", 4)]
    assert "behind a confirmed stop" in blamed(lambda c: reckoning.check_stops(c, answer))


def test_a_stop_that_nobody_asked_for_is_blamed() -> None:
    answer = answer_of(STARTED, event_of(1, 2, Kind.STOPPED, b"{}"))
    assert "nobody asked for" in blamed(lambda c: reckoning.check_stops(c, answer))


def test_a_failure_that_no_three_deaths_explain_is_blamed() -> None:
    crashed = event_of(
        1, 2, Kind.FAILED, encode({"code": "engine_crashed", "message": "", "retryable": False})
    )
    answer = answer_of(STARTED, crashed)
    deaths = [Blow("engine", signal.SIGKILL, -0.1, -0.1)] * 3
    for blows, is_blamed in ((deaths[:2], True), (deaths, False)):
        campaign = Campaign(1, blows=blows)
        reckoning.check_failure(campaign, answer)
        assert bool(campaign.violations) is is_blamed
    other = event_of(1, 2, Kind.FAILED, encode({"code": "internal", "message": "", "retryable": False}))
    campaign = Campaign(1, blows=deaths)
    reckoning.check_failure(campaign, answer_of(STARTED, other))
    assert campaign.violations


@pytest.mark.parametrize(
    ("events", "is_right"),
    [
        ([STARTED, HELLO, WORLD, DONE], True),
        ([STARTED, HELLO, changed(DONE, kind=Kind.STOPPED, seq=3, data=b"{}")], True),
        ([STARTED, HELLO, changed(DONE, seq=3)], False),
        ([STARTED, changed(WORLD, seq=2), changed(DONE, kind=Kind.STOPPED, seq=3, data=b"{}")], False),
        ([STARTED, HELLO, changed(HELLO, seq=3), changed(DONE, kind=Kind.STOPPED, data=b"{}")], False),
    ],
)
async def test_done_is_the_whole_undisturbed_answer_and_stopped_a_beginning_of_it(
    events: list[Event], is_right: bool
) -> None:
    campaign = Campaign(1)
    await reckoning.check_against_undisturbed(campaign, answer_of(*events), SCRIPT)
    assert (not campaign.violations) is is_right


def gone_on_with() -> Answer:
    """``流式 hello``, stopped, and then gone on with: `` world``."""
    stopped = changed(DONE, kind=Kind.STOPPED, seq=3, data=b"{}")
    answer = answer_of(STARTED, changed(WORLD, seq=2), changed(DONE, seq=3))
    answer.before = answer_of(STARTED, HELLO, stopped)
    return answer


def test_the_history_of_an_answer_that_was_gone_on_with_is_what_both_runs_wrote() -> None:
    answer = gone_on_with()
    assert blamed(lambda c: reckoning.check_row(c, answer, ROW)) == ""
    half = replace(ROW, parts=fold([WORLD]))
    assert "differs from the fold" in blamed(lambda c: reckoning.check_row(c, answer, half))


async def test_an_answer_that_was_gone_on_with_ends_as_the_undisturbed_one() -> None:
    for events, is_right in (([STARTED, HELLO], True), ([STARTED, changed(WORLD, seq=2)], False)):
        answer, campaign = gone_on_with(), Campaign(1)
        answer.before = answer_of(*events, changed(DONE, kind=Kind.STOPPED, seq=3, data=b"{}"))
        await reckoning.check_against_undisturbed(campaign, answer, SCRIPT)
        assert (not campaign.violations) is is_right


def test_of_a_message_the_last_run_is_compared() -> None:
    first = answer_of(*STORY)
    second = replace(first, run="second", before=first)
    other = replace(first, run="third", message="another")
    assert list(reckoning.last_runs(Campaign(1, [first, second, other]))) == [second, other]


def test_a_gap_counts_from_the_one_death_between_two_events() -> None:
    answer = answer_of(*STORY)
    for received, at in zip(answer.transcript.events, (0.0, 1.0, 5.0, 5.1), strict=True):
        object.__setattr__(received, "at", at)
    engine, gateway = Blow("engine", signal.SIGKILL, 3.0, 3.5), Blow("gateway", signal.SIGKILL, 4.0, 4.0)
    assert reckoning.gaps([answer], [engine]) == {"engine": [1.5], "gateway": []}
    assert reckoning.gaps([answer], [engine, gateway]) == {"engine": [], "gateway": []}
