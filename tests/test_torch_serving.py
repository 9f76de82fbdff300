"""``inkstream serve --engine torch`` with real weights: asked over HTTP, its engine struck in mid-answer.

SmolLM2-135M-Instruct in float32 on the CPU, where an answer that was cut must end as the undisturbed one.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.torture.client import Client
from tests.torture.server import Server, Target
from tests.torture.sse import Blocks

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="finds the engine in /proc"),
]

QUESTION = "Tell me a short story about a lighthouse keeper and a storm."
GREEDY = {"temperature": 0, "max_tokens": 32}
SEEDED = {"temperature": 0.9, "top_p": 0.95, "repetition_penalty": 1.1, "seed": 7, "max_tokens": 32}
SAMPLINGS = (GREEDY, SEEDED)

FAULT = "fault"
FAULTY_DEVICE = """
import importlib.abc, importlib.util, pathlib, sys

fault = pathlib.Path({fault!r})

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "inkstream.engines.torch.runner":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module
        spec.loader.exec_module = lambda module: (execute(module), put_into(module))
        return spec

def put_into(module):
    launch = module.PlainRunner.launch
    def faulty(runner, step):
        if fault.exists():
            message = fault.read_text()
            fault.unlink()
            out_of_memory = "out of memory" in message
            raise (module.torch.OutOfMemoryError if out_of_memory else RuntimeError)(message)
        return launch(runner, step)
    module.PlainRunner.launch = faulty

sys.meta_path.insert(0, Finder())
"""
"""A sitecustomize.py with which a step fails at the device's border, once for each file that says how."""


@dataclass
class Answer:
    """What a reader has seen of a run. ``grown`` is set whenever that is more."""

    run: str
    message: str
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    grown: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def text(self) -> str:
        return "".join(data["text"] for kind, data in self.events if kind == "text")

    @property
    def engine_phases(self) -> list[str]:
        return [data["phase"] for kind, data in self.events if kind == "note" and data["key"] == "engine"]

    async def until(self, characters: int) -> None:
        while len(self.text) < characters:
            self.grown.clear()
            await self.grown.wait()


class Talk:
    """One conversation after the other with one server."""

    def __init__(self, server: Server, client: Client) -> None:
        self.server, self._client = server, client

    async def ask(self, sampling: dict[str, Any], question: str = QUESTION, chat: str = "") -> Answer:
        chat = chat or (await self._client.call("POST", "/api/chats", {}))["id"]
        body = {"content": question, "sampling": sampling}
        started = await self._client.call("POST", f"/api/chats/{chat}/messages", body)
        return Answer(started["run"]["id"], started["message"]["id"])

    async def read(self, answer: Answer) -> Answer:
        """To the end, on one connection: a dying engine breaks no reader's."""
        url = f"http://127.0.0.1:{self.server.port}/api/runs/{answer.run}/events"
        blocks = Blocks()
        async with (
            httpx.AsyncClient(trust_env=False, timeout=120) as client,
            client.stream("GET", url) as response,
        ):
            async for received in response.aiter_bytes():
                for block in blocks.feed(received):
                    answer.events.append((block.event.decode(), json.loads(block.data)))
                answer.grown.set()
        return answer

    async def message(self, answer: Answer) -> dict[str, Any]:
        return await self._client.call("GET", f"/api/messages/{answer.message}")


@pytest.fixture(scope="module")
async def talk(
    smollm2_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory, anyio_backend: str
) -> AsyncIterator[Talk]:
    settings = {
        "engine": "torch",
        "model": str(smollm2_checkpoint),
        "context": "512",
        "slots": "3",
        "threads": "1",
        "device": "cpu",
        "offline": "true",
    }
    complaints: list[str] = []
    folder = tmp_path_factory.mktemp("serving")
    (folder / "sitecustomize.py").write_text(FAULTY_DEVICE.format(fault=str(folder / FAULT)))
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    server = Server(folder, settings, {"PYTHONPATH": path})
    async with server, Client(server.port, complaints.append) as client:
        yield Talk(server, client)
    assert complaints == []
    # A device that fails for good is told of with all that is known.
    assert [failure for failure in server.failures if "tracebacks" not in failure] == []


@pytest.fixture(scope="module")
async def undisturbed(talk: Talk) -> list[Answer]:
    asked = [await talk.ask(sampling) for sampling in SAMPLINGS]
    answers = await asyncio.gather(*(talk.read(answer) for answer in asked))
    assert all(len(answer.text) > 60 for answer in answers)
    assert answers[0].text != answers[1].text
    return answers


Blow = Callable[[Server, Target], None]


def killed(_: Server, engine: Target) -> None:
    engine.send(signal.SIGKILL)


def device_failed(server: Server, _: Target) -> None:
    (server.folder / FAULT).write_text("CUDA error: unspecified launch failure")


def memory_ran_out(server: Server, _: Target) -> None:
    (server.folder / FAULT).write_text("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("blow", [killed, device_failed, memory_ran_out])
async def test_what_befalls_an_engine_in_mid_answer_changes_no_word_of_it(
    talk: Talk, undisturbed: list[Answer], blow: Blow
) -> None:
    cut = [await talk.ask(sampling) for sampling in SAMPLINGS]
    reading = [asyncio.create_task(talk.read(answer)) for answer in cut]
    for answer in cut:
        await answer.until(10)
    engine = talk.server.target("engine")
    assert engine is not None
    with engine:
        blow(talk.server, engine)
        if blow is not memory_ran_out:
            await engine.death()
    seen = [answer.text for answer in cut]
    await asyncio.gather(*reading)
    assert not (talk.server.folder / FAULT).exists()

    for answer, before, whole in zip(cut, seen, undisturbed, strict=True):
        assert 0 < len(before) < len(whole.text), "it came in mid-answer"
        assert answer.text == whole.text
        assert answer.events[-1][0] == "done"
        assert ("loading" in answer.engine_phases) == (blow is not memory_ran_out)
        message, told = await talk.message(answer), await talk.message(whole)
        assert message["parts"] == [{"type": "text", "text": whole.text}]
        assert message["usage"]["completion_tokens"] == told["usage"]["completion_tokens"]


async def test_a_stop_string_ends_an_answer_before_itself(talk: Talk) -> None:
    whole = (await talk.read(await talk.ask(GREEDY))).text
    stop = whole[len(whole) // 2 : len(whole) // 2 + 9]
    stopped = await talk.read(await talk.ask(GREEDY | {"stop": [stop]}))
    assert stopped.text == whole[: whole.index(stop)]
    kind, end = stopped.events[-1]
    assert (kind, end["finish"]) == ("done", "stop")


async def test_a_conversation_goes_on_from_what_was_read_before(talk: Talk) -> None:
    first = await talk.read(await talk.ask(GREEDY, "What is the capital of France?"))
    assert "Paris" in first.text
    chat = (await talk.message(first))["chat"]
    second = await talk.read(await talk.ask(GREEDY, "And of which country is it?", chat))
    assert "France" in second.text
    assert (await talk.message(second))["usage"]["cached_tokens"] > 0
