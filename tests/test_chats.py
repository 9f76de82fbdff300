"""Conversations over real sockets: settings, pages, search, deletion, export, import, the context."""

from __future__ import annotations

import asyncio
import json
import re
from copy import deepcopy
from email.message import Message as Headers
from email.utils import collapse_rfc2231_value
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from httpx_sse import aconnect_sse
from jsonschema import Draft202012Validator

from inkstream.engines.scripted import Script
from inkstream.errors import NotFound
from inkstream.history import Changed, History, Message
from tests.live import Live, serving
from tests.test_api import ENDLESS, SLOW, ask, client, error_of, first_text, follow

WIRE = Path(__file__).parent.parent / "wire"
SCHEMA = json.loads((WIRE.parent / "src/inkstream/api/wire/chats.schema.json").read_text())


def require(shape: str, value: Any) -> None:
    """Raises ValidationError where the value is not what ``wire/`` says."""
    Draft202012Validator({**SCHEMA, "$ref": f"#/$defs/{shape}"}).validate(value)


async def create(http: httpx.AsyncClient, **body: Any) -> str:
    reply = await http.post("/api/chats", json=body)
    assert reply.status_code == 201, reply.text
    require("chat", reply.json())
    return str(reply.json()["id"])


async def answered(http: httpx.AsyncClient, content: str = "hello", **body: Any) -> dict[str, Any]:
    asked = await ask(http, content, **body)
    [_ async for _ in follow(http, asked["run"]["id"])]
    return asked


async def get(http: httpx.AsyncClient, path: str, shape: str, **params: Any) -> Any:
    reply = await http.get(path, params=params)
    assert reply.status_code == 200, reply.text
    require(shape, reply.json())
    return reply.json()


@pytest.mark.parametrize("path", sorted((WIRE / "chats").glob("*.json")), ids=lambda path: path.stem)
def test_a_golden_reply_is_as_the_schema_says(path: Path) -> None:
    golden = json.loads(path.read_bytes())
    require(golden["shape"], golden["value"])
    for chat, marked in zip(golden["value"].get("chats", []), golden.get("marked", []), strict=False):
        units = chat["match"]["snippet"].encode("utf-16-le")
        assert [units[2 * a : 2 * b].decode("utf-16-le") for a, b in chat["match"]["hits"]] == marked


# Settings


async def test_a_conversation_keeps_its_settings_and_answers_are_made_with_them(tmp_path: Path) -> None:
    async with serving(tmp_path) as live, client(live) as http:
        sampling = {"temperature": 0.5, "top_k": None, "stop": ["x"]}
        chat = await create(http, settings={"system": "be brief", "sampling": sampling})
        path = f"/api/chats/{chat}"
        asked = (await http.post(f"{path}/messages", json={"content": "one"})).json()
        require("asked", asked)
        await live.until_idle()
        answer = (await http.get(f"/api/messages/{asked['message']['id']}")).json()
        made_with = answer["made_with"]
        assert (made_with["model"], made_with["system"]) == ("scripted", "be brief")
        assert made_with["sampling"].items() >= {"temperature": 0.5, "stop": ["x"]}.items()
        assert live.engine.requests[-1].sampling.temperature == 0.5
        assert live.engine.requests[-1].sampling.stop == ("x",)
        own = {"system": None, "sampling": {"temperature": 0.1, "stop": None}}
        await http.post(f"{path}/messages", json={"content": "two", **own})
        await live.until_idle()
        request = live.engine.requests[-1]
        assert (request.sampling.temperature, request.sampling.stop) == (0.1, ())
        assert "be brief" not in request.prompt.payload["text"]
        require("conversation", (await http.get(path)).json())


