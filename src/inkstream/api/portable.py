"""Conversations as a document that can be taken elsewhere and back: our export, written and read.

Whoever reads one trusts nothing in it: the models check types and lengths, ``_in_order`` the tree. A fault
is named by its path, and nothing is written where there is one.

A conversation is known again by all that the document says of it, ids apart, and by how many there say the
same. What has no time of its own is of now, and that is no part of it.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError

from inkstream.api.chats import PartialSamplingIn, SettingsIn, Title
from inkstream.api.shapes import chat_json, message_json
from inkstream.errors import Invalid
from inkstream.events import RunState
from inkstream.history import Chat, Message

FORMAT, VERSION = "inkstream", 1
CHATS, MESSAGES, PARTS = 10_000, 20_000, 1_000
OF_THE_CHAT = ("id", "title", "created_at", "updated_at", "settings")
OF_A_MESSAGE = (
    *("id", "parent", "role", "parts", "created_at", "state", "finish", "error", "usage", "timings"),
    *("made_with", "left_out"),
)

Id = Annotated[str, Field(min_length=1, max_length=200)]
Time = Annotated[float, Field(ge=0, le=4_102_444_800)]  # until 2100
Text = Annotated[str, Field(max_length=16_777_216)]
Number = Annotated[float, Field(ge=0, le=1e12)]
Count = Annotated[int, Field(ge=0, le=2**53 - 1)]  # what every reader of JSON has exactly
# One fault is told: a list of millions of them would take gigabytes to describe.
ONE_FAULT = FailFast()


def head() -> dict[str, Any]:
    return {"format": FORMAT, "version": VERSION}


def document(chat: Chat, messages: Sequence[Message]) -> dict[str, Any]:
    """One conversation, all branches, parents before children."""
    shape = chat_json(chat)
    told = [message_json(message) for message in messages]
    return {
        **{name: shape[name] for name in OF_THE_CHAT},
        "messages": [{name: message[name] for name in OF_A_MESSAGE} for message in told],
    }


class _Record(BaseModel):
    """Fields of a later version are passed over."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class PartIn(_Record):
    type: Literal["text", "thinking"]
    text: Text


class FailureIn(_Record):
    code: str = Field(max_length=100)
    message: str = Field(max_length=10_000)
    retryable: bool = False


class UsageIn(_Record):
    prompt_tokens: Count
    completion_tokens: Count
    cached_tokens: Count = 0


class MadeWithIn(_Record):
    model: str | None = Field(default=None, max_length=500)
    system: Text | None = None
    sampling: PartialSamplingIn = PartialSamplingIn()

    def made_with(self) -> dict[str, Any]:
        return {"model": self.model, "system": self.system, "sampling": self.sampling.chosen()}


class MessageIn(_Record):
    id: Id
    parent: Id | None
    role: Literal["user", "assistant"]
    parts: Annotated[list[PartIn], ONE_FAULT, Field(max_length=PARTS)]
    created_at: Time | None = None
    state: RunState = RunState.DONE
    finish: Literal["stop", "length"] | None = None
    error: FailureIn | None = None
    usage: UsageIn | None = None
    timings: dict[str, Number] | None = Field(default=None, max_length=100)
    made_with: MadeWithIn | None = None
    left_out: int = Field(default=0, ge=0, le=MESSAGES)

    def ending(self) -> dict[str, Any] | None:
        said = self.model_dump(include={"finish", "usage", "timings"}, exclude_none=True)
        failure = self.error.model_dump() if self.error else {}
        return {**failure, **said} or None


class ChatIn(_Record):
    title: Title
    created_at: Time | None = None
    updated_at: Time | None = None
    settings: SettingsIn = SettingsIn()
    messages: Annotated[list[MessageIn], ONE_FAULT, Field(max_length=MESSAGES)]


class DocumentIn(_Record):
    format: Literal["inkstream"]
    version: Literal[1]
    chats: Annotated[list[ChatIn], ONE_FAULT, Field(max_length=CHATS)]


@dataclass(frozen=True, slots=True)
class Given:
    """A conversation with new ids, ready to be written, and the key that it is known again by."""

    chat: Chat
    messages: list[Message]
    key: str


