"""The link between a gateway and an engine process, over real sockets and with processes that die."""

from __future__ import annotations

import asyncio
import gc
import hmac
import random
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest

from inkstream.engines import (
    Capabilities,
    Chunk,
    Emitted,
    Engine,
    Finish,
    Message,
    Phase,
    Progress,
    Prompt,
    Request,
    Sampling,
    Status,
    Take,
)
from inkstream.engines.link import Host, LinkEngine
from inkstream.engines.link.gateway import _Call as OpenCall
from inkstream.engines.link.gateway import _Connection as Dialled
from inkstream.engines.link.outbox import Mailbox
from inkstream.engines.link.wire import VERSION
from inkstream.engines.scripted import Script, Scripted
from inkstream.errors import EngineError, EngineFailed, EngineLost
from tests.calls import Call, answered, emitted_by, text_of
from tests.waiting import until

KEY = "correct horse"
READY = Status(Phase.READY)
CAPABILITIES = Capabilities(
    "puppet", "none", "abc", 4096, 8, "text", False, Sampling(temperature=0.5, stop=("END",))
)
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot stop a process")


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


class Puppet:
    """An engine that says, for each request, what the test says; an error is raised."""

    def __init__(self) -> None:
        self.status = READY
        self.asked: dict[str, tuple[Request, Emitted]] = {}
        self.takes: dict[str, Take] = {}
        self.rendered: list[Sequence[Message]] = []
        self.story: list[str] = []
        self.cache_usage: float | None = None
        self._said: dict[str, asyncio.Queue[Any]] = {}
        self._changed = asyncio.Event()

    def say(self, id: str, *items: Chunk | Progress | Finish | Exception) -> None:
        for item in items:
            self._queue(id).put_nowait(item)

    def become(self, status: Status) -> None:
        self.status = status
        self._changed.set()
        self._changed = asyncio.Event()

    async def status_after(self, seen: Status) -> Status:
        while self.status == seen:
            await self._changed.wait()
        return self.status

    def describe(self) -> Capabilities:
        return CAPABILITIES

    async def render(self, messages: Sequence[Message]) -> Prompt:
        self.rendered.append(messages)
        item = await self._queue("render").get()
        if isinstance(item, Exception):
            raise item
        return Prompt(3, {"text": "rendered"}, channel="thinking")

    async def generate(self, request: Request, emitted: Emitted, take: Take) -> Finish:
        self.asked[request.id] = request, emitted
        self.takes[request.id] = take
        self.story.append(f"start {request.id}")
        try:
            while not isinstance(item := await self._queue(request.id).get(), Finish):
                if isinstance(item, Exception):
                    raise item
                take(item)
            return item
        finally:
            self.story.append(f"end {request.id}")

    async def aclose(self) -> None: ...

    def _queue(self, id: str) -> asyncio.Queue[Any]:
        return self._said.setdefault(id, asyncio.Queue())


@asynccontextmanager
async def hosted(engine: Engine | None = None) -> AsyncIterator[tuple[Host, str]]:
    host = Host(KEY)
    url = await host.listen("127.0.0.1", 0)
    if engine is not None:
        host.attach(engine)
    try:
        yield host, url
    finally:
        await host.aclose()


@asynccontextmanager
async def linked(engine: Engine) -> AsyncIterator[LinkEngine]:
    async with hosted(engine) as (_, url), LinkEngine(url, KEY) as link:
        await reach(link, Phase.READY)
        yield link


async def reach(engine: LinkEngine, phase: Phase) -> Status:
    while engine.status.phase is not phase:
        await engine.status_after(engine.status)
    return engine.status


def request(id: str = "r", text: str = "hi", **sampling: Any) -> Request:
    return Request(id, Prompt(2, {"text": text}), Sampling(**sampling))


