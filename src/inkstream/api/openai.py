"""``/v1``: what OpenAI's clients speak, over the same runs. See ``docs/protocol.md``.

Hanging up ends the run: these clients cannot come back to an answer. Deliberate oddities:

- The stream begins with a comment and never carries ``retry``: the official Python client takes a block
  without data for an empty event and fails on it.
- What cannot be done is refused, not ignored: an answer without the tools or the format that were asked for
  would be taken for one with them. What changes nothing about the text (``user``, ``metadata``) is ignored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Request
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StrictBool, WithJsonSchema, field_validator
from starlette.responses import Response

from inkstream.api.body import StrictJson
from inkstream.api.description import JSON, SSE, replies
from inkstream.api.errors import error_body, error_response
from inkstream.api.services import (
    NULL,
    STOPS,
    Services,
    Stops,
    TokenSamplingIn,
    json_response,
    principal_of,
    services,
)
from inkstream.ask import Ask
from inkstream.engines import Message, Sampling
from inkstream.errors import Closing, EngineError, EngineLost, InkstreamError, Invalid, NotFound, Overloaded
from inkstream.events import Batch, Event, Kind, fold
from inkstream.log import Run

router = APIRouter(prefix="/v1", route_class=StrictJson)

SEEDS = 2**31
REFUSAL = "openai_error"
LOADING_RETRY_SECONDS = 5
HUNG_UP = 499  # nobody is there to read it
CALLERS_FAULT = frozenset({"prompt_too_long", "unsupported_parameter", "unknown_token"})
HARMLESS: dict[str, tuple[Any, ...]] = {
    "n": (None, 1),
    "tools": (None, []),
    "functions": (None, []),
    "response_format": (None, {"type": "text"}),
    "modalities": (None, ["text"]),
    "audio": (None,),
    "prediction": (None,),
    "web_search_options": (None,),
}
"""The values at which a parameter that we do not have asks for nothing."""

NO_LOGPROBS: dict[str, Any] = {"content": [], "refusal": None}


class UnknownModel(NotFound):
    code = "model_not_found"
    param = "model"


PARTS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
        "required": ["type", "text"],
    },
}


class MessageIn(BaseModel):
    """``content`` may be given as text parts; they are put on lines of their own."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, WithJsonSchema({"anyOf": [{"type": "string"}, PARTS]})]

    @field_validator("content", mode="before")
    @classmethod
    def _text_of_parts(cls, content: Any) -> Any:
        return "\n".join(map(_text_of, content)) if isinstance(content, list) else content

    def message(self) -> Message:
        return Message("system" if self.role == "developer" else self.role, self.content)


def _text_of(part: Any) -> str:
    """Raises ValueError for a part that is no text, such as an image."""
    if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise ValueError('only parts {"type": "text", "text": "…"} are read here')
    text: str = part["text"]
    return text


class StreamOptionsIn(BaseModel):
    include_usage: StrictBool = False


class CompletionIn(TokenSamplingIn):
    """``model`` may be left out or empty: there is one. ``top_k`` -1 is 0, as in other servers."""

    model_config = ConfigDict(extra="allow")

    model: str = ""
    messages: list[MessageIn] = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptionsIn | None = None
    top_k: int | None = Field(default=None, ge=-1, le=1_000_000)
    seed: int | None = None
    repetition_penalty: Annotated[float | None, Field(gt=0, le=10)] = Field(
        default=None, validation_alias=AliasChoices("repetition_penalty", "repeat_penalty")
    )
    stop: Annotated[Stops, WithJsonSchema({"anyOf": [STOPS, {"type": "string"}, NULL]})] = Field(default=[])
    max_completion_tokens: int | None = Field(default=None, ge=1, le=10_000_000)

    @field_validator("stop", mode="before")
    @classmethod
    def _none_one_or_many(cls, stop: Any) -> Any:
        return [] if stop is None else [stop] if isinstance(stop, str) else stop

    def require_possible(self) -> None:
        """Raises Invalid for what this server does not do."""
        for name, harmless in HARMLESS.items():
            if (self.model_extra or {}).get(name) not in harmless:
                raise Invalid(
                    f"{name!r} cannot be done by this server. Leave it out.",
                    code="unsupported_parameter",
                    param=name,
                )
        if self.top_logprobs and not self.logprobs:
            raise Invalid(
                "'top_logprobs' is only for 'logprobs': true.", code="invalid_parameter", param="top_logprobs"
            )
        if self.stream_options is not None and not self.stream:
            raise Invalid(
                "'stream_options' is only for 'stream': true.",
                code="invalid_parameter",
                param="stream_options",
            )

    def ask(self) -> Ask:
        messages = tuple(message.message() for message in self.messages)
        return Ask(messages, self.sampling(), linger_seconds=0)

    def sampling(self) -> Sampling:
        """OpenAI's seeds are any integer, ours 31 bits; equal ones stay equal."""
        changes: dict[str, Any] = {"max_tokens": self.max_completion_tokens or self.max_tokens}
        if self.seed is not None:
            changes["seed"] = self.seed % SEEDS
        if self.top_k == -1:
            changes["top_k"] = 0
        return replace(super().sampling(), **changes)

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


