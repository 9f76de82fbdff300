"""The native API over real sockets. Streams are read by a parser that we did not write."""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import ServerSentEvent, aconnect_sse
from jsonschema import Draft202012Validator

from inkstream.engines.scripted import Script
from inkstream.errors import ConfigError
from tests.live import Live, Proxy, serving

SCHEMAS = Path(__file__).parent.parent / "src/inkstream/api/wire"
SLOW = Script(tokens_per_second=200, answer_tokens=60)
ENDLESS = Script(tokens_per_second=200, answer_tokens=1_000_000)


def client(live: Live, **headers: str) -> httpx.AsyncClient:
    return client_of(live.url, headers)


def client_of(url: str, headers: dict[str, str] | None = None) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, trust_env=False, headers=headers, timeout=20)


async def ask(
    http: httpx.AsyncClient, content: str = "hello", chat: str | None = None, **body: Any
) -> dict[str, Any]:
    chat = chat or (await http.post("/api/chats", json={})).json()["id"]
    said = {"content": content, "sampling": {"temperature": 0}, **body}
    reply = await http.post(f"/api/chats/{chat}/messages", json=said)
    assert reply.status_code == 202, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


async def follow(http: httpx.AsyncClient, run: str, last_id: str = "") -> AsyncGenerator[ServerSentEvent]:
    headers = {"Last-Event-ID": last_id} if last_id else {}
    async with aconnect_sse(http, "GET", f"/api/runs/{run}/events", headers=headers) as source:
        if source.response.status_code == 204:
            return
        assert source.response.status_code == 200
        async for event in source.aiter_sse():
            # This parser also reports the block with the retry time; `stored` is about the connection.
            if event.data and json.loads(event.data).get("key") != "stored":
                yield event


def text_of(events: list[ServerSentEvent]) -> str:
    return "".join(json.loads(e.data)["text"] for e in events if e.event == "text")


async def first_text(http: httpx.AsyncClient, run: str) -> None:
    async with aclosing(follow(http, run)) as events:
        async for event in events:
            if event.event == "text":
                return


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    while not await condition():  # noqa: ASYNC110  # nothing rings when it comes true
        await asyncio.sleep(0.01)


def error_of(reply: httpx.Response) -> str:
    code: str = reply.json()["error"]["code"]
    assert reply.json()["error"]["message"]
    return code


# Streaming


async def test_a_stream_says_what_proxies_and_browsers_need(tmp_path: Path) -> None:
    async with serving(tmp_path) as live, client(live) as http:
        run = (await ask(http))["run"]["id"]
        reply = await http.get(f"/api/runs/{run}/events")
        assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert reply.headers["cache-control"] == "no-store, no-transform"
        assert reply.headers["x-accel-buffering"] == "no"
        assert reply.content.startswith(b"retry: 2000\n: ok\n\n")


async def test_every_event_is_as_the_schema_says(tmp_path: Path) -> None:
    schema = json.loads((SCHEMAS / "events.schema.json").read_text())
    async with serving(tmp_path, Script(think=True, slots=1)) as live, client(live) as http:
        runs = [(await ask(http))["run"]["id"] for _ in range(3)]
        kinds = set()
        for run in runs:
            async for event in follow(http, run):
                told = {**schema, "$ref": f"#/$defs/{event.event}"}
                Draft202012Validator(told).validate(json.loads(event.data))
                kinds.add(event.event)
        assert {"started", "text", "done"} <= kinds


async def test_every_cursor_gives_the_rest(tmp_path: Path) -> None:
    async with serving(tmp_path, Script(answer_tokens=25)) as live, client(live) as http:
        run = (await ask(http))["run"]["id"]
        events = [event async for event in follow(http, run)]
        whole = text_of(events)
        for at, event in enumerate(events):
            rest = [e async for e in follow(http, run, event.id)]
            assert [e.id for e in rest] == [e.id for e in events[at + 1 :]]
            assert text_of(events[: at + 1]) + text_of(rest) == whole
            plain = await http.get(f"/api/runs/{run}/events", params={"after": at + 1})
            assert plain.status_code == (204 if at + 1 == len(events) else 200)


