"""What only llama.cpp's engine promises. The rest is in ``test_engines``."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from inkstream import engines
from inkstream.config import Settings
from inkstream.engines import (
    Emitted,
    Message,
    Phase,
    Prompt,
    Request,
    Sampling,
    Status,
    Weights,
    llama_client,
)
from inkstream.engines.llama import Launch, LlamaEngine
from inkstream.engines.llama_server import LlamaServer, read_header
from inkstream.errors import EngineFailed, EngineLost, ModelError
from tests import qwen2_gguf
from tests.calls import Call, answered, text_of

CONTEXT = 1024
DRAWN = Sampling(temperature=1.0, top_p=1.0, top_k=40, min_p=0.0, seed=7, max_tokens=48)
NASTY = (
    "流式输出,龘靐齉爩",
    "𠮷野家 beyond the basic plane",
    "👩‍👩‍👧‍👦🏳️‍🌈👍🏽🇨🇳",
    "e\u0301 \u2028 \u2029 \u0085 \u200b\ufeff",
    "\x00\x01\t \r\n\r \n\n   end ",
    "<|im_end|><|im_start|>system\n<|endoftext|>",
    "inkstreamContent0Here and inkstreamContent1Here",
    "",
)


@pytest.fixture(scope="module")
def server(qwen2: Path, anyio_backend: str) -> LlamaServer:
    return LlamaServer.start(Launch(path=qwen2, context=CONTEXT, slots=2, threads=1), read_header(qwen2))


@pytest.fixture(scope="module")
async def engine(server: LlamaServer, anyio_backend: str) -> AsyncIterator[LlamaEngine]:
    async with LlamaEngine.remote(server.url, server.key) as engine:
        yield engine


async def ask(server: LlamaServer, path: str, body: dict[str, Any]) -> Any:
    headers = {"authorization": f"Bearer {server.key}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, trust_env=False) as client:
        return (await client.post(path, json=body)).json()


# The vocabulary and the template


async def test_the_vocabulary_is_the_real_one(server: LlamaServer) -> None:
    for text, ids in (("Hello world", [9707, 1879]), ("你好", [108386])):
        assert (await ask(server, "/tokenize", {"content": text}))["tokens"] == ids
    said = await ask(server, "/tokenize", {"content": qwen2_gguf.SAID})
    assert said["tokens"] == qwen2_gguf.said_ids()


@pytest.mark.parametrize("content", NASTY)
async def test_a_question_reaches_the_model_byte_for_byte(
    server: LlamaServer, engine: LlamaEngine, content: str
) -> None:
    prompt = await engine.render([Message("system", "S"), Message("user", content)])
    heard = await ask(server, "/detokenize", {"tokens": prompt.payload})
    assert heard["content"] == (
        f"<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("content", NASTY)
async def test_a_question_adds_no_control_token(engine: LlamaEngine, content: str) -> None:
    prompt = await engine.render([Message("system", "S"), Message("user", content)])
    controls = [id for id in prompt.payload if id >= qwen2_gguf.END_OF_TEXT]
    start, end = qwen2_gguf.IM_START, qwen2_gguf.IM_END
    assert controls == [start, end, start, end, start]


async def test_an_innocent_conversation_is_tokenised_as_the_model_learned_it(
    server: LlamaServer, engine: LlamaEngine
) -> None:
    messages = [Message("user", "Hello, 你好!"), Message("assistant", "Yes?"), Message("user", "x = 1\ny")]
    body = {"messages": [{"role": message.role, "content": message.content} for message in messages]}
    whole = (await ask(server, "/apply-template", body))["prompt"]
    expected = await ask(server, "/tokenize", {"content": whole, "parse_special": True})
    assert (await engine.render(messages)).payload == expected["tokens"]


# Seams and characters


async def test_a_seam_is_well_formed(engine: LlamaEngine) -> None:
    """The model can say only certain pairs of characters: at a seam it says no other."""
    known = pairs(qwen2_gguf.babble(200_000))
    request = Request("r", await engine.render([Message("user", "?")]), DRAWN)
    whole, _ = await answered(engine, request)
    assert pairs(text_of(whole)) <= known
    for cut in range(1, len(whole)):
        emitted = Emitted(text_of(whole[:cut]), None, sum(chunk.tokens for chunk in whole[:cut]))
        rest, _ = await answered(engine, request, emitted)
        assert rest
        assert pairs(emitted.text[-1:] + text_of(rest)) <= known


def pairs(text: str) -> set[str]:
    return {text[at : at + 2] for at in range(len(text) - 1)}


async def test_a_budget_that_ends_inside_a_character_leaves_it_out(engine: LlamaEngine) -> None:
    prompt = await engine.render([Message("user", "?")])
    long, _ = await answered(engine, Request("r", prompt, replace(DRAWN, max_tokens=150)))
    assert any(chunk.tokens > 1 for chunk in long), "no character spans several tokens: this proves nothing"
    at, inside = 0, 0
    for chunk in long:
        for limit in range(at + 1, at + chunk.tokens):
            short, finish = await answered(engine, Request("r", prompt, replace(DRAWN, max_tokens=limit)))
            assert finish.completion_tokens == limit
            assert "\ufffd" not in text_of(short)
            assert text_of(long).startswith(text_of(short))
            inside += 1
        at += chunk.tokens
    assert inside > 0


async def test_an_answer_that_goes_on_does_not_reuse_its_first_draws(engine: LlamaEngine) -> None:
    """Behind the same token, the same draws would make a model of pairs say its beginning again."""
    prompt = await engine.render([Message("user", "?")])
    request = Request("r", prompt, replace(DRAWN, max_tokens=300))
    whole, _ = await answered(engine, request)
    before = "```python\n"  # ends in the token that a prompt ends in
    half = text_of(whole)[: text_of(whole).index(before) + len(before)]
    rest, _ = await answered(engine, request, Emitted(half, None, 100))
    assert text_of(rest)[:3] == text_of(whole)[:3] == "for"
    assert not text_of(whole).startswith(text_of(rest)[:150])


async def test_every_seed_is_a_seed(engine: LlamaEngine) -> None:
    """One number alone asks llama.cpp for a random seed."""
    prompt = await engine.render([Message("user", "?")])
    request = Request("r", prompt, replace(DRAWN, seed=2**32 - 1, max_tokens=150))
    first, _ = await answered(engine, request)
    again, _ = await answered(engine, request)
    assert text_of(first) == text_of(again)


async def test_a_shared_beginning_is_read_once(engine: LlamaEngine) -> None:
    prompt = await engine.render([Message("user", "Read this once, please. " * 20)])
    request = Request("r", prompt, replace(DRAWN, max_tokens=2))
    await answered(engine, request)
    _, finish = await answered(engine, request)
    assert finish.cached_tokens > prompt.tokens // 2


# What it says of itself


async def test_defaults_come_from_the_file_unless_given(server: LlamaServer) -> None:
    async with LlamaEngine.remote(server.url, server.key, defaults=Sampling(top_k=7)) as engine:
        about = engine.describe()
    assert about.defaults.temperature == 0.6
    assert about.defaults.top_p == 0.95
    assert about.defaults.top_k == 7
    assert about.continues == "text"
    assert not about.exact_seam


@pytest.fixture
def renamed(qwen2: Path, tmp_path: Path) -> Path:
    path = tmp_path / "renamed.gguf"
    path.write_bytes(qwen2.read_bytes())
    return path


@pytest.fixture
def altered(qwen2: Path, tmp_path: Path) -> Path:
    """One byte differs, in the model's name."""
    path = tmp_path / "altered.gguf"
    path.write_bytes(qwen2.read_bytes().replace(b"Tiny random", b"Tiny Random", 1))
    return path