class RawGateway:
    """The gateway's side of the protocol, written from its description."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    @asynccontextmanager
    async def connected(cls, url: str, *, receive_bytes: int | None = None) -> AsyncIterator[RawGateway]:
        address = urlsplit(url)
        raw = socket.socket()
        if receive_bytes is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, (address.hostname, address.port))
        reader, writer = await asyncio.open_connection(sock=raw, limit=1024)
        try:
            yield cls(reader, writer)
        finally:
            writer.close()

    async def receive(self) -> Any:
        length = int.from_bytes(await self.reader.readexactly(4), "big")
        return orjson.loads(await self.reader.readexactly(length))

    def send(self, message: Any) -> None:
        body = orjson.dumps(message)
        self.writer.write(len(body).to_bytes(4, "big") + body)

    async def shake_hands(self) -> None:
        greeting = await self.receive()
        nonces = f"{greeting['nonce']}:mine"
        self.send({"version": VERSION, "nonce": "mine", "proof": self.proof("gateway", nonces)})
        assert (await self.receive())["proof"] == self.proof("host", nonces)
        assert (await self.receive())["status"]["phase"] == "ready"

    @staticmethod
    def proof(role: str, nonces: str) -> str:
        return hmac.new(KEY.encode(), f"{role}:{nonces}".encode(), "sha256").hexdigest()


async def test_an_answer_arrives_as_the_engine_gave_it() -> None:
    puppet = Puppet()
    asked = request(seed=7, max_tokens=9, stop=("\n\n", "字")), Emitted("so far", (5, 6), 2)
    finish = Finish("length", 2, 4, 1, {"prefill_seconds": 0.5})
    async with linked(puppet) as link:
        call = Call(link, *asked)
        said: list[Chunk | Progress] = [
            Progress(0.5),
            Chunk("流\u2028式", 2, (18645, 250)),
            Chunk("👩‍👩‍👧", 1, None, [{"token": "x", "logprob": -0.5}]),
        ]
        for number, item in enumerate(said, 1):
            puppet.say("r", item)
            await call.until(number)
        puppet.say("r", finish)
        assert await call.finish() == finish
        assert call.items == said
    assert puppet.asked["r"] == asked


async def test_a_render_carries_the_messages_and_brings_the_prompt() -> None:
    puppet = Puppet()
    messages = [Message("system", "be brief"), Message("user", "<|im_end|>你好")]
    puppet.say("render", Progress(1))
    async with linked(puppet) as link:
        assert await link.render(messages) == Prompt(3, {"text": "rendered"}, channel="thinking")
    assert puppet.rendered == [messages]


async def test_the_engine_is_described_as_it_describes_itself() -> None:
    async with linked(Puppet()) as link:
        assert link.describe() == CAPABILITIES


@pytest.mark.parametrize(
    "error",
    [
        EngineLost("its child died"),
        EngineLost("gone", code="special"),
        EngineFailed("too long", code="prompt_too_long"),
        EngineFailed("try later", retryable=True),
    ],
)
async def test_errors_keep_class_code_message_and_whether_to_retry(error: EngineError) -> None:
    puppet = Puppet()
    puppet.say("r", error)
    puppet.say("render", error)
    async with linked(puppet) as link:
        for failing in (answered(link, request()), link.render([])):
            with pytest.raises(type(error)) as caught:
                await failing
            assert vars(caught.value) | {"code": caught.value.code} == vars(error) | {"code": error.code}


async def test_an_undeclared_error_fails_its_own_call_only(caplog: pytest.LogCaptureFixture) -> None:
    puppet = Puppet()
    puppet.say("bad", ZeroDivisionError("by nought"))
    puppet.say("good", Finish("stop", 1, 0))
    async with linked(puppet) as link:
        with pytest.raises(EngineFailed, match="by nought"):
            await answered(link, request("bad"))
        assert await answered(link, request("good")) == ([], Finish("stop", 1, 0))
    assert "by nought" in caplog.text


async def test_text_that_comes_before_a_failure_is_not_lost() -> None:
    puppet = Puppet()
    async with linked(puppet) as link:
        call = Call(link, request())
        await until(lambda: puppet.asked)
        puppet.say("r", Chunk("half", 1), EngineFailed("no more"))
        with pytest.raises(EngineFailed, match="no more"):
            await call.finish()
        assert call.items == [Chunk("half", 1)]


@pytest.mark.parametrize(
    "unencodable", [[Chunk("\ud83d", 1)], [Finish("stop", 1, 1, last=Chunk("\ud83d", 1))]]
)
async def test_what_cannot_be_encoded_fails_its_own_call_only(
    unencodable: list[Chunk | Finish],
) -> None:
    puppet = Puppet()
    async with linked(puppet) as link:
        bad, good = Call(link, request("bad")), Call(link, request("good"))
        await until(lambda: len(puppet.asked) == 2)
        puppet.say("bad", *unencodable)
        puppet.say("good", Chunk("fine", 1), Finish("stop", 1, 1))
        with pytest.raises(EngineFailed, match="cannot be encoded"):
            await bad.finish()
        await good.finish()
        assert good.text == "fine"
        await until(lambda: "end bad" in puppet.story)
        with pytest.raises(EngineFailed, match="cannot be encoded"):
            await link.render([Message("user", "\ud83d")])


async def test_frames_survive_any_cut_of_the_bytes() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    engine = Scripted(Script(answer_tokens=400, tokens_per_chunk=1))
    asked = request(seed=3)
    expected, _ = await answered(engine, asked)
    async with (
        hosted(engine) as (_, url),
        cutting_proxy(url, random.Random(seed)) as proxy,
        LinkEngine(proxy, KEY) as link,
    ):
        await reach(link, Phase.READY)
        answers = await asyncio.gather(*(answered(link, asked) for _ in range(5)))
    assert {text_of(chunks) for chunks, _ in answers} == {text_of(expected)}


@asynccontextmanager
async def cutting_proxy(url: str, draw: random.Random) -> AsyncIterator[str]:
    """Forwards both ways in pieces of one to forty bytes."""
    address = urlsplit(url)

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(draw.randint(1, 40)):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(address.hostname, address.port)
        await asyncio.gather(forward(reader, back), forward(there, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_step_of_many_runs_is_one_frame() -> None:
    puppet = Puppet()
    runs = list(range(256))
    async with hosted(puppet) as (_, url), RawGateway.connected(url) as raw:
        await raw.shake_hands()
        for call in runs:
            raw.send(["generate", call, request(str(call)), Emitted()])
        await until(lambda: len(puppet.asked) == len(runs))
        for step in range(3):
            for call in runs:
                puppet.takes[str(call)](Chunk(f"{step}:{call}", 1, (call,)))
            frame = await raw.receive()
            texts = [f"{step}:{call}" for call in runs]
            assert frame == {"chunks": [runs, texts, [1] * 256, [[call] for call in runs]]}


async def test_chunks_without_logprobs_travel_beside_chunks_with_them() -> None:
    puppet = Puppet()
    async with linked(puppet) as link:
        calls = [Call(link, request(id)) for id in "ab"]
        await until(lambda: len(puppet.asked) == 2)
        puppet.say("a", Chunk("x", 1, (1,), [{"token": "x"}]))
        puppet.say("b", Chunk("y", 1))
        for call in calls:
            await call.until_chunk()
        assert [call.chunks for call in calls] == [[Chunk("x", 1, (1,), [{"token": "x"}])], [Chunk("y", 1)]]
        for call in calls:
            await call.cancel()


async def test_what_comes_in_one_turn_leaves_merged_the_last_of_it_with_the_end() -> None:
    puppet = Puppet()
    items: list[Chunk | Progress] = [
        Progress(0.1),
        Progress(0.9),
        Chunk("a", 1, (1,), [{"token": "a"}]),
        Chunk("b", 2, None, [{"token": "b"}]),
        Chunk("c", 1, (3,)),
    ]
    async with linked(puppet) as link:
        call = Call(link, request())
        await until(lambda: puppet.asked)
        puppet.say("r", *items, Finish("stop", 1, 5, last=Chunk("d", 1)))
        assert await call.finish() == Finish("stop", 1, 5, last=Chunk("abcd", 5, None, None))
        assert call.items == [Progress(0.9)]


async def test_what_an_engine_says_behind_its_end_is_dropped() -> None:
    puppet = Puppet()
    async with linked(puppet) as link:
        first, second = Call(link, request("a")), Call(link, request("b"))
        await until(lambda: len(puppet.asked) == 2)
        puppet.say("a", Finish("stop", 1, 0))
        await first.finish()
        puppet.takes["a"](Chunk("late", 1))
        puppet.say("b", Chunk("x", 1), Finish("stop", 1, 1))
        await second.finish()
        assert (first.chunks, second.text) == ([], "x")


async def test_nothing_is_taken_between_the_cancelling_and_its_delivery() -> None:
    """A frame may arrive in the very turn of the event loop in which its call is cancelled."""
    puppet = Puppet()
    async with linked(puppet) as link:
        taken: list[Chunk | Progress] = []
        victim = asyncio.create_task(link.generate(request("victim"), Emitted(), taken.append))

        def kill(_: Chunk | Progress) -> None:
            victim.cancel()

        killer = asyncio.create_task(link.generate(request("killer"), Emitted(), kill))
        await until(lambda: len(puppet.asked) == 2)
        for id in ("killer", "victim"):  # one frame brings both, the killer's first
            puppet.takes[id](Chunk("x", 1))
        with pytest.raises(asyncio.CancelledError):
            await victim
        assert taken == []
        killer.cancel()
        await asyncio.gather(killer, return_exceptions=True)


async def test_a_gateway_that_reads_nothing_gets_few_frames_and_delays_nobody() -> None:
    puppet = Puppet()
    chunks = 3000
    async with (
        hosted(puppet) as (_, url),
        RawGateway.connected(url, receive_bytes=4096) as raw,
        LinkEngine(url, KEY) as other,
    ):
        await raw.shake_hands()
        await reach(other, Phase.READY)
        raw.send(["generate", 1, request("slow"), Emitted()])
        quick = Call(other, request("quick"))
        for number in range(chunks):
            puppet.say("slow", Chunk(f"{number:<10000}", 1))
            puppet.say("quick", Chunk("x", 1))
            await quick.until(number + 1)
        await quick.cancel()
        puppet.say("slow", Finish("stop", 1, chunks))
        pieces: list[str] = []
        ends: list[Any] = []
        frames = 0
        while not ends:
            frame = await raw.receive()
            frames += 1
            pieces += frame["chunks"][1] if frame["chunks"] else []
            ends = frame.get("ends", [])
        [(_, _, (_, (last, *_)))] = ends
        pieces.append(last)
    assert frames < chunks / 2
    assert "".join(pieces) == "".join(f"{number:<10000}" for number in range(chunks))


async def test_closing_a_generation_frees_its_slot_before_the_next_one_starts() -> None:
    puppet = Puppet()
    async with linked(puppet) as link:
        puppet.say("a", Chunk("x", 1))
        call = Call(link, request("a"))
        await call.until_chunk()
        await call.cancel()
        puppet.say("b", Chunk("y", 1))
        call = Call(link, request("b"))
        await call.until_chunk()
        await call.cancel()
        await until(lambda: len(puppet.story) == 4)
        assert puppet.story == ["start a", "end a", "start b", "end b"]


async def test_an_answer_as_fast_as_it_goes_can_be_cancelled_while_others_go_on() -> None:
    engine = Scripted(Script(answer_tokens=100_000_000, context=1 << 30))
    async with linked(engine) as link:
        calls = [Call(link, request(str(number), seed=number)) for number in range(4)]
        for call in calls:
            await call.until(3)
        while calls:
            await calls.pop().cancel()
            await until(lambda: engine.active == len(calls))
            for other in calls:
                await other.more()


async def test_a_cancel_that_travels_with_its_request_leaves_the_connection_well() -> None:
    engine = Scripted(Script(answer="well"))
    async with hosted(engine) as (_, url), RawGateway.connected(url) as raw:
        await raw.shake_hands()
        generate = orjson.dumps(["generate", 1, request("r"), Emitted()])
        cancel = orjson.dumps(["cancel", 1])
        raw.writer.write(b"".join(len(body).to_bytes(4, "big") + body for body in (generate, cancel, cancel)))
        raw.send(["render", 2, []])
        frame = await raw.receive()
        assert [end[:2] for end in frame["ends"]] == [[2, "prompt"]]
        assert engine.active == 0


async def test_calls_that_are_over_leave_nothing_behind_on_either_side() -> None:
    engine = Scripted(Script(answer_tokens=5, tokens_per_chunk=1))
    foreign = open_calls()  # other tests' tracebacks keep some
    async with linked(engine) as link:
        for _ in range(20):
            await link.render([Message("user", "hi")])
            await answered(link, request())
            call = Call(link, request())
            await call.until_chunk()
            await call.cancel()
        await until(lambda: len(open_calls()) <= len(foreign))


def open_calls() -> list[Mailbox | OpenCall]:
    gc.collect()
    return [one for one in gc.get_objects() if type(one) in (Mailbox, OpenCall)]


async def test_a_render_that_is_cancelled_is_cancelled_at_the_engine() -> None:
    puppet = Puppet()
    async with linked(puppet) as link:
        rendering = asyncio.create_task(link.render([]))
        await until(lambda: puppet.rendered)
        rendering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await rendering
        second = asyncio.create_task(link.render([]))
        await until(lambda: len(puppet.rendered) == 2)
        puppet.say("render", Progress(1))  # would go to the first, did it still wait
        assert (await second).tokens == 3


async def test_a_gateway_that_goes_cancels_its_own_generations_only() -> None:
    engine = Scripted(Script(tokens_per_second=50, answer_tokens=100_000))
    async with hosted(engine) as (_, url), LinkEngine(url, KEY) as stays:
        await reach(stays, Phase.READY)
        call = Call(stays, request("stays"))
        await call.until_chunk()
        async with LinkEngine(url, KEY) as goes:
            await reach(goes, Phase.READY)
            left = [Call(goes, request(str(n))) for n in range(3)]
            for open_call in left:
                await open_call.until_chunk()
            assert engine.active == 4
        await until(lambda: engine.active == 1)
        for open_call in left:
            with pytest.raises(EngineLost):
                await open_call.finish()
        await call.more()
        await call.cancel()


async def test_detaching_the_engine_ends_its_calls_as_lost() -> None:
    puppet = Puppet()
    gone = Status(Phase.GIVEN_UP, code="gpu_lost", message="the GPU fell off the bus")
    async with hosted(puppet) as (host, url), LinkEngine(url, KEY) as link:
        await reach(link, Phase.READY)
        call = Call(link, request())
        await until(lambda: puppet.asked)
        host.detach(gone)
        with pytest.raises(EngineLost, match="off the bus"):
            await call.finish()
        assert await reach(link, Phase.GIVEN_UP) == gone
        assert puppet.story == ["start r", "end r"]
        puppet.takes["r"](Chunk("nobody hears this", 1))
        with pytest.raises(EngineLost, match="off the bus"):
            await link.render([])


async def test_every_gateway_sees_the_engine_come_up() -> None:
    loading = Status(Phase.LOADING, share=0.25, detail={"file": "model.gguf"})
    puppet = Puppet()
    async with hosted() as (host, url), LinkEngine(url, KEY) as one, LinkEngine(url, KEY) as two:
        assert one.status == two.status == Status(Phase.CONNECTING)
        for link in (one, two):
            assert await link.status_after(Status(Phase.CONNECTING)) == Status(Phase.LOADING)
            with pytest.raises(EngineLost, match="loading"):
                link.describe()
            with pytest.raises(EngineLost, match="loading"):
                await answered(link, request())
        host.report(loading)
        assert [await link.status_after(Status(Phase.LOADING)) for link in (one, two)] == [loading] * 2
        host.attach(puppet)
        assert [await link.status_after(loading) for link in (one, two)] == [READY] * 2
        puppet.become(Status(Phase.LOADING, message="another model"))
        assert (await one.status_after(READY)).message == "another model"
        puppet.become(READY)
        await reach(two, Phase.READY)


async def test_a_host_that_closes_still_says_why() -> None:
    why = Status(Phase.GIVEN_UP, code="model_corrupt", message="the file is cut off")
    seen: list[Status] = []
    host = Host(KEY)
    async with LinkEngine(await host.listen("127.0.0.1", 0), KEY) as link:
        await reach(link, Phase.LOADING)
        host.detach(why)
        await host.aclose()
        while link.status.phase is not Phase.CONNECTING:
            seen.append(await link.status_after(link.status))
    assert seen[0] == why


async def test_a_verdict_stands_until_it_is_taken_back() -> None:
    verdict = Status(Phase.GIVEN_UP, code="engine_crashed", message="five starts in vain")
    async with linked(Puppet()) as link:
        watching = asyncio.create_task(link.status_after(READY))
        link.show(verdict)
        assert await watching == link.status == verdict
        with pytest.raises(EngineLost, match="in vain"):
            link.describe()
        with pytest.raises(EngineLost, match="in vain"):
            await link.render([])
        link.resume()
        assert link.status == READY
        assert link.describe() == CAPABILITIES


async def test_another_key_is_refused_with_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    async with hosted(Puppet()) as (_, url), LinkEngine(url, "wrong") as link:
        status = await reach(link, Phase.GIVEN_UP)
        assert status.code == "link_key"
    assert caplog.text.count("is not the one that this engine was started with") == 2  # once per side


async def test_a_gateway_recovers_when_the_right_engine_takes_the_port() -> None:
    async with hosted(Puppet()) as (host, url), LinkEngine(url, "new key") as link:
        await reach(link, Phase.GIVEN_UP)
        await host.aclose()
        successor = Host("new key")
        successor.attach(Puppet())
        await successor.listen("127.0.0.1", urlsplit(url).port or 0)
        await reach(link, Phase.READY)
        await successor.aclose()


async def test_another_version_is_refused_with_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    async with hosted(Puppet()) as (_, url), RawGateway.connected(url) as raw:
        await raw.receive()
        raw.send({"version": 99, "nonce": "mine", "proof": "any"})
        refusal = (await raw.receive())["refused"]
        assert refusal["code"] == "link_version"
        assert "99" in refusal["message"]
        assert await raw.reader.read() == b""
    assert refusal["message"] in caplog.text


@pytest.mark.parametrize(
    "hello",
    [
        {"version": VERSION, "nonce": "mine", "proof": "0" * 64},
        {"version": VERSION, "nonce": "mine", "proof": "ü"},
        {"version": VERSION, "nonce": "mine"},
        {"version": VERSION},
        ["ping"],
        None,
    ],
)
async def test_nothing_is_served_without_a_proof(hello: Any) -> None:
    puppet = Puppet()
    async with hosted(puppet) as (_, url), RawGateway.connected(url) as raw:
        await raw.receive()
        raw.send(hello)
        raw.send(["generate", 1, request(), Emitted()])
        answer = await raw.reader.read()
        assert b"proof" not in answer
        assert b"status" not in answer
    assert puppet.story == []


async def test_the_gateway_s_own_proof_does_not_serve_as_the_host_s() -> None:
    assert RawGateway.proof("gateway", "a:b") != RawGateway.proof("host", "a:b")
    answers = iter([{"version": VERSION, "nonce": "n"}, "mirror"])
    async with fake_host(answers) as (url, received), LinkEngine(url, KEY) as link:
        while link.status.code is None:
            await link.status_after(link.status)
        assert link.status.code == "link_stranger"
    assert [set(frame) for frame in received] == [{"version", "nonce", "proof"}]


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\0\0\2no", b"\0\0\0\2[]"])
async def test_something_else_on_the_port_is_told_apart_and_told_nothing(greeting: bytes) -> None:
    async with fake_host(iter([greeting])) as (url, received), LinkEngine(url, KEY) as link:
        while link.status.code is None:
            await link.status_after(link.status)
        assert link.status.code == "link_stranger"
        assert link.status.phase is Phase.CONNECTING
    assert received == []


@asynccontextmanager
async def fake_host(answers: Any) -> AsyncIterator[tuple[str, list[Any]]]:
    """Sends the answers to its first caller; "mirror" waits for that one's proof and sends it back."""
    received: list[Any] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw = RawGateway(reader, writer)
        for answer in answers:
            if answer == "mirror":
                received.append(await raw.receive())
                raw.send({"proof": received[-1]["proof"]})
            elif isinstance(answer, bytes):
                writer.write(answer)
            else:
                raw.send(answer)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}", received