async def test_the_last_event_id_wins_over_after(tmp_path: Path) -> None:
    async with serving(tmp_path) as live, client(live) as http:
        run = (await ask(http))["run"]["id"]
        events = [event async for event in follow(http, run)]
        reply = await http.get(f"/api/runs/{run}/events?after=1", headers={"Last-Event-ID": events[-2].id})
        assert reply.text.count("\nid: ") == 1


@pytest.mark.real
async def test_a_connection_cut_at_any_byte_loses_and_doubles_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path, Script(answer_tokens=6)) as live, client(live) as http:
        run = (await ask(http))["run"]["id"]
        whole = [event async for event in follow(http, run)]
        length = len((await http.get(f"/api/runs/{run}/events")).content)
        async with Proxy(live.port).open() as proxy, client_of(proxy.url) as flaky:
            for cut in range(random.randrange(3), length, 3):
                proxy.cut(cut)
                events = await read_through(flaky, run)
                assert [(e.id, e.data) for e in events] == [(e.id, e.data) for e in whole]


async def read_through(http: httpx.AsyncClient, run: str) -> list[ServerSentEvent]:
    """Read a run to its end as a browser does, through as many connections as it takes."""
    events: list[ServerSentEvent] = []
    while not events or events[-1].event not in ("done", "stopped", "failed"):
        try:
            last_id = events[-1].id if events else ""
            async for event in follow(http, run, last_id):
                if event.event != "note":
                    events.append(event)
        except httpx.TransportError:
            continue
    return events


async def test_what_is_there_now_can_be_had_without_waiting(tmp_path: Path) -> None:
    async with serving(tmp_path, SLOW) as live, client(live) as http:
        run = (await ask(http))["run"]["id"]
        said, last_id, lines = "", "", 0
        while True:
            reply = await http.get(
                f"/api/runs/{run}/events?wait=0", headers={"Last-Event-ID": last_id} if last_id else {}
            )
            if reply.status_code == 204:
                break
            assert reply.text.startswith("retry: 2000\n: ok\n\n")
            lines += 1
            for block in reply.text.split("\n\n"):
                fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
                last_id = fields.get("id", last_id)
                if fields.get("event") == "text":
                    said += json.loads(fields["data"])["text"]
        assert lines > 1
        assert said == text_of([event async for event in follow(http, run)])


async def test_a_reader_is_told_what_was_said_before_it_came(tmp_path: Path) -> None:
    async with serving(tmp_path, SLOW) as live, client(live) as http:
        run = (await ask(http))["run"]["id"]
        await live.until_ended(run)
        last = (await http.get(f"/api/runs/{run}")).json()["last_seq"]
        for after, notes in ((0, 1), (last - 1, 1), (last, 0)):
            reply = await http.get(f"/api/runs/{run}/events?after={after}")
            told = f'event: note\ndata: {{"key":"stored","seq":{last}}}\n\n'
            assert reply.text.count(told) == notes
            assert reply.text.startswith("retry: 2000\n: ok\n\n" + told) == bool(notes)


async def test_the_live_feed_as_it_is_now(tmp_path: Path) -> None:
    async with serving(tmp_path, SLOW) as live, client(live) as http:
        run = (await ask(http))["run"]["id"]
        reply = await http.get("/api/live?wait=0")
        assert reply.text.count("event: ") == 1
        assert run in reply.text


async def test_many_readers_of_a_live_run_see_the_same(tmp_path: Path) -> None:
    async with serving(tmp_path, SLOW) as live, client(live) as http:
        run = (await ask(http))["run"]["id"]

        async def read() -> str:
            return text_of([event async for event in follow(http, run)])

        texts = await asyncio.gather(*(read() for _ in range(30)))
        assert len(set(texts)) == 1
        assert texts[0]


