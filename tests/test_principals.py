"""What is somebody's is nobody else's, through any route. The routes are those of the OpenAPI description
and those that the app has beside it.

A route that is new is walked through by itself. If it takes a body, or a parameter of a new name, or is left
out of the description, these tests fail until it is said here what to send.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fastapi.routing import iter_route_contexts
from httpx_sse import aconnect_sse
from starlette.routing import Route

from inkstream.accounts import Role
from inkstream.api.app import routed
from inkstream.api.guard import OPEN_PATHS, is_guarded
from inkstream.engines.scripted import Script
from tests.live import Live, serving
from tests.signing_in import browser, invited, keyed
from tests.test_api import ask, first_text, follow

SECRET = "quicksilver"
ADAS_KEY = "adas-idempotency-key"
OWNED = ("chat", "message", "run", "key")
STALLING = Script(answer="a word or two", stall_on="endlessly")
# What is not in the description, with an address of it. They are everybody's who is known.
ASIDE = {
    "/docs": "/docs",
    "/docs/start.js": "/docs/start.js",
    "/docs/{name}": "/docs/swagger-ui.css",
    "/openapi.json": "/openapi.json",
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND")
PAGES = ("/", "/index.html", "/favicon.svg", "/nowhere", "/api", "/..%2fhistory.db")
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@dataclass(frozen=True, slots=True)
class Belongings:
    """What ada has: by the name of the parameter that takes it, and the run that ``/stream`` gave her."""

    ids: dict[str, str]

    @property
    def cursor(self) -> dict[str, str]:
        return {"Last-Event-ID": f"{self.ids['streamed']}:0"}

    def made_up(self) -> Belongings:
        """The same for things that nobody has."""
        return Belongings({name: id_[::-1] for name, id_ in self.ids.items()})


@dataclass(frozen=True, slots=True)
class Call:
    method: str
    path: str
    query: dict[str, Any]
    body: Any = None
    headers: dict[str, str] | None = None

    async def by(self, http: httpx.AsyncClient) -> httpx.Response:
        return await http.request(
            self.method, self.path, params=self.query, json=self.body, headers=self.headers, timeout=20
        )


def queries(of: Belongings) -> dict[str, list[dict[str, Any]]]:
    """What to put into a URL beside nothing. The live feed and a living run would not end otherwise."""
    return {
        "/api/chats": [{}, {"query": SECRET}],
        "/api/chats/{chat}/export": [{"format": "json"}, {"leaf": of.ids["message"]}],
        "/api/live": [{"wait": 0}],
        "/api/runs/{run}/events": [{}, {"wait": 0}, {"after": 1}],
        "/stream": [{"prompt": SECRET}],
    }


def bodies(of: Belongings) -> dict[tuple[str, str], list[Any]]:
    """What to send to routes that take a body."""
    return {
        ("POST", "/api/session"): [{"key": "wrong"}, {"link": "wrong"}],
        ("POST", "/api/keys"): [{"label": "laptop"}],
        ("PUT", "/api/model"): [{"model": "other"}, {"model": "other", "now": True}],
        ("POST", "/api/users"): [{"name": "eve", "role": "admin"}],
        ("PATCH", "/api/users/{user}"): [{"disabled": True}],
        ("POST", "/api/chats"): [{"title": SECRET}],
        ("PATCH", "/api/chats/{chat}"): [{"title": "taken over"}],
        ("POST", "/api/chats/{chat}/messages"): [
            {"content": "hello"},
            {"regenerate": of.ids["message"]},
            {"continue": of.ids["message"]},
            {"content": "hello", "parent": of.ids["message"]},
        ],
        ("POST", "/api/chats/{chat}/context"): [{"content": "hello"}, {"parent": of.ids["message"]}],
        ("POST", "/v1/chat/completions"): [{"messages": [{"role": "user", "content": "hello"}]}],
        ("POST", "/stream"): [{"prompt": SECRET}],
        ("POST", "/api/import"): [document(of)],
    }


def document(of: Belongings) -> dict[str, Any]:
    """An export that says it has somebody's conversation in it."""
    part = {"type": "text", "text": "taken over"}
    message = {"id": of.ids["message"], "parent": None, "role": "user", "parts": [part]}
    chat = {"id": of.ids["chat"], "title": "taken over", "messages": [message]}
    return {"format": "inkstream", "version": 1, "chats": [chat]}


