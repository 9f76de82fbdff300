"""How engine values travel: dataclasses are encoded as they are, and read back here.

Chunks travel in columns: all calls, all texts, all token counts and so on. That saves both sides an object
for each chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import repeat
from typing import Any, cast

from inkstream.engines import (
    Capabilities,
    Chunk,
    Emitted,
    Finish,
    Message,
    Phase,
    Prompt,
    Request,
    Sampling,
    Status,
)
from inkstream.errors import EngineError, EngineFailed, EngineLost

# A chunk from a tuple without a frame of Python: three times as fast as calling the class.
_as_chunk = cast(Callable[[tuple[Any, ...]], Chunk], partial(tuple.__new__, Chunk))

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
    if value is None:
        return None
    read = {"defaults": _read_sampling(value["defaults"]), "lacks": tuple(value["lacks"])}
    return Capabilities(**value | read)


def _read_chunk(value: list[Any]) -> Chunk:
    text, tokens, ids, logprobs = value
    return Chunk(text, tokens, None if ids is None else tuple(ids), logprobs)


def _read_sampling(value: dict[str, Any]) -> Sampling:
    return Sampling(**value | {"stop": tuple(value["stop"])})


def chunk_columns(calls: Sequence[int], chunks: Sequence[Chunk]) -> list[Any]:
    """The column of logprobs is left out where no chunk has any."""
    if not chunks:
        return []
    texts, tokens, ids, logprobs = zip(*chunks, strict=True)
    columns = [calls, texts, tokens, ids]
    return columns if logprobs.count(None) == len(logprobs) else [*columns, logprobs]


def read_chunks(columns: list[Any]) -> Iterable[tuple[int, Chunk]]:
    """Each call's number, with its chunk."""
    if not columns:
        return ()
    calls, texts, tokens, ids, *rest = columns
    known = [each if each is None else tuple(each) for each in ids] if None in ids else map(tuple, ids)
    return zip(
        calls, map(_as_chunk, zip(texts, tokens, known, *rest or [repeat(None)], strict=False)), strict=True
    )


def finish_end(finish: Finish) -> End:
    return "finish", [replace(finish, last=None), finish.last and [*finish.last]]


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
        finish, last = value
        return replace(Finish(**finish), last=last and _read_chunk(last))
    if kind == "prompt":
        return Prompt(**value)
    if value["lost"]:
        raise EngineLost(value["message"], code=value["code"])
    raise EngineFailed(value["message"], code=value["code"], retryable=value["retryable"])
