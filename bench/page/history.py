"""A conversation that is long already when it is opened."""

from __future__ import annotations

from typing import Any

import httpx

from . import corpus


def imported(url: str, messages: int, answer_tokens: int) -> str:
    """Give the server a conversation of so many messages; returns its address on the page."""
    answer = corpus.mixed(answer_tokens)
    told = [_message(number, answer) for number in range(messages)]
    chat = {"title": "Long", "created_at": 1.0, "updated_at": 1.0, "messages": told}
    document = {"format": "inkstream", "version": 1, "chats": [chat]}
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        reply = client.post("api/import", json=document).raise_for_status()
    return f"{url}#/c/{reply.json()['chats'][0]['id']}"


def _message(number: int, answer: str) -> dict[str, Any]:
    is_question = number % 2 == 0
    text = f"Question {number}?" if is_question else f"Answer {number}.\n\n{answer}"
    return {
        "id": f"m{number}",
        "parent": f"m{number - 1}" if number else None,
        "role": "user" if is_question else "assistant",
        "parts": [{"type": "text", "text": text}],
        "created_at": float(number + 1),
    }