async def test_settings_are_patched_in_part(tmp_path: Path) -> None:
    async with serving(tmp_path) as live, client(live) as http:
        chat = await create(http, settings={"system": "s", "sampling": {"seed": 1, "top_p": 0.5}})
        path = f"/api/chats/{chat}"
        for patch, system, sampling in (
            ({"sampling": {"seed": 2}}, "s", {"seed": 2, "top_p": 0.5}),
            ({"sampling": {"top_p": None, "stop": ["a"]}}, "s", {"seed": 2, "stop": ["a"]}),
            ({"system": None}, None, {"seed": 2, "stop": ["a"]}),
            ({"sampling": {"stop": []}}, None, {"seed": 2}),
            ({"sampling": None}, None, {}),
        ):
            changed = (await http.patch(path, json={"settings": patch})).json()
            assert changed["settings"] == {"system": system, "sampling": sampling}
        assert (await http.patch(path, json={"title": " new "})).json()["title"] == "new"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"settings": {"sampling": {"temperature": 9}}}, "settings.sampling.temperature"),
        ({"settings": {"sampling": {"colour": 1}}}, "settings.sampling.colour"),
        ({"settings": {"system": 5}}, "settings.system"),
        ({"settings": {"system": "x" * 40_000}}, "settings.system"),
        ({"settings": None}, "settings"),
        ({"title": "x" * 201}, "title"),
        ({"colour": 1}, "colour"),
    ],
)
async def test_settings_that_cannot_be_are_refused_by_name(
    tmp_path: Path, body: dict[str, Any], param: str
) -> None:
    async with serving(tmp_path) as live, client(live) as http:
        chat = await create(http)
        for reply in (
            await http.post("/api/chats", json=body),
            await http.patch(f"/api/chats/{chat}", json=body),
        ):
            assert (reply.status_code, error_of(reply)) == (400, "invalid_parameter")
            assert reply.json()["error"]["message"].startswith(f"{param}:")
        blank = await http.patch(f"/api/chats/{chat}", json={"title": " "})
        assert (blank.status_code, error_of(blank)) == (400, "invalid_parameter")


async def test_an_answer_is_continued_with_what_it_was_begun_with(tmp_path: Path) -> None:
    async with serving(tmp_path, SLOW) as live, client(live) as http:
        chat = await create(http, settings={"system": "one", "sampling": {"max_tokens": 5, "seed": 3}})
        asked = (await http.post(f"/api/chats/{chat}/messages", json={"content": "hello"})).json()
        await live.until_idle()
        await http.patch(f"/api/chats/{chat}", json={"settings": {"system": "two", "sampling": {"seed": 4}}})
        body = {"continue": asked["message"]["id"]}
        more = (await http.post(f"/api/chats/{chat}/messages", json=body)).json()
        assert more["message"]["made_with"]["system"] == "one"
        await live.until_idle()
        assert live.engine.requests[-1].sampling.seed == 3
        assert '"one"' in live.engine.requests[-1].prompt.payload["text"]


# Creating


async def test_a_repeated_creation_leaves_no_empty_conversation_behind(tmp_path: Path) -> None:
    async with serving(tmp_path) as live, client(live, **{"Idempotency-Key": "once"}) as http:
        replies = await asyncio.gather(*(http.post("/api/chats", json={"title": "a"}) for _ in range(20)))
        assert {reply.status_code for reply in replies} == {201}
        assert len({reply.text for reply in replies}) == 1
        assert len((await get(http, "/api/chats", "page"))["chats"]) == 1
        other = await http.post("/api/chats", json={"title": "b"})
        assert (other.status_code, error_of(other)) == (422, "key_reused")


async def test_the_first_question_names_the_conversation_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path, ENDLESS) as live, client(live) as http:
        asked = await ask(http, "What is\nstreaming?")
        assert asked["chat"]["title"] == "What is"
        assert asked["chat"]["runs"] == [asked["run"]["id"]]


# Lists and search


async def test_pages_go_on_behind_their_cursor_and_tell_living_runs(tmp_path: Path) -> None:
    async with serving(tmp_path, ENDLESS) as live, client(live) as http:
        chats = [await create(http, title=f"chat {number}") for number in range(7)]
        run = (await ask(http, chat=chats[2]))["run"]["id"]
        page = await get(http, "/api/chats", "page", limit=3)
        assert [chat["runs"] for chat in page["chats"]] == [[run], [], []]
        seen = page["chats"]
        while page["next"]:
            page = await get(http, "/api/chats", "page", limit=3, before=page["next"])
            seen += page["chats"]
        assert [chat["id"] for chat in seen] == [chats[2], *(chats[n] for n in (6, 5, 4, 3, 1, 0))]


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"limit": 0}, "invalid_parameter"),
        ({"limit": 201}, "invalid_parameter"),
        ({"limit": "x"}, "invalid_parameter"),
        ({"before": "x"}, "bad_cursor"),
        ({"query": "x" * 129}, "invalid_parameter"),
        ({"query": "ﷺ" * 100}, "query_too_long"),
    ],
)
async def test_a_list_that_cannot_be_is_refused(tmp_path: Path, params: dict[str, Any], code: str) -> None:
    async with serving(tmp_path) as live, client(live) as http:
        reply = await http.get("/api/chats", params=params)
        assert (reply.status_code, error_of(reply)) == (400, code)


