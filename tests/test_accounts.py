"""Users, their keys, links and sessions, on a live server and its real file."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from contextlib import aclosing, closing
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from inkstream.accounts import Accounts, Role, has_users
from inkstream.accounts.schema import FILE
from inkstream.api import door
from inkstream.config import Settings
from inkstream.engines.scripted import Script
from inkstream.errors import ConfigError, Conflict, Invalid, LogError
from inkstream.preflight import Subject, exposure
from inkstream.words import Words
from tests.live import Live, serving
from tests.signing_in import browser, invited, keyed, signed_in
from tests.test_api import ask, error_of, first_text, follow

ENDLESS = Script(tokens_per_second=200, answer_tokens=1_000_000)


def console(folder: Path, *arguments: str) -> str:
    """What a command prints, run on the data folder of a server."""
    environ = {**os.environ, "INKSTREAM_DATA_DIR": str(folder), "LANG": "C.UTF-8"}
    command = [sys.executable, "-m", "inkstream", *arguments]
    return subprocess.run(command, env=environ, capture_output=True, encoding="utf-8", check=True).stdout


def files_of(folder: Path) -> list[Path]:
    """The accounts' database and what SQLite keeps beside it."""
    return list(folder.glob(f"{FILE}*"))


async def me(http: httpx.AsyncClient) -> dict[str, str]:
    reply = await http.get("/api/me")
    assert reply.status_code == 200, reply.text
    found: dict[str, str] = reply.json()
    return found


async def is_let_in(http: httpx.AsyncClient) -> bool:
    status = (await http.get("/api/chats")).status_code
    assert status in (200, 401)
    return status == 200


# Nobody, somebody


async def test_on_loopback_nobody_signs_in_until_there_is_a_user(tmp_path: Path) -> None:
    async with serving(tmp_path) as live, browser(live) as http:
        assert await me(http) == {"name": "local", "role": "admin", "by": "nobody"}
        said = await asyncio.to_thread(console, tmp_path, "users", "add", "ada", "--admin")
        assert not await is_let_in(http)
        link = said.strip().rpartition("/#/sign-in/")[2]
        assert (await http.post("/api/session", json={"link": link})).status_code == 204
        assert await me(http) == {"name": "ada", "role": "admin", "by": "session"}


async def test_beyond_loopback_nobody_is_let_in_unasked(tmp_path: Path) -> None:
    async with serving(tmp_path, host="0.0.0.0") as live, browser(live) as http:
        assert not await is_let_in(http)


async def test_what_was_there_before_users_goes_to_the_user_who_asks_for_it(tmp_path: Path) -> None:
    """The folder is one that a version without users has left."""
    async with serving(tmp_path) as live, browser(live) as http:
        asked = await ask(http)
        [_ async for _ in follow(http, asked["run"]["id"])]
    for file in files_of(tmp_path):
        file.unlink()
    async with serving(tmp_path) as live:
        async with await keyed(live, "bob") as bob:
            assert (await bob.get("/api/chats")).json()["chats"] == []
        async with await keyed(live, "ada", is_local=True) as ada:
            assert [chat["id"] for chat in (await ada.get("/api/chats")).json()["chats"]] == [
                asked["message"]["chat"]
            ]
            assert (await ada.get(f"/api/runs/{asked['run']['id']}")).status_code == 200
        with pytest.raises(Conflict):
            await live.services.accounts.add_user("eve", is_local=True)


# Signing in


async def test_a_link_signs_in_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as live, browser(live) as http, browser(live) as thief:
        link = await invited(live, "ada")
        assert (await http.post("/api/session", json={"link": link})).status_code == 204
        reply = await thief.post("/api/session", json={"link": link})
        assert (reply.status_code, error_of(reply)) == (401, "link_used_up")
        assert await is_let_in(http)
        assert not await is_let_in(thief)


async def test_a_newer_link_and_time_end_a_link(tmp_path: Path) -> None:
    async with serving(tmp_path) as live, browser(live) as http:
        older = await invited(live, "ada")
        accounts = live.services.accounts
        ada = await accounts.user_named("ADA")
        newer = await accounts.add_link(ada.id)
        assert (await http.post("/api/session", json={"link": older})).status_code == 401
        with closing(sqlite3.connect(tmp_path / FILE)) as db, db:
            db.execute("UPDATE links SET expires_at = expires_at - 24 * 3600")
        assert (await http.post("/api/session", json={"link": newer})).status_code == 401


