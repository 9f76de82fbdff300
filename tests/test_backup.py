"""Backups of folders that are in use, and what comes of them."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import zipfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from inkstream import chosen
from inkstream.accounts import Accounts
from inkstream.backup import MANIFEST, PARTS, back_up, restore
from inkstream.chosen import Chosen
from inkstream.engines.scripted import Script
from inkstream.errors import ConfigError, FolderInUse, InkstreamError, LogError
from inkstream.events import RunState, fold, text_of
from inkstream.history import History
from inkstream.log.sqlite import SqliteLog
from inkstream.pinning import events_of
from restart import undisturbed
from tests.live import Live, serving
from tests.test_serving import address_of, finished, inkstream

SLOW = Script(answer_tokens=200, tokens_per_second=4)
FAST = replace(SLOW, tokens_per_second=0)


async def ask(http: httpx.AsyncClient, question: str) -> tuple[str, str]:
    """Its chat and its run."""
    chat = (await http.post("/api/chats", json={})).raise_for_status().json()["id"]
    said = {"content": question, "sampling": {"temperature": 0}}
    answer = (await http.post(f"/api/chats/{chat}/messages", json=said)).raise_for_status().json()
    return chat, answer["run"]["id"]


def client(url: str) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(base_url=url, trust_env=False, limits=limits, timeout=20)


@pytest.mark.real
async def test_answers_in_the_making_when_a_backup_is_made_are_written_on_where_it_is_restored(
    tmp_path: Path,
) -> None:
    arguments = ("serve", "--engine", "scripted", "--port", "0", "--script")
    file, elsewhere = tmp_path / "backup.zip", str(tmp_path / "elsewhere")
    questions = [f"question {number}" for number in range(20)]
    async with (
        inkstream(tmp_path, *arguments, json.dumps(asdict(SLOW))) as server,
        client(await address_of(server)) as http,
    ):
        asked = await asyncio.gather(*(ask(http, question) for question in questions))
        await until_text(http, [run for _, run in asked])
        code, out, err = await finished(tmp_path, "backup", str(file))
        assert (code, out.split()[0]) == (0, str(file)), err
        living = await asyncio.gather(*(http.get(f"/api/runs/{run}") for _, run in asked))
        assert {reply.json()["state"] for reply in living} == {"running"}
    code, _, err = await finished(tmp_path, "restore", str(file), "--data-dir", elsewhere)
    assert code == 0, err
    async with (
        inkstream(tmp_path, *arguments, json.dumps(asdict(FAST)), "--data-dir", elsewhere) as server,
        client(await address_of(server)) as http,
    ):
        for question, (chat, run) in zip(questions, asked, strict=True):
            whole = await undisturbed(FAST, question)
            assert await ended(http, chat) == whole
            assert await text_in_log(http, run) == whole


async def until_text(http: httpx.AsyncClient, runs: list[str]) -> None:
    for run in runs:
        while (await http.get(f"/api/runs/{run}/events?wait=0")).text.count("event: text") < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def ended(http: httpx.AsyncClient, chat: str) -> str:
    """The answer's text, when it is done."""
    while True:
        answer = (await http.get(f"/api/chats/{chat}")).json()["messages"][-1]
        if answer["state"] == "done":
            return text_of(answer["parts"])
        await asyncio.sleep(0.05)


async def text_in_log(http: httpx.AsyncClient, run: str) -> str:
    frames = (await http.get(f"/api/runs/{run}/events?wait=0")).text.split("\n\n")
    data = [frame.partition("event: text\ndata: ")[2] for frame in frames]
    return "".join(json.loads(text)["text"] for text in data if text)