@asynccontextmanager
async def two_users(
    folder: Path, script: Script, role: Role = Role.USER
) -> AsyncIterator[tuple[Live, httpx.AsyncClient, httpx.AsyncClient]]:
    """A server and its users, ada and bob. Bob has the role."""
    async with (
        serving(folder, script) as live,
        await keyed(live, "ada") as ada,
        await keyed(live, "bob", role) as bob,
    ):
        yield live, ada, bob


async def belongings_of(ada: httpx.AsyncClient, live: Live) -> Belongings:
    """A conversation with an ended answer, another with a living one, a key, and a used idempotency key."""
    once = {"Idempotency-Key": ADAS_KEY}
    chat = (await ada.post("/api/chats", json={"title": SECRET}, headers=once)).json()["id"]
    asked = await ask(ada, SECRET, chat)
    [_ async for _ in follow(ada, asked["run"]["id"])]
    living = (await ask(ada, f"{SECRET} endlessly"))["run"]["id"]
    streamed = await ada.get("/stream", params={"prompt": SECRET, "key": ADAS_KEY})
    run = streamed.text.partition("id: ")[2].partition(":")[0]
    key = (await ada.post("/api/keys", json={})).json()["id"]
    user = await live.services.accounts.user_named("ada")
    message = asked["message"]["id"]
    return Belongings(
        {"chat": chat, "message": message, "run": living, "key": key, "user": user.id, "streamed": run}
    )


def calls(description: dict[str, Any], of: Belongings) -> list[Call]:
    """Every route, with what belongs to somebody in each place where it can be put."""
    found: list[Call] = []
    for path, methods in description["paths"].items():
        for method, route in methods.items():
            names = [p["name"] for p in route.get("parameters", []) if p["in"] == "path"]
            # A model is everybody's.
            filled = path.format_map({name: "scripted" if name == "name" else of.ids[name] for name in names})
            sent = bodies(of)[(method.upper(), path)] if "requestBody" in route else [None]
            for query in queries(of).get(path, [{}]):
                found += [Call(method.upper(), filled, query, body) for body in sent]
    found += [Call("GET", path, {}) for path in ASIDE.values()]
    once = {"Idempotency-Key": ADAS_KEY}
    found += [Call("POST", f"/api/chats/{of.ids['chat']}/messages", {}, {"content": "hello"}, once)]
    found += [Call("GET", "/stream", {"prompt": "hello"}, headers=of.cursor)]
    found += [Call("GET", "/stream", {"prompt": SECRET, "key": ADAS_KEY})]
    found += [Call("POST", "/stream", {}, {"prompt": SECRET}, once)]
    found += [Call("POST", "/api/chats", {}, {"title": SECRET}, once)]
    return found


async def everything(ada: httpx.AsyncClient) -> list[Any]:
    """What ada has: her conversations with their messages, her keys, her living runs."""
    export = (await ada.get("/api/export")).json()["chats"]
    keys = (await ada.get("/api/keys")).json()
    living = (await ada.get("/api/live", params={"wait": 0})).text
    return [sorted(map(json.dumps, export)), keys, living]


async def test_no_route_shows_or_changes_what_is_somebody_elses(tmp_path: Path) -> None:
    async with two_users(tmp_path, STALLING) as (live, ada, bob):
        hers = await belongings_of(ada, live)
        nobodys = hers.made_up()
        before = await everything(ada)
        description = (await ada.get("/openapi.json")).json()
        pairs = zip(calls(description, hers), calls(description, nobodys), strict=True)
        for foreign, absent in pairs:
            await compare(bob, foreign, absent, hers, nobodys)
        assert await everything(ada) == before
        assert (await ada.get(f"/api/runs/{hers.ids['run']}")).json()["state"] == "running"


