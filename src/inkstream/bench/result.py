"""What a measurement found. Seconds everywhere; what a person is shown is ``report``'s affair."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from inkstream.bench.machine import Machine, Use
from inkstream.bench.plan import Plan
from inkstream.bench.stats import Percentiles, Tally


@dataclass(frozen=True, slots=True)
class Figures:
    """One round of one load.

    ``first`` is from the request (in an open loop: from its scheduled moment) to the first token; ``gap``
    between two arrivals that bring tokens; ``longest`` each answer's longest gap. ``tokens`` are counted by
    the server's usage where ``reported`` says so, else by events. ``server`` is what its processes used in
    this round, with ``rss_bytes`` as the most that was seen; empty where it cannot be known. ``jitter``
    is how late the timers of an idle process were meanwhile.
    """

    streams: int
    rate: float
    seconds: float
    answers: int
    reported: int
    tokens: int
    events: int
    arrivals: int
    received_bytes: int
    errors: dict[str, int]
    first: Percentiles
    gap: Percentiles
    longest: Percentiles
    client_cpu_seconds: float
    jitter: Percentiles
    server: tuple[Use, ...] = ()

    @classmethod
    def of(
        cls, tally: Tally, streams: int, rate: float, jitter: Percentiles, server: tuple[Use, ...]
    ) -> Figures:
        return cls(
            streams=streams,
            rate=rate,
            seconds=tally.ended - tally.began,
            answers=tally.answers,
            reported=tally.reported,
            tokens=tally.tokens,
            events=tally.events,
            arrivals=len(tally.first) + len(tally.gaps),
            received_bytes=tally.received_bytes,
            errors=dict(tally.errors),
            first=Percentiles.of(tally.first),
            gap=Percentiles.of(tally.gaps),
            longest=Percentiles.of(tally.longest),
            client_cpu_seconds=tally.cpu_seconds,
            jitter=jitter,
            server=server,
        )

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def server_cpu_seconds(self) -> float | None:
        return sum(use.cpu_seconds for use in self.server) if self.server else None

    @property
    def server_rss_bytes(self) -> int | None:
        return sum(use.rss_bytes for use in self.server) if self.server else None

    def per_million_tokens(self, seconds: float | None) -> float | None:
        return seconds / self.tokens * 1e6 if self.tokens and seconds is not None else None


@dataclass(frozen=True, slots=True)
class Result:
    """``rounds`` in the order in which they were run."""

    plan: Plan
    api: str
    machine: Machine
    rounds: tuple[Figures, ...] = field(default=())

    def loads(self) -> dict[tuple[int, float], list[Figures]]:
        """The rounds of each load."""
        loads: dict[tuple[int, float], list[Figures]] = {}
        for figures in self.rounds:
            loads.setdefault((figures.streams, figures.rate), []).append(figures)
        return loads

    @property
    def counts_usage(self) -> bool:
        """Whether all tokens were counted by the server's own usage; otherwise they are events."""
        return all(figures.reported == figures.answers for figures in self.rounds)

    def as_json(self) -> dict[str, Any]:
        """Everything, the key apart."""
        plan = asdict(self.plan) | {"key": "given" if self.plan.key else ""}
        rounds = [
            asdict(figures) | {"tokens_per_second": figures.tokens_per_second} for figures in self.rounds
        ]
        return {
            "plan": plan,
            "api": self.api,
            "tokens_counted_by": "usage" if self.counts_usage else "events",
            "machine": asdict(self.machine),
            "rounds": rounds,
        }
