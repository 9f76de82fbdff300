"""The model is switched while the server runs: real processes that are asked, killed and started again."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import aconnect_sse

from tests.fake_hub import fake_hub
from tests.test_api import ask, first_text
from tests.test_serving import address_of, child_of, finished, inkstream, until_ready
from tests.test_status import require
from tests.tiny_gguf import tiny_gguf

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(sys.platform != "linux", reason="finds the children in /proc"),
]

ANSWER = " ".join(f"word{number}" for number in range(150))
Engine = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Served:
    process: Process
    url: str
    http: httpx.AsyncClient

    async def switch(self, model: str | Path, *, now: bool = False) -> httpx.Response:
        return await self.http.put("/api/model", json={"model": str(model), "now": now})

    async def news(self) -> AsyncGenerator[Engine]:
        """What is told of the engine: now, and whenever it changes."""
        async with aconnect_sse(self.http, "GET", "/api/live") as source:
            async for event in source.aiter_sse():
                if event.event == "snapshot":
                    require("snapshot", json.loads(event.data))
                    yield json.loads(event.data)["engine"]
                if event.event == "engine":
                    require("engine", json.loads(event.data))
                    yield json.loads(event.data)

    async def until(self, condition: Callable[[Engine], object]) -> list[Engine]:
        """All that is told up to what is waited for."""
        told = []
        async with asyncio.timeout(60), aclosing(self.news()) as news:
            async for engine in news:
                told.append(engine)
                if condition(engine):
                    return told
        raise AssertionError(told[-1])

    async def ended(self, message: str) -> dict[str, Any]:
        async with asyncio.timeout(60):
            while True:
                found: dict[str, Any] = (await self.http.get(f"/api/messages/{message}")).json()
                if found["state"] in ("done", "stopped", "failed"):
                    return found
                await asyncio.sleep(0.05)

    async def went_on(self, message: str) -> None:
        """An answer that was cut has all of its text."""
        found = await self.ended(message)
        assert (found["state"], text_of(found)) == ("done", ANSWER)
        events = (await self.http.get(f"/api/runs/{found['run']}/events")).text
        epochs = set(re.findall(r"^id: (\d+):", events, re.M))
        assert len(epochs) > 1, "it was never cut"

    def kill(self, child: str) -> None:
        os.kill(child_of(self.process, child), signal.SIGKILL)


@asynccontextmanager
async def served(folder: Path, *arguments: str, **environ: str) -> AsyncIterator[Served]:
    async with inkstream(folder, "serve", "--port", "0", *arguments, **environ) as process:
        url = await address_of(process)
        await until_ready(url)
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=20) as http:
            yield Served(process, url, http)


def script(folder: Path, name: str, **fields: Any) -> str:
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"name": name, "answer": ANSWER, "tokens_per_second": 100, **fields}))
    return str(path)


def scripted(folder: Path, tokens_per_second: int = 100) -> Any:
    """A server whose model is the script a, by the environment. It never answers what is endless."""
    model = script(folder, "a", tokens_per_second=tokens_per_second, stall_on="endless")
    return served(folder, "--engine", "scripted", INKSTREAM_MODEL=model)


def is_over(engine: Engine) -> bool:
    return engine["phase"] == "ready" and (engine["switch"] is None or engine["switch"]["stage"] == "failed")


def is_at(stage: str) -> Callable[[Engine], bool]:
    return lambda engine: bool(engine["switch"] and engine["switch"]["stage"] == stage)


def text_of(message: dict[str, Any]) -> str:
    return "".join(part["text"] for part in message["parts"])


async def test_answers_are_finished_first_and_new_questions_wait_for_the_new_model(tmp_path: Path) -> None:
    other = script(tmp_path, "b", load_seconds=0.5)
    async with scripted(tmp_path) as it:
        endless = (await ask(it.http, "endless"))["run"]["id"]
        first = await ask(it.http)
        assert (await it.switch(other)).status_code == 202
        told = await it.until(lambda engine: is_at("waiting")(engine) and engine["switch"]["answers"] == 1)
        assert told[-1]["model"] == "a"
        again = await it.switch(other)
        assert (again.status_code, again.json()["error"]["code"]) == (409, "switch_under_way")
        # Called off, it leaves everything as it was; then it is begun anew.
        assert (await it.http.delete("/api/model")).json()["engine"]["switch"] is None
        assert (await it.http.delete("/api/model")).json()["error"]["code"] == "no_switch"
        assert (await it.switch(other)).status_code == 202
        await it.until(is_at("waiting"))
        second = await ask(it.http)
        await it.http.post(f"/api/runs/{endless}/stop")
        told = await it.until(is_over)
        assert any(engine["phase"] == "loading" and engine["share"] for engine in told)
        assert told[-1]["model"] == "b"
        for asked, model in ((first, "a"), (second, "b")):
            message = await it.ended(asked["message"]["id"])
            assert (message["state"], message["made_with"]["model"]) == ("done", model)
            assert text_of(message) == ANSWER
        assert (await it.switch(other)).status_code == 200


async def test_a_backup_that_is_restored_elsewhere_answers_with_the_chosen_model(tmp_path: Path) -> None:
    file, elsewhere = str(tmp_path / "backup.zip"), str(tmp_path / "elsewhere")
    async with scripted(tmp_path) as it:
        address = ("--port", str(it.http.base_url.port))
        code, _, said = await finished(tmp_path, "model", script(tmp_path, "b"), *address)
        assert code == 0, said
        code, _, said = await finished(tmp_path, "backup", file)
        assert code == 0, said
    code, _, said = await finished(tmp_path, "restore", file, "--data-dir", elsewhere)
    assert code == 0, said
    for model, answering in (("a", "b"), ("c", "c")):  # whoever configures another one has the later word
        configured = script(tmp_path, model)
        arguments = ("--engine", "scripted", "--data-dir", elsewhere)
        async with served(tmp_path, *arguments, INKSTREAM_MODEL=configured) as it:
            assert (await it.http.get("/api/status")).json()["engine"]["model"] == answering


async def test_what_is_cut_is_kept_and_goes_on_when_asked_to(tmp_path: Path) -> None:
    async with scripted(tmp_path, tokens_per_second=15) as it:
        cut = await ask(it.http)
        await first_text(it.http, cut["run"]["id"])
        await it.switch(script(tmp_path, "b"), now=True)
        message = await it.ended(cut["message"]["id"])
        assert (message["state"], message["error"]["code"]) == ("failed", "model_changed")
        kept = text_of(message)
        assert 0 < len(kept) < len(ANSWER)
        path = f"/api/chats/{message['chat']}/messages"
        assert (await it.http.post(path, json={"continue": message["id"]})).status_code == 202
        message = await it.ended(message["id"])
        assert (message["state"], message["made_with"]["model"]) == ("done", "b")
        assert text_of(message).startswith(kept)


async def test_an_engine_that_dies_while_it_loads_gives_way_to_the_one_before(tmp_path: Path) -> None:
    async with scripted(tmp_path, tokens_per_second=50) as it:
        asked = await ask(it.http)
        await first_text(it.http, asked["run"]["id"])
        await it.switch(script(tmp_path, "b", load_seconds=60), now=True)
        await it.until(lambda engine: engine["phase"] == "loading" and engine["share"])
        assert (await it.http.delete("/api/model")).json()["error"]["code"] == "too_late"
        it.kill("engine")
        told = await it.until(is_over)
        assert told[-1]["model"] == "a"
        assert told[-1]["switch"]["code"] == "engine_crashed"
        assert "SIGKILL" in told[-1]["switch"]["message"]
        # Nobody saw an engine that was given up, and the answer goes on where it was cut.
        assert {engine["phase"] for engine in told} <= {"loading", "ready", "connecting"}
        await it.went_on(asked["message"]["id"])


async def test_a_gateway_that_dies_in_mid_switch_comes_back_to_the_model_before(tmp_path: Path) -> None:
    async with scripted(tmp_path, tokens_per_second=50) as it:
        asked = await ask(it.http)
        await first_text(it.http, asked["run"]["id"])
        await it.switch(script(tmp_path, "b", load_seconds=2), now=True)
        await it.until(lambda engine: engine["phase"] == "loading" and engine["share"])
        it.kill("gateway")
        await until_ready(it.url)
        told = await it.until(is_over)
        assert (told[-1]["model"], told[-1]["switch"]["code"]) == ("a", "switch_interrupted")
        await it.went_on(asked["message"]["id"])
        # It is no obstacle to trying again.
        assert (await it.switch(script(tmp_path, "b"))).status_code == 202
        assert (await it.until(is_over))[-1]["model"] == "b"
        it.kill("gateway")
        await until_ready(it.url)
        assert (await it.http.get("/api/models")).json()["model"].endswith("b.json")


# With models


async def test_a_question_that_waits_is_put_to_the_new_model_in_its_own_words(
    tmp_path: Path, smollm2: Path, qwen2: Path
) -> None:
    sampling = {"temperature": 0, "max_tokens": 200}
    async with llama(tmp_path, smollm2) as it:
        writing = await ask(it.http, "Write a long story.", sampling=sampling)
        await first_text(it.http, writing["run"]["id"])
        await it.switch(qwen2)
        await it.until(is_at("waiting"))
        waiting = await ask(it.http, "墨水在宣纸上慢慢洇开", sampling=sampling | {"max_tokens": 8})
        message = await it.ended(waiting["message"]["id"])
        assert (message["state"], message["made_with"]["model"]) == ("done", str(qwen2))
        asked_again = await ask(it.http, "墨水在宣纸上慢慢洇开", sampling=sampling | {"max_tokens": 8})
        again = await it.ended(asked_again["message"]["id"])
        assert message["usage"]["prompt_tokens"] == again["usage"]["prompt_tokens"]
        assert (await it.ended(writing["message"]["id"]))["state"] == "done"

        # A file that looks well and does not load.
        broken = tmp_path / "broken.gguf"
        broken.write_bytes(tiny_gguf())
        await it.switch(broken)
        told = await it.until(is_over)
        assert any(is_at("returning")(engine) for engine in told)
        assert told[-1]["switch"]["message"]
        assert told[-1]["model"] == str(qwen2)
        message = await it.ended((await ask(it.http, sampling={"max_tokens": 3}))["message"]["id"])
        assert message["state"] == "done"


async def test_a_download_is_told_to_everybody_while_the_model_before_answers(
    tmp_path: Path, smollm2: Path, qwen2: Path
) -> None:
    async with fake_hub() as hub:
        hub.add("Ink/Tiny-GGUF", "tiny-q4_k_m.gguf", await asyncio.to_thread(qwen2.read_bytes))
        hubs = {"HF_ENDPOINT": hub.url, "MODELSCOPE_ENDPOINT": "http://127.0.0.1:9"}
        async with llama(tmp_path, smollm2, **hubs) as it:
            address = f"{hub.url}/Ink/Tiny-GGUF/blob/main/tiny-q4_k_m.gguf"
            await it.switch(address)
            told = await it.until(is_over)
            shares = [engine["switch"]["share"] for engine in told if is_at("fetching")(engine)]
            assert any(share for share in shares)
            assert all(engine["phase"] == "ready" for engine in told if is_at("fetching")(engine))
            assert told[-1]["model"] == "Ink/Tiny-GGUF:tiny-q4_k_m.gguf"
            listed = (await it.http.get("/api/models")).json()
            require("models", listed)
            (here,) = [row for row in listed["models"] if row["is_here"]]
            assert here["name"] == told[-1]["model"]
            assert here["size_bytes"] == len(hub.repos["Ink/Tiny-GGUF"]["tiny-q4_k_m.gguf"])


def llama(folder: Path, model: Path, **environ: str) -> Any:
    few = ("--engine", "llama", "--context", "512", "--slots", "2")
    return served(folder, *few, INKSTREAM_MODEL=str(model), **environ)


# From the console


async def test_the_console_switches_says_why_not_and_the_choice_outlives_the_server(tmp_path: Path) -> None:
    key = {"INKSTREAM_KEY": "secret"}
    serve = ("serve", "--port", "0", "--engine", "scripted")
    environ = key | {"INKSTREAM_MODEL": script(tmp_path, "a")}
    async with inkstream(tmp_path, *serve, **environ) as process:
        url = await address_of(process)
        await until_ready(url)
        code, out, err = await finished(tmp_path, "model", "--url", url, **key)
        assert (code, out) == (2, ""), "the key of the settings is for their own server"
        assert "--key" in err
        where = ("model", "--port", str(httpx.URL(url).port))
        code, out, err = await finished(tmp_path, *where, script(tmp_path, "b"), **key)
        assert (code, out) == (0, "b answers\n"), err
        engine = child_of(process, "engine")
        code, out, err = await finished(tmp_path, *where, str(tmp_path / "nowhere.json"), **key)
        assert (code, out) == (2, "")
        assert "nowhere.json" in err
        assert child_of(process, "engine") == engine
    code, out, err = await finished(tmp_path, *where)
    assert (code, out) == (2, "")
    assert "no server answers" in err
    async with inkstream(tmp_path, *serve, **environ) as process:
        url = await address_of(process)
        await until_ready(url)
        code, out, _ = await finished(tmp_path, "model", "--url", url, "--key", "secret")
        assert (code, out.split()) == (0, ["b", "ready"])


@pytest.mark.parametrize("url", ["chat.example.org", "http://127.0.0.1:none", "http://[::1"])
async def test_what_is_no_address_of_a_server_is_refused(url: str, tmp_path: Path) -> None:
    code, out, err = await finished(tmp_path, "model", "--url", url)
    assert (code, out) == (2, "")
    assert err.startswith(f"inkstream: '{url}' is no address of a server")


@pytest.mark.parametrize("command", [("model", "--url"), ("doctor",)])
async def test_a_key_in_any_script_is_sent(command: tuple[str, ...], tmp_path: Path) -> None:
    async with inkstream(tmp_path, "serve", "--engine", "scripted", "--port", "0", "--key", "密钥") as server:
        told = await finished(tmp_path, *command, await address_of(server), "--key", "密钥")
    assert told[0] == 0, told