async def test_a_large_frame_before_the_proof_is_not_read(caplog: pytest.LogCaptureFixture) -> None:
    async with hosted(Puppet()) as (_, url), RawGateway.connected(url) as raw:
        await raw.receive()
        raw.writer.write((1 << 30).to_bytes(4, "big"))
        assert await raw.reader.read() == b""
    assert "1073741824 bytes" in caplog.text


async def test_a_peer_that_says_nothing_is_dropped() -> None:
    host = Host(KEY, handshake_seconds=0.05)
    async with RawGateway.connected(await host.listen("127.0.0.1", 0)) as raw:
        assert "nonce" in await raw.receive()
        assert await raw.reader.read() == b""
    await host.aclose()


async def test_the_key_and_the_url_must_make_sense() -> None:
    with pytest.raises(ValueError, match="needs a key"):
        Host("")
    with pytest.raises(ValueError, match="http://127"):
        LinkEngine("http://127.0.0.1:80", KEY)


HOST_SCRIPT = """
import asyncio, sys
from inkstream.engines.link import Host
from inkstream.engines.link.gateway import _Connection as Dialled
from inkstream.engines.scripted import Script, Scripted

async def main(port, script):
    host = Host("correct horse")
    host.attach(Scripted(Script.parse(script)))
    print(await host.listen("127.0.0.1", int(port)), flush=True)
    await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""
GATEWAY_SCRIPT = """
import asyncio, sys
from inkstream.engines import Emitted, Phase, Prompt, Request, Sampling
from inkstream.engines.link import LinkEngine

