"""What the page's main thread did, from Chromium's own trace, in processor time of that thread.

Processor time, because other processes on the machine do not count in it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.async_api import CDPSession

CATEGORIES = [
    "disabled-by-default-devtools.timeline",
    "disabled-by-default-devtools.timeline.frame",
    "blink.user_timing",
]
BUFFER_KIB = 400 * 1024


@dataclass(frozen=True, slots=True)
class Task:
    """Milliseconds; ``at`` on the trace's clock."""

    at: float
    length: float
    cpu: float


@dataclass(slots=True)
class Trace:
    tasks: list[Task] = field(default_factory=list)
    marks: list[tuple[str, float]] = field(default_factory=list)
    frames: int = 0
    dropped: int = 0
    #: What Chromium told of the page's main thread, as it tells it.
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def cpu_ms(self) -> float:
        return sum(task.cpu for task in self.tasks)

    @property
    def longest_ms(self) -> float:
        return max((task.cpu for task in self.tasks), default=0.0)

    def cpu_between(self, start: float, end: float) -> float:
        """Of all tasks that run in that time, whole where they run into it."""
        return sum(task.cpu for task in self.tasks if task.at + task.length > start and task.at < end)

    def cpu_per_key(self) -> list[float]:
        """From each key press to the frame that shows it."""
        spans: list[float] = []
        pressed: float | None = None
        for name, at in sorted(self.marks, key=lambda mark: mark[1]):
            if name == "bench.key":
                pressed = at
            elif name == "bench.painted" and pressed is not None:
                spans.append(self.cpu_between(pressed, at))
                pressed = None
        return spans


@asynccontextmanager
async def traced(session: CDPSession, extra: Sequence[str] = ()) -> AsyncIterator[Trace]:
    """Trace what happens inside, with more categories if asked; what is yielded is filled in at the end."""
    config = {
        "includedCategories": [*CATEGORIES, *extra],
        "excludedCategories": ["*"],
        "recordMode": "recordContinuously",
        "traceBufferSizeInKb": BUFFER_KIB,
    }
    await session.send("Tracing.start", {"transferMode": "ReturnAsStream", "traceConfig": config})
    trace = Trace()
    yield trace
    done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    session.once("Tracing.tracingComplete", lambda event: done.set_result(event["stream"]))
    await session.send("Tracing.end")
    told = json.loads(await _read(session, await done))
    _fill(trace, told["traceEvents"] if isinstance(told, dict) else told)


async def _read(session: CDPSession, handle: str) -> str:
    pieces: list[str] = []
    while True:
        read = await session.send("IO.read", {"handle": handle, "size": 1 << 20})
        pieces.append(read["data"])
        if read["eof"]:
            await session.send("IO.close", {"handle": handle})
            return "".join(pieces)


def _fill(trace: Trace, events: list[dict[str, Any]]) -> None:
    by_thread: dict[tuple[int, int], list[dict[str, Any]]] = {thread: [] for thread in _main_threads(events)}
    for event in events:
        thread = (event.get("pid", 0), event.get("tid", 0))
        name = event.get("name", "")
        if event.get("ph") == "X" and thread in by_thread:
            by_thread[thread].append(event)
        elif name == "BeginFrame":
            trace.frames += 1
        elif name == "DroppedFrame":
            trace.dropped += 1
        elif name.startswith("bench."):
            trace.marks.append((name, event["ts"] / 1e3))
    # A browser keeps a spare renderer; the page's is the one that works.
    trace.events = max(by_thread.values(), key=_cpu_of, default=[])
    trace.tasks = [_task(event) for event in trace.events if event["name"] == "RunTask"]


def _main_threads(events: list[dict[str, Any]]) -> set[tuple[int, int]]:
    return {
        (event["pid"], event["tid"])
        for event in events
        if event.get("name") == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }


def _cpu_of(events: list[dict[str, Any]]) -> int:
    return sum(event.get("tdur", 0) for event in events if event["name"] == "RunTask")


def _task(event: dict[str, Any]) -> Task:
    return Task(event["ts"] / 1e3, event.get("dur", 0) / 1e3, event.get("tdur", 0) / 1e3)
