"""What the server tells of itself, its engine and the speed of its answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import aconnect_sse
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from inkstream.api import page
from inkstream.api.services import TokenSamplingIn
from inkstream.engines import Phase
from inkstream.engines.scripted import Script
from inkstream.events import Kind
from tests.live import Live, serving

SCHEMAS = Path(__file__).parent.parent / "src/inkstream/api/wire"
CHATS, SERVER = (json.loads((SCHEMAS / f"{name}.schema.json").read_text()) for name in ("chats", "server"))
REGISTRY: Registry[Any] = Registry().with_resources(
    (schema["$id"], Resource.from_contents(schema)) for schema in (CHATS, SERVER)
)


def require(name: str, value: Any) -> None:
    schema = {"$ref": f"server#/$defs/{name}"}
    Draft202012Validator(schema, registry=REGISTRY).validate(value)


def client(live: Live) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=live.url, trust_env=False)


async def test_the_live_feed_tells_what_is_in_the_engine_once_it_is_ready(tmp_path: Path) -> None:
    script = Script(load_seconds=2, context=512)
    async with (
        serving(tmp_path, script) as live,
        client(live) as http,
        aconnect_sse(http, "GET", "/api/live") as source,
    ):
        events = (event async for event in source.aiter_sse() if event.data)
        snapshot = json.loads((await anext(events)).data)
        require("snapshot", snapshot)
        assert snapshot["engine"]["phase"] == Phase.LOADING
        assert "model" not in snapshot["engine"]
        told = snapshot["engine"]
        while told["phase"] != Phase.READY:
            event = await anext(events)
            assert event.event == "engine"
            told = json.loads(event.data)
            require("engine", told)
        assert (told["model"], told["engine"], told["context_length"]) == ("scripted", "scripted", 512)
        assert told["defaults"] == {
            "temperature": 0.7, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0,
            "presence_penalty": 0.0, "frequency_penalty": 0.0,
            "logit_bias": {}, "logprobs": False, "top_logprobs": 0,
        }  # fmt: skip
        status = (await http.get("/api/status")).json()
        require("status", status)
        assert status["engine"] == told


async def test_a_snapshot_names_the_build_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "FOLDER", tmp_path)
    document = tmp_path / "index.html"
    for content, build in (("", None), ('<meta name="build" content="b1d" />', "b1d")):
        document.write_text(content)
        async with serving(tmp_path / "data") as live, client(live) as http:
            reply = await http.get("/api/live?wait=0")
        (data,) = [line for line in reply.text.splitlines() if line.startswith("data: ")]
        assert json.loads(data.removeprefix("data: "))["build"] == build
    document.unlink()
    assert page.build_of_page() is None


def test_the_bounds_of_sampling_are_those_of_the_schema() -> None:
    fields = TokenSamplingIn.model_json_schema()["properties"]
    told = CHATS["$defs"]["sampling"]["properties"]
    assert fields.keys() == told.keys()
    words = {"type", "minimum", "maximum", "exclusiveMinimum", "maxItems", "items", "minLength", "maxLength"}
    for name, field in fields.items():
        taken = next((each for each in field.get("anyOf", []) if each["type"] != "null"), field)
        bounds, written = ({word: each[word] for word in words & each.keys()} for each in (taken, told[name]))
        assert bounds == written, name


async def test_an_answer_tells_how_fast_its_last_part_was_written(tmp_path: Path) -> None:
    script = Script(tokens_per_second=200, answer_tokens=60)
    async with serving(tmp_path, script) as live, client(live) as http:
        chat = (await http.post("/api/chats", json={})).json()["id"]
        path = f"/api/chats/{chat}/messages"
        first = {"content": "Tell me.", "sampling": {"max_tokens": 40}}
        answer = (await http.post(path, json=first)).json()["message"]["id"]
        await live.until_idle()
        await http.post(path, json={"continue": answer})
        await live.until_idle()
        message = (await http.get(f"/api/messages/{answer}")).json()
        assert message["usage"]["completion_tokens"] == 60
        timings = message["timings"]
        assert timings["tokens_per_second"] == pytest.approx(20 / timings["decode_seconds"], rel=0.02)
        assert 0 < timings["first_token_seconds"] < timings["total_seconds"]


async def test_who_did_not_see_the_first_token_says_nothing_about_it(tmp_path: Path) -> None:
    script = Script(tokens_per_second=100, answer_tokens=100)
    async with serving(tmp_path, script) as live, client(live) as http:
        chat = (await http.post("/api/chats", json={})).json()["id"]
        asked = (await http.post(f"/api/chats/{chat}/messages", json={"content": "Tell me."})).json()
        run = asked["run"]["id"]
        async with aconnect_sse(http, "GET", f"/api/runs/{run}/events") as source:
            async for event in source.aiter_sse():
                if event.event == Kind.TEXT:
                    break
    async with serving(tmp_path, script) as live, client(live) as http:
        await live.until_ended(run)
        await live.until_idle()
        message = (await http.get(f"/api/messages/{asked['message']['id']}")).json()
    assert message["usage"]["completion_tokens"] == 100
    assert message["timings"].keys() == {
        *("prefill_seconds", "decode_seconds", "total_seconds", "tokens_per_second")
    }