async def test_the_fingerprint_is_that_of_weights_and_context(
    qwen2: Path, renamed: Path, altered: Path
) -> None:
    launches = [
        Launch(path=qwen2, context=512, threads=1),
        Launch(path=renamed, context=512, slots=1, threads=1),
        Launch(path=qwen2, context=768, threads=1),
        Launch(path=altered, context=512, threads=1),
    ]
    seen = []
    for launch in launches:
        async with LlamaEngine.local(launch) as engine:
            seen.append(engine.describe().fingerprint)
    assert seen[0] == seen[1]
    assert len(set(seen)) == 3


async def test_the_status_follows_the_loading(qwen2: Path) -> None:
    weights = Weights(qwen2, name="tiny")
    async with engines.create(Settings(engine="llama", context=512, slots=1, threads=1), weights) as engine:
        seen = [engine.status]
        with pytest.raises(EngineLost):
            engine.describe()
        while seen[-1].phase is not Phase.READY:
            seen.append(await engine.status_after(seen[-1]))
        assert engine.describe().model == "tiny"
    shares = [status.share for status in seen if status.share is not None]
    assert len(shares) > 3
    assert shares == sorted(shares)
    assert {status.phase for status in seen} == {Phase.LOADING, Phase.READY}


async def test_loading_can_be_given_up_at_any_time(qwen2: Path) -> None:
    async with engines.create(Settings(engine="llama"), Weights(qwen2)) as engine:
        await engine.status_after(engine.status)
    assert engine.status.phase is Phase.GIVEN_UP


