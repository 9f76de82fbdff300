"""``inkstream serve`` as real processes: started, found by their parent's pid, started again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Literal, Self

import httpx

from inkstream.probe import free_port

Role = Literal["gateway", "engine"]
START_SECONDS = 120.0
STOP_SECONDS = 20.0
CONSOLE, TRACEBACK = "console.log", "Traceback (most recent call last)"
AS_IT_IS: Mapping[str, str] = MappingProxyType({})


class Target:
    """One process, held so that a signal can never reach another one that got its number."""

    def __init__(self, pid: int) -> None:
        """Raises ProcessLookupError."""
        self.pid = pid
        self._handle = os.pidfd_open(pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)

    def send(self, number: int) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, number)

    async def death(self) -> float:
        """Wait until it is dead; returns the moment, on the monotonic clock."""
        loop, died = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._handle, died.set)
        try:
            await died.wait()
        finally:
            loop.remove_reader(self._handle)
        return time.monotonic()


class Server:
    """``async with Server(...)``: runs until the end of the block and must then stop in order.

    ``environ`` are its conditions, as ``conditions.environ`` makes them. ``failures`` collects what no blow
    explains.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, str], environ: Mapping[str, str] = AS_IT_IS
    ) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.port = free_port("127.0.0.1")
        self.failures: list[str] = []
        self._settings, self._conditions = settings, environ
        self._process: Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        await self.start()
        await self.until_ready()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.stop()
        else:
            await self.kill()

    async def start(self) -> None:
        command = [sys.executable, "-m", "inkstream", "serve", "--port", str(self.port)]
        with (self.folder / CONSOLE).open("ab") as console:
            self._process = await asyncio.create_subprocess_exec(
                *command, env=self._environ(), cwd=self.folder, stdout=PIPE, stderr=console
            )
        assert self._process.stdout is not None
        self._reading = asyncio.create_task(_drain(self._process.stdout))

    async def until_ready(self) -> None:
        """Wait until the engine is ready. Raises TimeoutError."""
        async with asyncio.timeout(START_SECONDS), httpx.AsyncClient(trust_env=False) as client:
            while True:
                with suppress(httpx.TransportError):
                    if (await client.get(f"http://127.0.0.1:{self.port}/readyz")).status_code == 200:
                        return
                await asyncio.sleep(0.02)

    def target(self, role: Role) -> Target | None:
        """The process that has this role now, if there is one."""
        parent = self._process
        if parent is None or parent.returncode is not None:
            return None
        for pid in _children(parent.pid):
            if role in _arguments(pid):
                with suppress(ProcessLookupError):
                    return Target(pid)
        return None

    def memory_bytes(self, role: Role) -> int:
        """The resident memory of the process that has this role."""
        target = self.target(role)
        assert target is not None, f"there is no {role}"
        with target:
            pages = int(Path(f"/proc/{target.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    async def replace(self, number: int) -> None:
        """Send a signal to the parent, wait until all of it is gone, and start anew."""
        assert self._process is not None
        left = [target for role in ("gateway", "engine") if (target := self.target(role))]
        self._process.send_signal(number)
        code = await self._gone(left)
        if number == signal.SIGTERM and code != 0:
            self.failures.append(f"SIGTERM ended the parent with code {code}")
        await self.start()

    async def stop(self) -> None:
        assert self._process is not None
        if self._process.returncode is not None:
            self.failures.append(f"the parent ended by itself with code {self._process.returncode}")
            return
        left = [target for role in ("gateway", "engine") if (target := self.target(role))]
        self._process.terminate()
        if code := await self._gone(left):
            self.failures.append(f"SIGTERM ended the parent with code {code}")
        if count := (self.folder / CONSOLE).read_text("utf-8", "replace").count(TRACEBACK):
            self.failures.append(f"the console has {count} tracebacks: nobody has foreseen what they tell of")

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._gone([])

    async def _gone(self, children: list[Target]) -> int:
        """Wait for the parent and its children, none of which may outlive it for long."""
        assert self._process is not None
        assert self._reading is not None
        for child in children:
            with child:
                child.send(signal.SIGCONT)
                try:
                    async with asyncio.timeout(STOP_SECONDS):
                        await child.death()
                except TimeoutError:
                    self.failures.append(f"process {child.pid} has outlived its parent")
                    child.send(signal.SIGKILL)
        await self._reading
        return await self._process.wait()

    def _environ(self) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("INKSTREAM_")}
        ours = {"HOME": str(self.folder), "INKSTREAM_DATA_DIR": str(self.data_dir), **self._conditions}
        return own | ours | {f"INKSTREAM_{name.upper()}": value for name, value in self._settings.items()}


async def _drain(pipe: asyncio.StreamReader) -> None:
    while await pipe.read(65536):
        pass


def _children(parent: int) -> list[int]:
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and _parent(entry) == parent
    ]


def _parent(entry: Path) -> int:
    try:
        return int(
            (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1]
        )
    except (FileNotFoundError, ProcessLookupError):
        return -1


def _arguments(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []
