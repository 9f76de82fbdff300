"""Behind a real nginx: when events arrive, what silence does, what is compressed.

Another program reads: how a proxy hands out what it has depends on the protocol that it is asked in.
"""

from __future__ import annotations

import asyncio
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import httpx
import pytest

from inkstream.engines.scripted import Script
from inkstream.probe import free_port
from tests.live import Live, serving
from tests.nginx import ARTICLE, deployed, nginx, plain, secure
from tests.test_api import ask, client_of, first_text

pytestmark = pytest.mark.real

TOKENS = 40
PACED = Script(tokens_per_second=50, answer_tokens=TOKENS)
SECONDS = TOKENS / 50
HELD = "proxy_ignore_headers X-Accel-Buffering; gzip on; gzip_types *;"


async def curl(url: str, *options: str) -> AsyncGenerator[tuple[float, bytes]]:
    """What comes, piece by piece, each with the moment at which it came."""
    command = ["curl", "--silent", "--no-buffer", "--insecure", "--noproxy", "*", *options, url]
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
    assert process.stdout is not None
    try:
        while piece := await process.stdout.read(65536):
            yield time.monotonic(), piece
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def lumps(url: str, *options: str) -> list[tuple[float, int]]:
    """When texts came, and how many at once."""
    found = []
    async with aclosing(curl(url, *options)) as pieces:
        async for at, piece in pieces:
            if texts := piece.count(b'data: {"text":'):
                found.append((at, texts))
    return found


def assert_flowing(found: list[tuple[float, int]]) -> None:
    """No proxy has waited for more: lumps come of a busy machine alone."""
    assert len(found) > TOKENS / 4, found
    assert found[-1][0] - found[0][0] > SECONDS / 2


async def run_of(live: Live) -> str:
    async with client_of(live.url) as http:
        run: str = (await ask(http))["run"]["id"]
        return run


@pytest.mark.parametrize("version", ["1.1", "2"])
async def test_our_configuration_lets_every_event_through_at_once(tmp_path: Path, version: str) -> None:
    front = free_port("127.0.0.1")
    url = f"https://127.0.0.1:{front}"
    async with serving(tmp_path / "data", PACED) as live:
        with nginx(tmp_path, secure(tmp_path, front, live.port), front):
            events = f"{url}/api/runs/{await run_of(live)}/events"
            flags = {"1.1": "--http1.1", "2": "--http2"}
            assert_flowing(await lumps(events, flags[version]))
            said = [
                piece async for _, piece in curl(f"{url}/healthz", flags[version], "-w", "\n%{http_version}")
            ]
    assert b"".join(said).splitlines()[-1].decode() == version


async def test_all_but_the_stream_is_compressed(tmp_path: Path) -> None:
    front = free_port("127.0.0.1")
    async with serving(tmp_path / "data", PACED) as live:
        run = await run_of(live)
        with nginx(tmp_path, secure(tmp_path, front, live.port), front):
            async with httpx.AsyncClient(
                base_url=f"https://127.0.0.1:{front}", verify=False, trust_env=False
            ) as http:
                plain_text = await http.get(f"/api/runs/{run}/events")
                description = await http.get("/openapi.json")
    assert "content-encoding" not in plain_text.headers
    assert plain_text.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert description.headers["content-encoding"] == "gzip"


@pytest.mark.parametrize("path", ["/stream?prompt=hello", "events"])
async def test_the_articles_block_lets_every_event_through_at_once(tmp_path: Path, path: str) -> None:
    front = free_port("127.0.0.1")
    async with serving(tmp_path / "data", PACED) as live:
        if path == "events":
            path = f"/api/runs/{await run_of(live)}/events"
        with nginx(tmp_path, ARTICLE.format(front=front, back=live.port), front):
            assert_flowing(await lumps(f"http://127.0.0.1:{front}{path}"))


async def test_a_block_that_knows_nothing_of_streams_is_told_by_the_server(tmp_path: Path) -> None:
    """And one that compresses, and does not listen, holds everything back: these tests can fail."""
    free, deaf = free_port("127.0.0.1"), free_port("127.0.0.1")
    async with serving(tmp_path / "data", PACED) as live:
        blocks = plain(free, live.port) + plain(deaf, live.port, HELD)
        with nginx(tmp_path, blocks, free):
            assert_flowing(await lumps(f"http://127.0.0.1:{free}/api/runs/{await run_of(live)}/events"))
            events = f"http://127.0.0.1:{deaf}/api/runs/{await run_of(live)}/events"
            held = await lumps(events, "--compressed")
    assert len(held) < TOKENS / 8, held


@pytest.mark.parametrize("heartbeat_seconds", [0.25, 10])
async def test_heartbeats_carry_a_stream_through_silence(tmp_path: Path, heartbeat_seconds: float) -> None:
    """A second of silence is cut by this proxy. Ten beats are two and a half."""
    front = free_port("127.0.0.1")
    silent = Script(stall_on="hello")
    async with serving(tmp_path / "data", silent, heartbeat_seconds=heartbeat_seconds) as live:
        run = await run_of(live)
        with nginx(tmp_path, plain(front, live.port, "proxy_read_timeout 1s;"), front):
            beats, begun = 0, time.monotonic()
            async with aclosing(curl(f"http://127.0.0.1:{front}/api/runs/{run}/events")) as pieces:
                async for _, piece in pieces:
                    beats += piece.count(b"\n:\n") + piece.startswith(b":\n")
                    if beats == 10:
                        break
            lasted = time.monotonic() - begun
    if heartbeat_seconds < 1:
        assert beats == 10
        assert lasted > 2
    else:
        assert beats == 0
        assert lasted < 5


async def test_hanging_up_is_noticed_through_the_proxy(tmp_path: Path) -> None:
    """Where nobody can come back, a reader's end is the answer's."""
    front = free_port("127.0.0.1")
    endless = Script(tokens_per_second=200, answer_tokens=1_000_000)
    question = '{"messages": [{"role": "user", "content": "hello"}], "stream": true}'
    async with serving(tmp_path / "data", endless) as live:
        with nginx(tmp_path, plain(front, live.port), front):
            url = f"http://127.0.0.1:{front}/v1/chat/completions"
            async with aclosing(curl(url, "--json", question)) as pieces:
                await anext(pieces)
                await live.until(lambda: live.engine.active)
            await live.until_idle()


@pytest.mark.parametrize("behind", ["", "/"])
async def test_under_a_path_everything_is_served(tmp_path: Path, behind: str) -> None:
    """``behind`` is what stands behind the address of proxy_pass: a slash takes the path off."""
    front = free_port("127.0.0.1")
    async with serving(tmp_path / "data", PACED, base_path="/chat") as live:
        changes = {"proxy_pass http://127.0.0.1:8000;": f"proxy_pass http://127.0.0.1:{live.port}{behind};"}
        locations = deployed("nginx-path.conf", changes)
        with nginx(tmp_path, f"server {{ listen 127.0.0.1:{front}; {locations} }}", front):
            async with client_of(f"http://127.0.0.1:{front}/chat") as http:
                bare = await http.get(f"http://127.0.0.1:{front}/chat")
                assert bare.headers["location"] == "/chat/"
                run = (await ask(http))["run"]["id"]
                await first_text(http, run)
                assert (await http.get("healthz")).json() == {"status": "ok"}
                servers = (await http.get("openapi.json")).json()["servers"]
                assert servers == [{"url": "/chat"}]
            assert_flowing(await lumps(f"http://127.0.0.1:{front}/chat/stream?prompt=hello"))