async def compare(
    bob: httpx.AsyncClient, foreign: Call, absent: Call, hers: Belongings, nobodys: Belongings
) -> None:
    """What is not bob's is like what is not there, to the letter."""
    answer, other = await foreign.by(bob), await absent.by(bob)
    where = f"{foreign}: {answer.text}"
    assert answer.status_code < 500, where
    if foreign.headers == hers.cursor or any(hers.ids[name] in foreign.path for name in OWNED):
        assert (answer.status_code, other.status_code) == (404, 404), where
        told = answer.text
        for name, id_ in hers.ids.items():
            told = told.replace(id_, nobodys.ids[name])
        assert told == other.text, where
    elif hers.ids["user"] in foreign.path:
        assert answer.status_code == other.status_code == 403, where
    else:
        assert not any(id_ in answer.text for id_ in hers.ids.values()), where
        assert "endlessly" not in answer.text, where


async def test_an_admin_sees_no_more_of_it_than_others(tmp_path: Path) -> None:
    async with two_users(tmp_path, STALLING, Role.ADMIN) as (live, ada, root):
        hers = await belongings_of(ada, live)
        for name in ("chat", "run", "message"):
            assert (await root.get(f"/api/{name}s/{hers.ids[name]}")).status_code == 404
        assert (await root.delete(f"/api/keys/{hers.ids['key']}")).status_code == 404


