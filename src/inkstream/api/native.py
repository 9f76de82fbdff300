"""The native API's runs, and what is said of the server. See ``docs/protocol.md``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response

import inkstream
from inkstream.api.services import Services, json_response, principal_of, services
from inkstream.api.shapes import chat_json, engine_json, run_json
from inkstream.api.sse import OPENING, EventStream, frame
from inkstream.engines import Status
from inkstream.errors import Invalid
from inkstream.events import Cursor, Note, encode
from inkstream.history import Changed
from inkstream.log import Run
from inkstream.news import Item

router = APIRouter(prefix="/api")


# Runs


@router.get("/runs/{run}")
async def get_run(request: Request, run: str) -> Response:
    return json_response(run_json(await services(request).runs.get(principal_of(request), run)))


@router.post("/runs/{run}/stop")
async def stop_run(request: Request, run: str) -> Response:
    return json_response(run_json(await services(request).runs.stop(principal_of(request), run)))


@router.get("/runs/{run}/events")
async def follow_run(
    request: Request,
    run: str,
    after: Annotated[int, Query(ge=0)] = 0,
    wait: Annotated[bool, Query(description="0: end behind what there is")] = True,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """The run's events as server-sent events, from behind the cursor."""
    here, principal = services(request), principal_of(request)
    here.require_reader()
    found = await here.runs.get(principal, run)
    cursor = _cursor(last_event_id, after)
    await here.runs.require_cursor(found, cursor)
    here.streams.tally.reconnects += bool(last_event_id)
    if found.state.is_terminal and cursor.seq >= found.last_seq:
        return Response(status_code=204)
    here.streams.tally.resumes += cursor.seq > 0
    opening = OPENING
    if wait and found.last_seq > cursor.seq:
        # What is stored already is not news: a page shows it at once, and only what follows as it comes.
        opening += Note("stored", encode({"key": "stored", "seq": found.last_seq})).frame
    return here.follow(principal, run, cursor.seq, opening=opening, waits=wait)


def _cursor(last_event_id: str | None, after: int) -> Cursor:
    if not last_event_id:
        return Cursor(after)
    try:
        return Cursor.parse(last_event_id)
    except ValueError as error:
        raise Invalid(f"{error}. Send back the last id that you got.", code="bad_cursor") from error


@router.get("/live")
async def live(request: Request, wait: Annotated[bool, Query()] = True) -> Response:
    """A snapshot of the living runs, then what happens to runs, conversations and the engine."""
    here, principal = services(request), principal_of(request)
    here.require_reader()

    async def source(stream: EventStream) -> None:
        async with here.runs.live(principal) as (runs, news):
            stream.push(_snapshot(here, runs))
            await stream.ready()
            while wait and (item := await news.get()) is not None:
                stream.push(_told(here, item))
                await stream.ready()

    return here.stream(source)


def _told(here: Services, item: Item) -> bytes:
    match item:
        case Status():
            return frame("engine", engine_json(here.runs.engine, item))
        case Changed(chat=chat):
            return frame("chat", {"id": item.id, "chat": chat and chat_json(chat)})
        case Run():
            return frame("run", run_json(item))


def _snapshot(here: Services, runs: list[Run]) -> bytes:
    engine = here.runs.engine
    told = {"build": here.build, "engine": engine_json(engine, engine.status)}
    return frame("snapshot", {"runs": [run_json(run) for run in runs], **told})


# The server


@router.get("/status")
async def status(request: Request) -> Response:
    here = services(request)
    engine = engine_json(here.runs.engine, here.runs.engine.status)
    limits = {"stream_chars": here.settings.stream_chars, "body_kib": here.settings.body_kib}
    return json_response({"version": inkstream.__version__, "engine": engine, "limits": limits})
