"""What is written to the console: by whom, about which run, and never what was asked or answered."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from inkstream.console import Json, Text
from inkstream.errors import EngineFailed
from tests.test_api import ask, follow, until
from tests.test_serving import address_of, environ

CANARY = "quicksilver"
KEY = "unguessable"


def written(formatter: logging.Formatter, error: BaseException, name: str = "inkstream") -> str:
    """What becomes of a record about an exception."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    record = logging.LogRecord(
        name, logging.ERROR, __file__, 1, "it failed", None, (type(error), error, None)
    )
    handler.handle(record)
    return stream.getvalue()


def caught(raise_it: Any) -> Exception:
    try:
        raise_it()
    except Exception as error:  # noqa: BLE001  # whatever it is
        return error
    raise AssertionError


def stumble() -> None:
    try:
        int(CANARY)
    except ValueError as error:
        raise KeyError(CANARY) from error


@pytest.mark.parametrize("formatter", [Text(), Json("gateway")])
def test_an_exception_is_told_by_type_and_place_without_its_words(formatter: logging.Formatter) -> None:
    said = written(formatter, caught(stumble))
    assert CANARY not in said
    assert said.index("ValueError") < said.index("KeyError")
    assert "test_console.py" in said
    assert "in stumble" in said


def test_the_members_of_a_group_are_told() -> None:
    said = written(Text(), ExceptionGroup("several", [caught(stumble), EngineFailed("no such thing")]))
    assert "KeyError" in said
    assert "no such thing" in said
    assert CANARY not in said


@pytest.mark.parametrize("formatter", [Text(), Json("gateway")])
def test_a_name_that_is_no_text_is_written_all_the_same(formatter: logging.Formatter) -> None:
    record = logging.LogRecord("inkstream", logging.ERROR, __file__, 1, "no %s", ("caf\udce9",), None)
    assert "no caf?" in formatter.format(record)


@pytest.mark.parametrize("formatter", [Text(), Json("gateway")])
def test_our_words_and_the_systems_are_told(formatter: logging.Formatter) -> None:
    assert "no such thing" in written(formatter, EngineFailed("no such thing"))
    assert "No such file" in written(formatter, FileNotFoundError(2, "No such file or directory", "/x"))


async def test_what_asyncio_quotes_is_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Text())
    logger = logging.getLogger("asyncio")
    logger.addHandler(handler)
    try:
        asyncio.get_running_loop().default_exception_handler(
            {"message": "a task failed", "future": CANARY, "exception": ValueError(CANARY)}
        )
    finally:
        logger.removeHandler(handler)
    said = capfd.readouterr().err
    assert "a task failed" in said
    assert CANARY not in said


@pytest.mark.real
async def test_no_way_of_asking_leaves_what_was_asked_or_answered_in_the_log(tmp_path: Path) -> None:
    script = {"answer": f"{CANARY} says {CANARY}.", "fail_on": "fail", "crash_on": "crash", "context": 2000}
    settings = {"LOG_FORMAT": "json", "LOG_LEVEL": "debug", "SCRIPT": json.dumps(script), "KEY": KEY}
    console = tmp_path / "console"
    async with (
        served(console, **{f"INKSTREAM_{name}": value for name, value in settings.items()}) as url,
        httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, trust_env=False) as http,
    ):
        runs = await ask_in_every_way(http)
    said = console.read_text()
    assert CANARY not in said
    assert KEY not in said
    require_told(said, runs)


@asynccontextmanager
async def served(console: Path, **more: str) -> AsyncIterator[str]:
    """The address of a server that writes to that file, and has ended with the block."""
    command = [sys.executable, "-m", "inkstream", "serve", "--engine", "scripted", "--port", "0"]
    with console.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *command, env=environ(console.parent, **more), stdout=PIPE, stderr=stderr
        )
        try:
            yield await address_of(process)
        finally:
            process.terminate()
            await process.communicate()


async def ask_in_every_way(http: httpx.AsyncClient) -> list[str]:
    """Returns the runs that ended well, badly and behind an engine's death."""
    question = {"messages": [{"role": "user", "content": CANARY}], "model": CANARY}
    await until(lambda: is_ready(http))
    for path, sent in (
        ("/api/chats", {"content": b'{"title": "' + CANARY.encode()}),
        ("/api/chats", {"json": {"title": [CANARY]}}),
        ("/api/import", {"json": {"format": CANARY}}),
        ("/v1/chat/completions", {"json": question}),
        ("/v1/chat/completions", {"json": {**question, "model": "scripted"}}),
        ("/stream", {"data": {"prompt": CANARY}}),
        ("/stream", {"data": {"prompt": CANARY * 1000}}),
        ("/api/session", {"json": {"key": CANARY}}),
    ):
        await http.post(path, **sent)
    for path in ("/api/chats", "/api/live", f"/{CANARY}"):
        await http.get(path, params={"query": CANARY, "prompt": CANARY, "wait": 0})
    await http.get("/stream", params={"prompt": CANARY}, headers={"Last-Event-ID": CANARY})
    await http.get("/api/chats", headers={"Authorization": f"Bearer {CANARY}", "Origin": f"http://{CANARY}"})
    chat = (await http.post("/api/chats", json={"title": CANARY})).json()["id"]
    await http.post(f"/api/chats/{chat}/messages", json={"content": CANARY * 1000})
    runs = [(await ask(http, f"{CANARY} {what}"))["run"]["id"] for what in ("", "fail", "crash")]
    for run in runs:
        [_ async for _ in follow(http, run)]
    return runs


async def is_ready(http: httpx.AsyncClient) -> bool:
    return (await http.get("/readyz")).status_code == 200


def require_told(said: str, runs: list[str]) -> None:
    lines = [json.loads(line) for line in said.splitlines()]
    assert {line["process"] for line in lines} >= {"parent", "gateway"}
    assert all(line.keys() >= {"time", "level", "logger", "message"} for line in lines)
    ends = {line["run"]: line for line in lines if "state" in line}
    well, badly, crashed = (ends[run] for run in runs)
    assert (well["state"], badly["state"], crashed["code"]) == ("done", "failed", "engine_crashed")
    assert well["tokens"] > 0
    assert badly["code"]