async def main(url):
    async with LinkEngine(url, "correct horse") as engine:
        while engine.status.phase is not Phase.READY:
            await engine.status_after(engine.status)
        asked = Request("r", Prompt(1, {"text": "hi"}), Sampling())
        await engine.generate(asked, Emitted(), lambda chunk: print(chunk.text, flush=True))

asyncio.run(main(sys.argv[1]))
"""


@asynccontextmanager
async def process(script: str, *arguments: str) -> AsyncIterator[tuple[Process, str]]:
    """A Python process and its first line."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, *arguments, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    try:
        yield child, (await child.stdout.readline()).decode().strip()
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


ENDLESS = '{"tokens_per_second": 100, "answer_tokens": 100000}'
PACED = '{"tokens_per_second": 200, "answer_tokens": 300}'


async def test_a_killed_engine_process_ends_every_call_at_once_and_its_successor_is_found() -> None:
    async with process(HOST_SCRIPT, "0", ENDLESS) as (host, url), LinkEngine(url, KEY) as link:
        await reach(link, Phase.READY)
        calls = [Call(link, request(str(n))) for n in range(8)]
        for call in calls:
            await call.until_chunk()
        started = asyncio.get_running_loop().time()
        host.kill()
        for call in calls:
            with pytest.raises(EngineLost):
                await call.finish()
        assert asyncio.get_running_loop().time() - started < 1
        assert link.status.phase is Phase.CONNECTING
        async with process(HOST_SCRIPT, str(urlsplit(url).port), ENDLESS):
            await reach(link, Phase.READY)
            call = Call(link, request())
            await call.until_chunk()
            await call.cancel()


