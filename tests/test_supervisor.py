"""The parent and its two children, as real processes that really die."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest

from inkstream.supervisor import NO_RESTART, Child, Supervisor
from tests.waiting import until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and /proc")

CHILD = """
import ctypes, os, signal, sys, threading, time
import orjson
from inkstream.supervisor import control_channel, lifeline

name, story, behaviour = sys.argv[1:]

def tell(word, detail=None):
    line = {"name": name, "word": word, "detail": detail, "at": time.monotonic(), "pid": os.getpid()}
    descriptor = os.open(story, os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, orjson.dumps(line) + b"\\n")
    os.close(descriptor)

def count(word):
    return open(story).read().count(f'"word":"{word}"')

def wait():
    while True:
        signal.pause()

def on_message(message):
    tell("heard", message)

def on_signal(number, _):
    tell("stopped by", signal.Signals(number).name)
    os._exit(0)

on_end = None
signal.signal(signal.SIGTERM, on_signal)
signal.signal(signal.SIGINT, on_signal)
say = control_channel()
tell("starts")
exec(behaviour)
"""
PARENT = """
import asyncio, sys
import orjson
from inkstream.supervisor import Child, Supervisor

def child(name, argv):
    return argv and Child(name, argv)

def on_ready(said):
    print(said, flush=True)

gateway, engine = orjson.loads(sys.argv[1])
gateway, engine = child("gateway", gateway), child("engine", engine)
supervisor = Supervisor(gateway, engine, on_ready=on_ready, grace_seconds=0.5)
sys.exit(asyncio.run(supervisor.run()))
"""
SERVE = "lifeline(on_message, on_end)\nsay({'ready': 'http://here'})\ntell('serves')\nwait()"
RUN = "lifeline(on_message)\nwait()"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Story:
    """What the children wrote down, in order."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "story"
        self.path.touch()

    def child(self, name: str, behaviour: str) -> Child:
        return Child(name, (sys.executable, "-c", CHILD, name, str(self.path), behaviour))

    def lines(self, name: str, word: str) -> list[dict[str, Any]]:
        told = [orjson.loads(line) for line in self.path.read_bytes().splitlines()]
        return [line for line in told if (line["name"], line["word"]) == (name, word)]

    async def until(self, name: str, word: str, count: int = 1) -> list[dict[str, Any]]:
        await until(lambda: len(self.lines(name, word)) >= count)
        return self.lines(name, word)

    def words_about_the_engine(self) -> list[dict[str, str]]:
        return [line["detail"]["engine"] for line in self.lines("gateway", "heard")]


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(tmp_path)


@dataclass
class Running:
    """A supervisor inside this process."""

    supervising: asyncio.Task[int]
    ready: list[Any]


@asynccontextmanager
async def running(gateway: Child, engine: Child | None) -> AsyncIterator[Running]:
    ready: list[Any] = []
    supervisor = Supervisor(gateway, engine, on_ready=ready.append, grace_seconds=0.5)
    supervising = asyncio.create_task(supervisor.run())
    try:
        yield Running(supervising, ready)
    finally:
        supervising.cancel()
        await asyncio.wait([supervising])


@asynccontextmanager
async def parent(gateway: Child, engine: Child | None) -> AsyncIterator[asyncio.subprocess.Process]:
    """A supervisor in a process of its own, whose gateway is ready."""
    spec = orjson.dumps([gateway.argv, engine and engine.argv]).decode()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, spec, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"http://here\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def is_dead(pid: int) -> bool:
    """Also of a process that its new parent has not looked after yet."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return status.rpartition(")")[2].split()[0] == "Z"


async def test_both_children_run_and_the_first_ready_is_passed_on(story: Story) -> None:
    async with running(story.child("gateway", SERVE), story.child("engine", RUN)) as it:
        await until(lambda: it.ready)
        await story.until("engine", "starts")
        (first,) = await story.until("gateway", "starts")
        os.kill(first["pid"], signal.SIGKILL)
        await story.until("gateway", "starts", 2)
    assert it.ready == ["http://here"]


async def test_a_gateway_alone_is_served_where_the_engine_is_elsewhere(story: Story) -> None:
    async with parent(story.child("gateway", SERVE), None) as process:
        process.terminate()
        assert await process.wait() == 0
    assert len(story.lines("gateway", "stopped by")) == 1


async def test_a_killed_gateway_is_started_again_at_once_and_the_engine_stays(story: Story) -> None:
    async with running(story.child("gateway", SERVE), story.child("engine", RUN)):
        await story.until("engine", "starts")
        for life in range(1, 7):
            os.kill((await story.until("gateway", "serves", life))[-1]["pid"], signal.SIGKILL)
        await story.until("gateway", "starts", 7)
        (engine,) = story.lines("engine", "starts")
        assert not is_dead(engine["pid"])


async def test_a_killed_engine_is_started_again_and_the_gateway_told(story: Story) -> None:
    async with running(story.child("gateway", SERVE), story.child("engine", RUN)) as it:
        await until(lambda: it.ready)
        (engine,) = await story.until("engine", "starts")
        os.kill(engine["pid"], signal.SIGKILL)
        await story.until("engine", "starts", 2)
        await story.until("gateway", "heard")
    assert story.words_about_the_engine() == [
        {
            "phase": "restarting",
            "code": "engine_crashed",
            "message": "the engine was killed by SIGKILL",
        }
    ]


async def test_an_engine_is_given_up_after_five_starts_in_vain_and_a_new_gateway_hears_it_too(
    story: Story,
) -> None:
    crash = "os.kill(os.getpid(), signal.SIGSEGV)"
    async with running(story.child("gateway", SERVE), story.child("engine", crash)):
        heard = await story.until("gateway", "heard", 5)
        assert [word["phase"] for word in story.words_about_the_engine()] == ["restarting"] * 4 + ["given_up"]
        assert "killed by SIGSEGV; 5 starts" in story.words_about_the_engine()[-1]["message"]
        starts = [line["at"] for line in story.lines("engine", "starts")]
        assert len(starts) == 5
        pauses = [after - before for before, after in pairwise(starts)]
        assert [pause > least for pause, least in zip(pauses, (0, 0.1, 0.2, 0.4), strict=True)] == [True] * 4
        os.kill(heard[0]["pid"], signal.SIGKILL)
        assert (await story.until("gateway", "heard", 6))[-1]["detail"] == heard[-1]["detail"]
    assert len(story.lines("engine", "starts")) == 5


async def test_an_engine_that_is_of_use_between_its_deaths_is_never_given_up(story: Story) -> None:
    gateway = """