async def test_a_session_expires(tmp_path: Path) -> None:
    async with serving(tmp_path) as live, await signed_in(live, "ada") as http:
        assert await is_let_in(http)
        with closing(sqlite3.connect(tmp_path / FILE)) as db, db:
            db.execute("UPDATE sessions SET expires_at = expires_at - 30 * 24 * 3600")
        assert not await is_let_in(http)


async def test_streams_end_with_the_session_that_opened_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "WATCH_SECONDS", 0.01)
    async with (
        serving(tmp_path, ENDLESS, session_days=3 / 86400) as live,
        await signed_in(live, "ada") as http,
    ):
        run = (await ask(http))["run"]["id"]
        async with aclosing(follow(http, run)) as events:
            assert not any([event.event == "stopped" async for event in events])
        assert not await is_let_in(http)


async def test_signing_in_gives_a_new_session_and_ends_the_one_before(tmp_path: Path) -> None:
    async with serving(tmp_path) as live, await signed_in(live, "eve") as attacker, browser(live) as victim:
        planted = attacker.cookies["inkstream"]
        victim.cookies.set("inkstream", planted)
        link = await invited(live, "ada")
        reply = await victim.post("/api/session", json={"link": link})
        fresh = SimpleCookie(reply.headers["set-cookie"])["inkstream"].value
        assert fresh != planted
        assert not await is_let_in(attacker)
        async with browser(live, Cookie=f"inkstream={fresh}") as http:
            assert (await me(http))["name"] == "ada"


async def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(tmp_path: Path) -> None:
    trusted = ("127.0.0.1",)
    async with serving(tmp_path, trusted_proxies=trusted, base_path="/chat") as live, browser(live) as http:
        for scheme, is_secure in (("http", False), ("https", True)):
            link = await invited(live, f"ada of {scheme}")
            headers = {"X-Forwarded-Proto": scheme}
            reply = await http.post("/chat/api/session", json={"link": link}, headers=headers)
            cookie = SimpleCookie(reply.headers["set-cookie"])["inkstream"]
            assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "strict", "/chat")
            assert bool(cookie["secure"]) == is_secure
            assert int(cookie["max-age"]) == 30 * 24 * 3600


async def test_signing_out_ends_the_session_and_its_streams_alone(tmp_path: Path) -> None:
    async with serving(tmp_path, ENDLESS) as live, await signed_in(live, "ada") as http:
        async with await program_of(live, http) as program:
            run = (await ask(http))["run"]["id"]
            await first_text(program, run)
            async with aclosing(follow(http, run)) as leaving, aclosing(follow(program, run)) as staying:
                await anext(leaving)
                await anext(staying)
                assert (await http.delete("/api/session")).status_code == 204
                assert not any([event.event == "stopped" async for event in leaving])
                assert (await anext(staying)).event == "text"
            assert (await program.post(f"/api/runs/{run}/stop")).status_code == 200
        assert not await is_let_in(http)


async def program_of(live: Live, http: httpx.AsyncClient) -> httpx.AsyncClient:
    """A client with a key that its user has made on the page."""
    key = (await http.post("/api/keys", json={"label": "laptop"})).json()["key"]
    return browser(live, Authorization=f"Bearer {key}")


# Keys


async def test_a_user_makes_and_revokes_keys_whose_secret_is_told_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as live, await signed_in(live, "ada") as http:
        made = (await http.post("/api/keys", json={"label": "笔记本"})).json()
        secret = made.pop("key")
        assert (await http.get("/api/keys")).json() == {"keys": [made]}
        async with browser(live, Authorization=f"Bearer {secret}") as program:
            assert await me(program) == {"name": "ada", "role": "user", "by": "key"}
            assert (await http.delete(f"/api/keys/{made['id']}")).status_code == 204
            assert not await is_let_in(program)
        assert (await http.delete(f"/api/keys/{made['id']}")).status_code == 404


async def test_no_secret_stands_in_the_file(tmp_path: Path) -> None:
    async with serving(tmp_path) as live, await signed_in(live, "ada") as http:
        key = (await http.post("/api/keys", json={})).json()["key"]
        link = await invited(live, "bob")
        for secret in (key, link, http.cookies["inkstream"]):
            assert not any(secret.encode() in file.read_bytes() for file in files_of(tmp_path))
        assert (tmp_path / FILE).stat().st_mode & 0o077 == 0


