"""The native API: conversations, their messages, and the runs that write them. See ``docs/protocol.md``."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from dataclasses import asdict, replace
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import Response

import inkstream
from inkstream.api.guard import COOKIE, Unauthorized, session_token
from inkstream.api.services import SamplingIn, Services, json_response, principal_of, services
from inkstream.api.sse import EventStream
from inkstream.ask import Ask
from inkstream.conversation import NEWEST, Tree
from inkstream.engines import Phase, Status
from inkstream.errors import Conflict, Invalid, NotFound
from inkstream.events import Cursor, encode
from inkstream.history import Chat, Message
from inkstream.log import Run

router = APIRouter(prefix="/api")

TITLE_CHARS = 200


class ChatIn(BaseModel):
    model_config = ConfigDict(extra="forbid")
    title: str = Field(default="", max_length=TITLE_CHARS)


class TitleIn(BaseModel):
    model_config = ConfigDict(extra="forbid")
    title: str = Field(min_length=1, max_length=TITLE_CHARS)


class SessionIn(BaseModel):
    key: str


class MessageIn(BaseModel):
    """Exactly one of ``content``, ``regenerate`` and ``continue``."""

    model_config = ConfigDict(extra="forbid")
    content: str | None = None
    parent: str | None = None
    regenerate: str | None = None
    continue_: str | None = Field(default=None, alias="continue")
    system: str | None = None
    sampling: SamplingIn = SamplingIn()

    @model_validator(mode="after")
    def _one_of(self) -> MessageIn:
        if sum(value is not None for value in (self.content, self.regenerate, self.continue_)) != 1:
            raise ValueError("give exactly one of 'content', 'regenerate' and 'continue'")
        return self


# Conversations


@router.post("/chats", status_code=201)
async def create_chat(request: Request, body: ChatIn) -> Response:
    chat = await services(request).history.create_chat(principal_of(request), body.title.strip())
    return json_response(_chat(chat), 201)


@router.get("/chats")
async def list_chats(request: Request, query: str = "") -> Response:
    chats = await services(request).history.chats(principal_of(request), query.strip())
    return json_response({"chats": [_chat(chat) for chat in chats]})


@router.get("/chats/{chat}")
async def get_chat(request: Request, chat: str) -> Response:
    here, principal = services(request), principal_of(request)
    found = await here.history.chat(principal, chat)
    messages = [await here.runs.fold(principal, m) for m in await here.history.messages(principal, chat)]
    return json_response({"chat": _chat(found), "messages": [_message(m) for m in messages]})


@router.patch("/chats/{chat}")
async def rename_chat(request: Request, chat: str, body: TitleIn) -> Response:
    return json_response(
        _chat(await services(request).history.rename(principal_of(request), chat, body.title))
    )


@router.delete("/chats/{chat}", status_code=204)
async def delete_chat(request: Request, chat: str) -> Response:
    here, principal = services(request), principal_of(request)
    living = [
        m.run for m in await here.history.messages(principal, chat) if m.run and not m.state.is_terminal
    ]
    for run in living:
        with contextlib.suppress(NotFound):
            await here.runs.stop(principal, run)
    await here.history.delete(principal, chat)
    return Response(status_code=204)


# Messages


@router.get("/messages/{message}")
async def get_message(request: Request, message: str) -> Response:
    here, principal = services(request), principal_of(request)
    return json_response(
        _message(await here.runs.fold(principal, await here.history.message(principal, message)))
    )


@router.post("/chats/{chat}/messages", status_code=202)
async def post_message(
    request: Request,
    chat: str,
    body: MessageIn,
    idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
) -> Response:
    here, principal = services(request), principal_of(request)
    body_hash = hashlib.sha256(chat.encode() + body.model_dump_json().encode()).digest()
    existing = await here.runs.find(principal, idempotency_key) if idempotency_key else None
    ask = Ask.decode(existing.record) if existing else await _ask(here, principal, chat, body)
    run = await here.runs.start(principal, ask, idempotency_key, body_hash)
    answer = Ask.decode(run.record).answer
    if answer is None:
        raise Conflict("the idempotency key belongs to a run outside of conversations.", code="key_reused")
    message = await here.runs.fold(principal, replace(answer, run=run.id))
    return json_response({"message": _message(message), "run": _run(run)}, 202)


async def _ask(here: Services, principal: str, chat: str, body: MessageIn) -> Ask:
    messages = await here.history.messages(principal, chat)
    tree = Tree(chat, [await here.runs.fold(principal, m) for m in messages])
    sampling = body.sampling.sampling()
    if body.content is not None:
        parent = body.parent if "parent" in body.model_fields_set else NEWEST
        return tree.ask(body.content, parent, body.system, sampling)
    if body.regenerate is not None:
        return tree.regenerate(body.regenerate, body.system, sampling)
    assert body.continue_ is not None
    pin, emitted = await here.runs.left_by(principal, tree.run_of(body.continue_))
    return tree.continued(body.continue_, pin, emitted, body.system, sampling)


# Runs


@router.get("/runs/{run}")
async def get_run(request: Request, run: str) -> Response:
    return json_response(_run(await services(request).runs.get(principal_of(request), run)))


@router.post("/runs/{run}/stop")
async def stop_run(request: Request, run: str) -> Response:
    return json_response(_run(await services(request).runs.stop(principal_of(request), run)))


@router.get("/runs/{run}/events")
async def follow_run(
    request: Request,
    run: str,
    after: Annotated[int, Query(ge=0)] = 0,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """The run's events as server-sent events, from behind the cursor."""
    here, principal = services(request), principal_of(request)
    found = await here.runs.get(principal, run)
    cursor = _cursor(last_event_id, after)
    await here.runs.require_cursor(found, cursor)
    if found.state.is_terminal and cursor.seq >= found.last_seq:
        return Response(status_code=204)
    return here.follow(principal, run, cursor.seq)


