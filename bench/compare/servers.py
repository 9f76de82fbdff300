"""The contestants as real processes: started on free ports, asked until they answer, stopped in the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from compare.environments import BUILD, HERE, ROOT, python
from inkstream.bench import Figures, Plan, measure
from inkstream.probe import free_port

START_SECONDS = 60
STOP_SECONDS = 10
ENGINE = "engine"


@dataclass(frozen=True, slots=True)
class Server:
    """``pids`` are all that belong to it; ``key`` is what it asks for."""

    name: str
    url: str
    pids: tuple[int, ...]
    key: str = ""

    async def measure(self, **load: Any) -> Figures:
        """One round of one load."""
        plan: dict[str, Any] = {"url": self.url, "key": self.key, "pids": self.pids, "rounds": 1, **load}
        (figures,) = (await measure(Plan(**plan))).rounds
        return figures

    async def begin_run(self, tokens: int) -> str:
        """Have an answer begun that nobody reads yet; the run's id."""
        async with httpx.AsyncClient(base_url=self.url, trust_env=False) as client:
            chat = (await client.post("/api/chats", json={})).raise_for_status().json()["id"]
            asked = {"content": "Write.", "sampling": {"max_tokens": tokens, "temperature": 0}}
            reply = await client.post(f"/api/chats/{chat}/messages", json=asked)
            run: str = reply.raise_for_status().json()["run"]["id"]
            return run


def cpu_seconds(figures: Figures) -> tuple[float, float]:
    """Of what serves, and of the engine beside it."""
    engine = sum(use.cpu_seconds for use in figures.server if use.name.endswith(ENGINE))
    return sum(use.cpu_seconds for use in figures.server) - engine, engine


def cpu_us(figures: Figures) -> tuple[float, float]:
    """The same in microseconds per token."""
    serving, engine = cpu_seconds(figures)
    tokens = max(figures.tokens, 1)
    return serving / tokens * 1e6, engine / tokens * 1e6


@contextmanager
def data_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="inkstream-bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@asynccontextmanager
async def inkstream(folder: Path, name: str = "inkstream", **settings: Any) -> AsyncIterator[Server]:
    """``inkstream serve`` of this checkout: parent, gateway and engine. Settings are those of its flags."""
    url = f"http://127.0.0.1:{settings.setdefault('port', free_port('127.0.0.1'))}"
    command = [sys.executable, "-m", "inkstream", "serve"]
    async with _running(name, command, _environ(folder, **settings), f"{url}/readyz") as process:
        yield Server(name, url, (process.pid,))


@asynccontextmanager
async def sender(folder: Path, name: str, **settings: Any) -> AsyncIterator[Server]:
    """Our gateway with the sending of ``name``, beside an engine of our own."""
    settings |= {"engine_url": f"tcp://127.0.0.1:{free_port('127.0.0.1')}", "engine_key": "bench"}
    url = f"http://127.0.0.1:{settings.setdefault('port', free_port('127.0.0.1'))}"
    environ = _environ(folder, **settings)
    engine = [sys.executable, "-m", "inkstream", "engine"]
    gateway = [python("senders"), str(HERE / "opponents" / "senders.py"), name]
    async with (
        _running(f"{name} engine", engine, environ) as one,
        _running(name, gateway, environ, f"{url}/readyz") as other,
    ):
        yield Server(name, url, (one.pid, other.pid))


@asynccontextmanager
async def article(tokens_per_second: float) -> AsyncIterator[Server]:
    """See ``opponents/article.py``; its URL lacks the path."""
    async with _script("article", python("article"), tokens_per_second, probe="/docs") as server:
        yield server


def bare(tokens_per_second: float) -> AbstractAsyncContextManager[Server]:
    """See ``opponents/bare.py``."""
    return _script("bare", sys.executable, tokens_per_second, probe="/stream")


@asynccontextmanager
async def llama_server(model: Path, context: int, slots: int) -> AsyncIterator[Server]:
    """llama.cpp's own server; it says where it is when it has loaded."""
    command = [sys.executable, str(HERE / "opponents" / "llama.py"), str(model), str(context), str(slots)]
    async with _running("llama-server", command, _environ(model.parent), stdout=PIPE) as process:
        assert process.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            url, key = (await process.stdout.readline()).decode().split()
        yield Server("llama-server", url, (process.pid,), key)


@asynccontextmanager
async def _script(name: str, interpreter: str, pace: float, probe: str) -> AsyncIterator[Server]:
    port = free_port("127.0.0.1")
    url = f"http://127.0.0.1:{port}"
    command = [interpreter, str(HERE / "opponents" / f"{name}.py"), str(port), str(pace)]
    async with _running(name, command, _environ(BUILD), f"{url}{probe}") as process:
        yield Server(name, f"{url}/stream", (process.pid,))


def _environ(folder: Path, **settings: Any) -> dict[str, str]:
    """Ours alone: what the user has set for a server of theirs is not measured."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("INKSTREAM_")}
    given = {"data_dir": folder, "engine": "scripted", "queue": 20_000, "log_level": "warning", **settings}
    texts = {k: json.dumps(v) if isinstance(v, dict) else str(v) for k, v in given.items()}
    path = os.pathsep.join(filter(None, (str(ROOT / "src"), own.get("PYTHONPATH"))))
    return own | {f"INKSTREAM_{k.upper()}": v for k, v in texts.items()} | {"PYTHONPATH": path}


@asynccontextmanager
async def _running(
    name: str, command: list[str], environ: dict[str, str], probe: str = "", stdout: int | None = None
) -> AsyncIterator[Process]:
    """The process, once it answers ``probe``. What it says goes to a file, which is named if it dies."""
    BUILD.mkdir(parents=True, exist_ok=True)
    said = BUILD / f"{name.replace(' ', '-')}.log"
    with said.open("wb") as console:
        process = await asyncio.create_subprocess_exec(
            *command, env=environ, stdin=PIPE, stdout=stdout or DEVNULL, stderr=console
        )
    try:
        if probe:
            await _until_ready(process, probe, said)
        yield process
    finally:
        await _stop(process)


async def _until_ready(process: Process, probe: str, said: Path) -> None:
    async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(START_SECONDS):
        while process.returncode is None:
            with contextlib.suppress(httpx.TransportError):
                if (await client.get(probe)).status_code < 500:
                    return
            await asyncio.sleep(0.05)
    raise SystemExit(f"a server has died while it was started; {said} has its last words")


async def _stop(process: Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
