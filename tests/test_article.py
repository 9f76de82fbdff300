"""``/stream`` on a live server: read by parsers of others, cut anywhere, and by the article's page."""

from __future__ import annotations

import os
import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from httpx_sse import EventSource, ServerSentEvent
from hypothesis import example, given, settings
from hypothesis import strategies as st
from playwright.async_api import Browser, Page, async_playwright

from inkstream.api.article import SYSTEM, Format, Position, _Writer
from inkstream.api.chunker import Grain
from inkstream.ask import Ask
from inkstream.engines.scripted import Script
from inkstream.events import Kind, encode, framed, unframed
from inkstream.pinning import events_of
from tests.browsing import CHROMIUM
from tests.live import Live, Proxy, serving

ANSWER = "你好，世界。Hello, e.g. 3.14!\n\n```python\nprint('\\n')\n```\n👩‍👩‍👧‍👦 a\u2028line \u0085 “完”。"
PAGE = Path(__file__).parent / "article_page.html"
RUN = "0" * 32


@asynccontextmanager
async def client(live: Live) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=live.url, trust_env=False, timeout=20) as client:
        yield client


async def events(response: httpx.Response) -> list[ServerSentEvent]:
    return [event async for event in EventSource(response).aiter_sse()]


async def asked(client: httpx.AsyncClient, **params: Any) -> list[ServerSentEvent]:
    headers = params.pop("headers", None)
    async with client.stream("GET", "/stream", params=params, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        return await events(response)


def texts(received: list[ServerSentEvent]) -> list[str]:
    return [event.json()["text"] for event in received if event.event == "message" and event.data]


def cursors(received: list[ServerSentEvent]) -> list[str]:
    return [event.id.partition(":")[2] for event in received if event.id]


# What is answered


@pytest.mark.real
async def test_the_articles_events_arrive_under_its_names(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, Script(answer=ANSWER)) as live,
        client(live) as http,
        http.stream("GET", "/stream", params={"prompt": "hi"}) as response,
    ):
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["cache-control"] == "no-store, no-transform"
        received = await events(response)
    assert received[0].retry == 2000
    assert "".join(texts(received)) == ANSWER
    assert (received[-1].event, received[-1].data, cursors(received)[-1]) == ("end", "[DONE]", "end")
    assert {event.event for event in received if event.data} == {"message", "end"}


async def test_an_id_comes_before_the_first_word_and_then_counts_code_points(tmp_path: Path) -> None:
    async with serving(tmp_path, Script(answer=ANSWER)) as live, client(live) as http:
        body = (await http.get("/stream", params={"prompt": "hi"})).text
        received = await asked(http, prompt="hi")
    run = received[-1].id.partition(":")[0]
    assert body.startswith("retry: 2000\n: ok\n\nid: ")
    assert body.split("\n\n")[1].endswith(":0")
    position = 0
    for event in received:
        if event.event == "message" and event.data:
            position += len(event.json()["text"])
            assert event.id == f"{run}:{position}"


@pytest.mark.parametrize(
    "sent",
    [
        {"params": {"prompt": "水", "max_tokens": "3"}},
        {"json": {"prompt": "水", "max_tokens": 3}},
        {"data": {"prompt": "水", "max_tokens": "3"}},
        {"files": {"prompt": (None, "水"), "max_tokens": (None, "3")}},
        {"params": {"max_tokens": "3"}, "json": {"prompt": "水"}},
    ],
    ids=["url", "json", "form", "multipart", "both"],
)
async def test_the_question_is_read_from_wherever_it_is(tmp_path: Path, sent: dict[str, Any]) -> None:
    async with serving(tmp_path) as live, client(live) as http:
        async with http.stream("POST", "/stream", **sent) as response:
            received = await events(response)
        run = await live.services.runs.get("local", received[-1].id.partition(":")[0])
        pinned = await events_of(live.services.runs._log, run)
    ask = Ask.decode(run.record)
    assert [(m.role, m.content) for m in ask.messages] == [("system", SYSTEM), ("user", "水")]
    assert pinned[-1].payload["usage"]["completion_tokens"] == 3
    assert pinned[-1].payload["finish"] == "length"


async def test_system_and_stop_strings_reach_the_engine(tmp_path: Path) -> None:
    async with serving(tmp_path, Script(answer="one two three")) as live, client(live) as http:
        params = {"prompt": "x", "system": "", "stop": ["three", "two"]}
        async with http.stream("GET", "/stream", params=params) as response:
            received = await events(response)
        run = await live.services.runs.get("local", received[-1].id.partition(":")[0])
    assert "".join(texts(received)) == "one "
    assert [message.role for message in Ask.decode(run.record).messages] == ["user"]


