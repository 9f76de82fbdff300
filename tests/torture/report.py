"""What a campaign comes to, as a table and as JSON."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.torture.campaign import Campaign
from tests.torture.reckoning import gaps
from tests.torture.server import Server

VIOLATIONS_SHOWN = 20


@dataclass(slots=True)
class Report:
    """``figures`` are counted, ``seconds`` measured: each list is shown as its quantiles."""

    title: str
    seed: int
    figures: dict[str, int | float | str] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"seconds": {name: quantiles(values) for name, values in self.seconds.items()}}

    def show(self) -> None:
        print(f"\n{self.title}, seed {self.seed}")
        for name, value in self.figures.items():
            print(f"  {name:<44} {value}")
        for name, values in self.seconds.items():
            shown = "  ".join(f"{label} {value:.2f}" for label, value in quantiles(values).items())
            print(f"  {name:<44} {shown or 'none'}")
        print(f"  {'violations':<44} {len(self.violations)}")
        for violation in self.violations[:VIOLATIONS_SHOWN]:
            print(f"    {violation}", file=sys.stderr)


def quantiles(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    if not ordered:
        return {}
    marks = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    last = len(ordered) - 1
    return {"n": float(len(ordered))} | {name: ordered[round(share * last)] for name, share in marks.items()}


def of_campaign(title: str, campaign: Campaign, server: Server) -> Report:
    report = Report(title, campaign.seed, violations=[*campaign.violations, *server.failures])
    report.figures = {**_blows(campaign), **_readers(campaign), **_runs(campaign)}
    found = gaps(campaign.answers, campaign.blows)
    report.seconds = {f"seconds from a death of the {role}": found[role] for role in ("engine", "gateway")}
    return report


def _blows(campaign: Campaign) -> dict[str, int]:
    by_kind = Counter(f"{blow.role} {blow.signal.name}" for blow in campaign.blows)
    return {
        "blows": len(campaign.blows),
        **dict(sorted(by_kind.items())),
        "of these with their parent": 2 * campaign.parents,
    }


def _runs(campaign: Campaign) -> dict[str, int]:
    ends = Counter(answer.transcript.events[-1].kind.value for answer in campaign.answers)
    epochs = [len({event.epoch for event in answer.transcript.events}) for answer in campaign.answers]
    texts = sum(len(answer.transcript.events) for answer in campaign.answers)
    return {
        "runs": len(campaign.answers),
        **{f"  ended {kind}": count for kind, count in sorted(ends.items())},
        "  that answer a question anew": sum(answer.adds == 1 for answer in campaign.answers),
        "  that go on with an answer": sum(answer.adds == 0 for answer in campaign.answers),
        "  runs with a seam": sum(count > 1 for count in epochs),
        "  seams": sum(epochs) - len(epochs),
        "events, each compared for every reader": texts,
        "calls repeated for a lost reply": campaign.repeats,
        "runs that were asked to stop": sum(bool(answer.stops) for answer in campaign.answers),
    }


def _readers(campaign: Campaign) -> dict[str, int]:
    readers = [reader for answer in campaign.answers for reader in answer.readers]
    counts = [reader.counts for reader in readers]
    return {
        "readers": len(readers),
        "connections, those refused included": sum(count.connections for count in counts),
        "  cut by the reader, at any byte": sum(count.cuts for count in counts),
        "  cut by a death": sum(count.broken for count in counts),
    }


def share(hits: Iterable[bool]) -> str:
    each = list(hits)
    return f"{sum(each)} of {len(each)}"
