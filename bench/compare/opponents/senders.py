"""Our gateway with other people's sending: ``senders.py sse-starlette|fastapi``, the rest by INKSTREAM_….

Everything is ours, runs and log included, but the route that sends a run's events: that is written as the
library's documentation has it, one object per event.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterable
from typing import Any

import uvloop
from fastapi import FastAPI, Request
from fastapi.sse import EventSourceResponse as FromFastAPI
from fastapi.sse import ServerSentEvent
from sse_starlette.sse import EventSourceResponse as FromSseStarlette
from starlette.types import ASGIApp

import inkstream.gateway
from inkstream.api import Services, create_app
from inkstream.config import load
from inkstream.events import Batch, Event

PATH = "/api/runs/{run}/events"


class Queue:
    """A reader that has everything waiting for a generator."""

    def __init__(self) -> None:
        self.batches: asyncio.Queue[Batch | None] = asyncio.Queue()

    def take(self, batch: Batch) -> bool:
        self.batches.put_nowait(batch)
        return True

    async def ready(self) -> None:
        """It always is."""


async def events(request: Request, run: str) -> AsyncGenerator[Event]:
    queue, services = Queue(), request.app.state.services
    following = asyncio.ensure_future(services.runs.follow("local", run, 0, queue))
    following.add_done_callback(lambda _: queue.batches.put_nowait(None))
    try:
        while (batch := await queue.batches.get()) is not None:
            for event in batch.events:
                yield event
    finally:
        following.cancel()


def by_sse_starlette(app: FastAPI) -> None:
    async def sent(request: Request, run: str) -> AsyncGenerator[dict[str, str]]:
        async for event in events(request, run):
            yield {
                "id": f"{event.epoch}:{event.seq}",
                "event": event.kind.value,
                "data": event.data.decode(),
            }

    @app.get(PATH)
    async def follow(request: Request, run: str) -> FromSseStarlette:
        return FromSseStarlette(sent(request, run), sep="\n")


def by_fastapi(app: FastAPI) -> None:
    @app.get(PATH, response_class=FromFastAPI)
    async def follow(request: Request, run: str) -> AsyncIterable[ServerSentEvent]:
        async for event in events(request, run):
            yield ServerSentEvent(
                id=f"{event.epoch}:{event.seq}", event=event.kind.value, raw_data=event.data.decode()
            )


def with_sender(services: Services) -> ASGIApp:
    app = FastAPI()
    app.state.services = services
    {"sse-starlette": by_sse_starlette, "fastapi": by_fastapi}[sys.argv[1]](app)
    app.mount("/", create_app(services))
    return app


def say(_: dict[str, Any]) -> None:
    """There is no parent to tell."""


if __name__ == "__main__":
    # Under the gateway's own name for it: its server, connections and order of closing stay as they are.
    inkstream.gateway.create_app = with_sender  # type: ignore[attr-defined]  # it is no export
    uvloop.run(inkstream.gateway.Gateway(load(), say).serve())