async def test_a_quiet_stream_is_kept_open_by_comments(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, Script(stall_on="hello"), heartbeat_seconds=0.05) as live,
        client(live) as http,
    ):
        run = (await ask(http))["run"]["id"]
        beats = 0
        async with http.stream("GET", f"/api/runs/{run}/events") as reply:
            async for piece in reply.aiter_raw():
                beats += piece == b":\n\n"
                if beats == 3:
                    break
        assert beats == 3


@pytest.mark.real
async def test_a_reader_that_takes_nothing_is_cut_off_and_slows_nobody(tmp_path: Path) -> None:
    script = Script(answer_tokens=400_000, context=2**20)
    async with serving(tmp_path, script, patience_seconds=0.3) as live, client(live) as http:
        run = (await ask(http))["run"]["id"]

        async def no_stream_is_open() -> bool:
            return len(live.services.streams) == 0

        with socket.socket() as reader:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect(("127.0.0.1", live.port))
            reader.sendall(f"GET /api/runs/{run}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            events = [event async for event in follow(http, run)]
            assert events[-1].event == "done"
            await until(no_stream_is_open)
            reader.settimeout(10)
            got = await asyncio.to_thread(lambda: b"".join(iter(lambda: reader.recv(65536), b"")))
        assert b"event: text" in got
        assert b"event: done" not in got


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("/api/runs/nobody/events", {}, 404, "unknown_run"),
        ("/api/runs/RUN/events?after=999", {}, 409, "reset"),
        ("/api/runs/RUN/events", {"Last-Event-ID": "9:1"}, 409, "reset"),
        ("/api/runs/RUN/events", {"Last-Event-ID": "x"}, 400, "bad_cursor"),
        ("/api/runs/RUN/events", {"Last-Event-ID": "-1"}, 400, "bad_cursor"),
        ("/api/runs/RUN/events?after=-1", {}, 400, "invalid_parameter"),
        ("/api/runs/RUN/events?after=x", {}, 400, "invalid_parameter"),
        ("/api/messages/nobody", {}, 404, "unknown_message"),
        ("/api/chats/nobody", {}, 404, "unknown_chat"),
        ("/api/nothing", {}, 404, "unknown_path"),
    ],
)
async def test_a_wrong_address_or_cursor_is_named(
    tmp_path: Path, path: str, headers: dict[str, str], status: int, code: str
) -> None:
    async with serving(tmp_path) as live, client(live) as http:
        run = (await ask(http))["run"]["id"]
        [_ async for _ in follow(http, run)]
        reply = await http.get(path.replace("RUN", run), headers=headers)
        assert (reply.status_code, error_of(reply)) == (status, code)


async def test_an_expired_run_is_gone_with_the_address_of_its_message(tmp_path: Path) -> None:
    async with serving(tmp_path) as live, client(live) as http:
        asked = await ask(http)
        run = asked["run"]["id"]
        [_ async for _ in follow(http, run)]
        await until(lambda: live.services.runs._log.expire(2**40, 1))
        reply = await http.get(f"/api/runs/{run}/events")
        assert (reply.status_code, error_of(reply)) == (410, "expired")
        message = await http.get(reply.json()["error"]["message_path"])
        assert message.json()["id"] == asked["message"]["id"]


# Asking


async def test_requests_that_are_repeated_before_the_first_is_answered_are_one_answer(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, SLOW) as live, client(live) as http:
        chat = (await http.post("/api/chats", json={})).json()["id"]
        post = partial(
            http.post,
            f"/api/chats/{chat}/messages",
            json={"content": "hello"},
            headers={"Idempotency-Key": "once"},
        )
        replies = await asyncio.gather(*(post() for _ in range(30)))
        assert {reply.status_code for reply in replies} == {202}, [reply.text for reply in replies]
        assert len({reply.json()["run"]["id"] for reply in replies}) == 1
        assert len((await http.get(f"/api/chats/{chat}")).json()["messages"]) == 2


