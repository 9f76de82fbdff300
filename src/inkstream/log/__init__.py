"""The token log: append-only, numbered per run, durable before visible.

What is appended is committed before anybody can read it, so a token that a reader saw survives
``kill -9`` of every process. The log knows nothing of engines, prompts or HTTP: a record and a seam are
bytes to it. It checks the event table, numbers the events, fences off old claims and wakes readers.

One shape, one file per implementation; ``tests/test_log.py`` runs one suite against each.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from inkstream.events import Draft, Event, Kind, Note, RunState


@dataclass(frozen=True, slots=True)
class NewRun:
    """What a run is created with. ``record`` is opaque here; ``key`` is the caller's idempotency key."""

    id: str
    principal: str
    record: bytes
    key: str | None = None
    body_hash: bytes = b""


@dataclass(frozen=True, slots=True)
class Run:
    """A run as the log sees it.

    ``deaths`` counts the engines that died under it since its last token. ``settled`` means that its
    message has been written to the history. ``created_at`` and ``ended_at`` are Unix seconds.
    """

    id: str
    principal: str
    record: bytes
    state: RunState
    epoch: int
    last_seq: int
    stop_requested: bool
    deaths: int
    created_at: float
    ended_at: float | None
    settled: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to append to a run, until somebody claims it with a higher epoch."""

    run: str
    epoch: int
    last_seq: int


class Entry(NamedTuple):
    """Events for one run. They are appended only if ``expected_seq`` is still the run's last number."""

    claim: Claim
    expected_seq: int
    events: Sequence[Draft]


class Appended(NamedTuple):
    """``seq`` is the run's last number now; ``stop_requested`` the flag as of this commit."""

    seq: int
    stop_requested: bool


class Log(Protocol):
    """Every call may be cancelled; a cancelled append is committed as a whole or not at all."""

    async def create(self, new: NewRun) -> tuple[Run, bool]:
        """Insert, or return what is there for (principal, key). One transaction.

        Raises KeyReused if that key was used with another ``body_hash``, LogUnwritable.
        """
        ...

    async def get(self, run: str) -> Run | None: ...

    async def find(self, principal: str, key: str) -> Run | None:
        """The run that was created with this idempotency key."""
        ...

    async def claim(self, run: str, seen_epoch: int, *, after_death: bool = False) -> Claim:
        """Take the run over: its epoch becomes ``seen_epoch + 1`` and every older claim is fenced.

        Succeeds only if the epoch is still ``seen_epoch`` and the run is free, ours, or its holder's
        lease has expired or is known to be dead. ``after_death`` adds one to the run's ``deaths``.
        Raises Fenced (also if the run has ended or is unknown), LogUnwritable.
        """
        ...

    async def append(self, batch: Sequence[Entry]) -> list[Appended | None]:
        """Append a whole step of many runs in one commit. None stands for an entry that was fenced.

        An entry is fenced if its claim is outdated, its ``expected_seq`` is not the last number, or the
        event table forbids one of its events. A ``text`` event sets the run's ``deaths`` to 0.
        When this returns the events are durable; only then do readers see them. Raises LogUnwritable:
        then nothing of the batch was appended.
        """
        ...

    def note(self, claim: Claim, key: str, payload: bytes) -> None:
        """Tell the readers of a run something volatile: last value per key, ≤ 32 KiB, lost on restart.

        Notes of an outdated claim or an ended run are dropped; the terminal event clears them.
        """
        ...

    async def request_stop(self, run: str) -> Run:
        """Set the durable flag that ``append`` hands to the claim's holder. An ended run stays as it is.

        Raises NotFound, LogUnwritable.
        """
        ...

    async def read(self, run: str, after: int, limit: int) -> list[Event]:
        """Up to ``limit`` events with numbers above ``after``, in order."""
        ...

    def follow(self, run: str, after: int) -> AsyncGenerator[list[Event | Note]]:
        """First what is stored behind ``after`` and the current notes, then what comes, in lists.

        Ends behind the terminal event, or when the log is closed; never because nothing happens.
        Never holds more than one page of events for its reader, however slow that is.
        """
        ...

    async def open_runs(self) -> list[Run]:
        """Runs that have not ended or are not settled, oldest first."""
        ...

    async def settle(self, run: str) -> None:
        """Mark an ended run's message as written to the history."""
        ...

    async def expire(self, before: float, limit: int) -> int:
        """Forget up to ``limit`` settled runs that ended before that Unix time; says how many."""
        ...

    async def renew(self) -> None:
        """Renew this instance's lease, for all its claims at once."""
        ...

    async def aclose(self) -> None:
        """End all followers and release this instance's claims. Appends no event."""
        ...


__all__ = ["Appended", "Claim", "Draft", "Entry", "Event", "Kind", "Log", "NewRun", "Note", "Run", "RunState"]
