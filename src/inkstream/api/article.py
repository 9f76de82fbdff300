"""``/stream``: one question, one answer, readable by a browser's EventSource and nothing else.

The names are those of the tutorial that this project starts from: ``event: message``, ``event: end`` with
``[DONE]``, ``event: error``. See ``docs/protocol.md``. Deliberate oddities, each with its reason:

- A block with an id and no data comes first. EventSource takes the id over without telling the page, so
  a connection that breaks before the first word comes back to its run instead of starting another.
- An id counts code points of the answer, not events: it holds whatever ``chunk`` and ``format`` say.
- The end and an error carry the id ``RUN:end``. EventSource reconnects after every end of a connection; who
  comes back with that id gets 204, which stops it.
- What a model thinks is not sent: a page that appends all data would show it as the answer.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import Field, ValidationError, field_validator
from starlette.datastructures import ImmutableMultiDict
from starlette.exceptions import HTTPException
from starlette.responses import Response

from inkstream.api.chunker import Chunker, Grain
from inkstream.api.services import SamplingIn, Services, principal_of, services
from inkstream.api.sse import OPENING
from inkstream.ask import Ask
from inkstream.config import Settings
from inkstream.engines import Message
from inkstream.errors import Conflict, Invalid
from inkstream.events import Event, Kind, encode, text_of

router = APIRouter()

SYSTEM = "你是一个乐于助人的AI助手"
KEY_CHARS = 1024
CURSOR = re.compile(r"([0-9a-f]{32}):([0-9]{1,9}|end)")
LINE_END = re.compile(r"\r\n|\r|\n")
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


class Format(StrEnum):
    JSON = "json"
    TEXT = "text"


class StreamIn(SamplingIn):
    """What ``/stream`` takes, in the URL, as JSON or as a form. An empty ``system`` stands for none."""

    prompt: str = ""
    system: str = SYSTEM
    chunk: Grain = Grain.TOKEN
    format: Format = Format.JSON
    key: str | None = Field(default=None, max_length=KEY_CHARS)

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_many(cls, stop: Any) -> Any:
        return [stop] if isinstance(stop, str) else stop

    def ask(self, settings: Settings) -> Ask:
        """Raises Invalid."""
        if not self.prompt.strip():
            raise Invalid("the prompt is empty. Send 'prompt'.", code="empty_prompt", param="prompt")
        _require_length("prompt", self.prompt, settings.stream_chars)
        _require_length("system", self.system, settings.stream_chars)
        messages = [Message("user", self.prompt)]
        if self.system:
            messages.insert(0, Message("system", self.system))
        return Ask(tuple(messages), self.sampling(), linger_seconds=settings.linger_seconds)

    def digest(self) -> bytes:
        """What makes two requests the same question, however they want it delivered."""
        question = self.model_dump_json(exclude={"chunk", "format", "key"})
        return hashlib.sha256(b"/stream " + question.encode()).digest()


def _require_length(name: str, text: str, most_chars: int) -> None:
    if len(text) > most_chars:
        raise Invalid(
            f"the {name} has {len(text)} characters; at most {most_chars} are taken here."
            " INKSTREAM_STREAM_CHARS sets the limit.",
            code=f"{name}_too_long",
            param=name,
        )


LastEventId = Annotated[str | None, Header(description="the last id of a broken stream: goes on behind it")]
IdempotencyKey = Annotated[str | None, Header(max_length=KEY_CHARS, description="the same as `key`")]
SCHEMA = StreamIn.model_json_schema(ref_template="#/components/schemas/{model}")
del SCHEMA["$defs"]  # they are among the components already, for the fields in the URL
IN_THE_BODY = {
    "requestBody": {"content": {kind: {"schema": SCHEMA} for kind in ("application/json", *FORMS)}}
}


@router.get("/stream")
async def stream_by_url(
    request: Request,
    asked: Annotated[StreamIn, Query()],
    last_event_id: LastEventId = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """One answer as server-sent events, for EventSource."""
    return await _answer(request, asked, last_event_id, idempotency_key or asked.key)


@router.post("/stream", openapi_extra=IN_THE_BODY)
async def stream_by_body(
    request: Request, last_event_id: LastEventId = None, idempotency_key: IdempotencyKey = None
) -> Response:
    """The same, with the question in the body as JSON or as a form, or in the URL."""
    asked = await _asked(request)
    return await _answer(request, asked, last_event_id, idempotency_key or asked.key)


async def _asked(request: Request) -> StreamIn:
    try:
        return StreamIn.model_validate(_fields(request.query_params) | await _body(request))
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error


async def _body(request: Request) -> dict[str, Any]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in FORMS:
        return await _form(request)
    body = await request.body()
    if not body:
        return {}
    if kind != "application/json":
        raise Invalid(f"a body of type {kind!r} is not read. Send JSON or a form.", code="unknown_body_type")
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Invalid(f"the body is not valid JSON: {error}", code="bad_json") from None
    if not isinstance(fields, dict):
        raise Invalid("the body must be a JSON object.", code="bad_json")
    return fields


async def _form(request: Request) -> dict[str, Any]:
    try:
        async with request.form() as form:
            return _fields(form)
    except HTTPException as error:
        raise Invalid(f"the form cannot be read: {error.detail}", code="bad_form") from error


def _fields(given: ImmutableMultiDict[str, Any]) -> dict[str, Any]:
    """The last of each; ``stop`` may be given several times."""
    fields: dict[str, Any] = dict(given)
    return fields | {"stop": given.getlist("stop")} if "stop" in fields else fields


# Answering


@dataclass(frozen=True, slots=True)
class Position:
    """Behind how many code points of the answer a reader stands, and whether the last was a CR."""

    chars: int = 0
    is_behind_return: bool = False


async def _answer(request: Request, asked: StreamIn, cursor: str | None, key: str | None) -> Response:
    here, principal = services(request), principal_of(request)
    here.require_reader()
    if cursor:
        run, found = _parsed(cursor)
        position = await _position(here, principal, run, found)
        here.streams.tally.reconnects += 1
        if position is None:
            return Response(status_code=204)
        here.streams.tally.resumes += position.chars > 0
    else:
        started = await here.runs.start(principal, asked.ask(here.settings), key or None, asked.digest())
        run, position = started.id, Position()
    writer = _Writer(run, asked.format, asked.chunk, position)
    return here.follow(principal, run, write=writer.frames, opening=OPENING + writer.cursor())


def _parsed(cursor: str) -> tuple[str, str]:
    match = CURSOR.fullmatch(cursor)
    if match is None:
        raise Invalid(
            f"Last-Event-ID has value {cursor!r}. Send back the last id that you got, RUN:N.",
            code="bad_cursor",
            param="Last-Event-ID",
        )
    return match[1], match[2]


async def _position(here: Services, principal: str, run: str, found: str) -> Position | None:
    """Where the reader stands, None if it has everything. Raises NotFound, Expired, Conflict, Invalid."""
    state = (await here.runs.get(principal, run)).state
    if found == "end":
        if not state.is_terminal:
            raise Invalid(f"run {run!r} has not ended.", code="bad_cursor", param="Last-Event-ID")
        return None
    text = text_of(await here.runs.text(principal, run))
    chars = int(found)
    if chars > len(text):
        raise Conflict(
            f"run {run!r} has {len(text)} characters, not {chars}. Ask again without a cursor.", code="reset"
        )
    return Position(chars, text[:chars].endswith("\r"))


class _Writer:
    """Turns a run's events, from the first on, into the blocks of a reader who stands at ``position``."""

    def __init__(self, run: str, format: Format, grain: Grain, position: Position) -> None:
        self._id = b"id: %b:" % run.encode()
        self._encode = self._json if format is Format.JSON else self._lines
        self._chunker = Chunker(grain, position.chars)
        self._chars = position.chars
        self._is_behind_return = position.is_behind_return

    def cursor(self) -> bytes:
        return b"%b%d\n\n" % (self._id, self._chars)

    def frames(self, event: Event) -> bytes:
        if event.kind is Kind.TEXT:
            said = event.payload
            return b"" if "channel" in said else self._messages(self._chunker.feed(said["text"]))
        if event.kind.is_terminal:
            return self._messages(self._chunker.flush()) + self._ending(event)
        return b""

    def _messages(self, chunks: list[str]) -> bytes:
        return b"".join(map(self._message, chunks))

    def _message(self, chunk: str) -> bytes:
        self._chars += len(chunk)
        return b"%b%d\n%b\n" % (self._id, self._chars, self._encode(chunk))

    def _ending(self, event: Event) -> bytes:
        if event.kind is Kind.FAILED:
            payload = event.payload
            why = encode({"code": payload["code"], "message": payload["message"]})
            return b"%bend\nevent: error\ndata: %b\n\n" % (self._id, why)
        return b"%bend\nevent: end\ndata: [DONE]\n\n" % self._id

    def _json(self, chunk: str) -> bytes:
        return b'event: message\ndata: {"text":%b}\n' % orjson.dumps(chunk)

    def _lines(self, chunk: str) -> bytes:
        """A line of ``data:`` per line of text: SSE gives them back with LF between them, so a CRLF that is
        cut in two must not become two line ends."""
        visible = chunk.removeprefix("\n") if self._is_behind_return else chunk
        self._is_behind_return = chunk.endswith("\r")
        if not visible:
            return b""
        lines = "".join(f"data: {line}\n" for line in LINE_END.split(visible))
        return b"event: message\n" + lines.encode()
