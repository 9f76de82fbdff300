"""Chats, messages and runs as the wire has them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from inkstream.ask import Ask
from inkstream.engines import Engine, Phase, Status
from inkstream.errors import EngineLost
from inkstream.history import Chat, Match, Message
from inkstream.log import Run
from inkstream.switching import Switch


def chat_json(chat: Chat) -> dict[str, Any]:
    """``match`` is there where a search has found the conversation."""
    shape = {
        "id": chat.id,
        "title": chat.title,
        "created_at": chat.created_at,
        "updated_at": chat.updated_at,
        "settings": {"system": None, "sampling": {}, **chat.settings},
        "runs": chat.runs,
    }
    return shape if chat.match is None else {**shape, "match": _match(chat.match)}


def _match(match: Match) -> dict[str, Any]:
    return {"message": match.message, "snippet": match.snippet, "hits": match.hits}


def message_json(message: Message) -> dict[str, Any]:
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
        "error": _failure(ending),
        "usage": ending.get("usage"),
        "timings": ending.get("timings"),
        "made_with": message.made_with,
        "left_out": message.left_out,
    }


def _failure(ending: dict[str, Any]) -> dict[str, Any] | None:
    if "code" not in ending:
        return None
    return {name: ending[name] for name in ("code", "message", "retryable")}


def run_json(run: Run) -> dict[str, Any]:
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


def engine_json(engine: Engine, status: Status, switch: Switch | None) -> dict[str, Any]:
    """What the engine does, and once it is ready what is in it and how it draws where nothing is said."""
    told = asdict(status) | {"switch": switch and asdict(switch)}
    return told | (_model(engine) if status.phase is Phase.READY else {})


def _model(engine: Engine) -> dict[str, Any]:
    try:
        capabilities = engine.describe()
    except EngineLost:  # since that status; the next one is on its way
        return {}
    defaults = asdict(capabilities.defaults)
    return {
        "model": capabilities.model,
        "engine": capabilities.engine,
        "quantization": capabilities.quantization,
        "context_length": capabilities.context_length,
        "defaults": {name: value for name, value in defaults.items() if value not in (None, ())},
    }