async def test_a_key_opens_the_page_as_well(tmp_path: Path) -> None:
    async with serving(tmp_path) as live, await signed_in(live, "ada") as http, browser(live) as other:
        key = (await http.post("/api/keys", json={})).json()["key"]
        assert (await other.post("/api/session", json={"key": key})).status_code == 204
        assert await me(other) == {"name": "ada", "role": "user", "by": "session"}


async def test_a_wrong_key_is_not_made_good_by_a_cookie(tmp_path: Path) -> None:
    async with serving(tmp_path) as live, await signed_in(live, "ada") as http:
        http.headers["Authorization"] = "Bearer wrong"
        assert not await is_let_in(http)


async def test_the_access_key_is_locals_beside_users_too_and_its_sessions_end_with_it(tmp_path: Path) -> None:
    async with serving(tmp_path, key="secret") as live, browser(live) as http:
        await invited(live, "ada")
        assert (await http.post("/api/session", json={"key": "secret"})).status_code == 204
        assert (await me(http))["name"] == "local"
        cookie = http.cookies["inkstream"]
        async with browser(live, Authorization="Bearer secret") as program:
            assert await me(program) == {"name": "local", "role": "admin", "by": "key"}
    async with serving(tmp_path, key="another") as live, browser(live, Cookie=f"inkstream={cookie}") as http:
        assert not await is_let_in(http)
    async with serving(tmp_path, key="secret") as live, browser(live, Cookie=f"inkstream={cookie}") as http:
        assert await is_let_in(http)


# Guessing


async def test_who_guesses_keys_has_to_wait_and_nobody_else_has(tmp_path: Path) -> None:
    async with serving(tmp_path, key="secret", trusted_proxies=("127.0.0.1",)) as live, browser(live) as http:
        guesser = {"X-Forwarded-For": "203.0.113.7"}
        for guess in range(door.ATTEMPTS_PER_MINUTE // 2):
            assert (
                await http.post("/api/session", json={"key": str(guess)}, headers=guesser)
            ).status_code == 401
            bearer = {"Authorization": f"Bearer {guess}"}
            assert (await http.get("/api/chats", headers=guesser | bearer)).status_code == 401
        for reply in (
            await http.post("/api/session", json={"key": "secret"}, headers=guesser),
            await http.post("/api/session", json={"link": "secret"}, headers=guesser),
            await http.get("/api/chats", headers=guesser | {"Authorization": "Bearer secret"}),
        ):
            assert (reply.status_code, error_of(reply)) == (429, "too_many_attempts")
            assert 1 <= int(reply.headers["retry-after"]) <= 60 / door.ATTEMPTS_PER_MINUTE
        other = {"X-Forwarded-For": "203.0.113.8", "Authorization": "Bearer secret"}
        assert (await http.get("/api/chats", headers=other)).status_code == 200


async def test_a_household_cannot_guess_from_all_of_its_ipv6_addresses(tmp_path: Path) -> None:
    async with serving(tmp_path, key="secret", trusted_proxies=("127.0.0.1",)) as live, browser(live) as http:
        statuses = []
        for guess in range(door.ATTEMPTS_PER_MINUTE + 1):
            headers = {"X-Forwarded-For": f"2001:db8::{guess:x}"}
            reply = await http.post("/api/session", json={"key": "wrong"}, headers=headers)
            statuses.append(reply.status_code)
        assert statuses == [401] * door.ATTEMPTS_PER_MINUTE + [429]


# Proxies


async def test_a_trusted_proxy_names_the_user(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, user_header="X-Forwarded-User", trusted_proxies=("127.0.0.0/8",)) as live,
        browser(live) as http,
    ):
        assert not await is_let_in(http)
        named = {b"X-Forwarded-User": "小明".encode()}
        reply = await http.get("/api/me", headers=named)
        assert reply.json() == {"name": "小明", "role": "user", "by": "user"}
        user = await live.services.accounts.user_named("小明")
        await live.services.accounts.change_user(user.id, is_disabled=True)
        assert (await http.get("/api/me", headers=named)).status_code == 401


async def test_what_is_meant_for_one_user_is_done_for_no_other(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, user_header="X-Forwarded-User", trusted_proxies=("127.0.0.0/8",)) as live,
        browser(live) as http,
    ):
        named, meant = {b"X-Forwarded-User": "小明".encode()}, {b"If-User": quote("小明").encode()}
        assert (await http.post("/api/chats", json={}, headers=named | meant)).status_code == 201
        reply = await http.post("/api/chats", json={}, headers={b"X-Forwarded-User": b"bob"} | meant)
        assert (reply.status_code, error_of(reply)) == (403, "other_user")
        assert (await http.get("/api/chats", headers={"X-Forwarded-User": "bob"})).json()["chats"] == []