@pytest.mark.parametrize("grain", ["word", "sentence"])
async def test_chunks_are_words_or_sentences(tmp_path: Path, grain: str) -> None:
    async with serving(tmp_path, Script(answer="你好。How are you? 好")) as live, client(live) as http:
        received = texts(await asked(http, prompt="x", chunk=grain))
    assert (
        received
        == {
            "word": ["你", "好。", "How ", "are ", "you? ", "好"],
            "sentence": ["你好。", "How are you? ", "好"],
        }[grain]
    )


async def test_thinking_is_not_part_of_the_answer(tmp_path: Path) -> None:
    async with serving(tmp_path, Script(answer="yes", think=True)) as live, client(live) as http:
        received = await asked(http, prompt="x")
    assert "".join(texts(received)) == "yes"
    assert cursors(received)[-2:] == ["3", "end"]


async def test_a_failure_is_an_error_event_with_a_stable_code(tmp_path: Path) -> None:
    async with serving(tmp_path, Script(fail_on="boom")) as live, client(live) as http:
        received = await asked(http, prompt="boom")
        run = received[-1].id.partition(":")[0]
        again = await http.get("/stream", params={"prompt": "boom"}, headers={"last-event-id": f"{run}:end"})
    assert received[-1].event == "error"
    assert received[-1].json() == {"code": "scripted_failure", "message": "The script fails this prompt."}
    assert again.status_code == 204


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        ({"params": {}}, 400, "empty_prompt"),
        ({"params": {"prompt": " \n"}}, 400, "empty_prompt"),
        ({"params": {"prompt": "字" * 1001}}, 400, "prompt_too_long"),
        ({"params": {"prompt": "x", "system": "字" * 1001}}, 400, "system_too_long"),
        ({"params": {"prompt": "x", "temperature": "hot"}}, 400, "invalid_parameter"),
        ({"params": {"prompt": "x", "temperature": "nan"}}, 400, "invalid_parameter"),
        ({"params": {"prompt": "x", "chunk": "page"}}, 400, "invalid_parameter"),
        ({"params": {"prompt": "x", "promt": "y"}}, 400, "invalid_parameter"),
        ({"params": {"prompt": "x", "key": "k" * 1025}}, 400, "invalid_parameter"),
        ({"params": {"prompt": "x"}, "headers": {"last-event-id": "7"}}, 400, "bad_cursor"),
        ({"params": {"prompt": "x"}, "headers": {"last-event-id": f"{RUN}:-1"}}, 400, "bad_cursor"),
        ({"params": {"prompt": "x"}, "headers": {"last-event-id": f"{RUN}:0"}}, 404, "unknown_run"),
        ({"params": {"prompt": "x"}, "headers": {"last-event-id": f"{RUN}:end"}}, 404, "unknown_run"),
    ],
)
async def test_what_cannot_be_answered_is_refused_and_costs_nothing(
    tmp_path: Path, sent: dict[str, Any], status: int, code: str
) -> None:
    async with serving(tmp_path) as live, client(live) as http:
        response = await http.get("/stream", **sent)
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)
        assert await live.services.runs._log.open_runs() == []


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ({"content": b"{", "headers": {"content-type": "application/json"}}, "bad_json"),
        ({"json": ["x"]}, "bad_json"),
        ({"content": b"hello", "headers": {"content-type": "text/plain"}}, "unknown_body_type"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=y"}}, "bad_form"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, "bad_form"),
        ({"json": {"prompt": 3}}, "invalid_parameter"),
        ({"files": {"prompt": ("a.txt", b"file")}}, "invalid_parameter"),
    ],
)
async def test_a_body_that_cannot_be_read_is_refused(tmp_path: Path, sent: dict[str, Any], code: str) -> None:
    async with serving(tmp_path) as live, client(live) as http:
        response = await http.post("/stream", **sent)
    assert (response.status_code, response.json()["error"]["code"]) == (400, code)


async def test_the_limit_is_a_setting(tmp_path: Path) -> None:
    async with serving(tmp_path, Script(answer="ok"), stream_chars=3) as live, client(live) as http:
        assert (await http.get("/stream", params={"prompt": "👩‍🦰", "system": ""})).status_code == 200
        assert (await http.get("/stream", params={"prompt": "abcd"})).json()["error"][
            "code"
        ] == "prompt_too_long"