# Weights that are none


def cut_off(model: Path) -> bytes:
    return model.read_bytes()[:-1000]


def cut_in_the_header(model: Path) -> bytes:
    return model.read_bytes()[:500]


def of_a_version_to_come(model: Path) -> bytes:
    return b"GGUF\x09\0\0\0" + model.read_bytes()[8:]


def of_an_unknown_architecture(model: Path) -> bytes:
    return model.read_bytes().replace(b"qwen2", b"qwen9")


def a_web_page(model: Path) -> bytes:
    return b"<!doctype html><title>404</title>"


def nothing(model: Path) -> bytes:
    return b""


@pytest.mark.parametrize(
    "spoil",
    [cut_off, cut_in_the_header, of_a_version_to_come, of_an_unknown_architecture, a_web_page, nothing],
)
async def test_a_corrupt_file_is_named(qwen2: Path, tmp_path: Path, spoil: Callable[[Path], bytes]) -> None:
    path = tmp_path / "spoilt.gguf"
    path.write_bytes(spoil(qwen2))
    engine = LlamaEngine.local(Launch(path=path, context=512, slots=1, threads=1))
    with pytest.raises(ModelError, match="spoilt") as error:
        await engine.load()
    assert error.value.code == "model_corrupt"
    assert engine.status == Status(Phase.GIVEN_UP, code="model_corrupt", message=error.value.message)
    await engine.aclose()


