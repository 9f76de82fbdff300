"""The small parent of ``inkstream serve``: it keeps a gateway and an engine running.

The two are siblings, so that each outlives the other: a new gateway finds the weights loaded. Each has two
pipes to the parent that carry JSON lines:

    its stdout      {"ready": …} · {"progress": true} · {"replace": {VARIABLE: value}}
                    {"failed": {"code", "message"}}
    its stdin       {"engine": {"phase": "restarting" | "given_up" | "replaced", "code", "message"}}, to the
                    gateway only

``ready`` from the gateway is passed on. ``progress`` from the gateway says that the engine has been of use:
its deaths so far count no more. ``replace`` from the gateway asks for another engine, with these variables
over those of the present one; ``replaced`` says that the present one is gone. ``failed`` is a child's own
word on why it is about to exit.

stdin is the lifeline too. It ends when the parent is gone, however that went, and then the child goes: no
orphan keeps a GPU. ``lifeline`` and ``control_channel`` are the child's ends of the two pipes.

This module needs nothing of ours: the parent stays small and has no reason to die.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import orjson

NO_RESTART = 2
"""The exit code of a child that would fail again: port in use, folder locked, bad setting, unusable model."""

STARTS = 5
BACK_OFF_SECONDS = 0.1
BACK_OFF_SECONDS_MAX = 5.0
GRACE_SECONDS = 2.0
PR_SET_PDEATHSIG = 1

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Child:
    """A process to keep running. Without ``env`` it has the parent's."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] | None = None