async def test_nobody_else_names_the_user_or_where_he_comes_from(tmp_path: Path) -> None:
    trusted = ("192.0.2.1",)
    async with (
        serving(tmp_path, user_header="X-Forwarded-User", trusted_proxies=trusted, key="secret") as live,
        browser(live) as http,
    ):
        assert (await http.get("/api/me", headers={"X-Forwarded-User": "ada"})).status_code == 401
        statuses = []
        for guess in range(door.ATTEMPTS_PER_MINUTE + 1):
            headers = {"X-Forwarded-For": f"203.0.113.{guess}"}
            statuses.append((await http.post("/api/session", json={"key": "x"}, headers=headers)).status_code)
        assert statuses[-1] == 429


@pytest.mark.parametrize(
    ("settings", "users", "level"),
    [
        ({}, (), "ok"),
        ({"hosts": ("chat.example",)}, (), "warn"),
        ({"hosts": ("chat.example",)}, ("ada",), "ok"),
        ({"host": "0.0.0.0"}, (), "fail"),
        ({"host": "0.0.0.0"}, ("ada",), "ok"),
        ({"host": "0.0.0.0", "key": "secret"}, (), "ok"),
        ({"host": "0.0.0.0", "user_header": "X-User", "trusted_proxies": ("10.0.0.1",)}, (), "ok"),
    ],
)
async def test_a_server_that_anybody_may_use_is_not_put_on_the_network(
    tmp_path: Path, settings: dict[str, Any], users: tuple[str, ...], level: str
) -> None:
    async with Accounts.open(tmp_path) as accounts:
        for user in users:
            await accounts.add_user(user)
    subject = Subject(Settings(data_dir=tmp_path, **settings), {}, Words("en"))
    assert [finding.level for finding in exposure(subject)][-1] == level


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"user_header": "X-User"}, "INKSTREAM_TRUSTED_PROXIES"),
        ({"trusted_proxies": ("proxy.lan",)}, "'proxy.lan'"),
        ({"trusted_proxies": ("10.0.0.1/8",)}, "'10.0.0.1/8'"),
    ],
)
def test_a_proxy_that_cannot_be_trusted_stops_the_start(settings: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Settings(**settings)  # type: ignore[arg-type]  # of several types


# Disabling


async def test_a_disabled_user_loses_streams_sessions_links_and_keys_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path, ENDLESS) as live, await signed_in(live, "ada") as http:
        program = await program_of(live, http)
        run = (await ask(http))["run"]["id"]
        await first_text(http, run)
        async with (
            program,
            aclosing(follow(http, run)) as by_session,
            aclosing(follow(program, run)) as by_key,
        ):
            await anext(by_session)
            await anext(by_key)
            assert "disabled" in await asyncio.to_thread(console, tmp_path, "users", "disable", "ADA")
            for client in (http, program):
                assert not await is_let_in(client)
            assert not any([event.event == "stopped" async for event in by_session])
            assert not any([event.event == "stopped" async for event in by_key])
            assert len(live.services.streams) == 0
            await asyncio.to_thread(console, tmp_path, "users", "enable", "ada")
            assert await is_let_in(program)
            assert not await is_let_in(http)
            assert (await program.post(f"/api/runs/{run}/stop")).status_code == 200


async def test_streams_of_nobody_end_when_there_are_users(tmp_path: Path) -> None:
    async with serving(tmp_path, ENDLESS) as live, browser(live) as http:
        run = (await ask(http))["run"]["id"]
        async with aclosing(follow(http, run)) as events:
            await anext(events)
            await invited(live, "ada")
            assert not any([event.event == "stopped" async for event in events])


# Roles