async def test_the_docs_show_the_fields_for_the_url_and_for_the_body(tmp_path: Path) -> None:
    async with serving(tmp_path) as live, client(live) as http:
        docs = (await http.get("/openapi.json")).json()
    url = {field["name"] for field in docs["paths"]["/stream"]["get"]["parameters"] if field["in"] == "query"}
    body = docs["paths"]["/stream"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert url == set(body["properties"]) >= {"prompt", "system", "chunk", "format", "key", "stop", "seed"}
    for reference in re.findall(r'"\$ref":"#/([^"]+)"', orjson.dumps(docs).decode()):
        reduce(lambda found, name: found[name], reference.split("/"), docs)


# Coming back


@pytest.mark.real
async def test_a_reader_gets_the_rest_behind_every_code_point(tmp_path: Path) -> None:
    async with serving(tmp_path, Script(answer=ANSWER)) as live, client(live) as http:
        first = await asked(http, prompt="hi")
        run = first[-1].id.partition(":")[0]
        for behind in range(len(ANSWER) + 1):
            grain = list(Grain)[behind % 3]
            headers = {"last-event-id": f"{run}:{behind}"}
            rest = await asked(http, prompt="other", chunk=grain, headers=headers)
            assert "".join(texts(rest)) == ANSWER[behind:]
            assert rest[-1].id == f"{run}:end"
        beyond = await http.get("/stream", headers={"last-event-id": f"{run}:{len(ANSWER) + 1}"})
        ended = await http.get("/stream", headers={"last-event-id": f"{run}:end"})
    assert (beyond.status_code, beyond.json()["error"]["code"]) == (409, "reset")
    assert ended.status_code == 204


@pytest.mark.real
async def test_a_connection_cut_at_every_byte_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """A reader that keeps what an EventSource keeps: whole blocks, and the last id it saw."""
    answer = "好。A\n👍🏽"
    async with (
        serving(tmp_path, Script(answer=answer)) as live,
        Proxy(live.port).open() as proxy,
        httpx.AsyncClient(base_url=proxy.url, trust_env=False) as http,
    ):
        assert await followed(http) == answer
        for after_bytes in range(proxy.streamed_bytes):
            proxy.cut(after_bytes)
            assert await followed(http) == answer


async def followed(http: httpx.AsyncClient) -> str:
    last_id, said = "", ""
    while True:
        asking = http.stream("GET", "/stream", params={"prompt": "x"}, headers={"last-event-id": last_id})
        try:
            async with asking as response:
                if response.status_code == 204:
                    return said
                async for event in EventSource(response).aiter_sse():
                    last_id = event.id or last_id
                    said += event.json()["text"] if event.event == "message" and event.data else ""
        except httpx.TransportError:
            pass


async def test_who_is_cut_off_before_the_first_word_comes_back_to_the_same_run(tmp_path: Path) -> None:
    script = Script(answer="late", tokens_per_second=5)
    async with serving(tmp_path, script) as live, client(live) as http:
        async with http.stream("GET", "/stream", params={"prompt": "x"}) as response:
            cursor = await anext(event.id async for event in EventSource(response).aiter_sse() if event.id)
        assert cursor.endswith(":0")
        rest = await asked(http, prompt="x", headers={"last-event-id": cursor})
        assert "".join(texts(rest)) == "late"
        assert len(live.engine.requests) == 1


async def test_who_comes_back_while_it_is_written_starts_no_second_run(tmp_path: Path) -> None:
    script = Script(answer_tokens=120, tokens_per_second=200)
    async with serving(tmp_path, script) as live, client(live) as http:
        async with http.stream("GET", "/stream", params={"prompt": "x", "seed": 1}) as response:
            lines = EventSource(response).aiter_sse()
            received = [await anext(lines) for _ in range(20)]
        rest = await asked(http, prompt="x", headers={"last-event-id": received[-1].id})
        run = rest[-1].id.partition(":")[0]
        parts = await live.services.runs.text("local", run)
        assert "".join(texts(received) + texts(rest)) == parts[0]["text"]
        assert (await live.services.runs.get("local", run)).last_seq > 20
        await live.until_idle()


async def test_a_reader_goes_on_behind_a_restart_of_the_server(tmp_path: Path) -> None:
    script = Script(answer=ANSWER * 3, tokens_per_second=100)
    async with (
        serving(tmp_path, script) as live,
        client(live) as http,
        http.stream("GET", "/stream", params={"prompt": "x"}) as response,
    ):
        source = EventSource(response).aiter_sse()
        received = [await anext(source) for _ in range(12)]
    async with serving(tmp_path, script) as live, client(live) as http:
        received += await asked(http, headers={"last-event-id": received[-1].id})
    assert "".join(texts(received)) == ANSWER * 3


async def test_the_same_key_is_the_same_run(tmp_path: Path) -> None:
    async with serving(tmp_path, Script(answer_tokens=20)) as live, client(live) as http:
        first = await asked(http, prompt="x", key="k")
        again = await asked(http, prompt="x", key="k", chunk="sentence")
        by_header = await asked(http, prompt="x", headers={"idempotency-key": "k"})
        other = await http.get("/stream", params={"prompt": "y", "key": "k"})
        assert first[-1].id == again[-1].id == by_header[-1].id
        assert "".join(texts(first)) == "".join(texts(again))
        assert (other.status_code, other.json()["error"]["code"]) == (422, "key_reused")


async def test_a_run_without_a_reader_ends_after_its_linger(tmp_path: Path) -> None:
    script = Script(answer_tokens=100_000, tokens_per_second=100)
    async with serving(tmp_path, script, linger_seconds=0.05) as live, client(live) as http:
        async with http.stream("GET", "/stream", params={"prompt": "x"}) as response:
            cursor = await anext(event.id async for event in EventSource(response).aiter_sse() if event.id)
        run = cursor.partition(":")[0]
        assert (await live.until_ended(run)).state == "stopped"
        assert live.engine.active == 0
        rest = await asked(http, headers={"last-event-id": f"{run}:0"})
    assert rest[-1].event == "end"


# The bytes

PIECES = st.lists(
    st.text(min_size=1, max_size=8) | st.sampled_from(["\r", "\n", "\r\n", "\n\n", " ", "\u2028"])
)


def written(pieces: list[str], format: Format, grain: Grain, position: Position) -> bytes:
    writer = _Writer(RUN, format, grain, position)
    said = [(Kind.TEXT, {"text": piece}) for piece in pieces] + [(Kind.DONE, {"finish": "stop"})]
    frames = [framed(1, seq, kind, encode(payload)) for seq, (kind, payload) in enumerate(said, 2)]
    return writer.cursor() + b"".join(writer.frames(unframed(frame)) for frame in frames)


def parsed(body: bytes, cuts: random.Random) -> list[ServerSentEvent]:
    """Read by httpx-sse, the bytes arriving in pieces."""

    def pieces() -> Any:
        at = 0
        while at < len(body):
            size = cuts.randint(1, 9)
            yield body[at : at + size]
            at += size

    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=pieces())
    return list(EventSource(response).iter_sse())