async def test_at_whatever_moment_it_is_made_the_history_is_behind_the_log_and_never_ahead(
    tmp_path: Path,
) -> None:
    script = Script(answer_tokens=20, tokens_per_second=400)
    async with serving(tmp_path / "data", script) as live, client(live.url) as http:
        asking = asyncio.create_task(ask_on_and_on(http, live))
        for number in range(12):
            await asyncio.to_thread(back_up, tmp_path / "data", tmp_path / f"{number}.zip")
        asking.cancel()
        await asyncio.wait([asking])
    seen: set[RunState] = set()
    for number in range(12):
        folder = tmp_path / str(number)
        await asyncio.to_thread(restore, tmp_path / f"{number}.zip", folder)
        seen |= await states_of(folder)
    assert {RunState.RUNNING, RunState.DONE} <= seen


async def ask_on_and_on(http: httpx.AsyncClient, live: Live) -> None:
    number = 0
    while True:
        await asyncio.gather(*(ask(http, f"question {number + more}") for more in range(4)))
        number += 4
        await live.until(lambda: live.engine.active < 40)


async def states_of(folder: Path) -> set[RunState]:
    """In which states runs are, having checked that the history says nothing that the log does not."""
    log, history = await SqliteLog.open(folder), await History.open(folder)
    try:
        with closing(sqlite3.connect(folder / "history.db")) as db:
            told = db.execute("SELECT run, state, parts FROM messages WHERE run IS NOT NULL").fetchall()
        for id_, state, parts in told:
            run = await log.get(id_)
            assert run is not None
            if RunState(state).is_terminal:
                assert run.state == state
                assert fold(await events_of(log, run)) == orjson.loads(parts)
        with closing(sqlite3.connect(folder / "log.db")) as db:
            settled = {run for (run,) in db.execute("SELECT id FROM runs WHERE settled = 1")}
        assert settled <= {run for run, state, _ in told if RunState(state).is_terminal}
        return {run.state for run in await log.open_runs()} | {RunState(state) for _, state, _ in told}
    finally:
        await history.aclose()
        await log.aclose()


async def made(folder: Path) -> Path:
    """A backup of a folder with a user."""
    await (await SqliteLog.open(folder)).aclose()
    await (await History.open(folder)).aclose()
    async with Accounts.open(folder) as accounts:
        await accounts.add_user("ada")
    back_up(folder, folder.parent / "backup.zip")
    return folder.parent / "backup.zip"


async def test_users_are_in_it_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    file = await made(tmp_path / "data")
    restore(file, tmp_path / "new")
    async with Accounts.open(tmp_path / "new") as accounts:
        assert [user.name for user in await accounts.users()] == ["ada"]
    files = [file, *((tmp_path / "new").glob("*.db"))]
    assert [path.stat().st_mode & 0o777 for path in files] == [0o600] * 4
    assert {path.name for path in (tmp_path / "new").iterdir() if path.is_dir()} == set()


async def test_the_choice_of_a_model_is_in_it_where_there_is_one(tmp_path: Path) -> None:
    file = await made(tmp_path / "data")
    restore(file, tmp_path / "without")
    assert chosen.read(tmp_path / "without") is None
    choice = Chosen("b", instead_of="a", trying="c")
    chosen.write(tmp_path / "data", choice)
    back_up(tmp_path / "data", tmp_path / "with.zip")
    restore(tmp_path / "with.zip", tmp_path / "with")
    assert chosen.read(tmp_path / "with") == choice
    assert (tmp_path / "with" / chosen.FILE).stat().st_mode & 0o777 == 0o600


