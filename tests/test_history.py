"""Conversations on a real file: pages, search, deletion, and the way from an older file."""

from __future__ import annotations

import asyncio
import itertools
import random
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inkstream.errors import Invalid, KeyReused, LogError, NotFound
from inkstream.events import RunState, text_of
from inkstream.history import Chat, History, Match, Message, Page, index, schema
from inkstream.history.index import PASSAGE_CHARS, QUERY_CHARS, fold, passages
from inkstream.history.titles import title_of


@asynccontextmanager
async def opened(folder: Path) -> AsyncGenerator[History]:
    history = await History.open(folder)
    try:
        yield history
    finally:
        await history.aclose()


def message(chat: str, text: str, id: str = "m", at: float = 1.0, **fields: Any) -> Message:
    return Message(id, chat, None, "user", [{"type": "text", "text": text}], at, **fields)


def answer(chat: str, text: str, id: str = "a", **fields: Any) -> Message:
    return replace(message(chat, text, id, 2.0, **fields), role="assistant", parent="m")


async def said(history: History, text: str, title: str = "", at: float = 1.0) -> str:
    """A conversation with one question."""
    chat = await history.create_chat("local", title)
    await history.upsert(message(chat.id, text, f"m-{chat.id}", at))
    return chat.id


async def every(history: History, query: str = "", limit: int = 7) -> list[Chat]:
    """All pages of a list, one behind the other."""
    page = await history.chats("local", query, limit=limit)
    chats = page.chats
    while page.next is not None:
        page = await history.chats("local", query, limit=limit, before=page.next)
        chats += page.chats
    return chats


def shown(match: Match | None) -> tuple[str | None, list[str]]:
    """The message, and what is marked in the snippet, cut out as a browser does."""
    assert match is not None
    units = match.snippet.encode("utf-16-le")
    return match.message, [units[2 * a : 2 * b].decode("utf-16-le") for a, b in match.hits]


# Messages


async def test_an_ended_message_is_not_overwritten_by_a_late_state_of_its_run(tmp_path: Path) -> None:
    async with opened(tmp_path) as history:
        chat = await history.create_chat("local")
        done = answer(
            chat.id, "whole", run="r", ending={"finish": "stop"}, made_with={"model": "m"}, left_out=4
        )
        await history.upsert(done)
        await history.upsert(replace(done, parts=[], state=RunState.QUEUED, ending=None, made_with=None))
        assert await history.messages("local", chat.id) == [done]
        more = replace(done, run="another", state=RunState.RUNNING, ending=None)
        await history.upsert(more)
        assert await history.message_of_run("local", "another") == more


async def test_a_conversation_names_its_living_runs(tmp_path: Path) -> None:
    async with opened(tmp_path) as history:
        chat = await history.create_chat("local")
        living = answer(chat.id, "", run="r", state=RunState.QUEUED)
        await history.upsert(living)
        assert (await history.chats("local")).chats[0].runs == ("r",)
        assert (await history.chat("local", chat.id)).runs == ("r",)
        await history.upsert(replace(living, state=RunState.DONE, ending={}))
        assert (await history.chats("local")).chats[0].runs == ()


async def test_settings_are_changed_in_part_and_taken_back(tmp_path: Path) -> None:
    async with opened(tmp_path) as history:
        chat = await history.create_chat("local", settings={"sampling": {"seed": 1}})
        change = history.change
        await change("local", chat.id, settings={"system": "short", "sampling": {"top_k": 4}})
        changed = await change("local", chat.id, settings={"sampling": {"seed": None}})
        assert changed.settings == {"system": "short", "sampling": {"top_k": 4}}
        await change("local", chat.id, settings={"system": None, "sampling": None})
        assert (await history.chat("local", chat.id)).settings == {}


async def test_a_repeated_creation_is_one_conversation(tmp_path: Path) -> None:
    async with opened(tmp_path) as history:
        keyed = [history.create_chat("local", "a", key="k", body_hash=b"1") for _ in range(10)]
        chats = await asyncio.gather(*keyed)
        assert {chat.id for chat in chats} == {chats[0].id}
        assert len((await history.chats("local")).chats) == 1
        with pytest.raises(KeyReused):
            await history.create_chat("local", "b", key="k", body_hash=b"2")
        other = await history.create_chat("other", "a", key="k", body_hash=b"2")
        assert other.id != chats[0].id


