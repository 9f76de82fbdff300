"""The native API's conversations and their messages. See ``docs/protocol.md``."""

from __future__ import annotations

import contextlib
import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from starlette.responses import Response

from inkstream.api.body import StrictJson
from inkstream.api.description import replies
from inkstream.api.services import (
    NULL,
    STOPS,
    Services,
    Stops,
    TokenSamplingIn,
    exactly_one_of,
    json_response,
    principal_of,
    read_sampling,
    services,
)
from inkstream.api.shapes import chat_json, message_json, run_json
from inkstream.ask import Ask
from inkstream.conversation import NEWEST, Tree, fit
from inkstream.engines import Phase, Sampling
from inkstream.errors import Conflict, EngineFailed, Expired, Invalid, NotFound, Overloaded
from inkstream.history import Chat, Message
from inkstream.history.index import QUERY_CHARS

router = APIRouter(prefix="/api", route_class=StrictJson)

TITLE_CHARS = 200
SYSTEM_CHARS = 32_768
PAGE_CHATS = 200
KEY_CHARS = 200

Title = Annotated[str, StringConstraints(strip_whitespace=True, max_length=TITLE_CHARS)]
IdempotencyKey = Annotated[str | None, Header(max_length=KEY_CHARS)]


class PartialSamplingIn(TokenSamplingIn):
    """What is not given is left as it is elsewhere; null is the model's default."""

    stop: Annotated[Stops, WithJsonSchema({"anyOf": [STOPS, NULL]})] = Field(default=[])

    @field_validator("stop", mode="before")
    @classmethod
    def _none_is_empty(cls, stop: Any) -> Any:
        return [] if stop is None else stop

    def given(self) -> dict[str, Any]:
        """What was said, null among it."""
        given = self.model_dump(exclude_unset=True)
        return {**given, "stop": self.stop or None} if "stop" in given else given

    def chosen(self) -> dict[str, Any]:
        """What was said and is not the model's default."""
        return {name: value for name, value in self.given().items() if value is not None}


class SettingsIn(BaseModel):
    model_config = ConfigDict(extra="forbid")
    system: str | None = Field(default=None, max_length=SYSTEM_CHARS)
    sampling: PartialSamplingIn | None = None

    def patch(self) -> dict[str, Any]:
        """For ``History.change``."""
        patch: dict[str, Any] = {}
        if "system" in self.model_fields_set:
            patch["system"] = self.system or None
        if "sampling" in self.model_fields_set:
            patch["sampling"] = self.sampling and self.sampling.given()
        return patch

    def settings(self) -> dict[str, Any]:
        """For ``History.create_chat``: without what is left to the model."""
        chosen = {"system": self.system, "sampling": self.sampling and self.sampling.chosen()}
        return {name: value for name, value in chosen.items() if value}


class ChatIn(BaseModel):
    model_config = ConfigDict(extra="forbid")
    title: Title = ""
    settings: SettingsIn = SettingsIn()


class ChangeIn(BaseModel):
    """What is not given stays."""

    model_config = ConfigDict(extra="forbid")
    title: Annotated[Title, Field(min_length=1)] | None = None
    settings: SettingsIn = SettingsIn()


