"""A wall clock that leaps by a day, forth and back, under a live server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from inkstream import clock, runs
from inkstream.api import door
from inkstream.clock import DOUBT_SECONDS, WallClock
from inkstream.engines.scripted import Script
from tests.live import serving
from tests.signing_in import browser, invited, keyed, signed_in
from tests.test_api import SLOW, ask, error_of, follow, until

DAY_SECONDS = 24 * 3600.0
real_time = time.time


class Leaping:
    """``time.time``, set forth or back."""

    def __init__(self) -> None:
        self.by_seconds = 0.0

    def __call__(self) -> float:
        return real_time() + self.by_seconds


@pytest.fixture
def leap(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    leaping = Leaping()
    monkeypatch.setattr(time, "time", leaping)

    def by(seconds: float) -> None:
        leaping.by_seconds += seconds

    return by


def test_a_clock_that_has_leapt_is_not_believed_for_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    steady, ahead = 1000.0, 1e9
    monkeypatch.setattr(clock, "steady_seconds", lambda: steady)
    monkeypatch.setattr(time, "time", lambda: steady + ahead)
    found = WallClock()
    assert found.now() == steady + ahead
    for leap_seconds in (DAY_SECONDS, -DAY_SECONDS):
        ahead += leap_seconds
        assert found.now() is None
        steady += DOUBT_SECONDS - 1
        assert found.now() is None
        steady += 1
        assert found.now() == steady + ahead
    ahead += 30  # as NTP sets it right
    assert found.now() == steady + ahead


@pytest.mark.parametrize("by", [DAY_SECONDS, -DAY_SECONDS])
async def test_nothing_is_forgotten_because_the_clock_has_leapt(
    tmp_path: Path, leap: Callable[[float], None], monkeypatch: pytest.MonkeyPatch, by: float
) -> None:
    monkeypatch.setattr(runs, "RENEW_SECONDS", 0.01)
    monkeypatch.setattr(runs, "BEATS_PER_ROUND", 1)
    async with serving(tmp_path, retention_hours=1, undo_hours=1) as live, browser(live) as http:
        asked = await ask(http)
        run, chat = asked["run"]["id"], asked["message"]["chat"]
        [_ async for _ in follow(http, run)]
        await http.delete(f"/api/chats/{chat}")
        leap(by)
        rounds = counted(live.services.runs, monkeypatch)
        await live.until(lambda: rounds() > 3)
        assert (await http.get(f"/api/runs/{run}/events")).status_code == 200
        assert (await http.post(f"/api/chats/{chat}/restore")).status_code == 200


def counted(owner: runs.Runs, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often what is old has been looked for."""
    forget, rounds = owner._forget_old, 0

    async def count() -> None:
        nonlocal rounds
        await forget()
        rounds += 1

    monkeypatch.setattr(owner, "_forget_old", count)
    return lambda: rounds


@pytest.mark.parametrize("by", [DAY_SECONDS, -DAY_SECONDS])
async def test_an_answer_goes_on_and_its_times_can_be_exported_and_imported(
    tmp_path: Path, leap: Callable[[float], None], by: float
) -> None:
    async with serving(tmp_path, SLOW, heartbeat_seconds=0.05) as live, browser(live) as http:
        run = (await ask(http))["run"]["id"]
        async with aclosing(follow(http, run)) as events:
            async for event in events:
                if event.event == "text":
                    break
            leap(by)
            rest = [event async for event in events]
        assert rest[-1].event == "done"
        timings = json.loads(rest[-1].data)["timings"]
        durations = {name: value for name, value in timings.items() if name.endswith("_seconds")}
        assert {"total_seconds", "first_token_seconds", "writing_seconds"} <= durations.keys()
        assert all(0 <= seconds < 60 for seconds in durations.values())
        exported = (await http.get("/api/export")).content
        assert (await http.post("/api/import", content=exported)).status_code == 200


async def test_limits_and_guesses_are_counted_by_another_clock(
    tmp_path: Path, leap: Callable[[float], None]
) -> None:
    async with (
        serving(tmp_path, key="secret", user_requests=3) as live,
        browser(live) as guesser,
        await keyed(live, "ada") as ada,
    ):
        while (await ada.get("/api/chats")).status_code == 200:
            pass
        for guess in range(door.ATTEMPTS_PER_MINUTE):
            assert (await guesser.post("/api/session", json={"key": str(guess)})).status_code == 401
        for by in (DAY_SECONDS, -2 * DAY_SECONDS):
            leap(by)
            reply = await ada.get("/api/chats")
            assert (reply.status_code, error_of(reply)) == (429, "too_many_requests")
            assert 1 <= int(reply.headers["retry-after"]) <= 20
            assert (await guesser.post("/api/session", json={"key": "secret"})).status_code == 429


async def test_sessions_and_links_are_over_while_it_is_later_and_hold_again(
    tmp_path: Path, leap: Callable[[float], None]
) -> None:
    async with serving(tmp_path, session_days=1) as live, await signed_in(live, "ada") as http:
        link = await invited(live, "bob")
        leap(2 * DAY_SECONDS)
        async with browser(live) as bob:
            assert (await bob.post("/api/session", json={"link": link})).status_code == 401
        assert (await http.get("/api/chats")).status_code == 401
        leap(-2 * DAY_SECONDS)
        assert (await http.get("/api/chats")).status_code == 200
        async with browser(live) as bob:
            assert (await bob.post("/api/session", json={"link": link})).status_code == 204


async def test_streams_stay_open_and_heartbeats_come_whatever_time_it_is(
    tmp_path: Path, leap: Callable[[float], None]
) -> None:
    script = Script(stall_on="hello")
    async with serving(tmp_path, script, heartbeat_seconds=0.05) as live, browser(live) as http:
        run = (await ask(http))["run"]["id"]
        async with http.stream("GET", f"/api/runs/{run}/events") as reply:
            pieces = reply.aiter_raw()
            for by in (DAY_SECONDS, -2 * DAY_SECONDS, DAY_SECONDS):
                leap(by)
                beats = 0
                while beats < 2:
                    beats += (await anext(pieces)) == b":\n\n"

        async def is_gone() -> bool:
            return len(live.services.streams) == 0

        await until(is_gone)