# Models


@router.get("/models", responses=replies("openai_models"))
async def list_models(request: Request) -> Response:
    return json_response({"object": "list", "data": [_model(_served(services(request)))]})


@router.get("/models/{name:path}", responses=replies("openai_model", 404, error=REFUSAL))
async def get_model(request: Request, name: str) -> Response:
    here = services(request)
    _require_model(here, name)
    return json_response(_model(_served(here)))


def _model(name: str) -> dict[str, Any]:
    """``created`` is 0: nobody has noted when the weights were made."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "inkstream"}


def _served(here: Services) -> str:
    """The model in the engine; while there is none, the one that was asked for at the start."""
    try:
        return here.runs.engine.describe().model
    except EngineLost:
        return here.switching.model


def _require_model(here: Services, name: str) -> None:
    """The served model is known by its name, by its name without the owner, and by that in the settings.

    Raises NotFound, or Overloaded while no engine is there to tell.
    """
    if name in ("", here.switching.model):
        return
    try:
        served = here.runs.engine.describe().model
    except EngineLost:
        raise Overloaded(
            f"the model is still loading; whether it is {name!r} is not known yet.",
            code="engine_loading",
            retry_after_seconds=LOADING_RETRY_SECONDS,
        ) from None
    if name.lower() not in (served.lower(), served.lower().rpartition("/")[2]):
        raise UnknownModel(f"the model {name!r} is not served here; {served!r} is.")


# Completions


@router.post(
    "/chat/completions",
    responses=replies("openai_completion", 404, 500, kinds=(JSON, SSE), error=REFUSAL),
)
async def create_chat_completion(request: Request, asked: CompletionIn) -> Response:
    """One answer, whole or as server-sent events."""
    here, principal = services(request), principal_of(request)
    asked.require_possible()
    _require_model(here, asked.model)
    if asked.stream:
        here.require_reader()
    run = await here.runs.start(principal, asked.ask())
    if asked.stream:
        writer = _Writer(run, asked.wants_usage)
        return here.follow(principal, run.id, write=writer.frames, opening=b": ok\n\n")
    return await _while_connected(request, _whole(here, principal, run, asked))


class _Writer:
    """Turns a run's events into chunks, built from bytes that are constant for the run."""

    def __init__(self, run: Run, wants_usage: bool) -> None:
        self._run, self._wants_usage = run, wants_usage
        self._head = b""

    def frames(self, event: Event) -> bytes:
        payload = event.payload
        match event.kind:
            case Kind.STARTED:
                self._head = self._common(payload["model"])
                return self._delta(b'{"role":"assistant","content":""}')
            case Kind.TEXT:
                field = b"content" if "channel" not in payload else b"reasoning_content"
                delta = b'{"%b":%b}' % (field, orjson.dumps(payload["text"]))
                return self._delta(delta, logprobs=orjson.dumps(_logprobs([payload])))
            case Kind.FAILED:
                return b'data: {"error":%b}\n\n' % orjson.dumps(error_body(_failure(payload)))
            case Kind.DONE | Kind.STOPPED:
                return self._ending(payload)

    def _common(self, model: str) -> bytes:
        identity = {
            "id": _id(self._run),
            "object": "chat.completion.chunk",
            "created": int(self._run.created_at),
            "model": model,
        }
        if self._wants_usage:
            identity["usage"] = None
        return b"data: " + orjson.dumps(identity)[:-1]

    def _delta(self, delta: bytes, finish: bytes = b"null", logprobs: bytes = b"null") -> bytes:
        return b'%b,"choices":[{"index":0,"delta":%b,"logprobs":%b,"finish_reason":%b}]}\n\n' % (
            self._head,
            delta,
            logprobs,
            finish,
        )

    def _ending(self, payload: dict[str, Any]) -> bytes:
        """A run that was stopped while it waited has no head yet."""
        self._head = self._head or self._common("")
        frames = self._delta(b"{}", b'"%b"' % _finish(payload).encode())
        if self._wants_usage:
            head = self._head.replace(b'"usage":null', b'"usage":%b' % orjson.dumps(_usage(payload)))
            frames += head + b',"choices":[]}\n\n'
        return frames + b"data: [DONE]\n\n"