class MessageIn(BaseModel):
    """Exactly one of ``content``, ``regenerate`` and ``continue``."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra=exactly_one_of("content", "regenerate", "continue")
    )
    content: str | None = None
    parent: str | None = None
    regenerate: str | None = None
    continue_: str | None = Field(default=None, alias="continue")
    system: str | None = None
    sampling: PartialSamplingIn = PartialSamplingIn()

    @model_validator(mode="after")
    def _one_of(self) -> MessageIn:
        if sum(value is not None for value in (self.content, self.regenerate, self.continue_)) != 1:
            raise ValueError("give exactly one of 'content', 'regenerate' and 'continue'")
        return self


class ContextIn(BaseModel):
    model_config = ConfigDict(extra="forbid")
    content: str | None = None
    parent: str | None = None
    system: str | None = None


# Conversations


@router.post("/chats", status_code=201, responses=replies("chat", 404, 422, status=201))
async def create_chat(request: Request, body: ChatIn, idempotency_key: IdempotencyKey = None) -> Response:
    chat = await services(request).history.create_chat(
        principal_of(request),
        body.title,
        body.settings.settings(),
        key=idempotency_key,
        body_hash=hashlib.sha256(body.model_dump_json(exclude_unset=True).encode()).digest(),
    )
    return json_response(chat_json(chat), 201)


@router.get("/chats", responses=replies("page"))
async def list_chats(
    request: Request,
    query: Annotated[str, Query(max_length=QUERY_CHARS)] = "",
    limit: Annotated[int, Query(ge=1, le=PAGE_CHATS)] = 50,
    before: str | None = None,
) -> Response:
    page = await services(request).history.chats(
        principal_of(request), query.strip(), limit=limit, before=before
    )
    return json_response({"chats": [chat_json(chat) for chat in page.chats], "next": page.next})


@router.get("/chats/{chat}", responses=replies("conversation", 404))
async def get_chat(request: Request, chat: str) -> Response:
    found, messages = await conversation(services(request), principal_of(request), chat)
    return json_response({"chat": chat_json(found), "messages": [message_json(m) for m in messages]})


async def conversation(here: Services, principal: str, chat: str) -> tuple[Chat, list[Message]]:
    """With all of its messages, those of living runs as the log has them now."""
    found, messages = await here.history.conversation(principal, chat)
    return found, [await here.runs.fold(principal, message) for message in messages]


@router.patch("/chats/{chat}", responses=replies("chat", 404))
async def change_chat(request: Request, chat: str, body: ChangeIn) -> Response:
    changed = await services(request).history.change(
        principal_of(request), chat, title=body.title, settings=body.settings.patch()
    )
    return json_response(chat_json(changed))


@router.delete("/chats/{chat}", status_code=204, responses=replies("", 404, status=204))
async def delete_chat(request: Request, chat: str) -> Response:
    here, principal = services(request), principal_of(request)
    # Hidden first: a question that comes from now on finds no conversation, so that no run is overlooked.
    for run in await here.history.delete(principal, chat):
        await _stop(here, principal, run)
    return Response(status_code=204)


@router.post("/chats/{chat}/restore", responses=replies("chat", 404))
async def restore_chat(request: Request, chat: str) -> Response:
    return json_response(chat_json(await services(request).history.restore(principal_of(request), chat)))


async def _stop(here: Services, principal: str, run: str) -> None:
    with contextlib.suppress(NotFound, Expired):  # it has ended long ago
        await here.runs.stop(principal, run)


# Messages


@router.get("/messages/{message}", responses=replies("message", 404))
async def get_message(request: Request, message: str) -> Response:
    here, principal = services(request), principal_of(request)
    found = await here.history.message(principal, message)
    return json_response(message_json(await here.runs.fold(principal, found)))


@router.post("/chats/{chat}/messages", status_code=202, responses=replies("asked", 404, 409, 422, status=202))
async def post_message(
    request: Request, chat: str, body: MessageIn, idempotency_key: IdempotencyKey = None
) -> Response:
    here, principal = services(request), principal_of(request)
    said = body.model_dump_json(exclude_unset=True)
    body_hash = hashlib.sha256(chat.encode() + said.encode()).digest()
    ask = await _asked_before(here, principal, idempotency_key)
    try:
        ask = ask or await _ask(here, principal, chat, body)
    except Conflict:  # perhaps with the run that the same request has started in the meantime
        ask = await _asked_before(here, principal, idempotency_key)
        if ask is None:
            raise
    run = await here.runs.start(principal, ask, idempotency_key, body_hash)
    answer = Ask.decode(run.record).answer
    if answer is None:
        raise Conflict("the idempotency key belongs to a run outside of conversations.", code="key_reused")
    try:
        found = await here.history.chat(principal, chat)
    except NotFound:  # deleted since it was read
        await _stop(here, principal, run.id)
        raise
    message = await here.runs.as_begun(run, answer)
    return json_response(
        {"message": message_json(message), "run": run_json(run), "chat": chat_json(found)}, 202
    )


async def _asked_before(here: Services, principal: str, key: str | None) -> Ask | None:
    run = await here.runs.find(principal, key) if key else None
    return Ask.decode(run.record) if run else None


async def _ask(here: Services, principal: str, chat: str, body: MessageIn) -> Ask:
    found, messages = await conversation(here, principal, chat)
    tree = Tree(chat, messages)
    if body.continue_ is not None:
        answer = tree.message(body.continue_)
        system, sampling = _asked_with(body, _unsaid(found, answer.made_with))
        pin, emitted = await here.runs.left_by(principal, answer.run)
        return tree.continued(answer.id, pin, emitted, system, sampling)
    system, sampling = _asked_with(body, found.settings)
    if body.regenerate is not None:
        return tree.regenerate(body.regenerate, system, sampling)
    assert body.content is not None
    return tree.ask(body.content, _parent(body), system, sampling)


def _parent(body: MessageIn | ContextIn) -> str | None:
    return body.parent if "parent" in body.model_fields_set else NEWEST


def _unsaid(chat: Chat, made_with: dict[str, Any] | None) -> dict[str, Any]:
    """An answer goes on with what it was begun with, as long again."""
    if made_with is None:
        return chat.settings
    sampling = {name: value for name, value in made_with["sampling"].items() if name != "max_tokens"}
    return {"system": made_with["system"], "sampling": sampling}


def _asked_with(body: MessageIn, unsaid: dict[str, Any]) -> tuple[str | None, Sampling]:
    """The body's own system prompt and parameters, for the others what counts where nothing is said."""
    system = body.system if "system" in body.model_fields_set else unsaid.get("system")
    given = {**unsaid.get("sampling", {}), **body.sampling.given()}
    return system, read_sampling(given)


@router.post("/chats/{chat}/context", responses=replies("context", 404))
async def measure_context(request: Request, chat: str, body: ContextIn) -> Response:
    """How much of the context a question would take, before it is asked."""
    here, principal = services(request), principal_of(request)
    found, messages = await conversation(here, principal, chat)
    tree = Tree(chat, messages)
    engine = here.runs.engine
    if engine.status.phase is not Phase.READY:
        raise Overloaded(
            "the engine is not ready, and only it can count. Ask again in a moment.",
            code="engine_not_ready",
            retry_after_seconds=2,
        )
    system = body.system if "system" in body.model_fields_set else found.settings.get("system")
    said = tree.said(body.content, _parent(body), system)
    max_tokens = found.settings.get("sampling", {}).get("max_tokens")
    context_length = engine.describe().context_length
    try:
        told = await fit(engine, said, max_tokens) if said else None
    except EngineFailed as error:
        raise Invalid(error.message, code=error.code, param="content") from error
    tokens = told.prompt.tokens if told else 0
    return json_response(
        {
            "tokens": tokens,
            "context_length": context_length,
            "answer_room": context_length - tokens,
            "left_out": told.left_out if told else 0,
        }
    )
