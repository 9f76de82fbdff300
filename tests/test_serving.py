"""``inkstream serve`` as a user runs it: real processes, started, asked, stopped."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sqlite3
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inkstream import config
from inkstream.config import Settings
from inkstream.engines import Phase
from inkstream.engines.link import LinkEngine
from inkstream.gateway import Gateway
from inkstream.machine import memory
from inkstream.probe import free_port
from inkstream.serving import engine_key
from tests.fake_hub import fake_hub
from tests.tiny_gguf import tiny_gguf

pytestmark = pytest.mark.real

REPO, FILE = "Ink/Tiny-GGUF", "tiny-q4_k_m.gguf"


def environ(folder: Path, **more: str) -> dict[str, str]:
    own = {
        name: value for name, value in os.environ.items() if not name.startswith(("INKSTREAM_", "LC_", "HF_"))
    }
    return own | {"LANG": "C.UTF-8", "HOME": str(folder), "INKSTREAM_DATA_DIR": str(folder / "data")} | more


@asynccontextmanager
async def inkstream(folder: Path, *arguments: str, **more: str) -> AsyncIterator[Process]:
    """The running command, ended with the block."""
    command = [sys.executable, "-m", "inkstream", *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, env=environ(folder, **more), cwd=folder, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def finished(folder: Path, *arguments: str, **more: str) -> tuple[int | None, str, str]:
    async with inkstream(folder, *arguments, **more) as process:
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def address_of(process: Process) -> str:
    assert process.stdout is not None
    said = (await process.stdout.readline()).decode()
    url = re.search(r"http://\S+", said)
    assert url is not None, said
    return url[0]


async def test_serve_says_where_it_is_answers_and_stops_when_told(tmp_path: Path) -> None:
    async with inkstream(tmp_path, "serve", "--engine", "scripted", "--port", "0") as process:
        url = await address_of(process)
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(f"{url}/healthz")).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", httpx.URL(url).port)


async def test_who_is_unanswered_when_the_server_stops_is_told_to_come_again(tmp_path: Path) -> None:
    async with inkstream(tmp_path, "serve", "--engine", "scripted", "--port", "0") as process:
        url = await address_of(process)
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            chat = (await client.post("/api/chats", json={})).json()["id"]
            with closing(sqlite3.connect(tmp_path / "data" / "history.db", isolation_level=None)) as db:
                db.execute("BEGIN IMMEDIATE")
                is_sent = asyncio.Event()

                async def trace(event: str, _: object) -> None:
                    if event == "http11.receive_response_headers.started":
                        is_sent.set()

                patch = client.build_request("PATCH", f"/api/chats/{chat}", json={"title": "new"})
                patch.extensions["trace"] = trace
                answer = asyncio.create_task(client.send(patch))
                await is_sent.wait()
                await client.get("/healthz")  # what it is answered behind has been read
                process.send_signal(signal.SIGTERM)
                reply = await answer
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "shutting_down")
        assert int(reply.headers["retry-after"]) == 1
        assert process.stderr is not None
        assert "Traceback" not in (await process.stderr.read()).decode()
        assert await process.wait() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="finds the child in /proc")
async def test_a_killed_gateway_comes_back_at_the_same_address(tmp_path: Path) -> None:
    async with inkstream(tmp_path, "serve", "--engine", "scripted", "--port", "0") as process:
        url = await address_of(process)
        killed = child_of(process, "gateway")
        os.kill(killed, signal.SIGKILL)
        await until_ready(url)
        assert child_of(process, "gateway") != killed


def child_of(process: Process, command: str) -> int:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (found,) = [pid for pid in children if command in Path(f"/proc/{pid}/cmdline").read_text().split("\0")]
    return int(found)


async def test_a_gateway_that_is_stopped_before_it_serves_ends_all_the_same(tmp_path: Path) -> None:
    url = "tcp://127.0.0.1:9"
    gateway = Gateway(Settings(data_dir=tmp_path, port=0, engine_url=url, engine_key="key"), lambda _: None)
    gateway.stop()
    async with asyncio.timeout(10):
        await gateway.serve()


async def test_an_engine_that_is_told_to_stop_gives_no_answer_up(tmp_path: Path, smollm2: Path) -> None:
    url = f"tcp://127.0.0.1:{free_port('127.0.0.1')}"
    joined = ("--engine-url", url, "--engine-key", "key", "--model", str(smollm2), "--context", "256")
    async with inkstream(tmp_path, "engine", "--engine", "llama", *joined) as engine:
        async with LinkEngine(url, "key") as link, asyncio.timeout(30):
            status = link.status
            while status.phase is not Phase.READY:
                status = await link.status_after(status)
            engine.send_signal(signal.SIGTERM)
            status = await link.status_after(status)
        assert status.phase is Phase.CONNECTING
        assert await engine.wait() == 0


async def test_a_second_server_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    async with inkstream(tmp_path, "serve", "--engine", "scripted", "--port", "0") as process:
        await address_of(process)
        code, _, said = await finished(tmp_path, "serve", "--engine", "scripted", "--port", "0")
    assert code == 2
    assert f"another inkstream is running on {tmp_path / 'data'}" in said
    assert "--data-dir" in said


@pytest.mark.parametrize("name", ["accounts.db", "history.db", "log.db"])
async def test_a_damaged_database_is_refused_by_name_with_the_ways_out(name: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_bytes(b"no database" * 1000)
    code, out, err = await finished(tmp_path, "serve", "--engine", "scripted", "--port", "0")
    assert (code, out) == (2, "")
    assert f"{name} is damaged" in err
    assert "inkstream restore" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("command", "url"),
    [
        ("serve", "http://127.0.0.1:none"),
        ("serve", "http://"),
        ("serve", "tcp://127.0.0.1:99999"),
        ("engine", "tcp://127.0.0.1:none"),
        ("engine", "http://127.0.0.1:8001"),
    ],
)
async def test_an_engine_url_that_is_none_is_refused(command: str, url: str, tmp_path: Path) -> None:
    here = ("--port", "0") if command == "serve" else ("--engine", "scripted")
    code, out, err = await finished(tmp_path, command, "--engine-url", url, *here)
    assert (code, out) == (2, "")
    assert f"engine URL '{url}' is not of the form tcp://ADDRESS:PORT" in err
    assert ".py" not in err


async def test_what_people_say_is_for_the_owner_of_the_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "log.db").touch(0o644)  # as an earlier version made it
    async with inkstream(tmp_path, "serve", "--engine", "scripted", "--port", "0") as server:
        await address_of(server)
        databases = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "data").glob("*.db*")}
    assert {"accounts.db", "history.db", "log.db"} <= set(databases)
    assert set(databases.values()) == {0o600}


async def test_serve_joins_an_engine_that_runs_alone(tmp_path: Path) -> None:
    url = f"tcp://127.0.0.1:{free_port('127.0.0.1')}"
    joined = ("--engine", "scripted", "--engine-url", url)
    async with inkstream(tmp_path, "engine", *joined) as engine:
        for _ in range(2):
            async with inkstream(tmp_path, "serve", "--port", "0", *joined) as gateway:
                here = await address_of(gateway)
                await until_ready(here)
                async with httpx.AsyncClient(trust_env=False) as client:
                    assert not (await client.get(f"{here}/api/models")).json()["can_switch"]
        assert engine.returncode is None
        engine.send_signal(signal.SIGINT)
        assert await engine.wait() == 0


async def until_ready(url: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        while not await is_ready(client, url):  # noqa: ASYNC110  # it can only be asked
            await asyncio.sleep(0.05)


async def is_ready(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(f"{url}/readyz")).status_code == 200
    except httpx.TransportError:
        return False


async def test_pull_fetches_and_every_other_command_finds_it(tmp_path: Path) -> None:
    content = tiny_gguf()
    async with fake_hub() as hub:
        hub.add(REPO, FILE, content)
        hubs = {"HF_ENDPOINT": hub.url, "MODELSCOPE_ENDPOINT": "http://127.0.0.1:9"}
        code, out, err = await finished(tmp_path, "pull", REPO, **hubs)
    assert (code, out.split()[0]) == (0, REPO), err
    path = Path(out.split()[-1])
    assert await asyncio.to_thread(path.read_bytes) == content
    assert FILE in err
    assert "\r" not in err

    _, listed, _ = await finished(tmp_path, "models", "--json")
    assert [row["path"] for row in json.loads(listed)["models"] if row["path"]] == [str(path)]
    assert (await checkup(tmp_path))["checksum"] == "ok"


async def test_the_doctor_notices_a_model_that_has_rotted(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(tiny_gguf())
    model = ("--model", str(path))
    assert (await checkup(tmp_path, *model))["checksum"] == "ok"
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (await checkup(tmp_path, *model))["checksum"] == "fail"


async def test_the_doctor_names_the_longest_context_that_fits(tmp_path: Path) -> None:
    """A token of this model takes 128 KiB, and so many answers twice what this machine has."""
    path = tmp_path / "deep.gguf"
    path.write_bytes(tiny_gguf(metadata={"qwen2.block_count": 1024}))
    answers = 2 * memory().available_bytes // (4096 * 128 << 10)
    model, slots = ("--model", str(path)), ("--slots", str(answers))
    short = await memory_line(tmp_path, *model, *slots)
    assert f"{answers} answers of 4096 tokens" in short["text"], "the model knows no longer context than 4096"
    assert short["level"] == "warn"
    (context,) = re.findall(r"--context (\d+)", short["fix"])
    assert 1024 < int(context) <= 2048
    # With room for what other programs take or give back meanwhile.
    for share, level in ((0.7, "ok"), (1.4, "warn")):
        length = str(int(int(context) * share))
        assert (await memory_line(tmp_path, *model, *slots, "--context", length))["level"] == level


async def test_the_doctor_says_what_torch_makes_of_too_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "deep.gguf"
    path.write_bytes(tiny_gguf(metadata={"qwen2.block_count": 1024}))
    model = ("--model", str(path), "--engine", "torch", "--device", "cpu")
    answers = memory().available_bytes // (4096 * 128 << 10)
    wide = await memory_line(tmp_path, *model, "--slots", str(2 * answers))
    assert "the model has no longer context" in wide["text"]
    (fitting,) = re.findall(r"about (\d+) answers of that length fit", wide["fix"])
    assert 0.7 * answers < int(fitting) <= 1.3 * answers
    path.write_bytes(tiny_gguf(metadata={"qwen2.block_count": 1024, "qwen2.context_length": 1 << 30}))
    deep = await memory_line(tmp_path, *model, "--slots", "1", "--context", str(1 << 30))
    (capped,) = re.findall(r"capped at about (\d+) tokens", deep["fix"])
    assert 0.7 * answers * 4096 < int(capped) <= 1.3 * answers * 4096


async def memory_line(folder: Path, *arguments: str) -> dict[str, str]:
    _, out, _ = await finished(folder, "doctor", "--json", *arguments)
    findings: list[dict[str, str]] = json.loads(out)["findings"]
    return next(finding for finding in findings if finding["check"] == "memory")


async def checkup(folder: Path, *arguments: str) -> dict[str, str]:
    model = arguments or ("--model", REPO)
    _, out, _ = await finished(folder, "doctor", "--json", "--checksums", *model)
    return {finding["check"]: finding["level"] for finding in json.loads(out)["findings"]}


async def test_a_model_that_is_nowhere_ends_pull_with_one_line(tmp_path: Path) -> None:
    code, out, err = await finished(tmp_path, "pull", "--offline", "qwen2-0.5b")
    assert (code, out) == (2, "")
    assert err.startswith("inkstream: Model 'qwen2-0.5b'")
    assert err.count("\n") == 1


def test_the_engine_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    key = engine_key(settings)
    assert len(key) >= 32
    assert engine_key(settings) == key
    assert (tmp_path / "data" / "engine.key").stat().st_mode & 0o777 == 0o600
    assert engine_key(replace(settings, engine_key="given")) == "given"


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters=",\0", exclude_categories=["Z", "C"]), min_size=1
)


@given(st.integers(0, 65535), st.lists(NAMES), st.booleans(), st.floats(0, 1e6), NAMES)
def test_settings_survive_the_way_to_a_child(
    port: int, hosts: list[str], offline: bool, hours: float, key: str
) -> None:
    settings = Settings(port=port, hosts=tuple(hosts), offline=offline, retention_hours=hours, key=key)
    assert config.load(environ=config.as_environ(settings)) == settings