class _Collector:
    """A reader that keeps a whole run."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def take(self, batch: Batch) -> bool:
        self.events += batch.events
        return True

    async def ready(self) -> None:
        """It always is."""


async def _whole(here: Services, principal: str, run: Run, asked: CompletionIn) -> Response:
    """The answer in one piece. A run that fails is an error reply, whatever it has written."""
    collector = _Collector()
    await here.runs.follow(principal, run.id, 0, collector)
    events = collector.events
    if not events or not events[-1].kind.is_terminal:
        raise Closing()
    if events[-1].kind is Kind.FAILED:
        return error_response(_failure(events[-1].payload), "/v1")
    return json_response(_completion(run, events, asked))


def _completion(run: Run, events: list[Event], asked: CompletionIn) -> dict[str, Any]:
    texts = {part["type"]: part["text"] for part in fold(events)}
    model = events[0].payload["model"] if events[0].kind is Kind.STARTED else ""
    ending = events[-1].payload
    message: dict[str, Any] = {"role": "assistant", "content": texts.get("text", "")}
    if "thinking" in texts:
        message["reasoning_content"] = texts["thinking"]
    texts_told = [event.payload for event in events if event.kind is Kind.TEXT]
    logprobs = (_logprobs(texts_told) or NO_LOGPROBS) if asked.logprobs else None
    choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": _finish(ending)}
    return {
        "id": _id(run),
        "object": "chat.completion",
        "created": int(run.created_at),
        "model": model,
        "choices": [choice],
        "usage": _usage(ending),
    }


def _logprobs(texts: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Those of the texts' tokens, in their order. None where there are none."""
    told = [token for payload in texts for token in payload.get("logprobs", ())]
    return {**NO_LOGPROBS, "content": told} if told else None


async def _while_connected(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """Do the work unless the caller hangs up; then it is cancelled."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_until_gone(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else Response(status_code=HUNG_UP)
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _id(run: Run) -> str:
    return f"chatcmpl-{run.id}"


def _finish(ending: dict[str, Any]) -> str:
    """A run that somebody stopped has no reason of its own."""
    finish: str = ending.get("finish", "stop")
    return finish


def _usage(ending: dict[str, Any]) -> dict[str, Any] | None:
    """None for a run that was stopped before an engine was asked."""
    usage = ending.get("usage")
    if usage is None:
        return None
    return {
        "prompt_tokens": usage["prompt_tokens"],
        "completion_tokens": usage["completion_tokens"],
        "total_tokens": usage["prompt_tokens"] + usage["completion_tokens"],
        "prompt_tokens_details": {"cached_tokens": usage["cached_tokens"]},
    }


def _failure(payload: dict[str, Any]) -> InkstreamError:
    """The end of a failed run as the error that it would have been at admission."""
    code, message = payload["code"], payload["message"]
    if payload["retryable"]:
        return Overloaded(message, code=code, retry_after_seconds=LOADING_RETRY_SECONDS)
    return Invalid(message, code=code) if code in CALLERS_FAULT else EngineError(message, code=code)
