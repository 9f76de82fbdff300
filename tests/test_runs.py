"""The life of a run, with a real log and history and the scripted engine, in one process."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from inkstream import engines
from inkstream.ask import Ask
from inkstream.channels import OPEN
from inkstream.config import Settings
from inkstream.conversation import NEWEST, Tree
from inkstream.engines import (
    Capabilities,
    Chunk,
    Emitted,
    Finish,
    Phase,
    Prompt,
    Request,
    Sampling,
    Status,
    Take,
)
from inkstream.engines.scripted import Script, Scripted
from inkstream.errors import Conflict, EngineLost, Expired, Invalid, KeyReused, NotFound, Overloaded
from inkstream.events import Cursor, Event, Kind, Note, RunState, fold, text_of
from inkstream.history import History, Message
from inkstream.log import Run
from inkstream.log.sqlite import SqliteLog
from inkstream.news import News
from inkstream.runs import Runs
from tests.reading import Inbox, Items, batches
from tests.waiting import until

GREEDY = Sampling(temperature=0)


class Mortal:
    """An engine whose process can die and come back, and that can be told to die over certain prompts."""

    def __init__(self, script: Script | None = None) -> None:
        self.inner = Scripted(script)
        self.asked: list[Request] = []
        self.kills = ""
        self.cache_usage = None
        self.most_at_once = 0
        self._status = Status(Phase.READY)
        self._changed = asyncio.Event()
        self._death = asyncio.Event()

    @property
    def status(self) -> Status:
        return self._status

    async def status_after(self, seen: Status) -> Status:
        while self._status == seen:
            await self._changed.wait()
        return self._status

    def set(self, status: Status) -> None:
        self._status = status
        self._changed.set()
        self._changed = asyncio.Event()

    def die(self) -> None:
        self._death.set()
        self._death = asyncio.Event()
        self.set(Status(Phase.CONNECTING))

    def return_as(self, inner: Scripted | None = None) -> None:
        self.inner = inner or self.inner
        self.set(Status(Phase.READY))

    def describe(self) -> Capabilities:
        if self._status.phase is not Phase.READY:
            raise EngineLost("dead")
        return self.inner.describe()

    async def render(self, messages: Sequence[engines.Message]) -> Prompt:
        self.describe()
        return await self.inner.render(messages)

    async def generate(self, request: Request, emitted: Emitted, take: Take) -> Finish:
        self.describe()
        self.asked.append(request)
        self.most_at_once = max(self.most_at_once, self.inner.active + 1)
        if self.kills and self.kills in str(request.prompt.payload):
            self.die()
            self.return_as()
            raise EngineLost("crashed")
        death = asyncio.ensure_future(self._death.wait())
        work = asyncio.ensure_future(self.inner.generate(request, emitted, take))
        try:
            await asyncio.wait((work, death), return_when=asyncio.FIRST_COMPLETED)
            if death.done():
                raise EngineLost("killed")
            return work.result()
        finally:
            for task in (work, death):
                task.cancel()
            await asyncio.gather(work, death, return_exceptions=True)

    async def aclose(self) -> None:
        await self.inner.aclose()


@dataclass
class World:
    log: SqliteLog
    history: History
    runs: Runs
    engine: Mortal

    async def ask(self, prompt: str = "hello", **how: object) -> Run:
        ask = Ask((engines.Message("user", prompt),), GREEDY)
        return await self.runs.start("local", replace(ask, **how))  # type: ignore[arg-type]  # test's words

    async def events(self, run: Run, after: int = 0) -> list[Event]:
        return [e for e in await self.everything(run, after) if isinstance(e, Event)]

    async def everything(self, run: Run, after: int = 0) -> list[Event | Note]:
        return [event async for batch in self.batches(run, after) for event in batch]

    def batches(self, run: Run, after: int = 0) -> AsyncGenerator[Items]:
        return batches(lambda reader: self.runs.follow("local", run.id, after, reader))

    def unseen(self, run: Run) -> AsyncGenerator[Items]:
        """The run as the log tells it: nobody counts as its reader."""
        return batches(lambda reader: self.log.follow(run.id, 0, reader))

    async def text(self, run: Run) -> str:
        return text_of(fold(await self.events(run)))

    async def until_text(self, run: Run, count: int = 1) -> None:
        """Wait until so many text events are there."""
        async with contextlib.aclosing(self.unseen(run)) as unseen:
            async for batch in unseen:
                count -= sum(isinstance(e, Event) and e.kind is Kind.TEXT for e in batch)
                if count <= 0:
                    return


@asynccontextmanager
async def world(
    folder: Path,
    engine: Mortal | None = None,
    script: Script | None = None,
    on_progress: Callable[[], None] = lambda: None,
    **settings: object,
) -> AsyncIterator[World]:
    engine = engine or Mortal(script)
    log = await SqliteLog.open(folder)
    history = await History.open(folder)
    try:
        chosen = Settings(data_dir=folder, **settings)  # type: ignore[arg-type]  # test's words
        async with Runs.open(log, history, engine, chosen, News(), on_progress) as runs:
            yield World(log, history, runs, engine)
    finally:
        await history.aclose()
        await log.aclose()


async def undisturbed(folder: Path, script: Script, prompt: str = "hello") -> str:
    async with world(folder / "undisturbed", script=script) as w:
        return await w.text(await w.ask(prompt))


SLOW = Script(tokens_per_second=200, answer_tokens=60)


# A whole run


async def test_a_run_starts_writes_and_is_done(tmp_path: Path) -> None:
    async with world(tmp_path, script=Script(answer="流式 text")) as w:
        events = await w.events(await w.ask())
    assert events[0].kind is Kind.STARTED
    assert events[-1].kind is Kind.DONE
    assert text_of(fold(events)) == "流式 text"
    assert events[-1].payload["usage"]["completion_tokens"] > 0
    timings = events[-1].payload["timings"]
    parts = timings["first_token_seconds"] + timings["writing_seconds"]
    assert parts == pytest.approx(timings["total_seconds"], abs=0.001)
    assert [e.seq for e in events] == list(range(1, len(events) + 1))


async def test_a_seed_is_drawn_and_pinned_where_none_is_given(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        events = await w.events(await w.ask(sampling=Sampling(temperature=1.0)))
        seed = events[0].payload["seed"]
        again = await w.ask(sampling=Sampling(temperature=1.0, seed=seed))
        assert await w.text(again) == text_of(fold(events))


async def test_thinking_is_a_channel_of_its_own(tmp_path: Path) -> None:
    async with world(tmp_path, script=Script(think=True, answer="Yes.")) as w:
        parts = fold(await w.events(await w.ask()))
    assert [part["type"] for part in parts] == ["thinking", "text"]
    assert "<" not in "".join(part["text"] for part in parts)
    assert parts[1]["text"] == "Yes."


async def test_a_failure_of_this_request_reaches_the_reader(tmp_path: Path) -> None:
    async with world(tmp_path, script=Script(fail_on="bad")) as w:
        [event] = (await w.events(await w.ask("bad")))[-1:]
        assert event.kind is Kind.FAILED
        assert event.payload["code"] == "scripted_failure"
        assert (await w.events(await w.ask("good")))[-1].kind is Kind.DONE


async def test_an_error_that_nobody_expected_reaches_the_reader(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with world(tmp_path) as w:
        w.engine.generate = lambda *_: 1 / 0  # type: ignore[method-assign,assignment]
        event = (await w.events(await w.ask()))[-1]
    assert (event.kind, event.payload["code"]) == (Kind.FAILED, "internal")
    assert "ZeroDivisionError" in caplog.text


# Starting


async def test_one_key_is_one_generation_however_often_it_is_asked_for(tmp_path: Path) -> None:
    async with world(tmp_path, script=SLOW) as w:
        ask = Ask((engines.Message("user", "hello"),), GREEDY)
        runs = await asyncio.gather(*(w.runs.start("local", ask, "key", b"body") for _ in range(50)))
        assert len({run.id for run in runs}) == 1
        await w.events(runs[0])
        assert len(w.engine.asked) == 1
        with pytest.raises(KeyReused):
            await w.runs.start("local", ask, "key", b"another body")


async def test_a_prompt_beyond_the_context_costs_nothing(tmp_path: Path) -> None:
    async with world(tmp_path, script=Script(context=64)) as w:
        with pytest.raises(Invalid) as caught:
            await w.ask("x" * 1000)
        assert caught.value.code == "prompt_too_long"
        assert await w.log.open_runs() == []


async def test_while_the_engine_loads_the_same_prompt_fails_with_the_same_code(tmp_path: Path) -> None:
    engine = Mortal(Script(context=64))
    engine.set(Status(Phase.LOADING, share=0.5))
    async with world(tmp_path, engine) as w:
        run = await w.ask("x" * 1000)
        engine.return_as()
        [event] = await w.events(run)
        assert (event.kind, event.payload["code"]) == (Kind.FAILED, "prompt_too_long")


async def test_a_full_queue_refuses_with_a_time_and_still_knows_its_keys(tmp_path: Path) -> None:
    async with world(tmp_path, script=Script(slots=1, stall_on="hello"), queue=1) as w:
        ask = Ask((engines.Message("user", "hello"),), GREEDY)
        running = await w.runs.start("local", ask, "a")
        await w.runs.start("local", ask, "b")
        with pytest.raises(Overloaded) as caught:
            await w.runs.start("local", ask, "c")
        assert caught.value.retry_after_seconds >= 1
        assert (await w.runs.start("local", ask, "a")).id == running.id


async def test_waiting_runs_hear_their_place_and_go_in_order(tmp_path: Path) -> None:
    async with world(tmp_path, script=replace(SLOW, slots=1)) as w:
        first, second, third = [await w.ask(f"question {i}") for i in range(3)]
        places = [n for n in await w.everything(third) if isinstance(n, Note) and n.key == "queued"]
        assert [n.data for n in places][-1] == b'{"key":"queued","place":0}'
        assert any(b'"place":1' in n.data for n in places)
        assert w.engine.most_at_once == 1
        texts = [str(request.prompt.payload) for request in w.engine.asked]
        assert ["question 0" in texts[0], "question 1" in texts[1], "question 2" in texts[2]] == [True] * 3
        await w.events(first)
        await w.events(second)


async def test_waiting_runs_hear_what_the_engine_does(tmp_path: Path) -> None:
    engine = Mortal()
    engine.set(Status(Phase.DOWNLOADING, share=0.25, detail={"file": "model.gguf"}))
    async with world(tmp_path, engine) as w:
        run = await w.ask()
        heard: list[Event | Note] = []
        async with contextlib.aclosing(w.batches(run)) as batches:
            async for batch in batches:
                heard += batch
                if engine.status.phase is Phase.DOWNLOADING:
                    engine.return_as()
    notes = [n.data for n in heard if isinstance(n, Note)]
    assert b'"share":0.25' in notes[0]
    assert b"model.gguf" in notes[0]
    assert isinstance(heard[-1], Event)
    assert heard[-1].kind is Kind.DONE


# Stopping and leaving


async def test_stop_frees_the_slot_and_marks_the_end(tmp_path: Path) -> None:
    async with world(tmp_path, script=Script(tokens_per_second=200, answer_tokens=10000)) as w:
        run = await w.ask()
        await w.until_text(run, 3)
        stopped = await w.runs.stop("local", run.id)
        assert (stopped.state, w.engine.inner.active) == (RunState.STOPPED, 0)
        events = await w.events(run)
        assert [e.kind.is_terminal for e in events].count(True) == 1
        assert (await w.runs.stop("local", run.id)).last_seq == stopped.last_seq


async def test_a_waiting_run_can_be_stopped(tmp_path: Path) -> None:
    engine = Mortal()
    engine.set(Status(Phase.LOADING))
    async with world(tmp_path, engine) as w:
        run = await w.ask()
        assert (await w.runs.stop("local", run.id)).state is RunState.STOPPED
        assert [e.kind for e in await w.events(run)] == [Kind.STOPPED]


async def test_a_stop_wins_over_a_death(tmp_path: Path) -> None:
    async with world(tmp_path, script=Script(tokens_per_second=200, answer_tokens=10000)) as w:
        run = await w.ask()
        await w.until_text(run)
        w.engine.die()
        assert (await w.runs.stop("local", run.id)).state is RunState.STOPPED
        w.engine.return_as()
        assert len(w.engine.asked) == 1


async def test_readers_come_and_go_without_changing_the_run(tmp_path: Path) -> None:
    async with world(tmp_path, script=SLOW) as w:
        run = await w.ask()
        readers = [asyncio.create_task(w.text(run)) for _ in range(10)]
        await w.until_text(run, 5)
        for reader in readers[:5]:
            reader.cancel()
        texts = {await reader for reader in readers[5:]}
        assert texts == {await w.text(run)}
        assert len(w.engine.asked) == 1


async def test_without_linger_the_last_reader_takes_the_run_along(tmp_path: Path) -> None:
    async with world(tmp_path, script=Script(tokens_per_second=200, answer_tokens=10000)) as w:
        run = await w.ask(linger_seconds=0.0)
        readers = [w.batches(run) for _ in range(2)]
        for reader in readers:
            await anext(reader)
        for reader in readers:
            await reader.aclose()
        kinds = [e.kind async for batch in w.unseen(run) for e in batch if isinstance(e, Event)]
        assert kinds[-1] is Kind.STOPPED


async def test_with_linger_a_reader_may_come_back(tmp_path: Path) -> None:
    async with world(tmp_path, script=SLOW) as w:
        run = await w.ask(linger_seconds=20.0)
        reader = w.batches(run)
        await anext(reader)
        await reader.aclose()
        assert (await w.events(run))[-1].kind is Kind.DONE


# Dying


@pytest.mark.parametrize("continues", ["ids", "text"])
async def test_an_engine_that_dies_at_any_token_changes_nothing(tmp_path: Path, continues: str) -> None:
    script = Script(answer_tokens=12, think=True, continues=continues)  # type: ignore[arg-type]  # parametrised
    expected = await undisturbed(tmp_path, script)
    async with world(tmp_path, script=replace(script, tokens_per_second=400)) as w:
        for tokens in range(1, 20):
            run = await w.ask()
            await w.until_text(run, tokens)
            w.engine.die()
            w.engine.return_as()
            assert await w.text(run) == expected


class Garbling(Mortal):
    """Gives one run a text that is none."""

    async def generate(self, request: Request, emitted: Emitted, take: Take) -> Finish:
        if "garble" in str(request.prompt.payload):
            take(Chunk("\ud800", 1))
        return await super().generate(request, emitted, take)


async def test_what_cannot_be_written_fails_its_run_and_nobody_elses(tmp_path: Path) -> None:
    async with world(tmp_path, Garbling(SLOW)) as w:
        garbled, other = await w.ask("garble"), await w.ask("other")
        ending = (await w.events(garbled))[-1]
        assert (ending.kind, ending.payload["code"]) == (Kind.FAILED, "internal")
        assert (await w.events(other))[-1].kind is Kind.DONE


async def test_a_dying_engine_delays_nobody_else_for_good(tmp_path: Path) -> None:
    expected = await undisturbed(tmp_path, replace(SLOW, tokens_per_second=0))
    async with world(tmp_path, script=SLOW) as w:
        runs = [await w.ask() for _ in range(20)]
        for _ in range(3):
            await asyncio.gather(*(w.until_text(run, 2) for run in runs))
            w.engine.die()
            await asyncio.sleep(0)
            w.engine.return_as()
        assert {await w.text(run) for run in runs} == {expected}


async def test_every_engine_that_writes_is_of_use_even_if_the_one_before_died_idle(tmp_path: Path) -> None:
    told: list[str] = []
    async with world(tmp_path, on_progress=lambda: told.append("of use")) as w:
        for _ in range(3):
            told.clear()
            await w.events(await w.ask())
            assert told
            async with w.runs.live("local") as (_, news):
                w.engine.die()
                while not isinstance(await news.get(), Status):
                    pass
            w.engine.return_as()


async def test_an_engine_that_cannot_continue_keeps_the_text_and_says_so(tmp_path: Path) -> None:
    async with world(tmp_path, script=replace(SLOW, continues="no")) as w:
        run = await w.ask()
        await w.until_text(run, 3)
        w.engine.die()
        w.engine.return_as()
        events = await w.events(run)
        assert events[-1].payload == {**events[-1].payload, "code": "engine_lost", "retryable": True}
        assert text_of(fold(events))


async def test_another_model_does_not_go_on_with_the_answer(tmp_path: Path) -> None:
    async with world(tmp_path, script=SLOW) as w:
        run = await w.ask()
        await w.until_text(run, 3)
        w.engine.die()
        w.engine.return_as(Scripted(Script(answer="something else")))
        assert (await w.events(run))[-1].payload["code"] == "model_changed"


async def test_a_prompt_that_kills_ends_alone_and_the_others_finish(tmp_path: Path) -> None:
    script = replace(SLOW, answer_tokens=40)
    expected = await undisturbed(tmp_path, replace(script, tokens_per_second=0), "healthy")
    async with world(tmp_path, script=script) as w:
        w.engine.kills = "poison"
        runs = [await w.ask("poison" if i % 3 == 0 else "healthy") for i in range(15)]
        for i, run in enumerate(runs):
            events = await w.events(run)
            if i % 3 == 0:
                assert events[-1].payload["code"] == "engine_crashed"
            else:
                assert text_of(fold(events)) == expected


async def test_suspects_are_let_in_one_by_one_and_go_on_together_once_they_write(tmp_path: Path) -> None:
    engine = Mortal()
    engine.set(Status(Phase.LOADING))
    async with world(tmp_path, engine) as w:
        runs = [await w.ask() for _ in range(4)]
    log = await SqliteLog.open(tmp_path)
    for run in await log.open_runs():
        claim = await log.claim(run.id, run.epoch, after_death=True)
        await log.claim(run.id, claim.epoch, after_death=True)
    await log.aclose()
    async with world(tmp_path, script=Script(tokens_per_second=50, answer_tokens=100)) as w:
        assert len({await w.text(run) for run in runs}) == 1
        assert w.engine.most_at_once == len(runs)


async def test_a_given_up_engine_ends_what_waits_and_refuses_what_comes(tmp_path: Path) -> None:
    engine = Mortal()
    engine.set(Status(Phase.LOADING))
    async with world(tmp_path, engine) as w:
        run = await w.ask()
        engine.set(Status(Phase.GIVEN_UP, code="model_corrupt", message="model.gguf is cut off."))
        [event] = await w.events(run)
        assert (event.payload["code"], event.payload["message"]) == (
            "model_corrupt",
            "model.gguf is cut off.",
        )
        with pytest.raises(Overloaded) as caught:
            await w.ask()
        assert caught.value.code == "model_corrupt"


async def test_an_engine_that_never_answers_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    engine = Mortal()
    engine.set(Status(Phase.CONNECTING))
    async with world(tmp_path, engine, engine_wait_seconds=0.05) as w:
        for _ in range(2):  # the first to wait, and one that comes when it has long been given up
            [event] = await w.events(await w.ask())
            assert event.payload["code"] == "engine_unreachable"


async def test_a_subscriber_that_falls_behind_is_told_to_come_back(tmp_path: Path) -> None:
    engine = Mortal()
    async with world(tmp_path, engine) as w, w.runs.live("local") as (_, news):
        shares = itertools.count()
        while not news.full():
            engine.set(Status(Phase.LOADING, share=next(shares)))
            await asyncio.sleep(0)
        engine.set(Status(Phase.LOADING, share=next(shares)))
        while news.full():  # noqa: ASYNC110  # nothing rings when the runs have heard it
            await asyncio.sleep(0)
        assert [news.get_nowait() for _ in range(news.qsize())] == [None]


# Restarting


async def test_a_restart_goes_on_with_every_run_and_appends_no_ending(tmp_path: Path) -> None:
    expected = await undisturbed(tmp_path, replace(SLOW, tokens_per_second=0))
    for _ in range(3):
        async with world(tmp_path, script=SLOW) as w:
            run = await w.ask()
            await w.until_text(run, 3)
            seen = await w.log.read(run.id, 0, 1000)
        async with world(tmp_path, script=SLOW) as w:
            events = await w.events(run)
            assert [event.frame for event in events[: len(seen)]] == [event.frame for event in seen]
            epochs = [event.epoch for event in events]
            assert epochs == sorted(epochs)  # some may have come between the look and the end
            assert (epochs[0], epochs[-1]) == (1, 2)
            assert text_of(fold(events)) == expected


async def test_a_queued_run_survives_a_restart(tmp_path: Path) -> None:
    engine = Mortal()
    engine.set(Status(Phase.LOADING))
    async with world(tmp_path, engine) as w:
        run = await w.ask()
    async with world(tmp_path) as w:
        assert (await w.events(run))[-1].kind is Kind.DONE


async def test_recovery_asks_no_engine_for_what_nobody_wants(tmp_path: Path) -> None:
    script = Script(tokens_per_second=50, answer_tokens=10000)
    async with world(tmp_path, script=script) as w:
        plain_api = await w.ask(linger_seconds=0.0)
        flagged = await w.ask()
        await w.until_text(plain_api)
        await w.until_text(flagged)
    log = await SqliteLog.open(tmp_path)
    await log.request_stop(flagged.id)
    await log.aclose()
    async with world(tmp_path, script=script) as w:
        for run in (plain_api, flagged):
            assert (await w.events(run))[-1].kind is Kind.STOPPED
        assert w.engine.asked == []


async def test_a_spent_budget_is_finished_without_asking(tmp_path: Path) -> None:
    async with world(tmp_path, script=SLOW) as w:
        run = await w.ask(sampling=replace(GREEDY, max_tokens=5))
        async with contextlib.aclosing(w.unseen(run)) as batches:
            async for batch in batches:
                if sum(isinstance(e, Event) for e in batch):
                    break
        events = await w.events(run)
        assert events[-1].payload["finish"] == "length"
        assert events[-1].payload["usage"]["completion_tokens"] == 5


async def test_recovery_leaves_alone_what_ends_while_it_is_busy_with_another_run(tmp_path: Path) -> None:
    async with world(tmp_path, script=SLOW) as w:
        chat = await w.history.create_chat("local")
        lost, other = await say(w, chat.id, "lost"), await w.ask("other")
        await w.until_text(lost)
        await w.log.claim(lost.id, 1)
        await until(lambda: lost.id not in w.runs._drives)
        may_go_on, upsert = asyncio.Event(), w.history.upsert

        async def held(*messages: Message) -> None:
            await may_go_on.wait()
            await upsert(*messages)

        w.history.upsert = held  # type: ignore[method-assign]  # as slow as a busy disk
        async with w.runs.live("local") as (_, news):
            recovering = asyncio.create_task(w.runs.recover())
            await until(lambda: other.id not in w.runs._drives)
            may_go_on.set()
            await recovering
            told = [item for _ in range(news.qsize()) if isinstance(item := news.get_nowait(), Run)]
        assert [run.state for run in told if run.id == other.id] == [RunState.DONE]


def damage(folder: Path, what: str, run: str) -> None:
    """What a disk or another program can do."""
    with contextlib.closing(sqlite3.connect(folder / "log.db", isolation_level=None)) as db:
        match what:
            case "record":
                db.execute("UPDATE runs SET record = x'7b00' WHERE id = ?", (run,))
            case "words":
                db.execute("UPDATE runs SET record = x'7b7d' WHERE id = ?", (run,))
            case "events":
                db.execute(
                    "UPDATE pages SET frames = CAST(replace(frames, 'event: s', 'event: x') AS BLOB)"
                    " WHERE run = (SELECT n FROM runs WHERE id = ?)",
                    (run,),
                )


@pytest.mark.parametrize("what", ["record", "words"])
async def test_a_run_that_cannot_be_read_fails_by_itself_and_all_others_go_on(
    tmp_path: Path, what: str
) -> None:
    async with world(tmp_path, script=SLOW) as w:
        chat = await w.history.create_chat("local")
        spoilt, healthy = await say(w, chat.id, "spoilt"), await w.ask()
        await w.until_text(spoilt)
        await w.until_text(healthy)
    damage(tmp_path, what, spoilt.id)
    async with world(tmp_path, script=SLOW) as w:
        ending = (await w.events(spoilt))[-1]
        assert (ending.kind, ending.payload["code"]) == (Kind.FAILED, "run_unreadable")
        answer = await w.history.message_of_run("local", spoilt.id)
        assert (answer.state, answer.ending) == (RunState.FAILED, ending.payload)
        assert (await w.events(healthy))[-1].kind is Kind.DONE
        await until(lambda: not w.runs._drives)
        assert await w.log.open_runs() == []


@pytest.mark.parametrize("what", ["record", "events"])
async def test_an_ended_run_that_cannot_be_read_is_settled_with_what_its_message_says(
    tmp_path: Path, what: str
) -> None:
    async with world(tmp_path) as w:
        chat = await w.history.create_chat("local")
        spoilt = await say(w, chat.id, "spoilt")
        await w.text(spoilt)
        await until(lambda: not w.runs._drives)
    with contextlib.closing(sqlite3.connect(tmp_path / "log.db", isolation_level=None)) as db:
        db.execute("UPDATE runs SET settled = 0")
    damage(tmp_path, what, spoilt.id)
    async with world(tmp_path) as w:
        assert (await w.history.message_of_run("local", spoilt.id)).state is RunState.DONE
        assert await w.log.open_runs() == []


async def test_the_housekeeping_outlives_its_own_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inkstream.runs.RENEW_SECONDS", 0.001)
    async with world(tmp_path) as w:
        rounds = 0

        async def failing(*_: object) -> None:
            nonlocal rounds
            rounds += 1
            raise ZeroDivisionError

        monkeypatch.setattr(w.history, "purge", failing)
        await until(lambda: rounds > 2)


# Conversations


async def say(w: World, chat: str, content: str) -> Run:
    tree = Tree(chat, await w.history.messages("local", chat))
    return await w.runs.start("local", tree.ask(content, NEWEST, None, GREEDY))


@pytest.mark.parametrize("is_loading", [False, True])
async def test_a_conversation_beyond_the_context_loses_its_oldest_turns_and_says_so(
    tmp_path: Path, is_loading: bool
) -> None:
    engine = Mortal(Script(context=256, answer="fine"))
    async with world(tmp_path, engine) as w:
        chat = await w.history.create_chat("local")
        for turn in range(4):
            if is_loading:
                engine.set(Status(Phase.LOADING))
            run = await say(w, chat.id, f"question {turn} " + "word " * 40)
            engine.return_as()
            await w.events(run)
            await until_settled(w)
        answers = [m for m in await w.history.messages("local", chat.id) if m.role == "assistant"]
    assert answers[0].left_out == 0
    assert 0 < answers[-1].left_out <= 6
    assert "question 3" in str(engine.asked[-1].prompt.payload)
    assert "question 0" not in str(engine.asked[-1].prompt.payload)
    assert (answers[-1].made_with or {})["model"] == "scripted"


async def until_settled(w: World) -> None:
    async with w.runs.live("local") as (living, news):
        endings = {run.id for run in living}
        while endings:
            item = await news.get()
            if isinstance(item, Run) and item.state.is_terminal:
                endings.discard(item.id)


async def test_history_follows_the_log_and_a_crash_between_them_heals(tmp_path: Path) -> None:
    async with world(tmp_path, script=Script(answer="answer one")) as w:
        chat = await w.history.create_chat("local")
        await say(w, chat.id, "question one\nmore")
        await until_settled(w)
        question, answer = await w.history.messages("local", chat.id)
        assert text_of(question.parts) == "question one\nmore"
        assert (text_of(answer.parts), answer.state) == ("answer one", RunState.DONE)
        assert (await w.history.chat("local", chat.id)).title == "question one"
        await w.history.delete("local", chat.id)
        await w.history.purge(2**40)
        await w.history._run(w.history._rows.insert_chat, chat)
        await w.log._write(lambda: w.log._store._db.execute("UPDATE runs SET settled = 0"))
    async with world(tmp_path) as w:
        messages = await w.history.messages("local", chat.id)
        assert [text_of(m.parts) for m in messages] == ["question one\nmore", "answer one"]
        assert (await w.history.chat("local", chat.id)).title == "question one"


async def test_the_engine_hears_the_whole_path_and_no_other_branch(tmp_path: Path) -> None:
    async with world(tmp_path, script=Script(answer="answer", think=True)) as w:
        chat = await w.history.create_chat("local")
        await say(w, chat.id, "one")
        await until_settled(w)
        first, reply = await w.history.messages("local", chat.id)
        tree = Tree(chat.id, [first, reply])
        await w.runs.start("local", tree.ask("edited", None, "be brief", GREEDY))
        await until_settled(w)
        await w.runs.start("local", tree.ask("two", reply.id, None, GREEDY))
        await until_settled(w)
    prompts = [request.prompt.payload["text"] for request in w.engine.asked]
    assert prompts[1] == '[["system","be brief"],["user","edited"]]'
    assert prompts[2] == '[["user","one"],["assistant","answer"],["user","two"]]'


async def test_a_stopped_answer_can_be_continued_and_a_complete_one_cannot(tmp_path: Path) -> None:
    expected = await undisturbed(tmp_path, replace(SLOW, tokens_per_second=0), "one")
    async with world(tmp_path, script=SLOW) as w:
        chat = await w.history.create_chat("local")
        run = await say(w, chat.id, "one")
        await w.until_text(run, 4)
        await w.runs.stop("local", run.id)
        await until_settled(w)
        messages = await w.history.messages("local", chat.id)
        tree = Tree(chat.id, messages)
        pin, emitted = await w.runs.left_by("local", run.id)
        await w.runs.start("local", tree.continued(messages[1].id, pin, emitted, None, GREEDY))
        await until_settled(w)
        messages = await w.history.messages("local", chat.id)
        assert len(messages) == 2
        assert text_of(messages[1].parts) == expected
        with pytest.raises(Invalid, match="complete"):
            Tree(chat.id, messages).continued(messages[1].id, None, None, None, GREEDY)


async def test_an_answer_cut_anywhere_goes_on_and_outlives_a_death_behind_the_cut(tmp_path: Path) -> None:
    script = Script(answer_tokens=12, think=True)
    expected = await undisturbed(tmp_path, script, "one")
    async with world(tmp_path, script=replace(script, tokens_per_second=400)) as w:
        for tokens in range(1, 20):
            chat = await w.history.create_chat("local")
            asked = Tree(chat.id, []).ask("one", None, None, replace(GREEDY, max_tokens=tokens))
            run = await w.runs.start("local", asked)
            await until_settled(w)
            tree = Tree(chat.id, await w.history.messages("local", chat.id))
            assert asked.answer is not None
            pin, emitted = await w.runs.left_by("local", run.id)
            run = await w.runs.start("local", tree.continued(asked.answer.id, pin, emitted, None, GREEDY))
            await w.until_text(run, 2)
            w.engine.die()
            w.engine.return_as()
            await until_settled(w)
            answer = await w.history.message("local", asked.answer.id)
            assert (answer.state, answer.ending and answer.ending["finish"]) == (RunState.DONE, "stop")
            shown, text = text_of(answer.parts)[: -len(expected)], text_of(answer.parts)[-len(expected) :]
            assert text == expected
            assert OPEN.startswith(shown), "half a tag that ended the first part has been seen"


async def test_an_answer_that_grows_faster_than_it_is_read_is_told_as_it_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = Script(tokens_per_second=1000, answer_tokens=10**6, context=10**7)
    async with world(tmp_path, script=endless) as w:
        chat = await w.history.create_chat("local")
        run = await say(w, chat.id, "one")
        await w.until_text(run, 3)
        stretch, fetches = w.log._stretch, 0

        async def slow_stretch(run: str, *args: Any, **kwargs: Any) -> Any:
            nonlocal fetches
            found = await stretch(run, *args, **kwargs)
            while found and (now := await w.log.get(run)) and now.last_seq <= found.last_seq:
                pass
            fetches += 1
            return found

        monkeypatch.setattr(w.log, "_stretch", slow_stretch)
        message = (await w.history.messages("local", chat.id))[1]
        async with asyncio.timeout(10):
            assert text_of((await w.runs.fold("local", message)).parts)
            await w.log.follow(run.id, 0, Inbox(), waits=False)
        assert fetches < 10
        await w.runs.stop("local", run.id)


async def test_a_living_answer_is_read_by_folding_and_blocks_its_branch(tmp_path: Path) -> None:
    async with world(tmp_path, script=SLOW) as w:
        chat = await w.history.create_chat("local")
        run = await say(w, chat.id, "one")
        await w.until_text(run, 3)
        messages = await w.history.messages("local", chat.id)
        folded = await w.runs.fold("local", messages[1])
        assert folded.state is RunState.RUNNING
        assert text_of(folded.parts)
        with pytest.raises(Conflict) as caught:
            Tree(chat.id, [messages[0], folded]).ask("two", NEWEST, None, GREEDY)
        assert caught.value.code == "run_active"


# Reading


async def test_cursors_that_the_log_does_not_have_are_reset(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        run = await w.ask()
        events = await w.events(run)
        found = await w.runs.get("local", run.id)
        await w.runs.require_cursor(found, Cursor(0))
        await w.runs.require_cursor(found, Cursor(len(events), 1))
        for cursor in (Cursor(len(events) + 1), Cursor(2, 7)):
            with pytest.raises(Conflict) as caught:
                await w.runs.require_cursor(found, cursor)
            assert caught.value.code == "reset"


async def test_runs_belong_to_their_principal(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        run = await w.ask()
        for call in (w.runs.get, w.runs.stop):
            with pytest.raises(NotFound):
                await call("somebody else", run.id)
        with pytest.raises(NotFound):
            await w.runs.follow("somebody else", run.id, 0, Inbox())


async def test_an_expired_run_points_to_its_message(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        chat = await w.history.create_chat("local")
        run = await say(w, chat.id, "one")
        await until_settled(w)
        await w.log.expire(2**40, 10)
        with pytest.raises(Expired) as caught:
            await w.runs.get("local", run.id)
        answer = (await w.history.messages("local", chat.id))[1]
        assert caught.value.message_path == f"/api/messages/{answer.id}"