async def test_search_tells_message_and_place(tmp_path: Path) -> None:
    async with serving(tmp_path, Script(answer="👍 流式输出 **SSE**")) as live, client(live) as http:
        asked = await answered(http, "question")
        await live.until_idle()
        [chat] = (await get(http, "/api/chats", "page", query=" ｓｓｅ "))["chats"]
        match = chat["match"]
        assert match == {
            "message": asked["message"]["id"],
            "snippet": "👍 流式输出 **SSE**",
            "hits": [[10, 13]],
        }
        for query in ('" OR *', "流式 AND", "NOT", "(", "title:question"):
            assert (await get(http, "/api/chats", "page", query=query))["chats"] == []


# Deleting


async def test_deleting_stops_hides_and_can_be_undone(tmp_path: Path) -> None:
    async with serving(tmp_path, ENDLESS) as live, client(live) as http:
        asked = await ask(http, "hello")
        chat, run = asked["message"]["chat"], asked["run"]["id"]
        await first_text(http, run)
        for _ in range(2):
            assert (await http.delete(f"/api/chats/{chat}")).status_code == 204
        assert live.engine.active == 0
        assert (await http.get(f"/api/runs/{run}")).json()["state"] == "stopped"
        assert (await get(http, "/api/chats", "page"))["chats"] == []
        assert (await get(http, "/api/chats", "page", query="hello"))["chats"] == []
        for reply in (
            await http.get(f"/api/chats/{chat}"),
            await http.patch(f"/api/chats/{chat}", json={"title": "x"}),
            await http.get(f"/api/chats/{chat}/export"),
            await http.post(f"/api/chats/{chat}/messages", json={"content": "x"}),
            await http.post(f"/api/chats/{chat}/context", json={}),
            await http.get(f"/api/messages/{asked['message']['id']}"),
        ):
            assert (reply.status_code, error_of(reply)) == (404, "chat_deleted")
        await live.until_idle()
        restored = await http.post(f"/api/chats/{chat}/restore")
        assert restored.status_code == 200
        messages = (await get(http, f"/api/chats/{chat}", "conversation"))["messages"]
        assert (messages[1]["state"], bool(messages[1]["parts"])) == ("stopped", True)
        await http.delete(f"/api/chats/{chat}")
        await live.services.history.purge(2**40)
        gone = await http.post(f"/api/chats/{chat}/restore")
        assert (gone.status_code, error_of(gone)) == (404, "unknown_chat")


async def test_no_answer_lives_in_a_conversation_that_was_deleted_while_it_was_asked(tmp_path: Path) -> None:
    async with serving(tmp_path, ENDLESS) as live, client(live) as http:
        for _ in range(10):
            chat = await create(http)
            replies = await asyncio.gather(
                *(
                    http.post(f"/api/chats/{chat}/messages", json={"content": "x", "parent": None})
                    for _ in "ab"
                ),
                http.delete(f"/api/chats/{chat}"),
            )
            assert {reply.status_code for reply in replies} <= {202, 204, 404}
        await live.until_idle()


# News