async def test_a_repeated_request_is_one_answer_and_another_body_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, SLOW) as live, client(live, **{"Idempotency-Key": "once"}) as http:
        chat = (await http.post("/api/chats", json={})).json()["id"]
        path = f"/api/chats/{chat}/messages"
        replies = await asyncio.gather(*(http.post(path, json={"content": "hello"}) for _ in range(20)))
        assert {r.status_code for r in replies} == {202}
        assert len({r.json()["run"]["id"] for r in replies}) == 1
        assert len({r.json()["message"]["id"] for r in replies}) == 1
        run = replies[0].json()["run"]["id"]
        written = text_of([event async for event in follow(http, run)])
        late = (await http.post(path, json={"content": "hello"})).json()["message"]
        assert (late["state"], late["parts"][0]["text"]) == ("done", written)
        other = await http.post(path, json={"content": "another"})
        assert (other.status_code, error_of(other)) == (422, "key_reused")
        assert len((await http.get(f"/api/chats/{chat}")).json()["messages"]) == 2


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"content": ""}, "empty_prompt"),
        ({"content": " \n "}, "empty_prompt"),
        ({}, "invalid_parameter"),
        ({"content": "a", "regenerate": "b"}, "invalid_parameter"),
        ({"content": "a", "unknown": 1}, "invalid_parameter"),
        ({"content": 5}, "invalid_parameter"),
        ({"content": "a", "sampling": {"temperature": -1}}, "invalid_parameter"),
        ({"content": "a", "sampling": {"top_p": 2}}, "invalid_parameter"),
        ({"content": "a", "sampling": {"max_tokens": 0}}, "invalid_parameter"),
        ({"content": "a", "sampling": {"seed": -1}}, "invalid_parameter"),
        ({"content": "a", "sampling": {"stop": [""]}}, "invalid_parameter"),
        ({"content": "a", "sampling": {"colour": 1}}, "invalid_parameter"),
        ({"content": "x" * 5000}, "prompt_too_long"),
    ],
)
async def test_a_bad_question_is_refused_by_name_and_costs_nothing(
    tmp_path: Path, body: dict[str, Any], code: str
) -> None:
    async with serving(tmp_path, Script(context=256)) as live, client(live) as http:
        chat = (await http.post("/api/chats", json={})).json()["id"]
        reply = await http.post(f"/api/chats/{chat}/messages", json=body)
        assert (reply.status_code, error_of(reply)) == (400, code)
        assert (await http.get(f"/api/chats/{chat}")).json()["messages"] == []


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_a_body_that_does_not_say_it_is_json_is_told_how(kind: str, tmp_path: Path) -> None:
    async with serving(tmp_path) as live, client(live) as http:
        reply = await http.post("/api/chats", content=b"{}", headers={"Content-Type": kind})
    assert (reply.status_code, error_of(reply)) == (400, "invalid_parameter")
    assert "Content-Type: application/json" in reply.json()["error"]["message"]


async def test_a_body_that_is_no_json_or_too_large_is_named(tmp_path: Path) -> None:
    async with serving(tmp_path, body_kib=1) as live, client(live) as http:
        as_json = {"Content-Type": "application/json"}
        reply = await http.post("/api/chats", content=b'{"title": ', headers=as_json)
        assert (reply.status_code, error_of(reply)) == (400, "bad_json")
        assert "not valid JSON" in reply.json()["error"]["message"]
        reply = await http.post("/v1/chat/completions", content=b'{"title": ', headers=as_json)
        assert (reply.json()["error"]["code"], reply.json()["error"]["param"]) == ("bad_json", None)
        reply = await http.post("/api/chats", content=b"\xff\xfe", headers=as_json)
        assert reply.status_code == 400
        reply = await http.post("/api/chats", content=b'"%s"' % (b"x" * 2000), headers=as_json)
        assert (reply.status_code, error_of(reply)) == (413, "body_too_large")

        async def pieces() -> AsyncGenerator[bytes]:
            for _ in range(20):
                yield b"x" * 100

        reply = await http.post("/api/chats", content=pieces(), headers=as_json)
        assert (reply.status_code, error_of(reply)) == (413, "body_too_large")