async def test_an_admin_manages_users_and_nobody_else_does(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, public_url="https://chat.example/ink/") as live,
        await signed_in(live, "ada", Role.ADMIN) as ada,
        browser(live) as bob,
    ):
        made = (await ada.post("/api/users", json={"name": "Bob"})).json()
        address, _, link = made["link"].rpartition("/#/sign-in/")
        assert address == "https://chat.example/ink"
        assert (await bob.post("/api/session", json={"link": link})).status_code == 204
        user = f"/api/users/{made['id']}"
        for reply in (
            await bob.get("/api/users"),
            await bob.post("/api/users", json={"name": "eve", "role": "admin"}),
            await bob.patch(user, json={"role": "admin"}),
            await bob.post(f"{user}/link"),
        ):
            assert (reply.status_code, error_of(reply)) == (403, "admins_only")
        assert (await ada.patch(user, json={"role": "admin"})).json()["role"] == "admin"
        assert [u["name"] for u in (await bob.get("/api/users")).json()["users"]] == ["ada", "Bob"]
        assert (await ada.patch(user, json={"disabled": True})).json()["disabled_at"] is not None
        assert not await is_let_in(bob)
        refused = await ada.post(f"{user}/link")
        assert (refused.status_code, error_of(refused)) == (409, "user_disabled")
        assert (await ada.post("/api/users/nobody/link")).status_code == 404


async def test_the_last_admin_stays_one(tmp_path: Path) -> None:
    async with Accounts.open(tmp_path) as accounts:
        ada = await accounts.add_user("ada", Role.ADMIN)
        with pytest.raises(Conflict):
            await accounts.change_user(ada.id, role=Role.USER)
        with pytest.raises(Conflict):
            await accounts.change_user(ada.id, is_disabled=True)
        bob = await accounts.add_user("bob", Role.ADMIN)
        await accounts.change_user(ada.id, role=Role.USER)
        assert [user.role for user in await accounts.users()] == ["user", "admin"]
        with pytest.raises(Conflict):
            await accounts.change_user(bob.id, is_disabled=True)


@pytest.mark.parametrize("name", ["", "  ", "a" * 65, "a\nb", "a\u200eb", "\x00"])
async def test_a_name_can_be_seen(tmp_path: Path, name: str) -> None:
    async with Accounts.open(tmp_path) as accounts:
        with pytest.raises(Invalid):
            await accounts.add_user(name)


@pytest.mark.parametrize("other", ["ADA", " ada ", "ａｄａ"])
async def test_names_that_look_alike_are_one(tmp_path: Path, other: str) -> None:
    async with Accounts.open(tmp_path) as accounts:
        ada = await accounts.add_user("Ada")
        with pytest.raises(Conflict):
            await accounts.add_user(other)
        assert (await accounts.user_named(other)).id == ada.id


# The file


async def test_a_file_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    async with Accounts.open(tmp_path) as accounts:
        await accounts.add_user("ada")
    with closing(sqlite3.connect(tmp_path / FILE)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(LogError, match="newer"):
        async with Accounts.open(tmp_path):
            pass
    with closing(sqlite3.connect(tmp_path / FILE)) as db:
        assert db.execute("SELECT name FROM users").fetchall() == [("ada",)]


async def test_whether_there_are_users_can_be_asked_of_a_folder(tmp_path: Path) -> None:
    assert not has_users(tmp_path)
    assert files_of(tmp_path) == []
    async with Accounts.open(tmp_path) as accounts:
        assert not has_users(tmp_path)
        user = await accounts.add_user("ada")
        await accounts.change_user(user.id, is_disabled=True)
    assert has_users(tmp_path)


# The console


def test_the_console_adds_lists_and_revokes(tmp_path: Path) -> None:
    link = console(
        tmp_path, "users", "add", "ada", "--admin", "--public-url", "https://chat.example"
    ).split()[-1]
    assert link.startswith("https://chat.example/#/sign-in/")
    assert "[::1]:8080/chat/#/" in console(
        tmp_path, "users", "link", "ada", "--host", "::1", "--port", "8080", "--base-path", "chat"
    )
    assert console(tmp_path, "users", "list").splitlines()[1].split()[:2] == ["ada", "admin"]
    secret = console(tmp_path, "keys", "add", "ada", "--label", "laptop").splitlines()[1]
    line = console(tmp_path, "keys", "list").splitlines()[1]
    assert secret.startswith("ink_")
    assert secret not in line
    assert "laptop" in line
    console(tmp_path, "keys", "revoke", line.split()[0])
    assert "laptop" not in console(tmp_path, "keys", "list", "ada")


@pytest.mark.parametrize(
    "arguments", [("users", "add"), ("users", "link", "bob"), ("keys", "revoke", "x"), ("keys", "add", "bob")]
)
def test_the_console_says_what_is_missing(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        console(tmp_path, *arguments)
    assert failed.value.returncode == 2
    assert failed.value.stderr.startswith("inkstream: ")