async def test_every_reader_hears_what_becomes_of_conversations(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, SLOW) as live,
        client(live) as http,
        aconnect_sse(http, "GET", "/api/live") as source,
    ):
        events = (event async for event in source.aiter_sse() if event.data)
        assert (await anext(events)).event == "snapshot"

        async def heard() -> dict[str, Any]:
            while (event := await anext(events)).event != "chat":
                pass
            require("news", json.loads(event.data))
            news: dict[str, Any] = json.loads(event.data)
            return news

        chat = (await http.post("/api/chats", json={})).json()
        assert await heard() == {"id": chat["id"], "chat": chat}
        asked = await ask(http, "什么是流式?", chat=chat["id"])
        named = (await heard())["chat"]
        assert (named["title"], named["runs"]) == ("什么是流式?", [asked["run"]["id"]])
        assert named["updated_at"] > chat["updated_at"]
        path = f"/api/chats/{chat['id']}"
        renamed = (await http.patch(path, json={"title": "Streams"})).json()
        assert await heard() == {"id": chat["id"], "chat": renamed}
        await http.delete(path)
        assert await heard() == {"id": chat["id"], "chat": None}
        restored = (await http.post(f"{path}/restore")).json()
        assert (await heard())["chat"]["title"] == restored["title"] == "Streams"
        document = (await http.get(f"{path}/export", params={"format": "json"})).content
        [imported] = (await http.post("/api/import", content=document)).json()["chats"]
        assert await heard() == {"id": imported["id"], "chat": imported}


async def test_nobody_hears_of_a_change_that_failed(tmp_path: Path) -> None:
    heard: list[Changed] = []
    history = await History.open(tmp_path, heard.append)
    chat = await history.create_chat("local", key="k")
    broken = Message("m", chat.id, None, "user", [], 2e9, made_with={"sampling": {object(): 1}})
    with pytest.raises(TypeError):
        await history.upsert(broken)
    for change in (history.change, history.delete, history.restore):
        with pytest.raises(NotFound):
            await change("somebody else", chat.id)
    assert await history.create_chat("local", key="k") == chat
    await history.aclose()
    assert [(change.id, change.chat) for change in heard] == [(chat.id, chat)]


# Export


async def test_markdown_is_the_branch_that_is_asked_for(tmp_path: Path) -> None:
    async with serving(tmp_path, Script(answer="an answer", think=True)) as live, client(live) as http:
        first = await answered(http, '什么是流式? "SSE" <b>/\\')
        chat = first["message"]["chat"]
        await answered(http, "edited", chat=chat, parent=None)
        await live.until_idle()
        reply = await http.get(f"/api/chats/{chat}/export")
        assert reply.headers["content-type"] == "text/markdown; charset=utf-8"
        title = '什么是流式? "SSE" <b>/\\'
        assert reply.text == f"# {title}\n\n## User\n\nedited\n\n## Assistant\n\nan answer\n"
        assert saved_as(reply) == "什么是流式 SSE b.md"
        other = await http.get(f"/api/chats/{chat}/export", params={"leaf": first["message"]["id"]})
        assert f"## User\n\n{title}\n" in other.text
        assert "edited" not in other.text
        wrong = await http.get(f"/api/chats/{chat}/export", params={"leaf": "nobody"})
        assert (wrong.status_code, error_of(wrong)) == (404, "unknown_message")


def saved_as(reply: httpx.Response) -> str:
    """The file name, as a parser that is not ours reads it. Both forms are there: old clients read one."""
    headers = Headers()
    headers["content-disposition"] = reply.headers["content-disposition"]
    assert headers.get_content_disposition() == "attachment"
    params = headers.get_params([], "content-disposition")
    names: list[object] = [value for name, value in params if name == "filename"]
    [plain] = [name for name in names if isinstance(name, str)]
    [full] = [name for name in names if isinstance(name, tuple)]
    assert re.fullmatch(r"[ -~]+", plain)
    return collapse_rfc2231_value(full)


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("", "chat.json"),
        ("...", "chat.json"),
        ("../../etc/passwd", "etc passwd.json"),
        ('a"b\r\nX: y', "a b X y.json"),
        ("\u202egnp.exe", "gnp.exe.json"),
        ("100% é", "100% é.json"),
        ("流" * 150, "流" * 80 + ".json"),
    ],
)
async def test_a_file_name_is_safe_and_says_the_title(tmp_path: Path, title: str, name: str) -> None:
    async with serving(tmp_path) as live, client(live) as http:
        reply = await http.get(f"/api/chats/{await create(http, title=title)}/export?format=json")
        assert saved_as(reply) == name
        assert reply.headers["x-content-type-options"] == "nosniff"
        require("export", reply.json())


