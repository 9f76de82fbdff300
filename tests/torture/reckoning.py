"""The reckoning: every answer against the log, the history, the API and the undisturbed answer."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice, pairwise, takewhile
from pathlib import Path
from typing import Any

from inkstream.channels import ChannelSplitter
from inkstream.engines import Chunk, Emitted, Message, Progress, Request, Sampling
from inkstream.engines.scripted import Script, Scripted
from inkstream.events import Event, Kind, Parts, RunState
from inkstream.history import History
from inkstream.history import Message as Stored
from inkstream.log import Run
from inkstream.log.sqlite import SqliteLog
from tests.torture.campaign import Answer, Campaign
from tests.torture.chaos import Blow
from tests.torture.client import Client
from tests.torture.reader import Reader
from tests.torture.server import Server
from tests.torture.transcript import Received

READ_EVENTS = 1 << 20
STEP_EVENTS = 4
"""What one step of the engine appends at most: what was held back in each channel, and the ending."""
GUILTY_AFTER_DEATHS = 3


# While the server is still there


async def check_api(server: Server, campaign: Campaign) -> None:
    """What the API tells of every answer is what its readers were told."""
    async with Client(server.port, campaign.blame) as client:
        chats: dict[str, dict[str, Any]] = {}
        for chat in dict.fromkeys(answer.chat for answer in campaign.answers):
            listed = (await client.call("GET", f"/api/chats/{chat}"))["messages"]
            chats |= {message["id"]: message for message in listed}
            _check_count(campaign, chat, len(listed))
        for answer in last_runs(campaign):
            _check_message(campaign, answer, chats.get(answer.message))
    await _check_fresh_readers(server, campaign)


def _check_count(campaign: Campaign, chat: str, listed: int) -> None:
    """Starts were repeated and their replies lost: still one question and one answer for each."""
    due = sum(answer.adds for answer in campaign.answers if answer.chat == chat)
    if listed != due:
        campaign.blame(f"chat {chat}: {due} messages are due, {listed} are there")


def _check_message(campaign: Campaign, answer: Answer, message: dict[str, Any] | None) -> None:
    last = answer.transcript.events[-1]
    if message is None:
        return campaign.blame(f"run {answer.run}: its message {answer.message} is not in the chat")
    if message["parts"] != answer.parts:
        campaign.blame(f"run {answer.run}: the message differs from what its readers have")
    if message["state"] != last.kind.value or message["run"] != answer.run:
        campaign.blame(f"run {answer.run}: ended {last.kind}, the message says {message['state']}")
    return None


async def _check_fresh_readers(server: Server, campaign: Campaign) -> None:
    """A reader who comes after the end is told the same."""
    for answer in campaign.answers:
        reader = Reader(server.port, answer.run, "steady", random.Random(f"{campaign.seed} late"))
        await reader.read()
        campaign.violations += reader.transcript.violations
        same_events(campaign, answer, "a late reader", reader.transcript.events)


# On the files, when the server is gone


async def check_files(
    folder: Path, campaign: Campaign, besides: Iterable[str] = (), guilty: str | None = None
) -> None:
    """Log and history, read without the server, hold what the readers were told, and nothing else.

    ``besides`` are the keys of runs that belong to no campaign; questions with ``guilty`` in them may fail.
    """
    log, history = await SqliteLog.open(folder), await History.open(folder)
    try:
        for answer in campaign.answers:
            run = await log.get(answer.run)
            if run is None:
                campaign.blame(f"run {answer.run} is not in the log")
                continue
            check_run(campaign, answer, run, await log.read(run.id, 0, READ_EVENTS))
        for answer in last_runs(campaign):
            check_row(campaign, answer, await history.message("local", answer.message))
        for run in await log.open_runs():
            campaign.blame(f"run {run.id}: {run.state}, settled: {run.settled}, after everything has ended")
    finally:
        await history.aclose()
        await log.aclose()
    await asyncio.to_thread(_check_tables, folder, campaign, besides)
    for answer in campaign.answers:
        check_stops(campaign, answer)
        if guilty is None or guilty not in answer.question.text:
            check_failure(campaign, answer)


def check_run(campaign: Campaign, answer: Answer, run: Run, events: Sequence[Event]) -> None:
    terminal = [event for event in events if event.kind.is_terminal]
    if [e.seq for e in events] != list(range(1, len(events) + 1)):
        campaign.blame(f"run {run.id}: the log's numbers are not contiguous")
    if len(terminal) != 1 or terminal[0] is not events[-1] or run.state.value != terminal[0].kind.value:
        campaign.blame(f"run {run.id}: {run.state}, with {len(terminal)} endings in the log")
    for reader in answer.readers:
        told = [received.identity for received in reader.transcript.events]
        if told != [(e.epoch, e.seq, e.kind, e.data) for e in events]:
            campaign.blame(f"run {run.id}: a {reader.manner} reader has other events than the log")


def check_row(campaign: Campaign, answer: Answer, row: Stored) -> None:
    last = answer.transcript.events[-1]
    if row.parts != answer.parts:
        campaign.blame(f"run {answer.run}: the history differs from the fold of its events")
    if (row.run, row.state.value, row.ending) != (answer.run, last.kind.value, last.payload):
        campaign.blame(f"run {answer.run}: the history tells another end: {row.state} {row.ending}")


def _check_tables(folder: Path, campaign: Campaign, besides: Iterable[str]) -> None:
    for name in ("log.db", "history.db"):
        with closing(sqlite3.connect(folder / name)) as db:
            if (found := db.execute("PRAGMA integrity_check").fetchall()) != [("ok",)]:
                campaign.blame(f"{name} is damaged: {found}")
    with closing(sqlite3.connect(folder / "log.db")) as db:
        keys = Counter(key for (key,) in db.execute("SELECT key FROM runs"))
    mine = Counter([*besides, *(answer.key for answer in campaign.answers)])
    if keys != mine:
        campaign.blame(f"the log has runs that nobody asked for, or lacks some: {keys - mine} {mine - keys}")


def last_runs(campaign: Campaign) -> Iterable[Answer]:
    """Of each message the run that wrote its end: what the message tells."""
    return {answer.message: answer for answer in campaign.answers}.values()


# What the readers have, compared


def same_events(campaign: Campaign, answer: Answer, who: str, events: Iterable[Received]) -> None:
    if [e.identity for e in events] != [e.identity for e in answer.transcript.events]:
        campaign.blame(f"run {answer.run}: {who} has other events than the steady reader")


def check_stops(campaign: Campaign, answer: Answer) -> None:
    """A stop that was confirmed is the end: at most the step that was under way is behind it."""
    last = answer.transcript.events[-1]
    for stop in answer.stops:
        if RunState(stop.state).is_terminal:
            if (stop.state, stop.last_seq) != (last.kind.value, last.seq):
                campaign.blame(f"run {answer.run}: a stop was answered {stop}, the end is {last}")
        elif last.seq - stop.last_seq > STEP_EVENTS:
            campaign.blame(
                f"run {answer.run}: wrote {last.seq - stop.last_seq} events behind a confirmed stop"
            )
    if last.kind is Kind.STOPPED and answer.question.stop_after is None:
        campaign.blame(f"run {answer.run}: was stopped, which nobody asked for")


def check_failure(campaign: Campaign, answer: Answer) -> None:
    """Nothing fails, unless three engines have died over a run that wrote nothing meanwhile."""
    *before, last = answer.transcript.events
    if last.kind is not Kind.FAILED:
        return
    since = before[-1].at if before else 0.0
    deaths = [blow for blow in campaign.blows if blow.role == "engine" and blow.is_deadly]
    meanwhile = [blow for blow in deaths if (blow.until or blow.at) > since - 1 and blow.at < last.at]
    if last.payload["code"] != "engine_crashed" or len(meanwhile) < GUILTY_AFTER_DEATHS:
        campaign.blame(f"run {answer.run}: failed with {len(meanwhile)} deaths around it: {last.payload}")


async def check_against_undisturbed(campaign: Campaign, answer: Answer, script: Script) -> None:
    """Done is the whole undisturbed answer, byte for byte; anything else is a beginning of it."""
    expected, written = spelled(await undisturbed(answer, script)), spelled(answer.parts)
    is_done = answer.transcript.events[-1].kind is Kind.DONE
    if written != (expected if is_done else expected[: len(written)]):
        same = sum(
            1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(written, expected, strict=False))
        )
        campaign.blame(
            f"run {answer.run}: differs from the undisturbed answer from character {same} of {len(expected)}"
        )


async def undisturbed(answer: Answer, script: Script) -> Parts:
    """What the scripted engine writes when nobody disturbs it, made in this process."""
    engine = Scripted(replace(script, tokens_per_second=0, load_seconds=0))
    said = [Message(role, content) for role, content in answer.said]  # type: ignore[arg-type]  # roles of ours
    prompt = await engine.render(said)
    asked = {**answer.question.sampling, "stop": tuple(answer.question.sampling.get("stop", ()))}
    if answer.before:
        asked.pop("max_tokens")
    sampling = Sampling(**asked)
    items: list[Chunk | Progress] = []
    finish = await engine.generate(Request("x", prompt, sampling), Emitted(), items.append)
    items += [finish.last] if finish.last else []
    raw = "".join(item.text for item in items if isinstance(item, Chunk))
    return split(raw, cuts(answer.before, raw))


def cuts(before: Answer | None, raw: str) -> list[int]:
    """Where the parts of an answer end that its limits cut: half a tag there has been shown, and stays."""
    if before is None:
        return []
    earlier = cuts(before.before, raw)
    if before.transcript.events[-1].kind is not Kind.DONE:
        return earlier
    written = spelled(before.parts)
    ends = (end for end in range(len(raw) + 1) if spelled(split(raw[:end], earlier)) == written)
    return [*earlier, *islice(ends, 1)]


def split(raw: str, cuts: Sequence[int]) -> Parts:
    parts: Parts = []
    for start, end in pairwise([0, *(cut for cut in cuts if cut < len(raw)), len(raw)]):
        splitter = ChannelSplitter(emitted=raw[:start])
        for piece in [*splitter.feed(raw[start:end]), *splitter.flush()]:
            if not parts or parts[-1]["type"] != piece.channel:
                parts.append({"type": piece.channel, "text": ""})
            parts[-1]["text"] += piece.text
    return parts


def spelled(parts: Parts) -> list[tuple[str, str]]:
    """Character by character, each with its channel: so that one answer can be a beginning of another."""
    return [(part["type"], character) for part in parts for character in part["text"]]


# How long it took


def gaps(answers: Iterable[Answer], blows: Sequence[Blow]) -> dict[str, list[float]]:
    """Seconds from a death to the next event of a run that was being written, by who had died.

    Counted is where one process alone had died between two events of a run.
    """
    found: dict[str, list[float]] = {"engine": [], "gateway": []}
    for answer in answers:
        events = answer.transcript.events
        for before, after in pairwise(events):
            if after.epoch > before.epoch:
                hit = [b for b in blows if b.at < after.at and (b.until or b.at) > before.at]
                if len(hit) == 1 and hit[0].is_deadly and hit[0].until:
                    found[hit[0].role].append(after.at - hit[0].until)
    return found
