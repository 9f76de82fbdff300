"""``/v1`` on a live server, asked by OpenAI's own client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from httpx_sse import EventSource
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from inkstream.ask import Ask
from inkstream.engines import Chunk, Emitted, Finish, Progress, Request, Sampling, Take
from inkstream.engines.scripted import Script
from inkstream.errors import EngineLost
from tests.live import Live, serving

ANSWER = "你好，世界。\n\n`a\\nb` <b>bold</b> 👩‍👩‍👧‍👦 \u2028 \u0085 end."
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]
ENDLESS = Script(answer_tokens=100_000, tokens_per_second=200)


@asynccontextmanager
async def client(live: Live, api_key: str = "any") -> AsyncIterator[AsyncOpenAI]:
    async with DefaultAsyncHttpxClient(trust_env=False, timeout=20) as http:
        yield AsyncOpenAI(base_url=f"{live.url}/v1", api_key=api_key, max_retries=0, http_client=http)


async def post(live: Live, **body: Any) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=20) as http:
        return await http.post(f"{live.url}/v1/chat/completions", json={"messages": HELLO} | body)


async def streamed(api: AsyncOpenAI, **more: Any) -> list[ChatCompletionChunk]:
    stream = await api.chat.completions.create(model="scripted", messages=HELLO, stream=True, **more)
    return [chunk async for chunk in stream]


def text(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


async def ask_of(live: Live, completion: str) -> Ask:
    run = await live.services.runs.get("local", completion.removeprefix("chatcmpl-"))
    return Ask.decode(run.record)


# Answers


async def test_a_whole_answer(tmp_path: Path) -> None:
    async with serving(tmp_path, Script(answer=ANSWER)) as live, client(live) as api:
        reply = await api.chat.completions.create(model="scripted", messages=HELLO)
    assert reply.object == "chat.completion"
    assert reply.id.startswith("chatcmpl-")
    assert reply.model == "scripted"
    assert reply.choices[0].message.content == ANSWER
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert reply.usage.completion_tokens > 5


async def test_a_streamed_answer(tmp_path: Path) -> None:
    async with serving(tmp_path, Script(answer=ANSWER)) as live, client(live) as api:
        chunks = await streamed(api)
    assert text(chunks) == ANSWER
    assert {(c.id, c.object, c.model, c.created) for c in chunks} == {
        (chunks[0].id, "chat.completion.chunk", "scripted", chunks[0].created)
    }
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks[-2:]] == [None, "stop"]
    assert all(c.usage is None for c in chunks)


async def test_usage_comes_last_when_it_is_asked_for(tmp_path: Path) -> None:
    async with serving(tmp_path, Script(answer=ANSWER)) as live, client(live) as api:
        chunks = await streamed(api, stream_options={"include_usage": True})
        whole = await api.chat.completions.create(model="scripted", messages=HELLO)
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert all(c.usage is None and "usage" in c.model_fields_set for c in chunks[:-1])


async def test_the_stream_ends_with_done_and_keeps_a_quiet_connection_open(tmp_path: Path) -> None:
    script = Script(answer="late", tokens_per_second=5)
    async with serving(tmp_path, script, heartbeat_seconds=0.05) as live, httpx.AsyncClient() as http:
        body = {"messages": HELLO, "stream": True}
        async with http.stream("POST", f"{live.url}/v1/chat/completions", json=body) as response:
            assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
            raw = (await response.aread()).decode()
    assert raw.startswith(": ok\n\n")
    assert "\n:\n\n" in raw
    assert raw.endswith("data: [DONE]\n\n")
    assert "retry:" not in raw


async def test_thinking_is_reasoning_content(tmp_path: Path) -> None:
    async with serving(tmp_path, Script(answer="yes", think=True)) as live, client(live) as api:
        chunks = await streamed(api)
        whole = await api.chat.completions.create(model="scripted", messages=HELLO)
    deltas = [(c.choices[0].delta.model_extra or {}).get("reasoning_content") or "" for c in chunks]
    assert text(chunks) == whole.choices[0].message.content == "yes"
    assert "".join(deltas) == "Let me see. 想一想……"
    assert (whole.choices[0].message.model_extra or {})["reasoning_content"] == "Let me see. 想一想……"


@pytest.mark.parametrize("stop", ["two", ["three", "two"]])
async def test_stop_strings_end_the_answer(tmp_path: Path, stop: str | list[str]) -> None:
    async with serving(tmp_path, Script(answer="one two three")) as live, client(live) as api:
        assert text(await streamed(api, stop=stop)) == "one "
        whole = await api.chat.completions.create(model="scripted", messages=HELLO, stop=stop)
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == ("one ", "stop")


@pytest.mark.parametrize("limit", [{"max_tokens": 3}, {"max_completion_tokens": 3, "max_tokens": 9}])
async def test_the_token_limit_is_a_finish_reason(tmp_path: Path, limit: dict[str, int]) -> None:
    async with serving(tmp_path) as live, client(live) as api:
        chunks = await streamed(api, **limit)
        whole = (await post(live, **limit)).json()
    assert chunks[-1].choices[0].finish_reason == whole["choices"][0]["finish_reason"] == "length"
    assert whole["usage"]["completion_tokens"] == 3


async def test_every_parameter_reaches_the_engine(tmp_path: Path) -> None:
    async with serving(tmp_path, Script(answer="ok")) as live, client(live) as api:
        chunks = await streamed(
            api,
            temperature=0.5,
            top_p=0.9,
            seed=-1,
            presence_penalty=0.25,
            frequency_penalty=-0.25,
            user="somebody",
            extra_body={"top_k": -1, "min_p": 0.1, "repeat_penalty": 1.1, "metadata": {"a": "b"}},
        )
        ask = await ask_of(live, chunks[0].id)
    assert ask.linger_seconds == 0
    assert ask.sampling == Sampling(
        temperature=0.5,
        top_p=0.9,
        top_k=0,
        min_p=0.1,
        repetition_penalty=1.1,
        presence_penalty=0.25,
        frequency_penalty=-0.25,
        seed=2**31 - 1,
    )


async def test_messages_of_every_role_and_in_parts(tmp_path: Path) -> None:
    messages = [
        {"role": "developer", "content": "be kind"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c"},
        {"role": "user", "content": "d", "name": "someone"},
    ]
    async with serving(tmp_path, Script(answer="ok")) as live:
        reply = (await post(live, messages=messages)).json()
        ask = await ask_of(live, reply["id"])
    assert [(m.role, m.content) for m in ask.messages] == [
        ("system", "be kind"),
        ("user", "a\nb"),
        ("assistant", "c"),
        ("user", "d"),
    ]


async def test_the_same_seed_gives_the_same_answer(tmp_path: Path) -> None:
    async with serving(tmp_path, Script(answer_tokens=30)) as live, client(live) as api:
        one, two, other = [text(await streamed(api, seed=seed)) for seed in (7, 7, 8)]
    assert one == two != other


# Models


async def test_the_served_model_is_listed_and_found(tmp_path: Path) -> None:
    async with serving(tmp_path, model="some/alias") as live, client(live) as api:
        assert [model.id async for model in await api.models.list()] == ["scripted"]
        assert (await api.models.retrieve("Scripted")).id == "scripted"
        assert (await api.models.retrieve("some/alias")).id == "scripted"
        with pytest.raises(openai.NotFoundError) as refusal:
            await api.models.retrieve("gpt/4")
    assert refusal.value.code == "model_not_found"


@pytest.mark.parametrize("model", [None, "", "scripted"])
async def test_the_model_may_be_left_out(tmp_path: Path, model: str | None) -> None:
    async with serving(tmp_path, Script(answer="ok")) as live:
        reply = await post(live, **({} if model is None else {"model": model}))
    assert (reply.status_code, reply.json()["model"]) == (200, "scripted")


async def test_while_the_engine_loads_an_answer_waits_and_an_unknown_name_comes_later(tmp_path: Path) -> None:
    script = Script(answer="ok", load_seconds=1)
    async with serving(tmp_path, script, model="alias") as live, client(live) as api:
        assert [model.id async for model in await api.models.list()] == ["alias"]
        reply = await post(live, model="gpt-4")
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "5")
        assert reply.json()["error"]["code"] == "engine_loading"
        whole = await api.chat.completions.create(model="alias", messages=HELLO)
    assert whole.choices[0].message.content == "ok"


# Refusals


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"model": "gpt-4"}, 404, "model_not_found", "model"),
        ({"n": 2}, 400, "unsupported_parameter", "n"),
        ({"tools": [{"type": "function"}]}, 400, "unsupported_parameter", "tools"),
        ({"functions": [{}]}, 400, "unsupported_parameter", "functions"),
        ({"logit_bias": {"7": 5}}, 400, "unsupported_parameter", "logit_bias"),
        ({"min_tokens": 3}, 400, "unsupported_parameter", "min_tokens"),
        ({"ignore_eos": True}, 400, "unsupported_parameter", "ignore_eos"),
        ({"logit_bias": {"seven": 5}}, 400, "invalid_parameter", "logit_bias.seven.[key]"),
        ({"logit_bias": {"7": 101}}, 400, "invalid_parameter", "logit_bias.7"),
        ({"top_logprobs": 2}, 400, "invalid_parameter", "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, 400, "invalid_parameter", "top_logprobs"),
        ({"response_format": {"type": "json_object"}}, 400, "unsupported_parameter", "response_format"),
        ({"temperature": 9}, 400, "invalid_parameter", "temperature"),
        ({"temperature": "0.5"}, 400, "invalid_parameter", "temperature"),
        ({"max_tokens": 0}, 400, "invalid_parameter", "max_tokens"),
        ({"max_tokens": True}, 400, "invalid_parameter", "max_tokens"),
        ({"stop": {}}, 400, "invalid_parameter", "stop"),
        ({"messages": []}, 400, "invalid_parameter", "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "invalid_parameter", "messages.0.role"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            400,
            "invalid_parameter",
            "messages.0.content",
        ),
        ({"stream_options": {"include_usage": True}}, 400, "invalid_parameter", "stream_options"),
    ],
)
async def test_what_cannot_be_done_is_refused_in_openais_shape(
    tmp_path: Path, body: dict[str, Any], status: int, code: str, param: str
) -> None:
    async with serving(tmp_path) as live:
        reply = await post(live, **body)
        assert live.engine.requests == []
    assert reply.status_code == status
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, param)
    assert error["type"] == ("not_found_error" if status == 404 else "invalid_request_error")


async def test_what_a_loading_engine_will_lack_is_refused_when_that_is_known(tmp_path: Path) -> None:
    async with serving(tmp_path, Script(load_seconds=0.2)) as live:
        reply = await post(live, ignore_eos=True)
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "unsupported_parameter"
    assert "'ignore_eos'" in reply.json()["error"]["message"]


async def test_logprobs_come_whole_and_streamed(tmp_path: Path) -> None:
    async with serving(tmp_path, Script(answer=ANSWER, think=True)) as live, client(live) as api:
        whole = await api.chat.completions.create(
            model="scripted", messages=HELLO, logprobs=True, top_logprobs=1
        )
        chunks = await streamed(api, logprobs=True)
        plain = await api.chat.completions.create(model="scripted", messages=HELLO)
    told = whole.choices[0].logprobs
    assert told is not None
    assert told.content is not None
    assert b"".join(bytes(token.bytes or ()) for token in told.content).decode().endswith(ANSWER)
    assert [(token.logprob, len(token.top_logprobs)) for token in told.content] == [(0.0, 1)] * len(
        told.content
    )
    pieces = [c.choices[0].logprobs.content or [] for c in chunks if c.choices[0].logprobs]
    assert [t.token for piece in pieces for t in piece] == [t.token for t in told.content]
    assert all(c.choices[0].logprobs for c in chunks if c.choices[0].delta.content)
    assert plain.choices[0].logprobs is None


async def test_logprobs_survive_the_engines_death(tmp_path: Path) -> None:
    script = Script(answer=ANSWER * 3, tokens_per_chunk=1)
    async with serving(tmp_path, script) as live, client(live) as api:
        undisturbed = await api.chat.completions.create(model="scripted", messages=HELLO, logprobs=True)
        asked = len(live.engine.requests)
        die_behind(live, chunks=4)
        cut = await api.chat.completions.create(model="scripted", messages=HELLO, logprobs=True)
        assert len(live.engine.requests) == asked + 2
    assert cut.choices[0] == undisturbed.choices[0]


def die_behind(live: Live, chunks: int) -> None:
    """The next generation is lost when so many chunks of it have been taken."""
    generate = live.engine.generate

    async def dying(request: Request, emitted: Emitted, take: Take) -> Finish:
        live.engine.generate = generate  # type: ignore[method-assign]  # a fault, once
        left = chunks

        def few(item: Chunk | Progress) -> None:
            nonlocal left
            left -= 1
            if left >= 0:
                take(item)

        await generate(request, emitted, few)
        raise EngineLost("killed")

    live.engine.generate = dying  # type: ignore[method-assign]  # a fault


async def test_values_that_ask_for_nothing_are_taken(tmp_path: Path) -> None:
    harmless = {
        "n": 1,
        "tools": [],
        "logprobs": False,
        "logit_bias": {},
        "min_tokens": 0,
        "ignore_eos": False,
        "response_format": {"type": "text"},
        "stop": None,
        "stream": None,
        "stream_options": None,
        "temperature": None,
    }
    async with serving(tmp_path, Script(answer="ok")) as live:
        assert (await post(live, **harmless)).status_code == 200


async def test_a_prompt_beyond_the_context_is_a_bad_request(tmp_path: Path) -> None:
    async with serving(tmp_path, Script(context=64)) as live, client(live) as api:
        with pytest.raises(openai.BadRequestError) as refusal:
            await api.chat.completions.create(
                model="scripted", messages=[{"role": "user", "content": "x" * 1000}]
            )
    assert refusal.value.code == "prompt_too_long"


async def test_a_missing_key_is_an_authentication_error(tmp_path: Path) -> None:
    async with serving(tmp_path, Script(answer="ok"), key="secret") as live:
        async with client(live) as api:
            with pytest.raises(openai.AuthenticationError) as refusal:
                await api.models.list()
        async with client(live, api_key="secret") as api:
            assert text(await streamed(api)) == "ok"
    assert (refusal.value.code, refusal.value.type) == ("unauthorized", "authentication_error")


async def test_a_full_queue_says_when_to_come_back(tmp_path: Path) -> None:
    script = Script(slots=1, stall_on="stall")
    async with serving(tmp_path, script, queue=0) as live, client(live) as api:
        stalled = asyncio.ensure_future(post(live, messages=[{"role": "user", "content": "stall"}]))
        await live.until(lambda: live.engine.active == 1)
        with pytest.raises(openai.InternalServerError) as refusal:
            await streamed(api)
        assert refusal.value.status_code == 503
        assert refusal.value.code == "queue_full"
        assert int(refusal.value.response.headers["retry-after"]) >= 1
        stalled.cancel()
        await asyncio.gather(stalled, return_exceptions=True)
        await live.until_idle()
        assert (await post(live)).status_code == 200


async def test_a_failure_in_mid_stream_is_an_error_that_the_client_raises(tmp_path: Path) -> None:
    async with serving(tmp_path, Script(fail_on="boom")) as live, client(live) as api:
        boom: list[ChatCompletionMessageParam] = [{"role": "user", "content": "boom"}]
        stream = await api.chat.completions.create(model="scripted", messages=boom, stream=True)
        with pytest.raises(openai.APIError, match="The script fails this prompt"):
            _ = [chunk async for chunk in stream]
        with pytest.raises(openai.InternalServerError) as refusal:
            await api.chat.completions.create(model="scripted", messages=boom)
    assert refusal.value.status_code == 500
    assert refusal.value.code == "scripted_failure"


async def test_a_failed_stream_does_not_say_done(tmp_path: Path) -> None:
    async with serving(tmp_path, Script(fail_on="boom")) as live, httpx.AsyncClient() as http:
        body = {"messages": [{"role": "user", "content": "boom"}], "stream": True}
        async with http.stream("POST", f"{live.url}/v1/chat/completions", json=body) as response:
            events = [event async for event in EventSource(response).aiter_sse() if event.data]
    assert events[-1].json()["error"] == {
        "message": "The script fails this prompt.",
        "type": "server_error",
        "param": None,
        "code": "scripted_failure",
    }


# Hanging up


async def test_hanging_up_a_stream_stops_the_run_and_frees_the_slot(tmp_path: Path) -> None:
    async with serving(tmp_path, ENDLESS) as live, client(live) as api:
        stream = await api.chat.completions.create(model="scripted", messages=HELLO, stream=True)
        first = await anext(aiter(stream))
        await live.until(lambda: live.engine.active == 1)
        await stream.close()
        await live.until(lambda: live.engine.active == 0)
        run = await live.until_ended(first.id.removeprefix("chatcmpl-"))
        assert run.state == "stopped"


async def test_hanging_up_on_a_whole_answer_stops_the_run_and_frees_the_slot(tmp_path: Path) -> None:
    async with serving(tmp_path, ENDLESS) as live, client(live) as api:
        asking = asyncio.ensure_future(api.chat.completions.create(model="scripted", messages=HELLO))
        await live.until(lambda: live.engine.active == 1)
        [request] = live.engine.requests
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await live.until(lambda: live.engine.active == 0)
        run = await live.until_ended(request.id.partition(":")[0])
        assert run.state == "stopped"


async def test_hanging_up_while_waiting_gives_the_place_back(tmp_path: Path) -> None:
    script = Script(slots=1, stall_on="stall")
    async with serving(tmp_path, script) as live:
        asks = [
            asyncio.ensure_future(post(live, messages=[{"role": "user", "content": "stall"}], stream=stream))
            for stream in (False, True, False)
        ]
        await live.until(lambda: live.services.runs.admission.waiting == 2)
        for ask in asks:
            ask.cancel()
        await asyncio.gather(*asks, return_exceptions=True)
        await live.until_idle()
        assert (await post(live)).status_code == 200


async def test_stopping_the_run_ends_the_stream_in_order(tmp_path: Path) -> None:
    async with serving(tmp_path, ENDLESS) as live, client(live) as api:
        stream = await api.chat.completions.create(
            model="scripted", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        chunks = [await anext(aiter(stream))]
        await live.services.runs.stop("local", chunks[0].id.removeprefix("chatcmpl-"))
        chunks += [chunk async for chunk in stream]
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens > 0
