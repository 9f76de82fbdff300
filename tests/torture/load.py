"""Much at once: one very long answer, and very many answers. The gateway's memory must not grow with them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from inkstream.engines.scripted import Script
from inkstream.events import Kind
from tests.torture import reckoning, report
from tests.torture.campaign import Answer, Campaign, in_peace
from tests.torture.client import Client
from tests.torture.questions import Question
from tests.torture.report import Report
from tests.torture.server import AS_IT_IS, Server
from tests.torture.trials import settings

SAMPLE_SECONDS = 0.25
LONG_ANSWER_MIB = 96
"""What one answer of 10⁵ tokens may cost at most, for a moment, where it is folded whole for the history."""
CROWD_TOKENS = 40
MAX_GROWTH = 0.25
"""What the memory may grow by when as many runs as before come once more: allocators are not exact."""
STALL_SECONDS = 10.0
"""Ten times what is seen on two busy cores: a run that stands still does so for much longer."""


async def long_answer(
    folder: Path, seed: int, *, tokens: int, environ: Mapping[str, str] = AS_IT_IS
) -> Report:
    script = Script(answer_tokens=tokens, context=tokens + 1000)
    campaign, server = Campaign(seed), Server(folder, settings(script), environ)
    async with server, Client(server.port, campaign.blame) as client:
        await in_peace(server, client, _question("warm up", 100), "warm up")
        async with _Memory(server) as used:
            started = time.monotonic()
            answer = await in_peace(server, client, _question("a long one", tokens), "long")
            seconds = time.monotonic() - started
        campaign.answers.append(answer)
        await reckoning.check_against_undisturbed(campaign, answer, script)
        _check_tokens(campaign, answer, tokens)
    found = report.of_campaign(f"{tokens} tokens in one answer", campaign, server)
    found.figures |= {"tokens per second": round(tokens / seconds), **used.figures()}
    if used.growth_bytes > LONG_ANSWER_MIB << 20:
        found.violations.append(f"the gateway grew by {used.growth_bytes >> 20} MiB over one answer")
    return found


async def crowd(
    folder: Path, seed: int, *, runs: int, tokens_per_second: float, environ: Mapping[str, str] = AS_IT_IS
) -> Report:
    """All at once, a reader each, three times over: for the last the gateway must need nothing more.

    The first two show the allocator how much is needed at a time, and how that lies among what stays.
    """
    script = Script(tokens_per_second=tokens_per_second, answer_tokens=CROWD_TOKENS, slots=runs)
    campaign, server = Campaign(seed), Server(folder, settings(script), environ)
    async with server, Client(server.port, campaign.blame) as client:
        await in_peace(server, client, _question("warm up", 4), "warm up")
        waves = [await _wave(server, client, campaign, runs, number) for number in range(3)]
        for answer in campaign.answers:
            await reckoning.check_against_undisturbed(campaign, answer, script)
            _check_tokens(campaign, answer, CROWD_TOKENS)
    found = report.of_campaign(f"three times {runs} answers at once", campaign, server)
    first, second, third = waves
    found.figures |= {"KiB per run": first.growth_bytes // 1024 // runs}
    found.figures |= {
        f"MiB of the gateway, {when}": wave.most_bytes >> 20
        for when, wave in zip(("first", "second", "third"), waves, strict=True)
    }
    grown = third.most_bytes - second.most_bytes
    if grown > second.most_bytes * MAX_GROWTH:
        found.violations.append(f"the gateway grew by {grown >> 20} MiB for the third {runs} runs")
    _check_pauses(found, campaign)
    return found


async def _wave(server: Server, client: Client, campaign: Campaign, runs: int, number: int) -> _Memory:
    async with _Memory(server) as used:
        questions = [_question(f"{number} {n}", CROWD_TOKENS) for n in range(runs)]
        campaign.answers += await asyncio.gather(*(in_peace(server, client, q, q.text) for q in questions))
    return used


def _check_pauses(found: Report, campaign: Campaign) -> None:
    pauses = [pause for answer in campaign.answers for pause in _pauses(answer)]
    found.seconds["seconds between events of a run"] = pauses
    if max(pauses) > STALL_SECONDS:
        found.violations.append(f"a run stood still for {max(pauses):.1f} s")


class _Memory:
    """Samples the gateway's resident memory while the block runs."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.before_bytes = self.most_bytes = self.after_bytes = 0

    @property
    def growth_bytes(self) -> int:
        return self.most_bytes - self.before_bytes

    def figures(self) -> dict[str, int | float | str]:
        mib = {"before": self.before_bytes, "at most": self.most_bytes, "after": self.after_bytes}
        return {f"MiB of the gateway {when}": size >> 20 for when, size in mib.items()}

    async def __aenter__(self) -> _Memory:
        self.before_bytes = self.most_bytes = self._server.memory_bytes("gateway")
        self._sampling = asyncio.create_task(self._sample())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._sampling.cancel()
        self.after_bytes = self._server.memory_bytes("gateway")
        self.most_bytes = max(self.most_bytes, self.after_bytes)

    async def _sample(self) -> None:
        while True:
            self.most_bytes = max(self.most_bytes, self._server.memory_bytes("gateway"))
            await asyncio.sleep(SAMPLE_SECONDS)


def _question(text: str, tokens: int) -> Question:
    return Question(text, {"temperature": 0, "max_tokens": tokens}, ("steady",), None, 0, None, False)


def _check_tokens(campaign: Campaign, answer: Answer, tokens: int) -> None:
    last = answer.transcript.events[-1]
    if last.kind is not Kind.DONE or last.payload["usage"]["completion_tokens"] != tokens:
        campaign.blame(f"run {answer.run}: {last} where {tokens} tokens were due")


def _pauses(answer: Answer) -> list[float]:
    events = answer.transcript.events
    return [after.at - before.at for before, after in pairwise(events)]