# Titles


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("what is SSE?", "what is SSE?"),
        ("\n\n  first\tline  \nsecond", "first line"),
        ("x" * 60, "x" * 60),
        ("x" * 61, "x" * 59 + "…"),
        ("word " * 20, "word " * 11 + "word…"),
        ("流" * 80, "流" * 59 + "…"),
        ("a" * 57 + "👩‍👩‍👧‍👦" + "b" * 9, "a" * 57 + "…"),
        (" \n ", ""),
    ],
)
def test_a_title_is_the_first_line_cut_at_a_word_or_character(question: str, title: str) -> None:
    assert title_of(question) == title
    assert len(title) <= 60


async def test_the_first_question_names_a_conversation_unless_somebody_has(tmp_path: Path) -> None:
    async with opened(tmp_path) as history:
        unnamed, named = await said(history, "first question"), await said(history, "question", "a name")
        await history.upsert(message(unnamed, "second question", "m2"))
        assert (await history.chat("local", unnamed)).title == "first question"
        assert (await history.chat("local", named)).title == "a name"


# Pages


async def test_pages_are_whole_whatever_is_said_between_them(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    choose = random.Random(seed)
    async with opened(tmp_path) as history:
        chats = [await said(history, "x", at=choose.choice([1.5, 2.5, 2**33])) for _ in range(40)]
        page = await history.chats("local", limit=6)
        seen = page.chats
        while page.next is not None:
            moved = choose.choice(chats)
            await history.upsert(message(moved, "y", f"{moved}-{len(seen)}", at=2.0**34))
            page = await history.chats("local", limit=6, before=page.next)
            assert len(page.chats) == 6 or page.next is None
            seen += page.chats
        ids = [chat.id for chat in seen]
        assert len(set(ids)) == len(ids)
        moved_up = {chat.id for chat in await every(history) if chat.updated_at == 2.0**34}
        assert set(ids) | moved_up == set(chats)
        everything = await every(history)
        assert everything == sorted(everything, key=lambda chat: (chat.updated_at, chat.id), reverse=True)


async def test_a_cursor_that_no_page_has_given_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as history:
        chats = [await said(history, "x") for _ in range(3)]
        listed, searched = await history.chats("local", limit=1), await history.chats("local", "x", limit=1)
        assert len(chats) == 3
        assert listed.next
        assert searched.next
        wrong = ["x", "", "é", "W10", "bnVsbA", "e30", listed.next[:-3], listed.next + "A" * 9]
        for query, cursor in [*(("", c) for c in wrong if c), *(("x", c) for c in wrong if c)]:
            with pytest.raises(Invalid, match="no cursor of this list"):
                await history.chats("local", query, before=cursor)
        for query, cursor in (("x", listed.next), ("", searched.next)):
            with pytest.raises(Invalid, match="no cursor of this list"):
                await history.chats("local", query, before=cursor)


async def plans(history: History, call: Callable[[], Any]) -> list[str]:
    """How SQLite carries out what the call asks of it."""
    asked: list[str] = []
    db = history._rows.db
    await history._run(db.set_trace_callback, asked.append)
    await call()
    await history._run(db.set_trace_callback, None)
    lines = []
    for statement in asked:
        if statement.startswith("SELECT"):
            explained = await history._run(lambda: db.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall())  # noqa: B023
            lines += [detail for *_, detail in explained]
    return lines


async def test_no_page_scans_or_sorts_a_table(tmp_path: Path) -> None:
    async with opened(tmp_path) as history:
        for _ in range(3):
            await said(history, "流式 stream")
        first = await history.chats("local", limit=1)
        found = await history.chats("local", "s", limit=1)
        calls: list[Callable[[], Any]] = [
            lambda: history.chats("local", limit=1),
            lambda: history.chats("local", limit=1, before=first.next),
            lambda: history.chats("local", "流", limit=1),
            lambda: history.chats("local", "stream", limit=1, before=found.next),
            lambda: anext(history.all_chats("local")),
        ]
        for call in calls:
            told = await plans(history, call)
            assert told
            for detail in told:
                assert "TEMP B-TREE" not in detail, told
                assert not detail.startswith("SCAN") or "VIRTUAL TABLE INDEX" in detail, told


async def test_conversations_belong_to_their_principal(tmp_path: Path) -> None:
    async with opened(tmp_path) as history:
        chat = await said(history, "mine")
        for page in (await history.chats("other"), await history.chats("other", "mine")):
            assert page == Page([], None)
        assert [found async for found in history.all_chats("other")] == []
        calls: list[Callable[[], Any]] = [
            lambda: history.chat("other", chat),
            lambda: history.change("other", chat, title="x"),
            lambda: history.delete("other", chat),
            lambda: history.restore("other", chat),
            lambda: history.messages("other", chat),
            lambda: history.message("other", f"m-{chat}"),
        ]
        for call in calls:
            with pytest.raises(NotFound) as caught:
                await call()
            assert caught.value.code.startswith("unknown_")
        assert (await history.chat("local", chat)).title == "mine"


# Search


@pytest.mark.parametrize(
    ("text", "query", "marked"),
    [
        ("Streaming, token by token", "STREAM", ["Stream"]),
        ("什么是流式输出", "流", ["流"]),
        ("什么是流式输出", "流式", ["流式"]),
        ("什么是流式输出", "是流式输", ["是流式输"]),
        ("什么是流式输出", "式流", None),
        ("ＳＳＥ　ｉｓ ｶﾞ", "sse is ガ", ["ＳＳＥ ｉｓ ｶﾞ"]),
        ("SSE is ガ", "ｓｓｅ　ＩＳ ｶﾞ", ["SSE is ガ"]),
        ("cafe\u0301 and café", "caf\u00e9", ["cafe\u0301", "café"]),
        ("Straße", "STRASSE", ["Straße"]),
        ("ﬁne ﬂow", "fine", ["ﬁne"]),
        ("a 👩‍👩‍👧‍👦 and 𠮷野家", "𠮷野", ["𠮷野"]),
        ("100% of a_b \\ c", "100%", ["100%"]),
        ("100% of a_b \\ c", "a_b", ["a_b"]),
        ("100% of a_b \\ c", "axb", None),
        ("100% of a_b \\ c", "\\", ["\\"]),
        ('say "hi" OR NOT', '"hi" OR NOT', ['"hi" OR NOT']),
        ("nothing", '" OR "', None),
        ("tokens NEAR(a b)", "near(a", ["NEAR(a"]),
        ("col: x*", "x*", ["x*"]),
        ("one\ntwo\x00three", "one two", ["one two"]),
        ("abcabc", "abcabc", ["abcabc"]),
        ("abc bcd", "abcd", None),
        ("e.g. e e", "e", ["e", "e", "e"]),
    ],
)
async def test_a_query_is_text_and_finds_it_whatever_its_case_and_width(
    tmp_path: Path, text: str, query: str, marked: list[str] | None
) -> None:
    async with opened(tmp_path) as history:
        chat = await said(history, text, "-")
        await said(history, "something else" if "e" not in query else "&", "-")
        page = await history.chats("local", query)
        assert [found.id for found in page.chats] == ([chat] if marked else [])
        if marked:
            assert shown(page.chats[0].match) == (f"m-{chat}", marked)


async def test_a_title_is_found_until_it_is_another(tmp_path: Path) -> None:
    async with opened(tmp_path) as history:
        chat = await said(history, "text", "old name")
        [found] = (await history.chats("local", "LD NA")).chats
        assert shown(found.match) == (None, ["ld na"])
        await history.change("local", chat, title="new name")
        assert (await history.chats("local", "old")).chats == []
        assert len((await history.chats("local", "new")).chats) == 1


async def test_what_the_model_thought_is_not_searched(tmp_path: Path) -> None:
    async with opened(tmp_path) as history:
        chat = await history.create_chat("local")
        parts = [{"type": "thinking", "text": "secret"}, {"type": "text", "text": "public"}]
        await history.upsert(replace(answer(chat.id, ""), parts=parts))
        assert (await history.chats("local", "secret")).chats == []
        assert len((await history.chats("local", "public")).chats) == 1


async def test_an_answer_that_grows_is_found_by_what_it_says_now(tmp_path: Path) -> None:
    async with opened(tmp_path) as history:
        chat = await history.create_chat("local")
        lines = [f"line {number} of many\n" for number in range(400)]
        for run, length in enumerate((150, 400, 90)):
            await history.upsert(answer(chat.id, "".join(lines[:length]), run=str(run)))
            for number in (0, 40, 89, 90, 149, 150, 399):
                found = (await history.chats("local", f"line {number} of")).chats
                assert bool(found) == (number < length), (length, number)


async def test_a_snippet_shows_what_stands_around_and_cuts_no_character(tmp_path: Path) -> None:
    async with opened(tmp_path) as history:
        family = "👩‍👩‍👧‍👦"
        await said(history, family * 300 + "\nneedle\n" + family * 300, "-")
        [found] = (await history.chats("local", "needle")).chats
        assert found.match is not None
        assert shown(found.match)[1] == ["needle"]
        snippet = found.match.snippet
        assert snippet.startswith("…👩")
        assert snippet.endswith("👦…")
        assert " needle " in snippet
        assert len(snippet) < 1200


LETTERS = st.text(alphabet="aAbé流式Ａß \n", max_size=40)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(LETTERS, st.integers(0, 90)), min_size=1, max_size=6),
    st.integers(0, 3000),
    st.integers(1, QUERY_CHARS // 3),
    LETTERS.filter(bool),
)
async def test_search_finds_exactly_the_texts_that_hold_the_query(
    tmp_path: Path, drawn: list[tuple[str, int]], start: int, length: int, other: str
) -> None:
    texts = [piece * times + piece[: times % 7] for piece, times in drawn]
    query = texts[0][start : start + length] or other
    async with opened(tmp_path / str(next(COUNTER))) as history:
        chats = [await said(history, text, "-") for text in texts]
        found = {chat.id for chat in await every(history, query, limit=2)}
    assert found == {chat for chat, text in zip(chats, texts, strict=True) if fold(query) in fold(text)}