async def test_a_full_queue_is_refused_with_a_time(tmp_path: Path) -> None:
    script = Script(slots=1, stall_on="hello")
    async with serving(tmp_path, script, queue=1) as live, client(live) as http:
        await ask(http)
        await ask(http)
        chat = (await http.post("/api/chats", json={})).json()["id"]
        reply = await http.post(f"/api/chats/{chat}/messages", json={"content": "hello"})
        assert (reply.status_code, error_of(reply)) == (503, "queue_full")
        assert int(reply.headers["retry-after"]) >= 1


async def test_stop_answers_with_the_ended_run_and_frees_the_slot(tmp_path: Path) -> None:
    async with serving(tmp_path, ENDLESS) as live, client(live) as http:
        run = (await ask(http))["run"]["id"]
        await first_text(http, run)
        reply = await http.post(f"/api/runs/{run}/stop")
        assert (reply.status_code, reply.json()["state"]) == (200, "stopped")
        assert live.engine.active == 0
        assert (await http.post(f"/api/runs/{run}/stop")).json() == reply.json()


# Conversations


async def test_a_conversation_is_kept_found_renamed_and_deleted(tmp_path: Path) -> None:
    async with serving(tmp_path, Script(answer="流式输出 100%")) as live, client(live) as http:
        asked = await ask(http, "什么是 SSE?")
        chat, run = asked["message"]["chat"], asked["run"]["id"]
        [_ async for _ in follow(http, run)]
        assert (await http.get(f"/api/chats/{chat}")).json()["chat"]["title"] == "什么是 SSE?"
        for query, found in (("sse", 1), ("流式", 1), ("100%", 1), ("100_", 0), ("absent", 0), ("", 1)):
            assert len((await http.get("/api/chats", params={"query": query})).json()["chats"]) == found
        assert (await http.patch(f"/api/chats/{chat}", json={"title": "new"})).json()["title"] == "new"
        assert (await http.delete(f"/api/chats/{chat}")).status_code == 204
        assert (await http.get(f"/api/chats/{chat}")).status_code == 404


async def test_deleting_a_conversation_stops_its_answers(tmp_path: Path) -> None:
    async with serving(tmp_path, ENDLESS) as live, client(live) as http:
        asked = await ask(http)
        await first_text(http, asked["run"]["id"])
        assert (await http.delete(f"/api/chats/{asked['message']['chat']}")).status_code == 204
        assert live.engine.active == 0


async def test_branches_regenerate_and_continue(tmp_path: Path) -> None:
    script = Script(answer_tokens=16, tokens_per_second=20)  # slower than any machine asks again
    async with serving(tmp_path, script) as live, client(live) as http:
        asked = await ask(http, sampling={"temperature": 1, "max_tokens": 10})
        chat, message = asked["message"]["chat"], asked["message"]["id"]
        path = f"/api/chats/{chat}/messages"
        busy = await http.post(path, json={"content": "too early"})
        assert (busy.status_code, error_of(busy)) == (409, "run_active")
        [_ async for _ in follow(http, asked["run"]["id"])]
        cut = (await http.get(f"/api/messages/{message}")).json()
        assert (cut["state"], cut["finish"]) == ("done", "length")
        more = (await http.post(path, json={"continue": message})).json()
        assert more["message"]["id"] == message
        [_ async for _ in follow(http, more["run"]["id"])]
        whole = (await http.get(f"/api/messages/{message}")).json()
        assert whole["parts"][0]["text"].startswith(cut["parts"][0]["text"])
        assert whole["finish"] == "stop"
        seed = json.loads((await anext(follow(http, asked["run"]["id"]))).data)["seed"]
        same = {"temperature": 1, "seed": seed}
        again = (await http.post(path, json={"regenerate": message, "sampling": same})).json()
        [_ async for _ in follow(http, again["run"]["id"])]
        beside = (await http.get(f"/api/messages/{again['message']['id']}")).json()
        assert beside["parent"] == whole["parent"]
        assert beside["parts"] == whole["parts"]
        complete = await http.post(path, json={"continue": message})
        assert (complete.status_code, error_of(complete)) == (400, "nothing_to_continue")