def timeless(exported: dict[str, Any]) -> list[dict[str, Any]]:
    """What is said, with places for ids, and without the moment of the export."""
    chats = deepcopy(exported["chats"])
    for chat in chats:
        places = {message["id"]: at for at, message in enumerate(chat["messages"])}
        chat["id"] = ""
        for message in chat["messages"]:
            message["id"], message["parent"] = places[message["id"]], places.get(message["parent"])
    return sorted(chats, key=lambda chat: str(chat["created_at"]))


async def furnished(http: httpx.AsyncClient, live: Live) -> None:
    """Branches, settings, a cut answer, a failed one, one that thinks, an empty conversation."""
    first = await answered(http, "什么是流式?")
    chat = first["message"]["chat"]
    await answered(http, "edited 👍", chat=chat, parent=None, system="be brief")
    await answered(http, "fail now", chat=chat, parent=first["message"]["id"])
    cut = await create(http, title="cut", settings={"system": "s", "sampling": {"max_tokens": 3}})
    await http.post(f"/api/chats/{cut}/messages", json={"content": "long\u2028line"})
    await create(http)
    await live.until_idle()


async def test_what_is_exported_is_imported_whole(tmp_path: Path) -> None:
    script = Script(think=True, fail_on="fail now", answer_tokens=40)
    async with serving(tmp_path / "a", script) as live, client(live) as http:
        await furnished(http, live)
        exported = await get(http, "/api/export", "export")
        one = await get(http, f"/api/chats/{exported['chats'][0]['id']}/export", "export", format="json")
        assert one["chats"] == exported["chats"][:1]
    async with serving(tmp_path / "b") as live, client(live) as http:
        reply = await http.post("/api/import", content=orjson.dumps(exported))
        assert reply.status_code == 200, reply.text
        require("imported", reply.json())
        assert (len(reply.json()["chats"]), reply.json()["skipped"]) == (3, [])
        again = await get(http, "/api/export", "export")
        assert timeless(again) == timeless(exported)
        assert not {c["id"] for c in again["chats"]} & {c["id"] for c in exported["chats"]}
        found = (await get(http, "/api/chats", "page", query="edited 👍"))["chats"]
        assert [chat["id"] for chat in found] == [reply.json()["chats"][0]["id"]]
        branch = (await get(http, f"/api/chats/{found[0]['id']}", "conversation"))["messages"]
        more = await ask(http, "and then?", chat=found[0]["id"], parent=branch[1]["id"])
        assert more["run"]["state"] in ("queued", "running", "done")


async def test_all_conversations_are_exported_while_they_change(tmp_path: Path) -> None:
    async with serving(tmp_path, ENDLESS) as live, client(live) as http:
        create_chat = live.services.history.create_chat
        chats = [(await create_chat("local", str(number))).id for number in range(230)]
        running = await ask(http, chat=chats[5])
        await first_text(http, running["run"]["id"])
        exported = await get(http, "/api/export", "export")
        assert [chat["title"] for chat in exported["chats"]] == [str(number) for number in range(230)]
        [_, answer] = exported["chats"][5]["messages"]
        assert (answer["state"], bool(answer["parts"])) == ("running", True)
        reply = await http.post("/api/import", content=orjson.dumps(exported))
        [found] = [c["id"] for c in reply.json()["chats"] if c["title"] == "5"]
        assert (await get(http, f"/api/chats/{found}", "conversation"))["messages"][1]["state"] == "stopped"


# Import


async def test_an_import_that_is_repeated_brings_nothing_twice(tmp_path: Path) -> None:
    async with serving(tmp_path / "a", Script(think=True, fail_on="fail now")) as live, client(live) as http:
        await furnished(http, live)
        exported = await get(http, "/api/export", "export")
    async with serving(tmp_path / "b") as live, client(live) as http:

        async def imported(document: Any) -> tuple[list[str], list[str]]:
            reply = await http.post("/api/import", content=orjson.dumps(document))
            require("imported", reply.json())
            new, known = ([chat["id"] for chat in reply.json()[which]] for which in ("chats", "known"))
            return new, known

        first, _ = await imported(exported)
        assert await imported(exported) == ([], first)
        again = await get(http, "/api/export", "export")
        assert await imported({**again, "chats": again["chats"][::-1]}) == ([], first[::-1])
        await http.delete(f"/api/chats/{first[1]}")
        changed = deepcopy(exported)
        changed["chats"][0]["messages"][0]["parts"][0]["text"] += "!"
        new, known = await imported(changed)
        assert (len(new), known) == (1, first[1:])
        assert {c["id"] for c in (await get(http, "/api/chats", "page"))["chats"]} == {*first, *new}