async def test_answers_go_on_over_killed_engine_processes_to_the_undisturbed_text() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    draw = random.Random(seed)
    undisturbed = Scripted(Script(answer_tokens=300))
    asked = [request(str(number), seed=number) for number in range(8)]
    async with (
        AsyncExitStack() as lives,
        process(HOST_SCRIPT, "0", PACED) as (first, url),
        LinkEngine(url, KEY) as link,
    ):
        answering = [asyncio.create_task(answer_to_the_end(link, each)) for each in asked]
        victim = first
        for _ in range(4):
            await reach(link, Phase.READY)
            clock = Call(link, request("clock", seed=99))
            await clock.until(draw.randint(1, 25))
            await clock.cancel()
            victim.kill()
            await reach(link, Phase.CONNECTING)
            successor = process(HOST_SCRIPT, str(urlsplit(url).port), PACED)
            victim, _ = await lives.enter_async_context(successor)
        texts = await asyncio.gather(*answering)
    assert texts == [text_of((await answered(undisturbed, each))[0]) for each in asked]


async def answer_to_the_end(engine: LinkEngine, asked: Request) -> str:
    seen: list[Chunk] = []
    while True:
        await reach(engine, Phase.READY)
        call = Call(engine, asked, emitted_by(seen))
        try:
            await call.finish()
            return text_of(seen + call.chunks)
        except EngineLost:
            seen += call.chunks