# The live feed


async def test_the_live_feed_tells_what_runs_start_and_end(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, SLOW) as live,
        client(live) as http,
        aconnect_sse(http, "GET", "/api/live") as source,
    ):
        events = (event async for event in source.aiter_sse() if event.data)
        snapshot = await anext(events)
        assert (snapshot.event, json.loads(snapshot.data)["runs"]) == ("snapshot", [])
        run = (await ask(http))["run"]["id"]
        states = []
        async for event in events:
            if event.event == "run" and json.loads(event.data)["id"] == run:
                states.append(json.loads(event.data)["state"])
                if states[-1] == "done":
                    break
        assert states[0] == "queued"


# Who is let in


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": ""}, 403),
        ({"Host": "chat.lan:8000"}, 200),
        ({"Host": "192.168.1.5:8000"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://friend.example"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
    ],
)
async def test_foreign_hosts_and_pages_are_kept_out(
    tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    friends = ("https://friend.example",)
    async with serving(tmp_path, hosts=("chat.lan",), cors_origins=friends) as live, client(live) as http:
        reply = await http.get("/api/chats", headers=headers)
        assert reply.status_code == status
        if status == 403:
            assert error_of(reply) in ("foreign_host", "foreign_origin")


async def test_a_link_may_lead_to_the_page_from_anywhere(tmp_path: Path) -> None:
    async with serving(tmp_path) as live, client(live) as http:
        headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        assert (await http.get("/", headers=headers)).status_code in (200, 503)


async def test_all_origins_at_once_are_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Name each origin"):
        async with serving(tmp_path, cors_origins=("*",)):
            pass


@pytest.mark.parametrize("named", ["https://friend.example", "https://friend.example/"])
async def test_a_named_origin_may_ask_and_no_other_is_told_that_it_may(named: str, tmp_path: Path) -> None:
    async with serving(tmp_path, cors_origins=(named,)) as live, client(live) as http:
        headers = {"Origin": "https://friend.example", "Access-Control-Request-Method": "POST"}
        reply = await http.options("/api/chats", headers=headers)
        assert reply.headers["access-control-allow-origin"] == "https://friend.example"
    async with serving(tmp_path) as live, client(live) as http:
        reply = await http.options("/api/chats", headers=headers)
        assert "access-control-allow-origin" not in reply.headers


async def test_a_key_is_asked_for_and_the_page_gets_a_cookie_for_it(tmp_path: Path) -> None:
    async with serving(tmp_path, key="secret") as live, client(live) as http:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": "inkstream=secret"}):
            reply = await http.get("/api/chats", headers=headers)
            assert (reply.status_code, error_of(reply)) == (401, "unauthorized")
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/api/chats", headers={"Authorization": "Bearer secret"})).status_code == 200
        assert (await http.post("/api/session", json={"key": "wrong"})).status_code == 401
        signed_in = await http.post("/api/session", json={"key": "secret"})
        assert signed_in.status_code == 204
        cookie = signed_in.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert "secret" not in cookie
        assert (await http.get("/api/chats")).status_code == 200


@pytest.mark.parametrize("prefix", ["", "/chat"])
async def test_everything_works_under_a_base_path(tmp_path: Path, prefix: str) -> None:
    """``prefix`` is what the proxy in front has left on the address."""
    async with serving(tmp_path, base_path="/chat/") as live, client(live) as http:
        http.base_url = httpx.URL(f"{live.url}{prefix}/")
        run = (await ask(http))["run"]["id"]
        assert [event async for event in follow(http, run)][-1].event == "done"
        for name in await named_by_the_docs(http):
            assert (await http.get(name)).status_code == 200
        assert (await http.get("/healthz")).json() == {"status": "ok"}


async def test_a_base_path_that_comes_twice_leads_past_nobody(tmp_path: Path) -> None:
    """What the guard has looked at is what the routes are asked for."""
    async with serving(tmp_path, base_path="/chat", key="secret") as live, client(live) as http:
        for path in ("/chat/chat/api/status", "/chat/chat/chat/docs", "/chat/chat/openapi.json"):
            assert (await http.get(path)).status_code == 401


@pytest.mark.parametrize("path", ["/api", "/v1/", "/stream", "/docs"])
async def test_a_base_path_that_is_the_apis_own_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(ConfigError, match="INKSTREAM_BASE_PATH"):
        async with serving(tmp_path, base_path=path):
            pytest.fail("it could mean either")


# Restarting


async def test_a_restart_closes_the_streams_and_their_readers_come_back(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    choose = random.Random(seed)
    async with serving(tmp_path / "other", SLOW) as live, client(live) as http:
        undisturbed = text_of(await read_through(http, (await ask(http))["run"]["id"]))
    events: list[ServerSentEvent] = []
    async with serving(tmp_path, SLOW) as live, client(live) as http:
        run = (await ask(http))["run"]["id"]
        async with aclosing(follow(http, run)) as live_events:
            stop_at = choose.randrange(2, 40)
            async for event in live_events:
                events += [event] if event.event != "note" else []
                if len(events) == stop_at:
                    break
    async with serving(tmp_path, SLOW) as live, client(live) as http:
        events += [e async for e in follow(http, run, events[-1].id) if e.event != "note"]
        assert text_of(events) == undisturbed
        assert [int(e.id.partition(":")[2]) for e in events] == list(range(1, len(events) + 1))


async def test_a_reader_that_comes_while_the_server_closes_gets_a_whole_reply(tmp_path: Path) -> None:
    async with serving(tmp_path, SLOW) as live, client(live) as http:
        run = (await ask(http))["run"]["id"]
        live.services.streams.close()
        reply = await http.get(f"/api/runs/{run}/events")
        assert (reply.status_code, reply.headers["content-type"]) == (
            200,
            "text/event-stream; charset=utf-8",
        )


async def named_by_the_docs(http: httpx.AsyncClient) -> list[str]:
    """Every address that the docs and the script that starts them name, the script's own included."""
    page = await http.get("docs")
    assert "script-src 'self';" in page.headers["content-security-policy"]
    script = await http.get("docs/start.js")
    named: list[str] = re.findall(r'(?:href|src)="([^"]+)"', page.text) + re.findall(
        r"url: '(.+?)'", script.text
    )
    assert "//" not in page.text + script.text
    assert {"docs/start.js", "docs/swagger-ui-bundle.js", "openapi.json"} < set(named)
    return named


async def test_the_docs_name_no_other_host(tmp_path: Path) -> None:
    async with serving(tmp_path) as live, client(live) as http:
        assert all(httpx.URL(name).is_relative_url for name in await named_by_the_docs(http))


async def test_the_docs_and_what_they_load_want_the_key(tmp_path: Path) -> None:
    async with serving(tmp_path, key="secret") as live, client(live) as http:
        for path in ("/docs", "/docs/start.js", "/docs/swagger-ui.css", "/openapi.json"):
            assert (await http.get(path)).status_code == 401


async def test_the_description_and_the_health_are_there(tmp_path: Path) -> None:
    async with serving(tmp_path) as live, client(live) as http:
        assert (await http.get("/readyz")).status_code == 200
        for path in ("/healthz", "/readyz"):
            reply = await http.head(path)
            assert (reply.status_code, reply.content) == (200, b"")
        assert "/api/chats/{chat}/messages" in (await http.get("/openapi.json")).json()["paths"]
    async with serving(tmp_path, Script(load_seconds=60)) as live, client(live) as http:
        reply = await http.get("/readyz")
        assert (reply.status_code, reply.json()["engine"]["phase"]) == (503, "loading")
        assert (await http.get("/healthz")).status_code == 200