async def test_a_conversation_without_times_is_of_now_and_is_known_again_later(tmp_path: Path) -> None:
    node = gpt("a", None, "user", "hello")
    del node["message"]["create_time"]
    chat = {"title": "timeless", "mapping": {"a": node}}
    async with serving(tmp_path) as live, client(live) as http:
        replies = [(await http.post("/api/import", content=orjson.dumps([chat]))).json() for _ in range(2)]
        [found] = (await get(http, "/api/chats", "page"))["chats"]
        assert [len(reply["chats"]) for reply in replies] == [1, 0]
        [message] = (await get(http, f"/api/chats/{found['id']}", "conversation"))["messages"]
        assert message["created_at"] == found["created_at"] == found["updated_at"] > 1_700_000_000


def exported(**changes: Any) -> dict[str, Any]:
    """The smallest export with a question and an answer; ``changes`` are of the answer."""
    part = {"type": "text", "text": "x"}
    question = {"id": "q", "parent": None, "role": "user", "parts": [part], "created_at": 1.0}
    answer = {"id": "a", "parent": "q", "role": "assistant", "parts": [part], "created_at": 2.0, **changes}
    chat = {"title": "t", "created_at": 1.0, "updated_at": 2.0, "messages": [question, answer]}
    return {"format": "inkstream", "version": 1, "chats": [deepcopy(chat), chat]}


ANSWER = "chats[0].messages[1]"


@pytest.mark.parametrize(
    ("given", "code", "path"),
    [
        (exported(parent="nobody"), "bad_import", f"{ANSWER}.parent"),
        (exported(parent="a"), "bad_import", f"{ANSWER}.parent"),
        (exported(parent=None), "bad_import", f"{ANSWER}.parent"),
        (exported(id="q"), "bad_import", f"{ANSWER}.id"),
        (exported(id=7), "bad_import", f"{ANSWER}.id"),
        (exported(role="system"), "bad_import", f"{ANSWER}.role"),
        (exported(parts="x"), "bad_import", f"{ANSWER}.parts"),
        (exported(parts=[{"type": "image", "text": ""}]), "bad_import", f"{ANSWER}.parts[0].type"),
        (exported(parts=[{"type": "text", "text": None}]), "bad_import", f"{ANSWER}.parts[0].text"),
        (exported(state="asleep"), "bad_import", f"{ANSWER}.state"),
        (exported(created_at=1e300), "bad_import", f"{ANSWER}.created_at"),
        (exported(created_at="yesterday"), "bad_import", f"{ANSWER}.created_at"),
        (exported(made_with={"sampling": {"top_p": 2}}), "bad_import", f"{ANSWER}.made_with.sampling.top_p"),
        (exported(timings={"a": "b"}), "bad_import", f"{ANSWER}.timings.a"),
        (exported(left_out=-1), "bad_import", f"{ANSWER}.left_out"),
        ({**exported(), "version": 2}, "bad_import", "version"),
        ({**exported(), "chats": {}}, "bad_import", "chats"),
        ({"format": "inkstream"}, "bad_import", "version"),
        ([{"mapping": {"a": {"parent": "b"}}}], "bad_import", "[0].mapping.a.parent"),
        ([{"mapping": {"a": {"parent": "a"}}}], "bad_import", "[0].mapping.a.parent"),
        ([{"mapping": []}], "bad_import", "[0].mapping"),
        ([{"mapping": {}}, 5], "bad_import", "[1]"),
        ([{"chat": {"history": {"messages": {"a": {}}}}}], "bad_import", "[0].chat.history.messages.a.role"),
        ([], "unknown_format", ""),
        ({}, "unknown_format", ""),
        ("text", "unknown_format", ""),
        ([None], "unknown_format", ""),
    ],
)
async def test_a_hostile_import_is_refused_with_the_path_of_the_fault(
    tmp_path: Path, given: Any, code: str, path: str
) -> None:
    async with serving(tmp_path) as live, client(live) as http:
        reply = await http.post("/api/import", content=orjson.dumps(given))
        assert (reply.status_code, error_of(reply)) == (400, code), reply.text
        assert reply.json()["error"]["message"].startswith(f"{path}:" if path else "this is no export")
        assert (await get(http, "/api/chats", "page"))["chats"] == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"a": "\\ud800"}',
        b'"\xff"',
        b"[" * 100_000,
        b'{"a": NaN}',
    ],
)
async def test_an_import_that_is_no_json_is_refused(tmp_path: Path, body: bytes) -> None:
    async with serving(tmp_path) as live, client(live) as http:
        reply = await http.post("/api/import", content=body)
        assert (reply.status_code, error_of(reply)) == (400, "bad_json")


