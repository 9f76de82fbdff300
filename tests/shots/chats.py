"""Conversations as an export has them, to be imported: told rather than waited for."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, NamedTuple

DAY = 86_400
DONE: dict[str, Any] = {"state": "done", "finish": "stop", "made_with": {"model": "qwen2-0.5b-instruct"}}
CUT = DONE | {"finish": "length"}
STOPPED: dict[str, Any] = {"state": "stopped"}
FAILED: dict[str, Any] = {
    "state": "failed",
    "error": {"code": "engine_lost", "message": "The engine died.", "retryable": True},
}
FORGETFUL = DONE | {"left_out": 4}


class Turn(NamedTuple):
    """A question and its answer. ``ending`` are the fields of how it ended."""

    question: str
    answer: str
    ending: dict[str, Any] = DONE
    thinking: str = ""


def chat(title: str, turns: Iterable[Turn], days_ago: float = 0) -> dict[str, Any]:
    """A conversation without branches."""
    now = time.time() - days_ago * DAY
    messages: list[dict[str, Any]] = []
    for turn in turns:
        parent = messages[-1]["id"] if messages else None
        question, answer = f"{len(messages)}", f"{len(messages) + 1}"
        asked = {"id": question, "parent": parent, "role": "user", "created_at": now}
        messages.append(asked | {"parts": [{"type": "text", "text": turn.question}]})
        said = {"id": answer, "parent": question, "role": "assistant", "created_at": now}
        messages.append(said | {"parts": _parts(turn)} | turn.ending)
    return {"title": title, "created_at": now, "updated_at": now, "messages": messages}


def _parts(turn: Turn) -> list[dict[str, str]]:
    parts = {"thinking": turn.thinking, "text": turn.answer}
    return [{"type": kind, "text": text} for kind, text in parts.items() if text]


def document(chats: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """What ``POST /api/import`` takes."""
    return {"format": "inkstream", "version": 1, "chats": list(chats)}