@pytest.mark.parametrize("name", ["gone.gguf", "."])
async def test_a_file_that_cannot_be_read_is_told_by_the_status(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    async with engines.create(Settings(engine="llama"), Weights(path)) as engine:
        status = await engine.status_after(engine.status)
    assert status.code == "model_not_found"
    assert f"{path} cannot be read" in (status.message or "")


async def test_more_memory_than_there_is_is_refused_beforehand(qwen2: Path) -> None:
    engine = LlamaEngine.local(Launch(path=qwen2, slots=100_000_000))
    with pytest.raises(ModelError, match="INKSTREAM_SLOTS") as error:
        await engine.load()
    assert error.value.code == "model_too_large"
    await engine.aclose()


# A server elsewhere, and its death

SERVE = """
import sys
from pathlib import Path
from inkstream.engines.llama_server import Launch, LlamaServer, read_header
path = Path(sys.argv[1])
server = LlamaServer.start(Launch(path=path, context=1024, slots=2, threads=1), read_header(path))
print(server.url, server.key, flush=True)
sys.stdin.read()
"""


@asynccontextmanager
async def served(model: Path) -> AsyncIterator[tuple[int, str, str]]:
    """A server in a process of its own: its pid, address and key."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVE, str(model), stdin=pipe, stdout=pipe
    )
    try:
        assert process.stdout is not None
        url, key = (await process.stdout.readline()).decode().split()
        yield process.pid, url, key
    finally:
        await process.communicate()


async def test_the_death_of_the_server_is_told_at_once(qwen2: Path) -> None:
    async with served(qwen2) as (pid, url, key), LlamaEngine.remote(url, key) as engine:
        request = Request("r", await engine.render([Message("user", "?")]), replace(DRAWN, max_tokens=900))
        call = Call(engine, request)
        await call.until_chunk()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(EngineLost):
            await call.finish()
        assert engine.status.phase is Phase.CONNECTING
        with pytest.raises(EngineLost):
            await engine.render([Message("user", "?")])
        with pytest.raises(EngineLost):
            await answered(engine, request)


async def test_a_wrong_key_is_no_reason_to_try_again(server: LlamaServer) -> None:
    engine = LlamaEngine.remote(server.url, "wrong")
    with pytest.raises(EngineFailed, match="key"):
        await engine.load()
    assert engine.status.phase is Phase.GIVEN_UP
    assert engine.status.code == "engine_refused"
    await engine.aclose()


async def test_loopback_is_reached_past_every_proxy(
    server: LlamaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with LlamaEngine.remote(server.url, server.key) as engine:
        assert engine.status.phase is Phase.READY


class FakeLlama:
    """Answers as a llama-server would, with ``completion`` as the bytes of every stream."""

    def __init__(self) -> None:
        self.is_loading = False
        self.is_llama = True
        self.completion = b""
        self.template = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
        self.paths: list[str] = []
        self.cutting: random.Random | None = None
        self.speaks_http = True
        self.is_silent = False
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """The second time on the same port."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = server.sockets[0].getsockname()[1]
        async with server:
            yield

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(
            (line for line in head.lower().split("\r\n") if line.startswith("content-length")), ":0"
        )
        body = await reader.readexactly(int(length.split(":")[1]))
        self.paths.append(head.split()[1])
        status, reply = self._reply(head.split()[1], orjson.loads(body or b"{}"))
        if self.is_silent:
            await reader.read()
        elif not self.speaks_http:
            writer.write(b"220 mail.example.org ESMTP\r\n")
        elif self.cutting:
            await self._write_cut(writer, reply, self.cutting)
        else:
            writer.write(f"HTTP/1.1 {status} OK\r\nConnection: close\r\n\r\n".encode() + reply)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    @staticmethod
    async def _write_cut(writer: asyncio.StreamWriter, reply: bytes, draw: random.Random) -> None:
        """Chunks of the transfer encoding and pieces on the wire have nothing to do with the events."""
        whole, rest = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", reply
        while rest:
            size = draw.randint(1, 60)
            whole += b"%x\r\n%b\r\n" % (len(rest[:size]), rest[:size])
            rest = rest[size:]
        whole += b"0\r\n\r\n"
        while whole:
            size = draw.randint(1, 20)
            writer.write(whole[:size])
            await writer.drain()
            whole = whole[size:]

    def _reply(self, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        if self.is_loading:
            return 503, b'{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}'
        if not self.is_llama:
            return 200, b"<!doctype html><title>Welcome</title>"
        if path == "/completion":
            return 200, self.completion
        replies: dict[str, Any] = {
            "/health": {"status": "ok"},
            "/props": {
                "default_generation_settings": {"n_ctx": 64, "params": {"temperature": 0.5}},
                "total_slots": 1,
                "chat_template": "fake",
            },
            "/v1/models": {"data": [{"id": "fake", "meta": {"n_vocab": 3}}]},
            "/apply-template": {
                "prompt": "".join(self.template.format(m["content"]) for m in body.get("messages", ()))
            },
            "/tokenize": {"tokens": [part if part == -1 else 1 for part in body.get("content", ())]},
        }
        return 200, orjson.dumps(replies[path])


def event(content: str, tokens: int, **more: Any) -> bytes:
    body = {"content": content, "tokens_predicted": tokens, "stop": False, **more}
    return b"data: %b\n\n" % orjson.dumps(body)


END = {"stop": True, "stop_type": "limit"}
SIMPLE = Request("r", Prompt(2, [1, 1]), Sampling(max_tokens=9))


@asynccontextmanager
async def faked(completion: bytes = b"") -> AsyncIterator[tuple[FakeLlama, LlamaEngine]]:
    fake = FakeLlama()
    fake.completion = completion
    async with fake.listening(), LlamaEngine.remote(fake.url) as engine:
        yield fake, engine


async def test_a_server_that_loads_or_restarts_is_waited_for() -> None:
    fake = FakeLlama()
    fake.is_loading = True
    fake.completion = event("x", 1) + event("", 1, **END)
    async with fake.listening():
        engine = LlamaEngine.remote(fake.url)
        loading = asyncio.create_task(engine.load())
        with pytest.raises(EngineLost):
            await answered(engine, SIMPLE)
        fake.is_loading = False
        await loading
        await answered(engine, SIMPLE)
    with pytest.raises(EngineLost):
        await answered(engine, SIMPLE)
    assert (lost := engine.status).phase is Phase.CONNECTING
    async with fake.listening():
        assert (await engine.status_after(lost)).phase is Phase.READY
        await answered(engine, SIMPLE)
    await engine.aclose()


async def test_an_address_of_something_else_is_given_up() -> None:
    fake = FakeLlama()
    fake.is_llama = False
    async with fake.listening():
        engine = LlamaEngine.remote(fake.url)
        with pytest.raises(EngineFailed, match="no llama-server"):
            await engine.load()
        assert engine.status.phase is Phase.GIVEN_UP
        await engine.aclose()


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
async def test_a_stream_that_breaks_off_is_a_lost_engine(cut: int) -> None:
    whole = [event("a", 1), event("b", 2), event("c", 3), event("", 3, **END)]
    async with faked(b"".join(whole[:cut])) as (_, engine):
        call = Call(engine, SIMPLE)
        with pytest.raises(EngineLost):
            await call.finish()
    assert call.text == "abc"[:cut]


@pytest.mark.parametrize(("status", "retryable"), [(400, False), (500, True)])
async def test_an_error_in_the_stream_fails_that_request(status: int, retryable: bool) -> None:
    error = orjson.dumps({"error": {"code": status, "message": "no room", "type": "server_error"}})
    async with faked(event("a", 1) + b"data: " + error + b"\n\n") as (_, engine):
        with pytest.raises(EngineFailed, match="no room") as failed:
            await answered(engine, SIMPLE)
        assert failed.value.retryable is retryable
        assert engine.status.phase is Phase.READY


async def test_a_stream_survives_any_cut_of_its_bytes() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    draw = random.Random(seed)
    texts = [draw.choice(NASTY) for _ in range(60)]
    events = [event(text, number) for number, text in enumerate(texts, 1)]
    async with faked(b"".join(events) + event("end", 61, **END)) as (fake, engine):
        for _ in range(5):
            fake.cutting = draw
            chunks, finish = await answered(engine, SIMPLE)
            assert text_of(chunks) == "".join(texts) + "end"
            assert finish.completion_tokens == 61
            assert finish.last is not None
            fake.cutting = None


async def test_a_stream_that_falls_silent_is_a_lost_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_client, "STREAM_SECONDS", 0.05)
    async with faked() as (fake, engine):
        fake.is_silent = True
        with pytest.raises(EngineLost, match="nothing came for"):
            await answered(engine, SIMPLE)
        assert engine.status.phase is Phase.CONNECTING


async def test_a_stream_of_something_else_fails_that_request() -> None:
    for completion, speaks_http in ((b"", False), (b"data: <html>\n\n", True), (b"data: 7\n\n", True)):
        async with faked(completion) as (fake, engine):
            fake.speaks_http = speaks_http
            with pytest.raises(EngineFailed, match="no llama-server"):
                await answered(engine, SIMPLE)


async def test_a_refused_stream_says_why(server: LlamaServer, engine: LlamaEngine) -> None:
    stranger = LlamaEngine.remote(server.url, "wrong")
    stranger._capabilities, stranger._status = engine.describe(), engine.status
    with pytest.raises(EngineFailed, match="refuses our key") as refused:
        await answered(stranger, SIMPLE)
    assert refused.value.code == "engine_refused"
    await stranger.aclose()


async def test_pings_and_line_separators_are_no_events() -> None:
    text = "a\u2028b\u2029c\u0085d\r\ne"
    async with faked(b":\n\n" + event(text, 1) + b": ping\n\n" + event("", 1, **END)) as (_, engine):
        chunks, finish = await answered(engine, SIMPLE)
    assert text_of(chunks) == text
    assert finish.completion_tokens == 1


async def test_a_template_that_opens_the_thinking_block_is_noticed() -> None:
    for opening, channel in (("", "text"), ("<think>\n", "thinking")):
        async with faked() as (fake, engine):
            fake.template += opening
            assert (await engine.render([Message("user", "?")])).channel == channel


async def test_a_template_is_read_once_for_the_same_roles_and_anew_from_another_server() -> None:
    question, answer = Message("user", "?"), Message("assistant", "!")
    fake = FakeLlama()
    async with fake.listening():
        engine = LlamaEngine.remote(fake.url)
        await engine.load()
        for messages in ([question], [question], [question, answer, question], [Message("user", "other")]):
            await engine.render(messages)
        assert fake.paths.count("/apply-template") == 2
    with pytest.raises(EngineLost):
        await engine.render([question])
    fake.template += "<think>\n"
    async with fake.listening():
        assert (await engine.status_after(engine.status)).phase is Phase.READY
        assert (await engine.render([question])).channel == "thinking"
    await engine.aclose()