async def test_a_circle_of_messages_is_refused_and_one_out_of_order_is_not(tmp_path: Path) -> None:
    async with serving(tmp_path) as live, client(live) as http:
        circle = exported()
        circle["chats"][0]["messages"][0]["parent"] = "a"
        reply = await http.post("/api/import", content=orjson.dumps(circle))
        assert (reply.status_code, error_of(reply)) == (400, "bad_import")
        assert "circle" in reply.json()["error"]["message"]
        reversed_ = exported()
        reversed_["chats"][0]["messages"].reverse()
        assert (await http.post("/api/import", content=orjson.dumps(reversed_))).status_code == 200
        chats = (await get(http, "/api/export", "export"))["chats"]
        assert [[m["role"] for m in chat["messages"]] for chat in chats] == [["user", "assistant"]] * 2


async def test_an_import_is_bounded_by_the_body(tmp_path: Path) -> None:
    async with serving(tmp_path, body_kib=1) as live, client(live) as http:
        reply = await http.post("/api/import", content=orjson.dumps([{"mapping": {}, "title": "x" * 2000}]))
        assert (reply.status_code, error_of(reply)) == (413, "body_too_large")


def gpt(id: str, parent: str | None, role: str = "", *parts: Any, kind: str = "text") -> dict[str, Any]:
    message = {
        "id": id,
        "author": {"role": role, "name": None, "metadata": {}},
        "create_time": 1700000000.5,
        "content": {"content_type": kind, "parts": list(parts)},
        "metadata": {"model_slug": "gpt-4"},
    }
    return {"id": id, "parent": parent, "children": [], "message": message if role else None}


async def test_conversations_of_chatgpt_are_taken_with_their_branches(tmp_path: Path) -> None:
    nodes = [
        gpt("root", None),
        gpt("sys", "root", "system", ""),
        gpt("q", "sys", "user", "a question"),
        gpt("a1", "q", "assistant", "Let me look."),
        gpt("tool", "a1", "tool", "secret", kind="execution_output"),
        gpt("a2", "tool", "assistant", "Found", "it."),
        gpt("q2", "a2", "user", {"asset_pointer": "x"}, "see this", kind="multimodal_text"),
        gpt("b", "q", "assistant", "another"),
        gpt("code", "b", "assistant", kind="code"),
    ]
    chat = {
        "title": "A  title",
        "create_time": 1700000000.0,
        "update_time": 1700000009.0,
        "current_node": "b",
        "mapping": {node["id"]: node for node in nodes},
    }
    empty = {"title": "nothing", "mapping": {"root": gpt("root", None)}, "current_node": "root"}
    async with serving(tmp_path) as live, client(live) as http:
        reply = await http.post("/api/import", content=orjson.dumps([chat, empty]))
        require("imported", reply.json())
        [taken] = (await get(http, "/api/export", "export"))["chats"]
        assert (taken["title"], taken["updated_at"]) == ("A title", 1700000009.0)
        told = [(m["role"], m["parts"][0]["text"], m["made_with"]) for m in taken["messages"]]
        by_gpt: dict[str, Any] = {"model": "gpt-4", "system": None, "sampling": {}}
        assert told == [
            ("user", "a question", None),
            ("assistant", "Let me look.\n\nFound\n\nit.", by_gpt),
            ("user", "see this", None),
            ("assistant", "another", by_gpt),
        ]
        assert [s["path"] for s in reply.json()["skipped"]] == [
            *(f"[0].mapping.{id_}" for id_ in ("tool", "q2", "code")),
            "[1].mapping",
        ]