@posix_only
async def test_an_engine_process_that_is_stopped_for_a_moment_loses_nothing() -> None:
    script = '{"tokens_per_second": 500, "answer_tokens": 200}'
    expected, _ = await answered(Scripted(Script(answer_tokens=200)), request(seed=5))
    async with process(HOST_SCRIPT, "0", script) as (host, url), LinkEngine(url, KEY) as link:
        await reach(link, Phase.READY)
        call = Call(link, request(seed=5))
        await call.until_chunk()
        host.send_signal(signal.SIGSTOP)
        done, _ = await asyncio.wait([call.task], timeout=0.3)
        assert not done
        host.send_signal(signal.SIGCONT)
        await call.finish()
        assert call.text == text_of(expected)


@posix_only
async def test_an_engine_process_that_stays_stopped_counts_as_lost_until_it_goes_on() -> None:
    async with (
        process(HOST_SCRIPT, "0", ENDLESS) as (host, url),
        LinkEngine(url, KEY, stall_seconds=0.2) as link,
    ):
        await reach(link, Phase.READY)
        call = Call(link, request())
        await call.until_chunk()
        host.send_signal(signal.SIGSTOP)
        with pytest.raises(EngineLost):
            await call.finish()
        assert link.status.phase is Phase.CONNECTING
        host.send_signal(signal.SIGCONT)
        await reach(link, Phase.READY)


