"""How engine values travel: dataclasses are encoded as they are, and read back here."""

from __future__ import annotations

from typing import Any

from inkstream.engines import Capabilities, Emitted, Finish, Message, Phase, Prompt, Request, Sampling, Status
from inkstream.errors import EngineError, EngineFailed, EngineLost

End = tuple[str, Any]
"""How a call ended: ``finish``, ``prompt`` or ``error``, and the value that goes with it."""


def read_request(value: dict[str, Any]) -> Request:
    return Request(value["id"], Prompt(**value["prompt"]), _read_sampling(value["sampling"]))


def read_emitted(value: dict[str, Any]) -> Emitted:
    ids = value["ids"]
    return Emitted(value["text"], None if ids is None else tuple(ids), value["tokens"])


def read_messages(value: list[dict[str, Any]]) -> list[Message]:
    return [Message(**message) for message in value]


def read_status(value: dict[str, Any]) -> Status:
    return Status(**value | {"phase": Phase(value["phase"])})


def read_capabilities(value: dict[str, Any] | None) -> Capabilities | None:
    return None if value is None else Capabilities(**value | {"defaults": _read_sampling(value["defaults"])})


def _read_sampling(value: dict[str, Any]) -> Sampling:
    return Sampling(**value | {"stop": tuple(value["stop"])})


def error_end(error: EngineError) -> End:
    return "error", {
        "lost": isinstance(error, EngineLost),
        "code": error.code,
        "message": error.message,
        "retryable": isinstance(error, EngineFailed) and error.retryable,
    }


def read_end(end: End) -> Finish | Prompt:
    """The value of a call that succeeded. Raises EngineLost, EngineFailed as the engine did."""
    kind, value = end
    if kind == "finish":
        return Finish(**value)
    if kind == "prompt":
        return Prompt(**value)
    if value["lost"]:
        raise EngineLost(value["message"], code=value["code"])
    raise EngineFailed(value["message"], code=value["code"], retryable=value["retryable"])
