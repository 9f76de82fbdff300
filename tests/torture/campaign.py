"""One campaign: askers and readers on a real server while chaos rages, then the reckoning."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from inkstream.events import Kind, Parts, text_of
from tests.torture.chaos import Blow, Chaos, Pulse
from tests.torture.client import Client
from tests.torture.questions import Question, Sequel
from tests.torture.reader import Reader
from tests.torture.server import Server
from tests.torture.transcript import Received, Transcript, folded

CONVERSATION_LENGTHS = (1, 1, 2, 3)
END_SECONDS = 120.0

Ask = Callable[[random.Random, int], Question]
Said = tuple[str, str]  # role and content


@dataclass(slots=True)
class StopReply:
    state: str
    last_seq: int


@dataclass(slots=True)
class Answer:
    """One run as the outside saw it. ``said`` is the conversation up to the question, which is its last.

    ``asked_at`` is when it was first tried to start it, on the monotonic clock, and ``body`` what was posted.
    ``before`` is the run whose text in the same message this one goes on with.
    """

    question: Question
    said: list[Said]
    key: str
    chat: str
    run: str
    message: str
    asked_at: float
    body: dict[str, Any] = field(default_factory=dict)
    before: Answer | None = None
    readers: list[Reader] = field(default_factory=list)
    stops: list[StopReply] = field(default_factory=list)

    @property
    def transcript(self) -> Transcript:
        """That of the steady reader, which nothing of ours disturbed."""
        return self.readers[0].transcript

    @property
    def parts(self) -> Parts:
        """What the message holds when this run has ended."""
        return folded(self.transcript.events, self.before.parts if self.before else [])

    @property
    def text(self) -> str:
        return text_of(self.parts)

    @property
    def adds(self) -> int:
        """How many messages its chat got by it."""
        return 2 if "content" in self.body else 0 if self.before else 1

    @property
    def can_go_on(self) -> bool:
        last = self.transcript.events[-1]
        return last.kind is Kind.STOPPED or last.payload.get("finish") == "length"


@dataclass(slots=True)
class Campaign:
    """What happened. ``violations`` is empty, or something is wrong with the server."""

    seed: int
    answers: list[Answer] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    blows: list[Blow] = field(default_factory=list)
    parents: int = 0
    repeats: int = 0
    pulse: Pulse = field(default_factory=Pulse)

    def blame(self, what: str) -> None:
        self.violations.append(what)


async def torment(
    server: Server, seed: int, ask: Ask, *, askers: int, kills: int, seconds: float, pause_seconds: float
) -> Campaign:
    """Let ``askers`` converse until the blows are struck and every answer has ended."""
    campaign = Campaign(seed)
    chaos = Chaos(
        server,
        campaign.pulse,
        random.Random(f"{seed} chaos"),
        pause_seconds=pause_seconds,
        blame=campaign.blame,
    )
    over = asyncio.Event()
    async with Client(server.port, campaign.blame) as client:
        working = [
            asyncio.create_task(_Asker(campaign, server, client, ask, number).converse_until(over))
            for number in range(askers)
        ]
        try:
            await chaos.rage(kills, seconds)
        finally:
            over.set()
            campaign.blows, campaign.parents = chaos.blows, chaos.parents
            await _all_end(working, campaign)
        campaign.repeats = client.repeats
    for answer in campaign.answers:
        for reader in answer.readers:
            campaign.violations += reader.transcript.violations
    return campaign


async def _all_end(working: list[asyncio.Task[None]], campaign: Campaign) -> None:
    """No reader hangs, once nobody disturbs any more."""
    _, hanging = await asyncio.wait(working, timeout=END_SECONDS)
    for task in hanging:
        task.cancel()
    for answer in campaign.answers if hanging else ():
        for reader in answer.readers:
            if not reader.transcript.is_ended:
                seen = len(reader.transcript.events)
                campaign.blame(f"run {answer.run}: a {reader.manner} reader hangs behind {seen} events")
    await asyncio.gather(*working, return_exceptions=True)
    for task in working:
        if not task.cancelled() and (error := task.exception()):
            raise error


async def in_peace(server: Server, client: Client, question: Question, key: str) -> Answer:
    """Ask it in a conversation of its own, and read the answer to its end."""
    chat = (await client.call("POST", "/api/chats", {}))["id"]
    answer = await started(client, question, chat, [], key)
    answer.readers.append(Reader(server.port, answer.run, "steady", random.Random(key)))
    await answer.readers[0].read()
    return answer


async def started(client: Client, question: Question, chat: str, said: list[Said], key: str) -> Answer:
    body = {"content": question.text, "sampling": question.sampling}
    return await _start(client, question, chat, [*said, ("user", question.text)], key, body)


async def gone_on(client: Client, answer: Answer, how: Sequel, key: str) -> Answer:
    """Another answer to the same question, or more of this one up to its natural end."""
    question = replace(answer.question, sequel=None)
    body: dict[str, Any] = {how: answer.message}
    if how == "regenerate":
        body["sampling"] = question.sampling
    begun = await _start(client, question, answer.chat, answer.said, key, body)
    return replace(begun, before=answer) if how == "continue" else begun


async def _start(
    client: Client, question: Question, chat: str, said: list[Said], key: str, body: dict[str, Any]
) -> Answer:
    asked_at = time.monotonic()
    reply = await _post(client, chat, key, body, question.hurry_seconds)
    run, message = reply["run"]["id"], reply["message"]["id"]
    return Answer(question, said, key, chat, run, message, asked_at, body)


async def _post(
    client: Client, chat: str, key: str, body: dict[str, Any], hurry_seconds: float | None
) -> dict[str, Any]:
    path = f"/api/chats/{chat}/messages"
    return await client.call("POST", path, body, key=key, hurry_seconds=hurry_seconds)


class _Asker:
    """Asks question after question in conversations of its own."""

    def __init__(self, campaign: Campaign, server: Server, client: Client, ask: Ask, number: int) -> None:
        self._campaign, self._server, self._client, self._ask = campaign, server, client, ask
        self._draw = random.Random(f"{campaign.seed} asker {number}")
        self._name = f"{campaign.seed}-{number}"
        self._asked = 0

    async def converse_until(self, over: asyncio.Event) -> None:
        while not over.is_set():
            chat = (await self._client.call("POST", "/api/chats", {}))["id"]
            said: list[Said] = []
            for _ in range(self._draw.choice(CONVERSATION_LENGTHS)):
                if over.is_set():
                    return
                answer = await self._answer(chat, said)
                said = [*answer.said, ("assistant", answer.text)]

    async def _answer(self, chat: str, said: list[Said]) -> Answer:
        self._asked += 1
        question = self._ask(self._draw, self._asked)
        key = f"{self._name}-{self._asked}"
        answer = await self._torment(await started(self._client, question, chat, said, key))
        how = question.sequel
        if how is None or (how == "continue" and not answer.can_go_on):
            return answer
        return await self._torment(await gone_on(self._client, answer, how, f"{key}-{how}"))

    async def _torment(self, answer: Answer) -> Answer:
        """Read it to its end, and disturb it."""
        question = answer.question
        self._campaign.pulse.beat("gateway", answer.asked_at)
        self._campaign.answers.append(answer)
        steady = asyncio.Event()  # set with every event that the steady reader gets
        for manner in question.readers:
            draw = random.Random(f"{self._draw.random()}")
            answer.readers.append(Reader(self._server.port, answer.run, manner, draw))
        answer.readers[0].on_news = lambda received: self._hear(answer, received, steady)
        async with asyncio.TaskGroup() as group:
            for reader in answer.readers:
                group.create_task(reader.read())
            if question.stop_after is not None:
                group.create_task(self._stop(answer, steady))
            if question.asks_again:
                group.create_task(self._start_again(answer))
        return answer

    def _hear(self, answer: Answer, received: Received, steady: asyncio.Event) -> None:
        if received.kind is Kind.TEXT:
            self._campaign.pulse.beat("engine", answer.asked_at)
        steady.set()

    async def _start_again(self, answer: Answer) -> None:
        reply = await _post(self._client, answer.chat, answer.key, answer.body, None)
        if reply["run"]["id"] != answer.run:
            self._campaign.blame(f"the key {answer.key} started {answer.run} and {reply['run']['id']}")

    async def _stop(self, answer: Answer, steady: asyncio.Event) -> None:
        """Ask for the end behind so many events, several times at once; or find that it has come."""
        assert answer.question.stop_after is not None
        while len(answer.transcript.events) < answer.question.stop_after:
            if answer.transcript.is_ended:
                return
            steady.clear()
            await steady.wait()
        path = f"/api/runs/{answer.run}/stop"
        replies = await asyncio.gather(
            *(self._client.call("POST", path) for _ in range(answer.question.stops))
        )
        answer.stops = [StopReply(reply["state"], reply["last_seq"]) for reply in replies]
