"""Where the main-thread time of a streaming answer goes, by what Chromium says that it does.

    python -m bench.page.where [--seconds 20] [--fine]

Milliseconds of processor time of that thread, each without what it calls. With ``--fine`` Chromium tells
more, which costs time of its own: compare shares then.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from playwright.async_api import async_playwright

from . import corpus
from .browser import FLAGS
from .server import serving
from .tasks import traced
from .visit import visiting

TIMELINE = ["devtools.timeline", "disabled-by-default-v8.gc"]
FINE = ["blink", "blink.user_timing", "cc", "v8", "toplevel", "base"]
SHOWN = 30
LONGEST = 6


@dataclass(slots=True)
class Cause:
    """Of all events with one name."""

    ms: float = 0.0
    count: int = 0
    longest_ms: float = 0.0


def causes(events: list[dict[str, Any]]) -> dict[str, Cause]:
    """By name, the time that events take without those inside of them."""
    found: dict[str, Cause] = defaultdict(Cause)
    open_events: list[dict[str, Any]] = []
    own = {id(event): event.get("tdur", 0) for event in events}
    for event in sorted(events, key=lambda event: (event["ts"], -event.get("dur", 0))):
        while open_events and _end(open_events[-1]) <= event["ts"]:
            open_events.pop()
        if open_events:
            own[id(open_events[-1])] -= event.get("tdur", 0)
        open_events.append(event)
    for event in events:
        cause = found[event["name"]]
        cause.ms += own[id(event)] / 1e3
        cause.count += 1
        cause.longest_ms = max(cause.longest_ms, event.get("tdur", 0) / 1e3)
    return found


def _end(event: dict[str, Any]) -> int:
    return int(event["ts"] + event.get("dur", 0))


def table(events: list[dict[str, Any]], seconds: float) -> str:
    """The names that take most, per second."""
    rows = sorted(causes(events).items(), key=lambda row: -row[1].ms)[:SHOWN]
    head = "| what | ms/s | per s | longest, all in, ms |\n|---|---|---|---|"
    lines = [
        f"| {name} | {cause.ms / seconds:.2f} | {cause.count / seconds:.1f} | {cause.longest_ms:.1f} |"
        for name, cause in rows
    ]
    return "\n".join([head, *lines])


def longest(events: list[dict[str, Any]]) -> str:
    """The longest tasks, each with what took most of it."""
    tasks = sorted(
        (event for event in events if event["name"] == "RunTask"), key=lambda event: -event.get("tdur", 0)
    )[:LONGEST]
    return "\n".join(_account(task, events) for task in tasks)


def _account(task: dict[str, Any], events: list[dict[str, Any]]) -> str:
    inside = [event for event in events if task["ts"] <= event["ts"] < _end(task)]
    most = sorted(causes(inside).items(), key=lambda row: -row[1].ms)[:5]
    parts = ", ".join(f"{name} {cause.ms:.1f}" for name, cause in most)
    return f"{task.get('tdur', 0) / 1e3:.1f} ms: {parts}"


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.page.where", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--fine", action="store_true")
    parser.add_argument("--chromium", default=shutil.which("chromium") or "chromium")
    given = parser.parse_args()
    text = corpus.mixed(int(200 * given.seconds))
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=given.chromium, args=FLAGS)
        with serving({"answer": text, "tokens_per_second": 200}) as server:
            async with visiting(browser, server.url, 1, trace=False) as visit:
                session = await browser.new_browser_cdp_session()
                async with traced(session, [*TIMELINE, *(FINE if given.fine else [])]) as trace:
                    await visit.ask()
                    await visit.until_ended()
        await browser.close()
    print(f"{trace.cpu_ms / given.seconds:.1f} ms/s, {len(trace.tasks) / given.seconds:.0f} tasks/s\n")
    print(table(trace.events, given.seconds), longest(trace.events), sep="\n\n")


if __name__ == "__main__":
    asyncio.run(main())