def _cursor(last_event_id: str | None, after: int) -> Cursor:
    if not last_event_id:
        return Cursor(after)
    try:
        return Cursor.parse(last_event_id)
    except ValueError as error:
        raise Invalid(f"{error}. Send back the last id that you got.", code="bad_cursor") from error


@router.get("/live")
async def live(request: Request) -> Response:
    """A snapshot of the living runs, then which start and end, and what the engine does."""
    here, principal = services(request), principal_of(request)

    async def source(stream: EventStream) -> None:
        async with here.runs.live(principal) as (runs, news):
            stream.push(_snapshot(runs, here.runs.engine.status))
            await stream.ready()
            while (item := await news.get()) is not None:
                if isinstance(item, Status):
                    stream.push(_frame("engine", asdict(item)))
                elif item.principal == principal:
                    stream.push(_frame("run", _run(item)))
                await stream.ready()

    return here.stream(source)


def _snapshot(runs: list[Run], engine: Status) -> bytes:
    return _frame("snapshot", {"runs": [_run(run) for run in runs], "engine": asdict(engine)})


def _frame(event: str, payload: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event.encode(), encode(payload))


# The server


@router.get("/status")
async def status(request: Request) -> Response:
    here = services(request)
    engine = asdict(here.runs.engine.status)
    if here.runs.engine.status.phase is Phase.READY:
        capabilities = here.runs.engine.describe()
        engine |= {"model": capabilities.model, "context_length": capabilities.context_length}
        engine |= {"defaults": asdict(capabilities.defaults), "engine": capabilities.engine}
    limits = {"stream_chars": here.settings.stream_chars, "body_kib": here.settings.body_kib}
    return json_response({"version": inkstream.__version__, "engine": engine, "limits": limits})


@router.post("/session", status_code=204)
async def sign_in(request: Request, body: SessionIn) -> Response:
    """Exchange the access key for the page's cookie."""
    settings = services(request).settings
    if settings.key and not hmac.compare_digest(body.key.encode(), settings.key.encode()):
        raise Unauthorized("that is not the access key of this server.")
    response = Response(status_code=204)
    response.set_cookie(
        COOKIE, session_token(settings.key), httponly=True, samesite="strict", path=settings.base_path or "/"
    )
    return response


# As the wire has them


def _chat(chat: Chat) -> dict[str, Any]:
    return {"id": chat.id, "title": chat.title, "created_at": chat.created_at, "updated_at": chat.updated_at}


def _message(message: Message) -> dict[str, Any]:
    ending = message.ending or {}
    return {
        "id": message.id,
        "chat": message.chat,
        "parent": message.parent,
        "role": message.role,
        "parts": message.parts,
        "created_at": message.created_at,
        "run": message.run,
        "last_id": message.last_id,
        "state": message.state,
        "finish": ending.get("finish"),
        "error": ending if "code" in ending else None,
        "usage": ending.get("usage"),
        "timings": ending.get("timings"),
    }


def _run(run: Run) -> dict[str, Any]:
    answer = Ask.decode(run.record).answer
    return {
        "id": run.id,
        "chat": answer.chat if answer else None,
        "message": answer.id if answer else None,
        "state": run.state,
        "last_seq": run.last_seq,
        "stop_requested": run.stop_requested,
        "created_at": run.created_at,
        "ended_at": run.ended_at,
    }