def on_message(message):
    say({"progress": True})
    tell("heard", message)
"""
    engine = "while count('heard') < count('starts') - 2: time.sleep(0.001)\nos._exit(7)"
    async with running(story.child("gateway", gateway + SERVE), story.child("engine", engine)):
        await story.until("engine", "starts", 12)
    assert {word["phase"] for word in story.words_about_the_engine()} == {"restarting"}


async def test_an_engine_that_says_that_it_cannot_run_is_not_tried_again(story: Story) -> None:
    gateway = story.child("gateway", SERVE)
    why = {"code": "model_corrupt", "message": "model.gguf is cut off"}
    async with running(gateway, story.child("engine", f"say({{'failed': {why}}})\nos._exit({NO_RESTART})")):
        await story.until("gateway", "heard")
        assert story.words_about_the_engine() == [{"phase": "given_up"} | why]
        assert len(story.lines("engine", "starts")) == 1


@pytest.mark.parametrize("before", [RUN, f"say({{'failed': {{}}}})\nos._exit({NO_RESTART})"])
async def test_an_engine_is_replaced_by_one_with_other_variables_also_when_given_up(
    story: Story, before: str
) -> None:
    engine = (
        f"tell('model', os.environ.get('MODEL'))\nif not os.environ.get('MODEL'):\n    {indented(before)}"
    )
    gateway = """
def on_message(message):
    tell("heard", message)
    if message["engine"]["phase"] == "given_up": ask()

def ask():
    say({"replace": {"MODEL": "other"}})
