"""From a conversation's tree of messages to what the next answer is asked for. Pure.

Messages form a tree: an edited question and a regenerated answer are branches. What the engine is told is
the path from the root to the question, answers without their thinking, and of a path that is longer than the
context its end.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, NamedTuple

from inkstream.ask import Ask, Pin
from inkstream.engines import Emitted, Engine, Prompt, Sampling
from inkstream.engines import Message as Said
from inkstream.errors import Conflict, EngineFailed, Invalid, NotFound
from inkstream.events import Parts, RunState, text_of
from inkstream.history import Message

NEWEST = "newest"  # the parent of a question that names none
ROOM_TOKENS = 1024
ROOM_SHARE = 4  # the room for an answer is at most this part of the context


class Tree:
    """One conversation, parents before children."""

    def __init__(self, chat: str, messages: Sequence[Message]) -> None:
        self._chat = chat
        self._messages = {message.id: message for message in messages}

    def ask(self, content: str, parent: str | None, system: str | None, sampling: Sampling) -> Ask:
        """A new question behind ``parent``: None is the root, ``NEWEST`` the newest leaf.

        Raises Invalid, NotFound, Conflict ``run_active``.
        """
        if not content.strip():
            raise Invalid("the question is empty.", code="empty_prompt")
        before = self.newest() if parent == NEWEST else parent
        if before is not None:
            self._ended_answer(before)
        parts = [{"type": "text", "text": content}]
        question = Message(uuid.uuid4().hex, self._chat, before, "user", parts, time.time())
        return self._answer(question, question, system, sampling)

    def regenerate(self, answer_id: str, system: str | None, sampling: Sampling) -> Ask:
        """Another answer beside ``answer_id``. Raises Invalid, NotFound, Conflict ``run_active``."""
        answer = self._ended_answer(answer_id)
        question = self._require(answer.parent or "")
        return self._answer(question, None, system, sampling)

    def continued(
        self, answer_id: str, pin: Pin | None, emitted: Emitted | None, system: str | None, sampling: Sampling
    ) -> Ask:
        """The same answer, gone on with. ``pin`` and ``emitted`` are its last run's, where still known.

        Raises Invalid, NotFound, Conflict ``run_active``.
        """
        answer = self._ended_answer(answer_id)
        if answer.state is RunState.DONE and (answer.ending or {}).get("finish") != "length":
            raise Invalid(
                "this answer is complete; there is nothing to continue.", code="nothing_to_continue"
            )
        prefix = emitted or Emitted(raw_text(answer.parts), None, 0)
        asked = self._answer(self._require(answer.parent or ""), None, system, sampling)
        made_with = _asked_with(system, sampling)
        continued = replace(answer, state=RunState.QUEUED, ending=None, made_with=made_with)
        return replace(asked, answer=continued, prefix=prefix, pin=pin)

    def message(self, message: str) -> Message:
        """Raises NotFound."""
        return self._require(message)

    def newest(self) -> str | None:
        return next(reversed(self._messages), None)

    def said(self, content: str | None, parent: str | None, system: str | None) -> tuple[Said, ...]:
        """What an engine would be told with ``content`` behind ``parent``, which may still be written.

        Raises NotFound.
        """
        before = self.newest() if parent == NEWEST else parent
        said = [Said(m.role, text_of(m.parts)) for m in self.path(before)]
        if content:
            said.append(Said("user", content))
        if system and system.strip():
            said.insert(0, Said("system", system))
        return tuple(said)

    def path(self, message: str | None) -> list[Message]:
        """From the root to the message. Raises NotFound."""
        path: list[Message] = []
        while message is not None:
            found = self._require(message)
            path.append(found)
            message = found.parent
        return path[::-1]

    def _answer(self, asked: Message, row: Message | None, system: str | None, sampling: Sampling) -> Ask:
        answer = Message(
            *(uuid.uuid4().hex, self._chat, asked.id, "assistant", [], time.time()),
            state=RunState.QUEUED,
            made_with=_asked_with(system, sampling),
        )
        said = self.said(text_of(asked.parts), asked.parent, system)
        return Ask(said, sampling, question=row, answer=answer)

    def _ended_answer(self, message: str) -> Message:
        found = self._require(message)
        if found.role != "assistant":
            raise Invalid(f"message {message!r} is a question, not an answer.", code="not_an_answer")
        if not found.state.is_terminal:
            raise Conflict(
                f"the answer {message!r} is still being written. Wait for its end, or stop it.",
                code="run_active",
            )
        return found

    def _require(self, message: str) -> Message:
        if message not in self._messages:
            raise NotFound(f"there is no message {message!r} in this conversation.", code="unknown_message")
        return self._messages[message]


def _asked_with(system: str | None, sampling: Sampling) -> dict[str, Any]:
    return {"model": None, "system": system, "sampling": sampling.given()}


def made_with(answer: Message, pin: Pin) -> dict[str, Any]:
    """What an answer is written with, once its run is pinned: for ``Message.made_with``."""
    asked = answer.made_with or _asked_with(None, pin.sampling)
    return {**asked, "model": pin.model, "sampling": _asked_with(None, pin.sampling)["sampling"]}


@dataclass(frozen=True, slots=True)
class Fitted:
    """The messages that an engine is told, how many tokens they are, and how many were left out."""

    messages: tuple[Said, ...]
    tokens: int
    left_out: int = 0


async def fitted(
    messages: Sequence[Said], limit: int, count: Callable[[Sequence[Said]], Awaitable[int]]
) -> Fitted:
    """As much of a conversation's end as has at most ``limit`` tokens: whole turns, and the system prompt.

    A turn is a question with what answers it. The last one stays even where it is too long by itself. Counts
    once where everything fits, else about log₂(turns) times more, since a longer end never has fewer tokens.
    """
    tokens = await count(messages)
    system, turns = _turns(messages)
    if tokens <= limit or len(turns) < 2:
        return Fitted(tuple(messages), tokens)

    async def without(turns_left_out: int) -> Fitted:
        kept = (*system, *chain.from_iterable(turns[turns_left_out:]))
        return Fitted(kept, await count(kept), len(messages) - len(kept))

    too_few, enough = 0, len(turns) - 1
    best: Fitted | None = None
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        tried = await without(middle)
        if tried.tokens <= limit:
            enough, best = middle, tried
        else:
            too_few = middle
    return best or await without(enough)


def _turns(messages: Sequence[Said]) -> tuple[list[Said], list[list[Said]]]:
    system: list[Said] = []
    turns: list[list[Said]] = []
    for message in messages:
        if message.role == "system":
            system.append(message)
        elif message.role == "user" or not turns:
            turns.append([message])
        else:
            turns[-1].append(message)
    return system, turns


class Told(NamedTuple):
    """What an engine is told of a conversation, and how many of its messages it is not told.

    It says so to the engine of that ``fingerprint`` and to no other.
    """

    prompt: Prompt
    left_out: int
    fingerprint: str


async def fit(engine: Engine, messages: Sequence[Said], room: int | None) -> Told:
    """The prompt of as much of ``messages`` as leaves ``room`` tokens in this engine's context.

    Where no room is said it is 1,024 tokens; it is at most a quarter of the context. A last question that
    leaves less is told all the same; what does not fit at all is refused by the engine.
    Raises EngineFailed ``prompt_too_long``, EngineLost.
    """
    capabilities = engine.describe()
    context = capabilities.context_length
    prompts: dict[int, Prompt] = {}  # by how many messages they tell
    refusal: EngineFailed | None = None

    async def count(messages: Sequence[Said]) -> int:
        nonlocal refusal
        try:
            prompt = prompts[len(messages)] = await engine.render(messages)
        except EngineFailed as error:
            if error.code != "prompt_too_long":
                raise
            refusal = error
            return context
        return prompt.tokens

    found = await fitted(messages, context - min(room or ROOM_TOKENS, context // ROOM_SHARE), count)
    if len(found.messages) not in prompts:
        assert refusal is not None
        raise refusal
    return Told(prompts[len(found.messages)], found.left_out, capabilities.fingerprint)


def raw_text(parts: Parts) -> str:
    """The text as the model wrote it, thinking in its tags."""
    return "".join(
        part["text"] if part["type"] == "text" else f"<think>{part['text']}</think>\n\n" for part in parts
    )