@settings(deadline=None)
@given(pieces=PIECES, grain=st.sampled_from(Grain), mark=st.integers(min_value=0), cuts=st.randoms())
def test_json_carries_every_text_through_every_cut(
    pieces: list[str], grain: Grain, mark: int, cuts: random.Random
) -> None:
    text = "".join(pieces)
    behind = mark % (len(text) + 1)
    received = parsed(written(pieces, Format.JSON, grain, Position(behind)), cuts)
    assert "".join(texts(received)) == text[behind:]


@settings(deadline=None)
@example(pieces=["a\r", "\nb"], grain=Grain.TOKEN, mark=0, cuts=random.Random(1))
@example(pieces=["a\r", "\nb"], grain=Grain.TOKEN, mark=2, cuts=random.Random(1))
@given(pieces=PIECES, grain=st.sampled_from(Grain), mark=st.integers(min_value=0), cuts=st.randoms())
def test_text_differs_only_in_its_line_ends(
    pieces: list[str], grain: Grain, mark: int, cuts: random.Random
) -> None:
    text = "".join(pieces)
    behind = mark % (len(text) + 1)
    position = Position(behind, text[:behind].endswith("\r"))
    received = parsed(written(pieces, Format.TEXT, grain, position), cuts)
    said = "".join(event.data for event in received if event.event == "message" and event.data)
    assert as_lf(text[:behind]) + said == as_lf(text)


