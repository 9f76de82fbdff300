"""What an answer is asked for, and what it is pinned to: the words between the API, the runs and the log.

An ``Ask`` is stored with the run when it is created. A ``Pin`` is stored with its first event: from then on
every continuation, by whatever process, asks the engine for exactly the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

from inkstream.engines import Chunk, Emitted, Message, Prompt, Sampling
from inkstream.errors import Unreadable
from inkstream.events import Event, Kind, RunState, encode
from inkstream.history import Message as StoredMessage


@dataclass(frozen=True, slots=True)
class Pin:
    """The resolved request: nothing in it is left to a default any more.

    ``left_out`` counts the messages of the conversation that did not fit into the prompt.
    """

    prompt: Prompt
    sampling: Sampling
    model: str
    fingerprint: str
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Ask:
    """``question`` and ``answer`` are the rows of the history that this run derives; None outside a chat.

    ``answer.parts`` is what the message holds before this run, and ``prefix`` what of it the engine is to
    go on from. ``pin`` is the earlier run's, where an answer is continued. ``linger_seconds`` is how long
    the run lives without a reader; None for ever.
    """

    messages: tuple[Message, ...]
    sampling: Sampling = field(default_factory=Sampling)
    linger_seconds: float | None = None
    question: StoredMessage | None = None
    answer: StoredMessage | None = None
    prefix: Emitted = field(default_factory=Emitted)
    pin: Pin | None = None

    def encode(self) -> bytes:
        return encode(self)

    @classmethod
    def decode(cls, record: bytes) -> Ask:
        """Raises Unreadable."""
        with _reading():
            stored = orjson.loads(record)
            return cls(
                messages=tuple(Message(**message) for message in stored["messages"]),
                sampling=_sampling(stored["sampling"]),
                linger_seconds=stored["linger_seconds"],
                question=_message(stored["question"]),
                answer=_message(stored["answer"]),
                prefix=_emitted(stored["prefix"]),
                pin=decode_pin(stored["pin"]),
            )


@contextmanager
def _reading() -> Iterator[None]:
    """A file that was damaged, or written by somebody else, can hold anything."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Unreadable(f"What is stored of this answer cannot be read ({error!r}). Ask again.") from error


def encode_pin(pin: Pin) -> bytes:
    return encode(pin)


def decode_pin(stored: bytes | dict[str, Any] | None) -> Pin | None:
    """Raises Unreadable."""
    if not stored:
        return None
    with _reading():
        pin = orjson.loads(stored) if isinstance(stored, bytes) else stored
        prompt, sampling = Prompt(**pin["prompt"]), _sampling(pin["sampling"])
        return Pin(prompt, sampling, pin["model"], pin["fingerprint"], pin.get("left_out", 0))


def encode_seam(raw: str | None, chunk: Chunk) -> bytes:
    """The private part of a text event: what a continuing engine must know was emitted with it.

    ``raw`` is what the model wrote for it, None where that is the text that everybody sees.
    """
    return encode((raw, chunk.ids, chunk.tokens))


def emitted_by(events: Iterable[Event], prefix: Emitted) -> Emitted:
    """All that has been emitted: ``prefix`` and the events' seams. Raises Unreadable."""
    texts, tokens = [prefix.text], prefix.tokens
    ids = None if prefix.ids is None else list(prefix.ids)
    with _reading():
        for event in events:
            if event.kind is not Kind.TEXT:
                continue
            raw, more_ids, count, *_ = orjson.loads(event.seam)  # earlier versions have a fourth field
            texts.append(event.payload["text"] if raw is None else raw)
            tokens += count
            if more_ids is None:
                ids = None
            elif ids is not None:
                ids += more_ids
    return Emitted("".join(texts), None if ids is None else tuple(ids), tokens)


def _sampling(stored: dict[str, Any]) -> Sampling:
    return Sampling(**{**stored, "stop": tuple(stored["stop"])})


def _emitted(stored: dict[str, Any]) -> Emitted:
    ids = stored["ids"]
    return Emitted(stored["text"], None if ids is None else tuple(ids), stored["tokens"])


def _message(stored: dict[str, Any] | None) -> StoredMessage | None:
    return StoredMessage(**{**stored, "state": RunState(stored["state"])}) if stored else None