async def test_conversations_of_open_webui_are_taken(tmp_path: Path) -> None:
    def said(id: str, parent: str | None, role: str, content: str) -> dict[str, Any]:
        message: dict[str, Any] = {
            "id": id,
            "parentId": parent,
            "childrenIds": [],
            "role": role,
            "content": content,
        }
        return {**message, "timestamp": 1700000000, "model": "qwen2:0.5b"}

    messages = [
        said("g", None, "assistant", "greeting"),
        said("q", "g", "user", "你好"),
        said("a", "q", "assistant", "one"),
        said("b", "a", "assistant", "two"),
        said("c", "a", "assistant", "three"),
    ]
    history = {"messages": {m["id"]: m for m in messages}, "currentId": "b"}
    chat = {
        "id": "x",
        "title": "",
        "chat": {"history": history, "params": {"system": "kind"}, "messages": []},
    }
    async with serving(tmp_path) as live, client(live) as http:
        reply = await http.post("/api/import", content=orjson.dumps([chat]))
        [taken] = (await get(http, "/api/export", "export"))["chats"]
        assert taken["settings"]["system"] == "kind"
        assert [m["parts"][0]["text"] for m in taken["messages"]] == ["你好", "one", "three", "two"]
        assert len({m["parent"] for m in taken["messages"]}) == 2
        assert [s["reason"] for s in reply.json()["skipped"]] == ["an answer without a question"]


async def test_a_row_of_answers_costs_what_it_is_long(tmp_path: Path) -> None:
    count = 8000
    nodes = [
        gpt("0", None, "user", "q"),
        *(gpt(str(n), str(n - 1), "assistant", "x" * 80) for n in range(1, count)),
    ]
    for node in nodes:
        node["message"].pop("metadata")
    chat = {"mapping": {node["id"]: node for node in nodes}}
    async with serving(tmp_path) as live, client(live) as http:
        reply = await http.post("/api/import", content=orjson.dumps([chat]))
        assert reply.status_code == 200, reply.text
        [taken] = (await get(http, "/api/export", "export"))["chats"]
        assert [len(m["parts"][0]["text"]) for m in taken["messages"]] == [1, 82 * (count - 1) - 2]


# The context


async def test_the_context_is_measured_before_anything_is_asked(tmp_path: Path) -> None:
    async with serving(tmp_path, Script(context=400, answer="an answer " * 4)) as live, client(live) as http:
        chat = await create(http, settings={"system": "be brief"})
        path = f"/api/chats/{chat}/context"

        async def measured(**body: Any) -> Any:
            reply = await http.post(path, json=body)
            assert reply.status_code == 200, reply.text
            require("context", reply.json())
            return reply.json()

        empty = await measured()
        asked = await measured(content="a question " * 5)
        assert 0 < empty["tokens"] < asked["tokens"]
        assert asked["answer_room"] == 400 - asked["tokens"]
        assert (await measured(system=None))["tokens"] == 0
        for number in range(4):
            await answered(http, f"question {number} " * 5, chat=chat)
            await live.until_idle()
        full = await measured(content="a question " * 40)
        assert full["left_out"] > 0
        assert full["tokens"] <= 300
        root = await measured(content="a question " * 5, parent=None)
        assert (root["tokens"], root["left_out"]) == (asked["tokens"], 0)
        reply = await http.post(path, json={"content": "word " * 2000})
        assert (reply.status_code, error_of(reply)) == (400, "prompt_too_long")


async def test_only_an_engine_that_is_ready_can_count(tmp_path: Path) -> None:
    async with serving(tmp_path, Script(load_seconds=60)) as live, client(live) as http:
        reply = await http.post(f"/api/chats/{await create(http)}/context", json={"content": "x"})
        assert (reply.status_code, error_of(reply)) == (503, "engine_not_ready")
        assert int(reply.headers["retry-after"]) >= 1