@dataclass(frozen=True, slots=True)
class Taken:
    """Conversations, and what was left behind and why."""

    chats: list[Given]
    skipped: list[dict[str, str]]


def read(principal: str, given: Any) -> Taken:
    """Take our own export. Raises Invalid with the path of the fault."""
    try:
        found = DocumentIn.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise fault(path_of(first["loc"]), first["msg"]) from None
    alike: Counter[str] = Counter()
    return Taken([_taken(principal, chat, f"chats[{at}]", alike) for at, chat in enumerate(found.chats)], [])


def fault(path: str, why: str) -> Invalid:
    return Invalid(f"{path}: {why}. Nothing was imported.", code="bad_import", param=path)


def path_of(loc: Sequence[str | int]) -> str:
    """Where it is in the document, as JavaScript would write it: ``chats[3].messages[0].role``."""
    steps = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc]
    return "".join(steps).removeprefix(".") or "the document"


def new_id() -> str:
    return uuid.uuid4().hex


def _taken(principal: str, given: ChatIn, path: str, alike: Counter[str]) -> Given:
    created_at = time.time() if given.created_at is None else given.created_at
    updated_at = created_at if given.updated_at is None else given.updated_at
    chat = Chat(new_id(), principal, given.title, created_at, updated_at, given.settings.settings())
    ids = {message.id: new_id() for message in given.messages}
    in_order = _in_order(given.messages, f"{path}.messages")
    messages = [_message(chat, ids, message) for message in in_order]
    said = _said(given, in_order, messages)
    alike[said] += 1
    return Given(chat, messages, f"import {said} {alike[said]}")


def _said(given: ChatIn, in_order: Sequence[MessageIn], messages: Sequence[Message]) -> str:
    """The same for the same conversation in another document, wherever that has been in the meantime."""
    places = {message.id: at for at, message in enumerate(in_order)}
    said = [
        (
            *(places.get(message.parent or ""), message.created_at, message.role),
            *(taken.parts, taken.state, taken.ending, taken.made_with, taken.left_out),
        )
        for message, taken in zip(in_order, messages, strict=True)
    ]
    whole = (given.title, given.created_at, given.updated_at, given.settings.settings(), said)
    return hashlib.sha256(orjson.dumps(whole, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _message(chat: Chat, ids: dict[str, str], given: MessageIn) -> Message:
    # What was being written when it was exported goes on nowhere.
    state = given.state if given.state.is_terminal else RunState.STOPPED
    created_at = chat.created_at if given.created_at is None else given.created_at
    return Message(
        *(ids[given.id], chat.id, ids[given.parent] if given.parent else None, given.role),
        *([part.model_dump() for part in given.parts], created_at),
        state=state,
        ending=given.ending(),
        made_with=given.made_with.made_with() if given.made_with else None,
        left_out=given.left_out,
    )


def _in_order(messages: list[MessageIn], path: str) -> list[MessageIn]:
    """The same, parents before children. Raises Invalid for what is no tree of questions and answers."""
    there = {message.id: message for message in reversed(messages)}  # the first of each id
    for at, message in enumerate(messages):
        if there[message.id] is not message:
            raise fault(f"{path}[{at}].id", f"{message.id!r} is there twice")
        if message.parent is not None and message.parent not in there:
            raise fault(f"{path}[{at}].parent", f"there is no message {message.parent!r}")
        role = there[message.parent].role if message.parent else "assistant"
        if role == message.role:
            raise fault(f"{path}[{at}].parent", "a question follows an answer, and an answer a question")
    parents = {message.id: message.parent for message in messages}
    return [there[id_] for id_ in parents_first(parents, lambda at: f"{path}[{at}].parent")]


def parents_first(parents: Mapping[str, str | None], path: Callable[[int], str]) -> list[str]:
    """The ids in the order given, but for parents that come late. Raises Invalid for a circle."""
    ordered: dict[str, None] = {}
    for at, id_ in enumerate(parents):
        above: dict[str, None] = {}
        step: str | None = id_
        while step is not None and step not in ordered:
            if step in above:
                raise fault(path(at), "its parents lead in a circle")
            above[step] = None
            step = parents[step]
        ordered.update(dict.fromkeys(reversed(above)))
    return list(ordered)
