"""The trials: what is set up, tormented and reckoned with. Each passes with no violation in its report."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from inkstream.engines.scripted import Script
from inkstream.events import Kind
from tests.torture import questions, reckoning, report
from tests.torture.campaign import Answer, Campaign, in_peace, torment
from tests.torture.client import Client
from tests.torture.report import Report
from tests.torture.server import AS_IT_IS, Server

SCRIPT = Script(tokens_per_second=40, answer_tokens=250, think=True)
PAUSE_SECONDS = {"scripted": 0.3, "llama": 0.9}
POISON = "☠"
POISON_SECONDS = 300.0


async def scripted(
    folder: Path,
    seed: int,
    *,
    kills: int,
    seconds: float,
    askers: int,
    environ: Mapping[str, str] = AS_IT_IS,
) -> Report:
    """Everything that the outside can see, and every text equal to the undisturbed one."""
    server = Server(folder, settings(SCRIPT), environ)
    async with server:
        campaign = await torment(
            server,
            seed,
            questions.for_scripted,
            askers=askers,
            kills=kills,
            seconds=seconds,
            pause_seconds=PAUSE_SECONDS["scripted"],
        )
        await reckoning.check_api(server, campaign)
    await reckoning.check_files(server.data_dir, campaign)
    for answer in campaign.answers:
        await reckoning.check_against_undisturbed(campaign, answer, SCRIPT)
    return report.of_campaign("scripted", campaign, server)


async def llama(
    folder: Path,
    seed: int,
    model: Path,
    *,
    kills: int,
    seconds: float,
    askers: int,
    environ: Mapping[str, str] = AS_IT_IS,
) -> Report:
    """The same with real weights, whose texts may differ behind a seam: how many do is reported."""
    told = {"engine": "llama", "model": str(model), "context": "1024", "heartbeat_seconds": "1"}
    server = Server(folder, told, environ)
    async with server:
        expected = await _undisturbed(server)
        campaign = await torment(
            server,
            seed,
            questions.for_llama,
            askers=askers,
            kills=kills,
            seconds=seconds,
            pause_seconds=PAUSE_SECONDS["llama"],
        )
        await reckoning.check_api(server, campaign)
    await reckoning.check_files(
        server.data_dir, campaign, besides=[answer.key for answer in expected.values()]
    )
    found = report.of_campaign("llama", campaign, server)
    found.figures |= _equal_shares(campaign, {text: answer.text for text, answer in expected.items()})
    return found


async def _undisturbed(server: Server) -> dict[str, Answer]:
    """Every question of the pool, answered alone and in peace."""
    campaign = Campaign(0)
    async with Client(server.port, campaign.blame) as client:
        for text in questions.ENGLISH:
            question = questions.Question(
                text, questions.llama_sampling(text), ("steady",), None, 0, None, False
            )
            campaign.answers.append(await in_peace(server, client, question, key=f"undisturbed {text}"))
    return {answer.question.text: answer for answer in campaign.answers}


def _equal_shares(campaign: Campaign, expected: dict[str, str]) -> dict[str, str]:
    done = [
        answer
        for answer in campaign.answers
        if answer.transcript.events[-1].kind is Kind.DONE and len(answer.said) == 1
    ]
    cut = {answer.run for answer in done if len({e.epoch for e in answer.transcript.events}) > 1}
    equal = {answer.run: answer.text == expected[answer.question.text] for answer in done}
    return {
        "greedy texts equal to the undisturbed, seamless": report.share(
            equal[run] for run in equal if run not in cut
        ),
        "greedy texts equal to the undisturbed, cut": report.share(equal[run] for run in equal if run in cut),
    }


async def poison(
    folder: Path, seed: int, *, poisoned: int, healthy: int, environ: Mapping[str, str] = AS_IT_IS
) -> Report:
    """Prompts that kill the engine each time, among healthy ones: only they fail."""
    script = Script(tokens_per_second=40, answer_tokens=120, crash_on=POISON)
    campaign, server = Campaign(seed), Server(folder, settings(script), environ)
    texts = [f"{POISON} {n}" for n in range(poisoned)] + [f"healthy {n}" for n in range(healthy)]
    random.Random(seed).shuffle(texts)
    async with server, Client(server.port, campaign.blame) as client:
        sampling: dict[str, Any] = {"temperature": 0, "max_tokens": 120}
        asked = [questions.Question(text, sampling, ("steady",), None, 0, None, False) for text in texts]
        answering = (in_peace(server, client, question, f"{n}") for n, question in enumerate(asked))
        async with asyncio.timeout(POISON_SECONDS):
            campaign.answers = await asyncio.gather(*answering)
        await reckoning.check_api(server, campaign)
    await reckoning.check_files(server.data_dir, campaign, guilty=POISON)
    for answer in campaign.answers:
        last = answer.transcript.events[-1]
        if POISON not in answer.question.text:
            await reckoning.check_against_undisturbed(campaign, answer, script)
        elif last.kind is not Kind.FAILED or last.payload["code"] != "engine_crashed":
            campaign.blame(f"run {answer.run}: a poisoned prompt ended {last}")
        if POISON not in answer.question.text and last.kind is not Kind.DONE:
            campaign.blame(f"run {answer.run}: a healthy prompt ended {last}")
    return report.of_campaign(f"{poisoned} prompts that crash the engine among {healthy}", campaign, server)


def settings(script: Script) -> dict[str, str]:
    told = {name: value for name, value in asdict(script).items() if value is not None}
    return {"engine": "scripted", "script": json.dumps(told), "queue": "4096", "heartbeat_seconds": "1"}