COUNTER = itertools.count()


@settings(deadline=None)
@given(st.integers(0, 5 * PASSAGE_CHARS))
def test_passages_hold_every_stretch_that_a_query_can_be(length: int) -> None:
    text = "".join(chr(0x4E00 + at % 20000) for at in range(length))
    cut = passages(text)
    assert all(len(passage) <= PASSAGE_CHARS for passage in cut)
    for start in range(0, max(1, length - QUERY_CHARS), 97):
        stretch = text[start : start + QUERY_CHARS]
        assert not stretch or any(stretch in passage for passage in cut)


async def test_search_pages_tell_each_conversation_once_where_its_newest_match_is(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    choose = random.Random(seed)
    async with opened(tmp_path) as history:
        chats = [(await history.create_chat("local", "-")).id for _ in range(12)]
        newest: dict[str, str] = {}
        for number in range(150):
            chat, word = choose.choice(chats), choose.choice(["needle", "hay", "need"])
            await history.upsert(message(chat, f"{word} {number}", f"m{number}"))
            if word == "needle":
                newest.pop(chat, None)
                newest[chat] = f"m{number}"
        for limit in (1, 3, 50):
            found = await every(history, "needle", limit)
            assert [(c.id, shown(c.match)[0]) for c in found] == [*reversed(newest.items())]


async def test_a_search_that_finds_little_in_much_comes_in_short_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inkstream.history.pages.PLACES_LOOKED_AT", 5)
    async with opened(tmp_path) as history:
        chat = await said(history, "流式", "-")
        for _ in range(23):
            await said(history, "流的式 流水 水流式样", "-")
        page = await history.chats("local", "流式流", limit=3)
        assert page == Page([], None)
        await said(history, "流式流", "-")
        for query, count in (("流式", 25), ("流式流", 1)):
            found = await every(history, query, limit=3)
            assert len(found) == count
        assert chat in {c.id for c in await every(history, "流式", limit=50)}


async def test_a_query_beyond_the_longest_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as history:
        text = "ab" * QUERY_CHARS
        await said(history, text, "-")
        assert len((await history.chats("local", text[:QUERY_CHARS])).chats) == 1
        with pytest.raises(Invalid) as caught:
            await history.chats("local", text[: QUERY_CHARS + 1])
        assert caught.value.code == "query_too_long"


# Deleting


async def test_a_deleted_conversation_is_nowhere_until_it_is_restored(tmp_path: Path) -> None:
    async with opened(tmp_path) as history:
        chat = await said(history, "words")
        living = answer(chat, "", run="r", state=RunState.RUNNING)
        await history.upsert(living)
        assert await history.delete("local", chat) == ("r",)
        assert (await history.chats("local")).chats == (await history.chats("local", "words")).chats == []
        assert [found async for found in history.all_chats("local")] == []
        for call in (
            history.chat("local", chat),
            history.messages("local", chat),
            history.message("local", "a"),
            history.message_of_run("local", "r"),
            history.change("local", chat, title="x"),
        ):
            with pytest.raises(NotFound) as caught:
                await call
            assert caught.value.code == "chat_deleted"
        await history.upsert(
            replace(living, parts=[{"type": "text", "text": "last"}], state=RunState.STOPPED)
        )
        assert await history.delete("local", chat) == ()
        restored = await history.restore("local", chat)
        assert await history.chat("local", chat) == restored
        assert text_of((await history.messages("local", chat))[1].parts) == "last"
        assert len((await history.chats("local", "words")).chats) == 1
        assert await history.restore("local", chat) == restored


SECRET = "龘靐齉 xylophonic"
# In the index a piece is spelled in hexadecimal, without what it has in common with the piece before.
TRACES = [SECRET.encode(), "靐".encode().hex().encode()]


def traces(folder: Path) -> list[int]:
    """In how many places of all files what was said can still be read."""
    files = b"".join(path.read_bytes() for path in sorted(folder.glob("history.db*")))
    return [files.count(trace) for trace in TRACES]


async def test_what_is_purged_is_in_no_file_any_more_and_what_is_not_stays(tmp_path: Path) -> None:
    async with opened(tmp_path) as history:
        kept = [await said(history, f"kept {number} 流式 {'words ' * 200}") for number in range(30)]
        doomed = [
            await said(history, f"{SECRET} {number}\n" * 300, f"{SECRET} {number}") for number in range(5)
        ]
        kept += [await said(history, f"more {number} 流式 {'words ' * 200}") for number in range(30)]
        assert all(traces(tmp_path))
        for chat in doomed:
            await history.delete("local", chat)
        await history.purge(time.time() - 1)
        assert all(traces(tmp_path))
        await history.purge(time.time() + 1)
        assert traces(tmp_path) == [0, 0]
        for chat in doomed:
            with pytest.raises(NotFound) as caught:
                await history.restore("local", chat)
            assert caught.value.code == "unknown_chat"
            await history.upsert(message(chat, "too late"))
        assert len(await every(history, "流式")) == len(await every(history)) == len(kept)
        assert await every(history, "too late") == []
    with closing(sqlite3.connect(tmp_path / "history.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        db.execute("INSERT INTO grams (grams) VALUES ('integrity-check')")
        assert db.execute("SELECT count(*) FROM purging").fetchone() == (0,)
        owned = "SELECT count(*) FROM passages WHERE chat NOT IN (SELECT id FROM chats)"
        assert db.execute(owned).fetchone() == (0,)


async def test_a_purge_that_is_cut_short_anywhere_is_finished_by_the_next(tmp_path: Path) -> None:
    for cut in itertools.count(1):
        folder = tmp_path / str(cut)
        async with opened(folder) as history:
            await said(history, "kept words")
            doomed = await said(history, f"{SECRET}\n" * 2000, SECRET)
            await history.delete("local", doomed)
            if not await cut_short(history, cut):
                break
        async with opened(folder) as history:
            await history.purge(0)  # nothing new: only what was begun
            has_begun = doomed not in {row async for row in ids_of(history)}
            assert has_begun == (traces(folder) == [0, 0])
            assert len(await every(history, "kept")) == 1
    assert cut > 4


async def ids_of(history: History) -> AsyncGenerator[str]:
    for (id_,) in await history._run(lambda: history._rows.db.execute("SELECT id FROM chats").fetchall()):
        yield id_


async def cut_short(history: History, slices: int) -> bool:
    """Purge, but die behind so many slices. Says whether there was one more."""
    left, run = slices, history._run

    async def counting(*args: Any, **kwargs: Any) -> Any:  # Any: stands in for a generic method
        nonlocal left
        if left == 0:
            raise asyncio.CancelledError
        left -= 1
        return await run(*args, **kwargs)

    history._run = counting  # type: ignore[method-assign]  # a process that dies
    try:
        await history.purge(time.time() + 1)
    except asyncio.CancelledError:
        return True
    finally:
        history._run = run  # type: ignore[method-assign]  # as it was
    return False


async def test_a_purge_lets_other_calls_in_between(tmp_path: Path) -> None:
    async with opened(tmp_path) as history:
        doomed = await said(history, "".join(chr(0x4E00 + at % 9000) for at in range(100_000)))
        await history.delete("local", doomed)
        purging = asyncio.create_task(history.purge(time.time() + 1))
        answered = 0
        while not purging.done():
            await history.chats("local")
            answered += 1
        await purging
        assert answered > 10


# Older and newer files

VERSION_1 = """
CREATE TABLE chats (
  id TEXT PRIMARY KEY, principal TEXT NOT NULL, title TEXT NOT NULL, created_at REAL NOT NULL,
  updated_at REAL NOT NULL);
CREATE INDEX chats_by_time ON chats (principal, updated_at);
CREATE TABLE messages (
  n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,
  chat TEXT NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
  parent TEXT, role TEXT NOT NULL, parts BLOB NOT NULL, text TEXT NOT NULL, created_at REAL NOT NULL,
  run TEXT, state TEXT NOT NULL, ending BLOB NOT NULL);
CREATE INDEX messages_of_chat ON messages (chat, n);
CREATE INDEX message_of_run ON messages (run);
PRAGMA user_version = 1;
"""


def write_version_1(folder: Path) -> list[Message]:
    """As the first release wrote it: two principals, a branch, a living answer, a failed one."""
    question = message("c1", "什么是流式?", "q", 10.5)
    messages = [
        question,
        Message("a1", "c1", "q", "assistant", question.parts, 11.5, "r1", RunState.DONE, {"finish": "stop"}),
        Message("a2", "c1", "q", "assistant", [], 12.5, "r2", RunState.QUEUED),
        Message("a3", "c2", None, "assistant", question.parts, 13.5, "r3", RunState.FAILED, {"code": "x"}),
    ]
    with closing(sqlite3.connect(folder / "history.db", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(VERSION_1)
        db.execute("INSERT INTO chats VALUES ('c1', 'local', 'Old Title', 10.0, 12.5)")
        db.execute("INSERT INTO chats VALUES ('c2', 'other', '', 9.0, 13.5)")
        for m in messages:
            row = (m.id, m.chat, m.parent, m.role, orjson.dumps(m.parts), text_of(m.parts), m.created_at)
            db.execute(
                "INSERT INTO messages (id, chat, parent, role, parts, text, created_at, run, state, ending)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, m.run, m.state, orjson.dumps(m.ending)),
            )
    return messages


async def test_a_file_of_version_1_is_taken_over_whole(tmp_path: Path) -> None:
    messages = write_version_1(tmp_path)
    for _ in range(2):
        async with opened(tmp_path) as history:
            assert await history.chat("local", "c1") == Chat(
                "c1", "local", "Old Title", 10.0, 12.5, {}, ("r2",)
            )
            assert await history.messages("local", "c1") == messages[:3]
            assert await history.messages("other", "c2") == messages[3:]
            for query in ("流", "流式", "么是流式", "d tit"):
                assert [chat.id for chat in (await history.chats("local", query)).chats] == ["c1"]
    with closing(sqlite3.connect(tmp_path / "history.db")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)


async def test_a_migration_that_dies_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = write_version_1(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(index.Index, "replace", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await History.open(tmp_path)
    with closing(sqlite3.connect(tmp_path / "history.db")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
    async with opened(tmp_path) as history:
        assert await history.messages("local", "c1") == messages[:3]


async def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "history.db")) as db:
        db.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    with pytest.raises(LogError, match="newer inkstream"):
        await History.open(tmp_path)
