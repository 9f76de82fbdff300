"""What the history holds, as its callers see it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from inkstream.events import Parts, RunState


@dataclass(frozen=True, slots=True)
class Match:
    """Where a search has found a conversation. ``message`` is None for its title.

    ``snippet`` is text around the first hit, and ``hits`` the places of all hits in it, counted in UTF-16
    code units: that is how browsers index text.
    """

    message: str | None
    snippet: str
    hits: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Chat:
    """``settings`` is ``{"system": str, "sampling": {...}}``, without what is left to the model.

    ``runs`` are its living runs and ``match`` is where a search has found it; neither is stored.
    """

    id: str
    principal: str
    title: str
    created_at: float
    updated_at: float
    settings: dict[str, Any] = field(default_factory=dict)
    runs: tuple[str, ...] = ()
    match: Match | None = None


@dataclass(frozen=True, slots=True)
class Changed:
    """What has become of a conversation; ``chat`` is None where it is hidden from now on."""

    id: str
    principal: str
    chat: Chat | None


@dataclass(frozen=True, slots=True)
class Page:
    """``next`` is the cursor of the page behind this one, None at the end."""

    chats: list[Chat]
    next: str | None


@dataclass(frozen=True, slots=True)
class Message:
    """``ending`` is the public part of the run's terminal event, empty while it lives.

    ``made_with`` is what an answer is written with: ``{"model", "system", "sampling"}``, as asked for until
    its run is pinned. ``left_out`` counts the messages of its path that the model was not shown.
    ``last_id`` is the wire id of the last event that ``parts`` tells, where they were folded from a living
    run; it is never stored.
    """

    id: str
    chat: str
    parent: str | None
    role: Literal["user", "assistant"]
    parts: Parts
    created_at: float
    run: str | None = None
    state: RunState = RunState.DONE
    ending: dict[str, Any] | None = None
    last_id: str | None = None
    made_with: dict[str, Any] | None = None
    left_out: int = 0
