"""The targets, and what was measured beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Rows = Mapping[str, Any]
"""What ``Results`` has, by the row's name."""


@dataclass(frozen=True, slots=True)
class Target:
    """``find`` takes the figures of a row; it raises KeyError where that has not come so far."""

    what: str
    row: str
    find: Callable[[Any], float]
    least: float | None = None
    most: float | None = None
    unit: str = ""

    def line(self, rows: Rows) -> str:
        wanted = f"≥ {self.least:,g}" if self.least is not None else f"≤ {self.most:,g}"
        try:
            value = self.find(rows[self.row]["figures"])
        except KeyError:
            return f"| {self.what} | {wanted} {self.unit} | not measured | |"
        holds = (self.least is None or value >= self.least) and (self.most is None or value <= self.most)
        return f"| {self.what} | {wanted} {self.unit} | {value:,.4g} | {'holds' if holds else 'missed'} |"


def _speed(streams: int, kind: str, least: float) -> Target:
    return Target(
        f"{streams} at a time, {kind}",
        "speed",
        lambda f: f[f"{streams} {kind}"]["tokens_per_second"],
        least=least,
        unit="tokens/s",
    )


def _through(tokens: int) -> Target:
    def ratio(f: Any) -> float:
        ours, bare = (
            f[f"{which}, {tokens} tokens"]["tokens_per_second"] for which in ("gateway", "bare engine")
        )
        return float(ours / bare)

    return Target(
        f"the whole gateway, answers of {tokens}", "gateway", ratio, least=0.9, unit="× the bare engine"
    )


def _seams(kind: str) -> Target:
    def share(f: Any) -> float:
        told = [each for name, each in f.items() if name.startswith(kind)]
        if not told:
            raise KeyError(kind)
        return float(sum(each["well_formed"] for each in told) / sum(each["seams"] for each in told))

    return Target(f"well-formed seams, {kind}", "seams", share, least=1.0, unit="of all")


TARGETS = (
    *(
        _speed(*each)
        for each in ((1, "greedy", 1e3), (32, "greedy", 2e4), (128, "greedy", 5e4), (256, "greedy", 8e4))
    ),
    *(
        _speed(*each)
        for each in ((1, "mixed", 1e3), (32, "mixed", 2e4), (128, "mixed", 5e4), (256, "mixed", 8e4))
    ),
    Target("first token, idle", "first-token", lambda f: f["ms_p50"], most=15, unit="ms"),
    Target(
        "inter-token p99 while a long prompt arrives",
        "long-prompt",
        lambda f: f["p99_to_median_before"],
        most=2,
        unit="× the median",
    ),
    _through(128),
    _through(1024),
    Target(
        "7B in 24 GiB, bf16: peak", "capped", lambda f: f["bf16"]["peak_bytes"] / 2**30, most=24, unit="GiB"
    ),
    Target(
        "7B in 24 GiB, nf4: peak", "capped", lambda f: f["nf4"]["peak_bytes"] / 2**30, most=24, unit="GiB"
    ),
    Target("nf4 / bf16, whole", "quantised", lambda f: f["nf4"]["whole_bytes_share"], most=0.48),
    Target("nf4 / bf16, layers", "quantised", lambda f: f["nf4"]["layers_bytes_share"], most=0.28),
    _seams("random weights"),
    _seams("real weights"),
    Target(
        "drafts from the text, real weights",
        "real-guesses",
        lambda f: f["repeat"]["gain"],
        least=1.5,
        unit="×",
    ),
)


def targets_table(rows: Rows) -> str:
    """As Markdown."""
    head = "| what | target | measured | |\n|---|---|---|---|\n"
    return head + "\n".join(target.line(rows) for target in TARGETS)
