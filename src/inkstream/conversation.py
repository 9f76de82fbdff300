"""From a conversation's tree of messages to what the next answer is asked for. Pure.

Messages form a tree: an edited question and a regenerated answer are branches. What the engine is told is
the path from the root to the question, answers without their thinking.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import replace

from inkstream.ask import Ask, Pin
from inkstream.engines import Emitted, Sampling
from inkstream.engines import Message as Said
from inkstream.errors import Conflict, Invalid, NotFound
from inkstream.events import Parts, RunState, text_of
from inkstream.history import Message

NEWEST = "newest"  # the parent of a question that names none


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
        before = next(reversed(self._messages), None) if parent == NEWEST else parent
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
        continued = replace(answer, state=RunState.QUEUED, ending=None)
        return replace(asked, answer=continued, prefix=prefix, pin=pin)

    def run_of(self, answer_id: str) -> str | None:
        return self._require(answer_id).run

    def _answer(self, asked: Message, row: Message | None, system: str | None, sampling: Sampling) -> Ask:
        answer = Message(
            uuid.uuid4().hex, self._chat, asked.id, "assistant", [], time.time(), state=RunState.QUEUED
        )
        said = [Said(m.role, text_of(m.parts)) for m in [*self._path(asked.parent), asked]]
        if system and system.strip():
            said.insert(0, Said("system", system))
        return Ask(tuple(said), sampling, question=row, answer=answer)

    def _path(self, message: str | None) -> list[Message]:
        path: list[Message] = []
        while message is not None:
            found = self._require(message)
            path.append(found)
            message = found.parent
        return path[::-1]

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


def raw_text(parts: Parts) -> str:
    """The text as the model wrote it, thinking in its tags."""
    return "".join(
        part["text"] if part["type"] == "text" else f"<think>{part['text']}</think>\n\n" for part in parts
    )