def as_lf(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


# The article's page, in a browser


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        try:
            yield browser
        finally:
            await browser.close()


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody before the article's page, which reaches the server through a proxy."""

    page: Page
    proxy: Proxy
    live: Live

    async def ask(self, question: str) -> None:
        await self.page.fill("#user-input", question)
        await self.page.press("#user-input", "Enter")

    async def until_over(self) -> None:
        """Until the page has closed its EventSource and taken the cursor away."""
        await self.page.wait_for_function(
            "eventSource.readyState === EventSource.CLOSED && !document.querySelector('.typing')"
        )

    async def until_shown(self, answer: str) -> None:
        await self.page.wait_for_function(
            "answer => document.querySelector('#response > div:last-child').textContent === answer",
            arg=f"AI: {answer}",
        )

    async def shown(self) -> str:
        text = await self.page.text_content("#response > div:last-child")
        return (text or "").removeprefix("AI:").removeprefix(" ")


@asynccontextmanager
async def visiting(folder: Path, html: str, script: Script) -> AsyncIterator[Visitor]:
    async with (
        serving(folder, script) as live,
        Proxy(live.port).open() as proxy,
        browser() as chromium,
    ):
        page = await chromium.new_page()
        await page.route("**/article.html", lambda route: route.fulfill(body=html, content_type="text/html"))
        await page.goto(f"{proxy.url}/article.html")
        yield Visitor(page, proxy, live)


def article(*changes: tuple[str, str]) -> str:
    html = PAGE.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in html, old
        html = html.replace(old, new)
    return html


SAID = "流式回答：第一句。Second one, 3.14!\n\n- 列表\n- 👩‍👩‍👧‍👦 done；" * 4
SLOWLY = Script(answer=SAID, tokens_per_second=150)
KEYED = ("format=text&", "format=text&key=${encodeURIComponent(prompt)}&")
CLOSE = "eventSource.onerror = () => {\neventSource.close();"
KEEP_OPEN = (
    CLOSE,
    "eventSource.onerror = () => {\nif (eventSource.readyState !== EventSource.CLOSED) return;",
)


@pytest.mark.real
async def test_the_articles_page_works_changed_only_in_its_urls_parameters(tmp_path: Path) -> None:
    async with visiting(tmp_path, article(), SLOWLY) as visitor:
        await visitor.ask("你好")
        await visitor.until_over()
        assert await visitor.shown() == SAID
        assert len(visitor.live.engine.requests) == 1


@pytest.mark.real
async def test_the_articles_page_gives_up_at_a_cut_and_the_same_key_gives_it_the_whole_answer(
    tmp_path: Path,
) -> None:
    """Its onerror closes the EventSource: nothing that a server sends can reach it any more. What a key in
    the URL does is that asking again is no second generation, and shows the text once."""
    async with visiting(tmp_path, article(KEYED), SLOWLY) as visitor:
        visitor.proxy.cut(len(SAID.encode()))  # in however few events: with their frames it is more
        await visitor.ask("你好")
        await visitor.until_over()
        partial = await visitor.shown()
        assert 0 < len(partial) < len(SAID)
        assert SAID.startswith(partial)
        await visitor.ask("你好")
        await visitor.until_shown(SAID)
        await visitor.until_over()
        assert await visitor.shown() == SAID
        assert len(visitor.live.engine.requests) == 1


@pytest.mark.real
async def test_the_articles_page_that_does_not_close_is_carried_through_every_cut(tmp_path: Path) -> None:
    """EventSource comes back with the last id by itself, and stops at the 204 behind the end."""
    seed = random.randrange(2**32)
    print(f"{seed=}")
    draw = random.Random(seed)
    async with visiting(tmp_path, article(KEEP_OPEN), SLOWLY) as visitor:
        visitor.proxy.cut(draw.randrange(150), draw.randrange(150, 4000), draw.randrange(4000))
        await visitor.ask("你好")
        await visitor.until_over()
        assert await visitor.shown() == SAID


@pytest.mark.real
async def test_the_articles_reconnecting_page_ends_with_the_text_once_if_its_url_has_a_key(
    tmp_path: Path,
) -> None:
    """Its setupSSE asks the same URL anew, without a cursor, and starts its text anew with it."""
    setup = (
        ("eventSource = new EventSource(", "function setupSSE() {\neventSource = new EventSource("),
        (CLOSE, "eventSource.onerror = () => {\nsetTimeout(setupSSE, 300);\neventSource.close();"),
        ("};\n}\nuserInput", "};\n}\nsetupSSE();\n}\nuserInput"),
    )
    async with visiting(tmp_path, article(KEYED, *setup), SLOWLY) as visitor:
        visitor.proxy.cut(3000, 5000)
        await visitor.ask("你好")
        await visitor.until_shown(SAID)
        assert len(visitor.live.engine.requests) == 1
