"""What a gateway's runs add up to, for whoever operates it. Counted when a run ends, not while it writes."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from inkstream.events import Kind
from inkstream.histogram import Histogram
from inkstream.timeline import Ending, Timeline

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
MOST_PRINCIPALS = 1000
OTHERS = "others"


@dataclass(slots=True)
class ModelTally:
    """What one model was asked for. Seconds, tokens, and by their reasons the ends of answers."""

    first_token: Histogram = field(default_factory=Histogram)
    inter_token: Histogram = field(default_factory=Histogram)
    queue: Histogram = field(default_factory=Histogram)
    total: Histogram = field(default_factory=Histogram)
    prefill: Histogram = field(default_factory=Histogram)
    decode: Histogram = field(default_factory=Histogram)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    tokens: int = 0
    drafted_tokens: float = 0
    accepted_tokens: float = 0
    ended: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class PrincipalTally:
    runs: int = 0
    tokens: int = 0


class RunTally:
    """``takeovers`` are by reason, ``stops`` by who asked, ``failures`` by code. ``living`` are here now.

    ``on_left`` is told what has happened to a run, when it has ended or is left to another process.
    """

    def __init__(self, on_left: Callable[[Timeline], None] = lambda _: None) -> None:
        self.begun = self.stalls = self.engine_losses = 0
        self.takeovers, self.stops, self.failures = Counter[str](), Counter[str](), Counter[str]()
        self.models: defaultdict[str, ModelTally] = defaultdict(ModelTally)
        self.principals: defaultdict[str, PrincipalTally] = defaultdict(PrincipalTally)
        self.living: dict[str, Timeline] = {}
        self._on_left = on_left

    def begin(self, timeline: Timeline) -> None:
        self.begun += 1
        self.living[timeline.run] = timeline

    def leave(self, timeline: Timeline) -> None:
        """It has ended, or somebody else goes on with it."""
        del self.living[timeline.run]
        model, principal = self.models[timeline.model], self._principal(timeline.principal)
        model.tokens += timeline.tokens
        principal.tokens += timeline.tokens
        _add_attempts(model, timeline)
        if timeline.ending is not None:
            principal.runs += 1
            self._add_ending(model, timeline, timeline.ending)
            _log(timeline, timeline.ending)
        self._on_left(timeline)

    async def watch(self) -> None:
        """Count the pauses within answers that readers have to wait through, for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.stalls += sum(run.readers for run in self.living.values() if run.begins_to_stall())

    def _principal(self, name: str) -> PrincipalTally:
        """Names have no end where a proxy makes them up; a series for each would have none either."""
        is_known = name in self.principals or len(self.principals) < MOST_PRINCIPALS
        return self.principals[name if is_known else OTHERS]

    def _add_ending(self, model: ModelTally, timeline: Timeline, ending: Ending) -> None:
        model.ended[_reason(ending)] += 1
        model.total.observe(max(0.0, ending.at - timeline.created_at))
        model.prompt_tokens += timeline.prompt_tokens
        if ending.kind is Kind.DONE:
            model.cached_tokens += ending.payload["usage"]["cached_tokens"]
        elif ending.kind is Kind.FAILED:
            self.failures[ending.payload["code"]] += 1
        if (first := timeline.first_text_at) is not None and timeline.tokens > 1:
            gaps = timeline.tokens - 1
            model.inter_token.observe(max(0.0, ending.at - first) / gaps, gaps)


def _reason(ending: Ending) -> str:
    """In vLLM's words."""
    words = {Kind.STOPPED: "abort", Kind.FAILED: "error"}
    return words.get(ending.kind) or str(ending.payload["finish"])


def _log(timeline: Timeline, ending: Ending) -> None:
    """Each answer's line in the log. What it says is not in it."""
    state, seconds = ending.kind.value, round(ending.at - timeline.created_at, 3)
    told = {"run": timeline.run, "state": state, "tokens": timeline.tokens, "seconds": seconds}
    if ending.kind is Kind.FAILED:
        state = told["code"] = ending.payload["code"]
    logger.info("run %s: %s, %d tokens, %.1f s", timeline.run, state, timeline.tokens, seconds, extra=told)


def _add_attempts(model: ModelTally, timeline: Timeline) -> None:
    if (first := timeline.first_text_at) is not None:
        model.first_token.observe(max(0.0, first - timeline.created_at))
    for attempt in timeline.attempts:
        if attempt.asked_at is not None:
            model.queue.observe(max(0.0, attempt.asked_at - attempt.queued_at))
        timings = attempt.timings
        for name, histogram in (("prefill_seconds", model.prefill), ("decode_seconds", model.decode)):
            if name in timings:
                histogram.observe(timings[name])
        drafted = timings.get("drafted_tokens", 0)
        model.drafted_tokens += drafted
        model.accepted_tokens += drafted * timings.get("accepted_share", 0)