async def test_a_choice_that_is_none_is_not_restored(tmp_path: Path) -> None:
    await made(tmp_path / "data")
    chosen.write(tmp_path / "data", Chosen("b", instead_of="a"))
    file = tmp_path / "with.zip"
    back_up(tmp_path / "data", file)
    rewrite(file, {chosen.FILE: b'["b"]'})
    with pytest.raises(ConfigError, match=r"with\.zip is no backup"):
        restore(file, tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["gateway.lock"]


async def test_a_backup_replaces_no_file(tmp_path: Path) -> None:
    file = await made(tmp_path / "data")
    before = file.read_bytes()
    with pytest.raises(ConfigError, match="there already"):
        back_up(tmp_path / "data", file)
    assert file.read_bytes() == before


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_of_a_folder_without_a_log_there_is_no_backup(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="nothing to back up"):
        back_up(tmp_path / name, tmp_path / "backup.zip")
    assert not (tmp_path / "backup.zip").exists()


async def test_a_backup_that_fails_leaves_no_file(tmp_path: Path) -> None:
    await made(tmp_path / "data")
    (tmp_path / "data" / "history.db").write_bytes(b"no database" * 1000)
    with pytest.raises(InkstreamError, match=r"history\.db is damaged: file is not a database"):
        back_up(tmp_path / "data", tmp_path / "second.zip")
    assert sorted(os.listdir(tmp_path)) == ["backup.zip", "data"]


def test_a_backup_that_is_not_there_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        restore(tmp_path / "typo.zip", tmp_path / "new")
    assert not (tmp_path / "new").exists()


async def test_a_folder_in_use_is_not_restored_into(tmp_path: Path) -> None:
    file = await made(tmp_path / "data")
    async with serving(tmp_path / "live"):
        with pytest.raises(FolderInUse):
            restore(file, tmp_path / "live")


@pytest.mark.parametrize("there", ["log.db", "history.db-wal", "accounts.db", "model.json"])
async def test_what_is_in_a_folder_is_not_restored_over(there: str, tmp_path: Path) -> None:
    file = await made(tmp_path / "data")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / there).write_bytes(b"mine")
    with pytest.raises(ConfigError, match="there already"):
        restore(file, tmp_path / "new")
    assert (tmp_path / "new" / there).read_bytes() == b"mine"
    assert {path.name for path in (tmp_path / "new").iterdir()} == {there, "gateway.lock"}


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def rotten(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def another_archive(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("log.db", b"")


def no_log(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(MANIFEST, json.dumps({"format": "inkstream-backup", "version": 1, "files": []}))


def missing(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize("spoil", [cut_off, rotten, another_archive, no_log, missing])
async def test_what_is_no_backup_is_refused_and_nothing_is_restored(
    spoil: Callable[[Path], None], tmp_path: Path
) -> None:
    file = await made(tmp_path / "data")
    spoil(file)
    with pytest.raises(ConfigError, match=r"backup\.zip"):
        restore(file, tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").glob("*") if path.name != "gateway.lock"] == []


def newer(told: dict[str, Any]) -> None:
    told["version"] += 1


def with_more(told: dict[str, Any]) -> None:
    told["files"].append("future.db")


def rewrite(file: Path, content: dict[str, bytes]) -> None:
    """The same archive with other content in some of its files."""
    with zipfile.ZipFile(file) as archive:
        content = {name: archive.read(name) for name in archive.namelist()} | content
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)


@pytest.mark.parametrize("change", [newer, with_more])
async def test_a_backup_of_a_newer_form_is_refused(
    change: Callable[[dict[str, Any]], None], tmp_path: Path
) -> None:
    file = await made(tmp_path / "data")
    with zipfile.ZipFile(file) as archive:
        told = json.loads(archive.read(MANIFEST))
    change(told)
    rewrite(file, {MANIFEST: json.dumps(told).encode()})
    with pytest.raises(LogError, match="newer inkstream"):
        restore(file, tmp_path / "new")


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.file)
async def test_databases_of_a_newer_version_are_neither_backed_up_nor_restored(
    part: Any, tmp_path: Path
) -> None:
    file = await made(tmp_path / "data")
    path = tmp_path / "data" / part.file
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {part.newest + 1}")
    with pytest.raises(LogError, match="newer inkstream"):
        back_up(tmp_path / "data", tmp_path / "second.zip")
    rewrite(file, {part.file: path.read_bytes()})
    with pytest.raises(LogError, match="newer inkstream"):
        restore(file, tmp_path / "new")
    assert list((tmp_path / "new").glob("*.db")) == []
