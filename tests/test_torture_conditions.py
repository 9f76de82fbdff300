"""The conditions of a torture are what they are called, in the server's own processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from tests.torture import conditions
from tests.torture.server import Role, Server

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(sys.platform != "linux", reason="the torture runs on Linux alone"),
]

DELAY_MS = 150
GATEWAY_DELAY_MS = 20
ROLES: tuple[Role, ...] = ("gateway", "engine")

# Each call three times, of which the quickest counts: what a busy machine adds is not ours.
CALLS = """
import json, os, sys, time
from pathlib import Path

def milliseconds(call):
    times = []
    for _ in range(3):
        started = time.perf_counter()
        call()
        times.append((time.perf_counter() - started) * 1000)
    return min(times)

def measured(path):
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    calls = {
        "write": lambda: os.write(fd, b"x"),
        "pwrite": lambda: os.pwrite(fd, b"x", 0),
        "ftruncate": lambda: os.ftruncate(fd, 1),
        "fsync": lambda: os.fsync(fd),
        "fdatasync": lambda: os.fdatasync(fd),
        "pread": lambda: os.pread(fd, 1, 0),
    }
    return {name: milliseconds(call) for name, call in calls.items()}

print(json.dumps([measured(Path(folder) / "file") for folder in sys.argv[1:]]))
"""


def loaded_by(server: Server, role: Role) -> str:
    """What the process has mapped: every extension module and library that it runs is named here."""
    target = server.target(role)
    assert target is not None
    with target:
        return Path(f"/proc/{target.pid}/maps").read_text(encoding="utf-8")


@pytest.mark.parametrize("loop", ["auto", "asyncio"])
async def test_gateway_and_engine_run_on_uvloop_unless_told_otherwise(
    tmp_path: Path, loop: conditions.Loop
) -> None:
    has_uvloop = find_spec("uvloop") is not None
    environ = conditions.environ(tmp_path, loop=loop)
    async with Server(tmp_path, {"engine": "scripted"}, environ) as server:
        for role in ROLES:
            assert ("/uvloop/" in loaded_by(server, role)) is (has_uvloop and loop == "auto")


def test_a_slow_disk_delays_every_write_below_the_data_folder_and_nothing_else(tmp_path: Path) -> None:
    slow, beside = tmp_path / "data", tmp_path / "data-beside"
    for folder in (slow, beside):
        folder.mkdir()
    environ = conditions.environ(tmp_path, slow_disk_ms=DELAY_MS)
    told = subprocess.run(
        [sys.executable, "-c", CALLS, slow, beside],
        env={**os.environ, **environ, "INKSTREAM_DATA_DIR": str(slow)},
        stdout=subprocess.PIPE,
        check=True,
    )
    there, elsewhere = json.loads(told.stdout)
    assert there.pop("pread") < DELAY_MS
    assert min(there.values()) >= DELAY_MS, there
    assert max(elsewhere.values()) < DELAY_MS, elsewhere


async def test_what_the_gateway_stores_is_on_the_slow_disk(tmp_path: Path) -> None:
    environ = conditions.environ(tmp_path, slow_disk_ms=GATEWAY_DELAY_MS)
    async with Server(tmp_path, {"engine": "scripted"}, environ) as server:
        times = [await milliseconds_of_a_new_chat(server) for _ in range(5)]
    assert min(times) >= 2 * GATEWAY_DELAY_MS  # a page in SQLite's write-ahead file, and its head


async def milliseconds_of_a_new_chat(server: Server) -> float:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as http:
        started = time.perf_counter()
        (await http.post("/api/chats", json={})).raise_for_status()
        return (time.perf_counter() - started) * 1000


def test_without_a_compiler_a_slow_disk_is_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(conditions.Unavailable, match="there is no cc"):
        conditions.environ(tmp_path, slow_disk_ms=1)