class Supervisor:
    """Runs the gateway and, unless it is joined elsewhere, the engine.

    A gateway that dies is started again at once, an engine behind a back-off. An engine whose fifth
    start in a row brings no progress is given up, which the gateway is told; the gateway runs on.
    """

    def __init__(
        self,
        gateway: Child,
        engine: Child | None,
        *,
        on_ready: Callable[[Any], None],
        on_stop: Callable[[], None] = lambda: None,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        """``on_ready`` is called once, with what the gateway says when it first serves.

        ``on_stop`` is called when both are about to be stopped.
        """
        self._gateway = Keeper(gateway, self._on_gateway_message)
        self._engine = Keeper(engine, lambda _: None) if engine is not None else None
        self._replacements: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self._on_ready, self._on_stop = on_ready, on_stop
        self._grace_seconds = grace_seconds
        self._has_been_ready = False
        self._given_up: dict[str, Any] | None = None
        self._forced: int | None = None

    async def run(self) -> int:
        """Keep both running until a signal or a gateway that cannot run. Returns the parent's exit code.

        SIGTERM or SIGINT stops the gateway, then the engine, and returns 0; a second one kills both at once
        and returns 128 plus its number. Raises OSError if a child's program cannot be started.
        """
        asked: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        with _signal_handler(lambda number: self._on_signal(number, asked)):
            keeping = [asyncio.create_task(self._keep_gateway()), asyncio.create_task(self._keep_engine())]
            try:
                done, _ = await asyncio.wait([asked, *keeping], return_when=asyncio.FIRST_COMPLETED)
                code = done.pop().result()
            finally:
                await self._stop(keeping)
        return code if self._forced is None else self._forced

    async def _keep_gateway(self) -> int:
        while True:
            code = await self._gateway.live(self._given_up)
            if code == NO_RESTART:
                return code
            if self._gateway.is_exhausted:
                logger.error("the gateway %s; %d starts were in vain", ending(code), STARTS)
                return max(code, 1)
            logger.warning("the gateway %s; starting it again", ending(code))
            await asyncio.sleep(self._gateway.pause_seconds)

    async def _keep_engine(self) -> int:
        """Never returns: an engine that is given up ends nothing, and may be replaced."""
        while True:
            keeping = asyncio.ensure_future(self._keep_present_engine())
            wanted = asyncio.ensure_future(self._replacements.get())
            try:
                await asyncio.wait([keeping, wanted], return_when=asyncio.FIRST_COMPLETED)
            finally:
                keeping.cancel()
                wanted.cancel()
                await asyncio.wait([keeping])
            if not keeping.cancelled():
                keeping.result()  # it never returns: it raises
            await self._replace_engine(wanted.result())

    async def _keep_present_engine(self) -> None:
        while self._engine is not None and self._given_up is None:
            code = await self._engine.live()
            word = self._word_on(self._engine, code)
            logger.warning("%s", word["message"])
            if word["phase"] == "given_up":
                self._given_up = {"engine": word}
            self._gateway.tell({"engine": word})
            await asyncio.sleep(self._engine.pause_seconds)
        await asyncio.get_running_loop().create_future()

    async def _replace_engine(self, variables: Mapping[str, str]) -> None:
        if self._engine is not None:
            await self._engine.stop(self._grace_seconds)
            self._engine.change(variables)
            self._given_up = None
            self._gateway.tell({"engine": {"phase": "replaced"}})

    def _word_on(self, engine: Keeper, code: int) -> dict[str, str]:
        end = f"the engine {ending(code)}"
        if code == NO_RESTART:
            return {"phase": "given_up", "code": "engine_unusable", "message": end} | engine.own_word
        if engine.is_exhausted:
            message = f"{end}; {STARTS} starts in a row were in vain"
            return {"phase": "given_up", "code": "engine_crashed", "message": message}
        return {"phase": "restarting", "code": "engine_crashed", "message": end}

    def _on_gateway_message(self, message: dict[str, Any]) -> None:
        if "ready" in message:
            self._gateway.deaths = 0
            if not self._has_been_ready:
                self._has_been_ready = True
                self._on_ready(message["ready"])
        if "progress" in message and self._engine is not None:
            self._engine.deaths = 0
        if "replace" in message:
            self._replacements.put_nowait(message["replace"])

    def _on_signal(self, number: int, asked: asyncio.Future[int]) -> None:
        if not asked.done():
            asked.set_result(0)
            return
        self._forced = 128 + number
        for keeper in self._keepers():
            keeper.kill()

    async def _stop(self, keeping: Sequence[asyncio.Task[int]]) -> None:
        self._on_stop()
        for task in keeping:
            task.cancel()
        await asyncio.wait(keeping)
        for keeper in self._keepers():
            await keeper.stop(self._grace_seconds)

    def _keepers(self) -> list[Keeper]:
        return [self._gateway] if self._engine is None else [self._gateway, self._engine]


class Keeper:
    """One child and its present process. ``deaths`` are those since it was last of use, and ``own_word`` is
    what the last process has said of its failure.
    """

    def __init__(self, child: Child, on_message: Callable[[dict[str, Any]], None]) -> None:
        self.deaths = 0
        self.own_word: dict[str, str] = {}
        self._child = child
        self._on_message = on_message
        self._process: Process | None = None

    @property
    def is_exhausted(self) -> bool:
        return self.deaths >= STARTS

    @property
    def pause_seconds(self) -> float:
        if self.deaths <= 1:
            return 0.0
        return min(BACK_OFF_SECONDS * 2.0 ** (self.deaths - 2), BACK_OFF_SECONDS_MAX)

    def change(self, variables: Mapping[str, str]) -> None:
        """The next process has these variables over the present ones, and a new life."""
        before = os.environ if self._child.env is None else self._child.env
        self._child = replace(self._child, env={**before, **variables})
        self.deaths = 0

    async def live(self, first_word: dict[str, Any] | None = None) -> int:
        """Start it and stay until it has died; returns its exit code, negative for a signal."""
        self.own_word = {}
        process = self._process = await asyncio.create_subprocess_exec(
            *self._child.argv, env=self._child.env, stdin=PIPE, stdout=PIPE, **_own_group()
        )
        assert process.stdout is not None  # it was asked for
        if first_word is not None:
            self.tell(first_word)
        async for message in _messages(process.stdout):
            self.own_word = message.get("failed", self.own_word)
            self._on_message(message)
        code = await process.wait()
        self.deaths += 1
        return code

    def tell(self, message: dict[str, Any]) -> None:
        """Say it to the process if there is one; a word to a dying one is lost."""
        process = self._process
        if process is not None and process.stdin is not None and process.returncode is None:
            process.stdin.write(orjson.dumps(message) + b"\n")

    async def stop(self, grace_seconds: float) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        _ask_to_stop(process)
        try:
            async with asyncio.timeout(grace_seconds):
                await process.wait()
        except TimeoutError:
            logger.warning("the %s does not stop; killing it", self._child.name)
            self.kill()
            await process.wait()

    def kill(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()


def ending(code: int) -> str:
    """What an exit code means, for people."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


async def _messages(pipe: asyncio.StreamReader) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects among a child's lines. The rest was printed before the child had its channel."""
    while True:
        try:
            line = await pipe.readline()
        except ValueError:  # longer than any message of ours; the reader has dropped it
            continue
        if not line:
            return
        try:
            message = orjson.loads(line)
        except orjson.JSONDecodeError:
            message = None
        if isinstance(message, dict):
            yield message
        else:
            sys.stderr.write(line.decode(errors="replace"))


def _own_group() -> dict[str, Any]:
    """Ctrl-C in a terminal reaches the parent's whole group; the children must hear it from us, in order."""
    if sys.platform == "win32":
        options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    else:
        # Of a session of its own, too: uvloop, on which a gateway starts children, knows no other way.
        options = {"start_new_session": True}
    return options


def _ask_to_stop(process: Process) -> None:
    """Windows can only terminate at once; there the end of the lifeline is the polite way."""
    if sys.platform == "win32":
        assert process.stdin is not None
        process.stdin.close()
    else:
        with suppress(ProcessLookupError):
            process.terminate()


@contextmanager
def _signal_handler(handler: Callable[[int], None]) -> Iterator[None]:
    """Call ``handler`` on the event loop for SIGINT and SIGTERM."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    if sys.platform == "win32":
        before = [
            signal.signal(number, lambda got, _: loop.call_soon_threadsafe(handler, got))
            for number in numbers
        ]
    else:
        before = [signal.getsignal(number) for number in numbers]
        for number in numbers:
            loop.add_signal_handler(number, handler, number)
    try:
        yield
    finally:
        for number, previous in zip(numbers, before, strict=True):
            if sys.platform != "win32":
                loop.remove_signal_handler(number)
            signal.signal(number, previous)


def lifeline(
    on_message: Callable[[dict[str, Any]], None],
    on_end: Callable[[], None] | None = None,
) -> None:
    """In a child: hear the parent from a thread of its own, and end when the parent is gone.

    Both functions are called in that thread. Without ``on_end`` the process ends at once, else it has
    ``GRACE_SECONDS`` more to do so by itself. A main thread that is busy in native code does not matter.
    """
    if on_end is None:
        _die_with_parent()
    thread = threading.Thread(target=_hear_parent, args=(on_message, on_end), name="lifeline", daemon=True)
    thread.start()


def _hear_parent(on_message: Callable[[dict[str, Any]], None], on_end: Callable[[], None] | None) -> None:
    try:
        for line in _lines(0):
            on_message(orjson.loads(line))
        if on_end is not None:
            on_end()
            time.sleep(GRACE_SECONDS)
    except Exception:
        logger.exception("the lifeline broke")
    finally:
        os._exit(1)


def _lines(descriptor: int) -> Iterator[bytes]:
    # Not sys.stdin: a thread that waits in it holds its lock, and the interpreter aborts at exit over that.
    rest = b""
    with suppress(OSError):
        while received := os.read(descriptor, 65536):
            *lines, rest = (rest + received).split(b"\n")
            yield from lines


def _die_with_parent() -> None:
    """A process that is stopped, or whose native code keeps the interpreter locked, sees no pipe end."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def control_channel() -> Callable[[dict[str, Any]], None]:
    """In a child: take stdout for messages to the parent, and let all printing go to stderr from now on.

    What it returns may be called from any thread, with messages below 4 KiB. It blocks while the parent is
    stopped and the pipe full, so say what changes, not what happens: ``progress`` once per engine start.
    """
    sys.stdout.flush()
    channel = os.dup(1)
    os.dup2(2, 1)

    def say(message: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):  # the parent is gone; the lifeline deals with that
            os.write(channel, orjson.dumps(message) + b"\n")

    return say
