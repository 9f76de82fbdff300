"""The blows: which process is hit, how, when; and what came of it."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from tests.torture.server import Role, Server, Target

Victim = Literal["engine", "gateway", "both", "parent"]
KILL, TERM, STOP = signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP
WEIGHTS: dict[tuple[Victim, signal.Signals], int] = {
    ("engine", KILL): 36,
    ("engine", TERM): 8,
    ("engine", STOP): 8,
    ("gateway", KILL): 26,
    ("gateway", TERM): 8,
    ("gateway", STOP): 8,
    ("both", KILL): 3,
    ("parent", KILL): 2,
    ("parent", TERM): 1,
}
FREEZE_SECONDS = 2.5
IN_A_ROW = {"engine": 2, "gateway": 3}
"""How often a process is killed before it has been of use again. An engine that dies three times over a run
that has written nothing ends it, and five deaths end a process for good: both are meant so."""
PATIENCE_SECONDS = 60.0


@dataclass(slots=True)
class Blow:
    """From ``at`` on the process is not itself; ``until`` is its death, or the end of its pause."""

    role: Role
    signal: signal.Signals
    at: float
    until: float | None = None

    @property
    def is_deadly(self) -> bool:
        return self.signal is not STOP


@dataclass(slots=True)
class Pulse:
    """When each process was last seen to be of use, on the monotonic clock.

    What is read may have been written before a death; so what counts is when something was asked for that
    it has answered.
    """

    seen: dict[Role, float] = field(default_factory=lambda: {"engine": 0.0, "gateway": 0.0})

    def beat(self, role: Role, at: float) -> None:
        self.seen[role] = max(self.seen[role], at)


class Chaos:
    """``rage`` strikes so many times. ``blows`` are all that were struck."""

    def __init__(
        self,
        server: Server,
        pulse: Pulse,
        draw: random.Random,
        *,
        pause_seconds: float,
        blame: Callable[[str], None],
    ) -> None:
        self.blows: list[Blow] = []
        self.parents = 0
        self._server, self._pulse, self._draw, self._blame = server, pulse, draw, blame
        self._pause_seconds = pause_seconds
        self._in_a_row: Counter[Role] = Counter()
        self._last_death: dict[Role, float] = {"engine": 0.0, "gateway": 0.0}

    @property
    def count(self) -> int:
        return len(self.blows)

    async def rage(self, kills: int, seconds: float) -> None:
        """Returns after ``kills`` blows, or after that time; then nobody is paused any more."""
        deadline = time.monotonic() + seconds
        victims, weights = list(WEIGHTS), list(WEIGHTS.values())
        async with asyncio.TaskGroup() as aftermath:
            while self.count < kills and time.monotonic() < deadline:
                await asyncio.sleep(self._draw.uniform(0, 2 * self._pause_seconds))
                [(victim, number)] = self._draw.choices(victims, weights)
                freeze_seconds = self._draw.uniform(0.05, FREEZE_SECONDS)
                if victim == "parent":
                    await self._strike_parent(number)
                    continue
                for role in _roles(victim):
                    if number is not STOP:
                        await self._let_recover(role)
                    if target := self._server.target(role):
                        aftermath.create_task(self._strike(role, target, number, freeze_seconds))

    async def _let_recover(self, role: Role) -> None:
        waited_since = time.monotonic()
        while self._in_a_row[role] >= IN_A_ROW[role]:
            if self._pulse.seen[role] > self._last_death[role]:
                self._in_a_row[role] = 0
            elif time.monotonic() - waited_since > PATIENCE_SECONDS:
                self._blame(f"the {role} was of no use for {PATIENCE_SECONDS:g} s after its death")
                self._in_a_row[role] = 0
            await asyncio.sleep(0.01)
        self._in_a_row[role] += 1

    async def _strike(
        self, role: Role, target: Target, number: signal.Signals, freeze_seconds: float
    ) -> None:
        blow = Blow(role, number, time.monotonic())
        self.blows.append(blow)
        with target:
            target.send(number)
            if number is STOP:
                await asyncio.sleep(freeze_seconds)
                target.send(signal.SIGCONT)
                blow.until = time.monotonic()
            else:
                blow.until = self._last_death[role] = await target.death()

    async def _strike_parent(self, number: signal.Signals) -> None:
        started = time.monotonic()
        await self._server.replace(number)
        self.parents += 1
        for role in _roles("both"):
            self.blows.append(Blow(role, number, started, time.monotonic()))
            self._last_death[role] = time.monotonic()
            self._in_a_row[role] += 1


def _roles(victim: Victim) -> tuple[Role, ...]:
    if victim == "engine":
        return ("engine",)
    return ("gateway",) if victim == "gateway" else ("gateway", "engine")