async def test_an_engine_that_is_merely_silent_is_not_lost() -> None:
    puppet = Puppet()
    async with hosted(puppet) as (_, url), LinkEngine(url, KEY, stall_seconds=0.05) as link:
        await reach(link, Phase.READY)
        call = Call(link, request())
        done, _ = await asyncio.wait([call.task], timeout=0.5)
        assert not done
        puppet.say("r", Finish("stop", 1, 0))
        assert await call.finish() == Finish("stop", 1, 0)


async def test_a_gateway_hears_how_full_the_cache_is_for_as_long_as_there_is_an_engine() -> None:
    puppet = Puppet()
    async with hosted(puppet) as (host, url), LinkEngine(url, KEY, stall_seconds=0.05) as link:
        await reach(link, Phase.READY)
        assert link.cache_usage is None
        puppet.cache_usage = 0.25
        await until(lambda: link.cache_usage == 0.25)
        puppet.cache_usage = 0.0
        await until(lambda: link.cache_usage == 0.0)
        host.detach(Status(Phase.LOADING))
        await reach(link, Phase.LOADING)
        assert link.cache_usage is None


async def test_a_killed_gateway_process_frees_its_slots() -> None:
    engine = Scripted(Script(tokens_per_second=100, answer_tokens=100_000))
    async with hosted(engine) as (_, url), process(GATEWAY_SCRIPT, url) as (gateway, _):
        assert engine.active == 1
        gateway.kill()
        await until(lambda: engine.active == 0)


async def test_a_gateway_that_reaches_itself_on_a_dead_engine_s_port_gives_the_port_back() -> None:
    own = socket.socket()
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    own.bind(("127.0.0.1", 0))
    port = own.getsockname()[1]
    own.connect(("127.0.0.1", port))  # as the system does when it picks this port for the dialling end
    own.setblocking(False)
    engine = LinkEngine(f"tcp://127.0.0.1:{port}", KEY)
    _, connection = await asyncio.get_running_loop().create_connection(lambda: Dialled(engine), sock=own)
    await connection.lost.wait()
    host = Host(KEY)
    assert await host.listen("127.0.0.1", port) == f"tcp://127.0.0.1:{port}"
    await host.aclose()