async def test_only_admins_choose_the_model(tmp_path: Path) -> None:
    async with two_users(tmp_path, STALLING) as (_, ada, _bob):
        for reply in (await ada.get("/api/models"), await ada.put("/api/model", json={"model": "other"})):
            assert (reply.status_code, reply.json()["error"]["code"]) == (403, "admins_only")
    async with two_users(tmp_path / "other", STALLING, Role.ADMIN) as (_, _ada, root):
        told = (await root.get("/api/models")).json()
        assert (told["engine"]["model"], told["can_switch"]) == ("scripted", False)
        refused = await root.put("/api/model", json={"model": "other"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "engine_apart")
        assert (await root.put("/api/model", json={"model": "  "})).status_code == 400


async def test_every_route_wants_to_know_who_asks(tmp_path: Path) -> None:
    async with two_users(tmp_path, Script()) as (live, ada, _), browser(live) as nobody:
        description = (await ada.get("/openapi.json")).json()
        any_ids = Belongings(dict.fromkeys((*OWNED, "user", "streamed"), "0" * 32))
        asked = calls(description, any_ids)
        paths = {call.path for call in asked} - OPEN_PATHS
        assert len(paths) > len(ASIDE)
        asked += [Call(method, path, {}) for path in sorted(paths) for method in METHODS]
        asked += [Call("GET", path, {}, headers=UPGRADE) for path in sorted(paths)]
        for call in asked:
            reply = await call.by(nobody)
            if call.path not in OPEN_PATHS:
                assert reply.status_code == 401, call
                assert reply.headers["www-authenticate"] == "Bearer"


async def test_no_route_is_served_that_is_not_walked_through(tmp_path: Path) -> None:
    async with serving(tmp_path) as live, browser(live) as http:
        paths = (await http.get("/openapi.json")).json()["paths"]
        described = {(method.upper(), path) for path, methods in paths.items() for method in methods}
        aside = set()
        for route in iter_route_contexts(routed(live.services).routes):
            assert isinstance(route.original_route, Route), f"{route}: say here how to walk through it"
            assert is_guarded(str(route.path)) or route.path in OPEN_PATHS, route
            for method in route.methods or ():
                if ("GET" if method == "HEAD" else method, route.path_format) not in described:
                    assert method in ("GET", "HEAD"), route
                    aside.add(route.path)
        assert aside == ASIDE.keys()


async def test_the_page_is_the_same_for_everybody(tmp_path: Path) -> None:
    """What no route takes is files, and nobody's belongings are files that are served."""
    async with two_users(tmp_path, STALLING) as (live, ada, bob), browser(live) as nobody:
        await belongings_of(ada, live)
        for path in PAGES:
            replies = [await http.get(path) for http in (ada, bob, nobody)]
            assert len({(reply.status_code, reply.content) for reply in replies}) == 1, path
            assert SECRET not in replies[0].text
            assert [(await http.post(path)).status_code for http in (ada, nobody)] == [404, 404]


async def test_the_live_feed_tells_nothing_of_others(tmp_path: Path) -> None:
    async with (
        two_users(tmp_path, Script(answer="a word")) as (_, ada, bob),
        aconnect_sse(bob, "GET", "/api/live") as source,
    ):
        heard = (event async for event in source.aiter_sse() if event.event in ("snapshot", "run"))
        async with asyncio.timeout(10), aclosing(heard):
            assert json.loads((await anext(heard)).data)["runs"] == []
            [_ async for _ in follow(ada, (await ask(ada))["run"]["id"])]
            bobs = (await ask(bob))["run"]["id"]
            assert json.loads((await anext(heard)).data)["id"] == bobs


async def test_the_same_idempotency_key_is_another_one_for_another_user(tmp_path: Path) -> None:
    async with two_users(tmp_path, Script(stall_on="hello")) as (_, ada, bob):
        runs = []
        for http in (ada, bob):
            chat = (await http.post("/api/chats", json={})).json()["id"]
            path, once = f"/api/chats/{chat}/messages", {"Idempotency-Key": "once"}
            reply = await http.post(path, json={"content": "hello"}, headers=once)
            assert reply.status_code == 202
            runs.append(reply.json()["run"]["id"])
            await first_note(http, runs[-1])
        assert runs[0] != runs[1]


async def first_note(http: httpx.AsyncClient, run: str) -> None:
    async with aclosing(follow(http, run)) as events:
        await anext(events)


async def test_a_place_in_somebody_elses_list_is_a_place_in_ones_own(tmp_path: Path) -> None:
    async with two_users(tmp_path, Script()) as (_, ada, bob):
        for title in ("first", "second", "third"):
            for http in (ada, bob):
                await http.post("/api/chats", json={"title": f"{SECRET} {title} of {id(http)}"})
        for query in ("", SECRET):
            params: dict[str, Any] = {"limit": 1, "query": query}
            cursor = (await ada.get("/api/chats", params=params)).json()["next"]
            assert cursor
            found = await bob.get("/api/chats", params={**params, "limit": 10, "before": cursor})
            own = [f"{SECRET} {title} of {id(bob)}" for title in ("second", "first")]
            assert [chat["title"] for chat in found.json()["chats"]] == own


async def test_what_somebody_else_has_imported_is_new_to_oneself(tmp_path: Path) -> None:
    async with two_users(tmp_path, Script()) as (_, ada, bob):
        await ada.post("/api/chats", json={"title": SECRET})
        exported = (await ada.get("/api/export")).content
        taken = [(await http.post("/api/import", content=exported)).json() for http in (ada, bob, bob)]
        assert [len(reply["chats"]) for reply in taken] == [1, 1, 0]
        ids = [(reply["chats"] + reply["known"])[0]["id"] for reply in taken]
        assert ids[1] == ids[2] != ids[0]


async def test_a_user_who_was_invited_and_never_came_keeps_others_out_all_the_same(tmp_path: Path) -> None:
    async with serving(tmp_path) as live, browser(live) as nobody:
        await invited(live, "ada")
        assert (await nobody.get("/api/chats")).status_code == 401


async def test_two_users_follow_their_own_answers_at_the_same_time(tmp_path: Path) -> None:
    async with two_users(tmp_path, Script(tokens_per_second=200, answer_tokens=20)) as (_, ada, bob):
        runs = [(await ask(http))["run"]["id"] for http in (ada, bob)]
        await asyncio.gather(first_text(ada, runs[0]), first_text(bob, runs[1]))
        for http, run in ((ada, runs[1]), (bob, runs[0])):
            assert (await http.get(f"/api/runs/{run}/events")).status_code == 404