"""
    asks = "" if before != RUN else "\nwhile not count('model'): time.sleep(0.001)\nask()"
    serve = SERVE.replace("wait()", f"{asks}\nwait()")
    async with running(story.child("gateway", gateway + serve), story.child("engine", engine + "\n" + RUN)):
        models = await story.until("engine", "model", 2)
        heard = await story.until("gateway", "heard", 1 if before == RUN else 2)
    assert [line["detail"] for line in models] == [None, "other"]
    assert is_dead(models[0]["pid"])
    assert heard[-1]["detail"] == {"engine": {"phase": "replaced"}}
    assert heard[-1]["at"] < models[1]["at"]


def indented(code: str) -> str:
    return code.replace("\n", "\n    ")


async def test_a_gateway_that_cannot_run_ends_everything_with_its_code(story: Story) -> None:
    gateway = "while count('starts') < 2: time.sleep(0.001)\nsys.exit(2)"
    async with running(story.child("gateway", gateway), story.child("engine", RUN)) as it:
        assert await it.supervising == NO_RESTART
        assert it.ready == []
        assert len(story.lines("gateway", "starts")) == 1
        await story.until("engine", "stopped by")


async def test_a_gateway_that_never_gets_ready_ends_everything(story: Story) -> None:
    async with running(story.child("gateway", "sys.exit(9)"), story.child("engine", RUN)) as it:
        assert await it.supervising == 9
    assert len(story.lines("gateway", "starts")) == 5


async def test_a_program_that_does_not_exist_is_an_error_and_leaves_nothing_behind(story: Story) -> None:
    async with running(story.child("gateway", SERVE), Child("engine", ["/nowhere/python"])) as it:
        with pytest.raises(FileNotFoundError):
            await it.supervising
    assert not [line for line in story.lines("gateway", "starts") if not is_dead(line["pid"])]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_the_gateway_before_the_engine(story: Story, number: signal.Signals) -> None:
    async with parent(story.child("gateway", SERVE), story.child("engine", RUN)) as process:
        await story.until("engine", "starts")
        process.send_signal(number)
        assert await process.wait() == 0
    (gateway,), (engine,) = story.lines("gateway", "stopped by"), story.lines("engine", "stopped by")
    assert gateway["detail"] == engine["detail"] == "SIGTERM"
    assert gateway["at"] < engine["at"]


async def test_children_that_do_not_stop_are_killed_after_the_grace(story: Story) -> None:
    stubborn = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    async with parent(story.child("gateway", stubborn + SERVE), story.child("engine", RUN)) as process:
        (engine,) = await story.until("engine", "starts")
        os.kill(engine["pid"], signal.SIGSTOP)
        started = time.monotonic()
        process.terminate()
        assert await process.wait() == 0
        assert 1.0 <= time.monotonic() - started < 5
    assert is_dead(engine["pid"])
    assert is_dead(story.lines("gateway", "starts")[0]["pid"])


async def test_a_second_ctrl_c_kills_at_once(story: Story) -> None:
    gateway = "def on_signal(*_): tell('asked')\nsignal.signal(signal.SIGTERM, on_signal)\n"
    async with parent(story.child("gateway", gateway + SERVE), story.child("engine", RUN)) as process:
        await story.until("engine", "starts")
        process.send_signal(signal.SIGINT)
        await story.until("gateway", "asked")
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 128 + signal.SIGINT
        assert time.monotonic() - started < 0.4  # less than the grace
    assert not story.lines("engine", "stopped by")


async def test_ctrl_c_in_a_terminal_reaches_the_children_through_the_parent_only(story: Story) -> None:
    async with parent(story.child("gateway", SERVE), story.child("engine", RUN)) as process:
        lines = await story.until("gateway", "starts") + await story.until("engine", "starts")
        groups = {os.getpgid(line["pid"]) for line in lines}
        assert os.getpgid(process.pid) not in groups


BUSY = """
lifeline(on_message)
tell("busy")
ctypes.CDLL(None).sleep(60)  # native code that keeps the main thread, as a model's forward pass does
"""
LOCKED = """
lifeline(on_message)
tell("busy")
ctypes.PyDLL(None).sleep(60)  # native code that keeps the interpreter locked
"""
STOPPED = """
lifeline(on_message)
tell("busy")
os.kill(os.getpid(), signal.SIGSTOP)
"""
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is asked for on Linux")


@pytest.mark.parametrize(
    "engine", [BUSY, pytest.param(LOCKED, marks=linux_only), pytest.param(STOPPED, marks=linux_only)]
)
async def test_no_engine_outlives_a_killed_parent(story: Story, engine: str) -> None:
    async with parent(story.child("gateway", SERVE), story.child("engine", engine)) as process:
        (busy,) = await story.until("engine", "busy")
        process.kill()
        killed = time.monotonic()
        await until(lambda: is_dead(busy["pid"]))
        await until(lambda: is_dead(story.lines("gateway", "starts")[0]["pid"]))
        assert time.monotonic() - killed < 2


async def test_a_gateway_may_take_its_leave_of_a_killed_parent(story: Story) -> None:
    polite = "def on_end():\n    tell('leaves')\n    os.kill(os.getpid(), signal.SIGTERM)\n"
    stubborn = "def on_end(): tell('leaves')\n"
    for count, behaviour in enumerate((polite, stubborn), 1):
        async with parent(story.child("gateway", behaviour + SERVE), None) as process:
            process.kill()
        gateway = (await story.until("gateway", "leaves", count))[-1]
        await until(partial(is_dead, gateway["pid"]))
    assert len(story.lines("gateway", "leaves")) == 2
    assert len(story.lines("gateway", "stopped by")) == 1


async def test_a_parent_that_stands_still_is_not_a_dead_one(story: Story) -> None:
    async with parent(story.child("gateway", SERVE), story.child("engine", RUN)) as process:
        (engine,) = await story.until("engine", "starts")
        process.send_signal(signal.SIGSTOP)
        os.kill(engine["pid"], signal.SIGKILL)
        await until(lambda: is_dead(engine["pid"]))
        assert not is_dead(story.lines("gateway", "starts")[0]["pid"])
        process.send_signal(signal.SIGCONT)
        await story.until("engine", "starts", 2)


async def test_printing_cannot_disturb_the_control_channel(
    story: Story, capfd: pytest.CaptureFixture[str]
) -> None:
    noise = "os.write(1, b'native noise\\n')\nprint('x' * 100_000, '{}', flush=True)\n"
    early = "import os\nos.write(1, b'early noise\\n[1]\\n' + b'y' * 100_000 + b'\\n')\n"
    argv = list(story.child("gateway", noise + SERVE).argv)
    argv[2] = early + argv[2]
    async with running(Child("gateway", argv), None) as it:
        await until(lambda: it.ready)
    printed = capfd.readouterr()
    assert "native noise\nxxxx" in printed.err
    assert "early noise\n[1]\n" in printed.err
    assert printed.out == ""
