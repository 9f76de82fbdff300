"""What readers notice of a restart: ``python bench/restart.py [--answers 50] [--load-seconds 3]``.

Real processes, each answer with a reader of its own. While all are being written the server is told to stop
(SIGTERM) and started again at the same address: once as a whole, and once with the engine apart, which stays.
Printed are the seconds from the signal to the end of the process and from there to the next one's first
answer, and the longest pause between two tokens that readers saw. Every reader must have the whole
undisturbed text, once, and a reader that has not says so and ends the command with 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import httpx

from inkstream.engines import Chunk, Emitted, Message, Progress, Request, Sampling
from inkstream.engines.scripted import Script, Scripted
from inkstream.probe import free_port

RETRY_SECONDS = 0.1
GREEDY = {"temperature": 0}
LOADED = "is loaded and answers"


@dataclass
class Reader:
    """Follows one run through any number of connections. ``pause_seconds`` is the longest between events."""

    run: str
    text: str = ""
    seq: int = 0
    is_ended: bool = False
    pause_seconds: float = 0.0
    connections: int = 0
    faults: list[str] = field(default_factory=list)
    _heard_at: float = 0.0

    async def read(self, http: httpx.AsyncClient) -> None:
        while not self.is_ended:
            with suppress(httpx.TransportError):
                await self._visit(http)
            if not self.is_ended:
                await asyncio.sleep(RETRY_SECONDS)

    async def _visit(self, http: httpx.AsyncClient) -> None:
        self.connections += 1
        path = f"/api/runs/{self.run}/events?after={self.seq}"
        async with http.stream("GET", path, timeout=httpx.Timeout(10, read=60)) as reply:
            if reply.status_code != 200:
                self.faults.append(f"{path} was answered with {reply.status_code}")
                self.is_ended = True
                return
            rest = b""
            async for received in reply.aiter_raw():
                *frames, rest = (rest + received).split(b"\n\n")
                for frame in frames:
                    self._take(frame)

    def _take(self, frame: bytes) -> None:
        fields = dict(line.split(b": ", 1) for line in frame.split(b"\n") if b": " in line)
        if b"id" not in fields:
            return
        seq = int(fields[b"id"].rpartition(b":")[2])
        if seq != self.seq + 1:
            self.faults.append(f"event {seq} came behind {self.seq}")
        now = time.monotonic()
        if self.seq:
            self.pause_seconds = max(self.pause_seconds, now - self._heard_at)
        self.seq, self._heard_at = seq, now
        self._hear(fields[b"event"], fields[b"data"])

    def _hear(self, kind: bytes, data: bytes) -> None:
        if kind == b"text":
            self.text += json.loads(data)["text"]
        elif kind != b"started":
            self.is_ended = True
            if kind != b"done":
                self.faults.append(f"it ended with {kind.decode()}: {data.decode()}")


@dataclass(frozen=True)
class Outcome:
    """``loads`` counts how often the weights were loaded, ``faults`` what may never happen."""

    case: str
    exit_seconds: float
    start_seconds: float
    pause_seconds_median: float
    pause_seconds_most: float
    loads: int
    faults: list[str]


class World:
    """A data folder, an address, and the settings of the processes on it."""

    def __init__(self, folder: Path, script: Script, *, is_apart: bool) -> None:
        self.folder, self.console = folder, folder / "console.log"
        self.url = f"http://127.0.0.1:{free_port('127.0.0.1')}"
        self.script, self.is_apart = script, is_apart
        own = {name: value for name, value in os.environ.items() if not name.startswith("INKSTREAM_")}
        ours = {
            "INKSTREAM_DATA_DIR": str(folder / "data"),
            "INKSTREAM_PORT": self.url.rpartition(":")[2],
            "INKSTREAM_ENGINE": "scripted",
            "INKSTREAM_SCRIPT": json.dumps(asdict(script)),
        }
        if is_apart:
            ours["INKSTREAM_ENGINE_URL"] = f"tcp://127.0.0.1:{free_port('127.0.0.1')}"
        self._environ: Mapping[str, str] = own | ours

    async def start(self, command: str) -> Process:
        with self.console.open("ab") as console:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "inkstream", command),
                env=self._environ,
                cwd=self.folder,
                stdout=DEVNULL,
                stderr=console,
            )

    @asynccontextmanager
    async def running(self, command: str) -> AsyncIterator[Process]:
        process = await self.start(command)
        try:
            yield process
        finally:
            await stopped(process)

    async def until_ready(self, http: httpx.AsyncClient) -> None:
        while True:
            with suppress(httpx.TransportError):
                if (await http.get("/readyz")).status_code == 200:
                    return
            await asyncio.sleep(0.01)

    def loads(self) -> int:
        return self.console.read_text(encoding="utf-8").count(LOADED)


async def stopped(process: Process) -> float:
    """Tell it to stop; returns how many seconds that took."""
    begun = time.monotonic()
    if process.returncode is None:
        process.terminate()
    await process.wait()
    return time.monotonic() - begun


async def asked(http: httpx.AsyncClient, question: str) -> str:
    chat = (await http.post("/api/chats", json={})).json()["id"]
    said = {"content": question, "sampling": GREEDY}
    reply = await http.post(f"/api/chats/{chat}/messages", json=said)
    run: str = reply.raise_for_status().json()["run"]["id"]
    return run


async def undisturbed(script: Script, question: str) -> str:
    """What the same engine says in one go."""
    engine = Scripted(Script(answer_tokens=script.answer_tokens))
    texts: list[str] = []

    def take(item: Chunk | Progress) -> None:
        if isinstance(item, Chunk):
            texts.append(item.text)

    prompt = await engine.render((Message("user", question),))
    sampling = Sampling(temperature=0, max_tokens=script.answer_tokens + 1, seed=1)
    finish = await engine.generate(Request("undisturbed", prompt, sampling), Emitted(), take)
    await engine.aclose()
    return "".join(texts) + (finish.last.text if finish.last else "")


async def restarted(folder: Path, script: Script, answers: int, *, is_apart: bool) -> Outcome:
    """One restart in the midst of that many answers."""
    world = World(folder, script, is_apart=is_apart)
    limits = httpx.Limits(max_connections=None)
    questions = [f"question {number}" for number in range(answers)]
    async with AsyncExitStack() as stack:
        if is_apart:
            await stack.enter_async_context(world.running("engine"))
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=world.url, trust_env=False, limits=limits, timeout=30)
        )
        first = await stack.enter_async_context(world.running("serve"))
        await world.until_ready(http)
        readers = [Reader(run) for run in await asyncio.gather(*(asked(http, q) for q in questions))]
        reading = [asyncio.create_task(reader.read(http)) for reader in readers]
        while not all(reader.seq > 5 for reader in readers):  # noqa: ASYNC110  # a reader rings no bell
            await asyncio.sleep(0.01)
        faults = [f"run {reader.run} had ended before" for reader in readers if reader.is_ended]
        exit_seconds = await stopped(first)
        begun = time.monotonic()
        await stack.enter_async_context(world.running("serve"))
        await world.until_ready(http)
        start_seconds = time.monotonic() - begun
        await asyncio.gather(*reading)
    for reader, question in zip(readers, questions, strict=True):
        faults += reader.faults
        if reader.text != await undisturbed(script, question):
            faults.append(f"run {reader.run} has not the undisturbed text")
    pauses = [reader.pause_seconds for reader in readers]
    return Outcome(
        "engine apart" if is_apart else "all of it",
        *(exit_seconds, start_seconds, statistics.median(pauses), max(pauses)),
        world.loads(),
        faults,
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--answers", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=300)
    parser.add_argument("--rate", type=float, default=30, help="tokens per second of each answer")
    parser.add_argument("--load-seconds", type=float, default=3, help="how long the engine loads")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    script = Script(answer_tokens=given.tokens, tokens_per_second=given.rate, load_seconds=given.load_seconds)
    faults: list[str] = []
    print(
        f"{given.answers} answers, a reader each, {given.rate:g} tokens/s;"
        f" the engine loads {given.load_seconds:g} s;"
        f" load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"
    )
    print(f"{'what is replaced':<18}{'exit':>8}{'start':>8}{'pause':>8}{'most':>8}{'loads':>7}")
    for is_apart in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            outcome = asyncio.run(restarted(Path(folder), script, given.answers, is_apart=is_apart))
        seconds = (
            outcome.exit_seconds,
            outcome.start_seconds,
            outcome.pause_seconds_median,
            outcome.pause_seconds_most,
        )
        print(f"{outcome.case:<18}" + "".join(f"{value:>7.2f}s" for value in seconds) + f"{outcome.loads:>7}")
        faults += outcome.faults
    print("\n".join(faults) or "every reader has the undisturbed text, once")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
