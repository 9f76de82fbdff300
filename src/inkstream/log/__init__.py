"""The token log: append-only, numbered per run, durable before visible.

What is appended is committed before anybody can read it, so a token that a reader saw survives
``kill -9`` of every process. The log knows nothing of engines, prompts or HTTP: a record and a seam are
bytes to it. It checks the event table, numbers the events, fences off old claims and serves readers.

One shape, one file per implementation; ``tests/test_log.py`` runs one suite against each.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from inkstream.errors import LogError
from inkstream.events import Batch, Draft, Event, RunState


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


Done = Callable[[Appended | LogError | None], None]
"""Hears what became of an entry: None if it was fenced."""


class Reader(Protocol):
    """Who follows a run."""

    def take(self, batch: Batch) -> bool:
        """Called on the event loop; it is quick and calls nothing of the log. The batch is taken in any case.

        False: nothing more until ``ready`` returns. Meanwhile the log holds nothing for this reader.
        """
        ...

    async def ready(self) -> None:
        """Return when there is room again."""
        ...


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

    def submit(self, entry: Entry, done: Done) -> None:
        """Append to a run. Entries of one turn of the loop, or of the time of a commit, are one commit.

        An entry is fenced if its claim is outdated, its ``expected_seq`` is not the last number, or the
        event table forbids one of its events; the others do not mind. A ``text`` event sets the run's
        ``deaths`` to 0.

        ``done`` is called on the event loop, never before this returns. Then the events are durable and
        the readers have been given them; or it gets LogUnwritable (or another LogError, ``closed`` if the
        log is), and nothing of the entry was appended. Raises nothing.
        """
        ...

    async def append(self, entry: Entry) -> Appended | None:
        """Submit and wait. Raises LogUnwritable, LogError."""
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
        """Up to ``limit`` events with numbers above ``after``, in order. Raises Unreadable."""
        ...

    async def follow(self, run: str, after: int, reader: Reader, *, waits: bool = True) -> None:
        """Give the reader what is stored behind ``after`` and the current notes, then what comes.

        Returns behind the terminal event, or when the log is closed; one that does not wait, behind what
        there is. A reader that is not ready goes on from the log when it is: it holds up nobody. What a
        reader raises ends its own following, here. Raises NotFound.
        """
        ...

    async def open_runs(self, *, but: Container[str] = ()) -> list[Run]:
        """Runs that have not ended or are not settled, oldest first, except those whose ids are in ``but``.

        ``but`` is asked in another thread, before any record is loaded.
        """
        ...

    async def settle(self, run: str) -> None:
        """Mark an ended run's message as written to the history."""
        ...

    async def expire(self, before: float, limit: int) -> int:
        """Forget settled runs that ended before that Unix time, in a slice of up to ``limit`` rows.

        Returns how many rows went; 0: nothing is left. A run is unknown before the first of its events goes.
        """
        ...

    async def renew(self) -> None:
        """Renew this instance's lease, for all its claims at once."""
        ...

    async def aclose(self) -> None:
        """End all followers and release this instance's claims. Appends no event.

        What was submitted is committed first. A reader that is not ready is let go when it is.
        """
        ...
