"""The files of ``deploy/``: what can be said of them without the machine that they are for."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock
from jsonschema import Draft201909Validator

from inkstream.commands import COMMANDS
from inkstream.config import env_name, settings_fields
from inkstream.probe import free_port
from inkstream.serving import notify
from tests.conftest import BUILD
from tests.live import serving
from tests.test_serving import address_of, inkstream

DEPLOY = Path(__file__).parent.parent / "deploy"
UNITS = ("inkstream.service", "inkstream-engine.service")
SETTINGS = {env_name(setting.name) for setting in settings_fields()}


def compose() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    return read


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_understands_every_line_of_a_unit(unit: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze, from Debian's package systemd")
    text = (DEPLOY / unit).read_text(encoding="utf-8")
    installed = text.replace("/opt/inkstream/bin/inkstream", sys.executable).replace(
        "User=inkstream", "User=root"
    )
    (tmp_path / unit).write_text(installed, encoding="utf-8")
    answer = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", tmp_path / unit],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (answer.returncode, answer.stderr) == (0, "")


@pytest.mark.parametrize("file", [*UNITS, "compose.yaml", "Dockerfile"])
def test_commands_and_settings_in_a_file_exist(file: str) -> None:
    text = (DEPLOY / file).read_text(encoding="utf-8")
    assert set(re.findall(r"INKSTREAM_[A-Z_]+", text)) - SETTINGS == set()
    called = re.findall(r"bin/inkstream (\w+)", text) + re.findall(r"(?:CMD|command:) \[\"?(\w+)\"?\]", text)
    assert called
    assert set(called) <= {command.name for command in COMMANDS if command.en}


@pytest.fixture(scope="session")
def specification(build: FileLock) -> dict[str, Any]:
    """The Compose specification's schema, from the Python package that carries it."""
    schema = BUILD / "compose_spec.json"
    with build:
        if not schema.exists():
            name = "docker-compose==1.29.2"
            command = ["pip", "download", "--quiet", "--no-deps", "--dest", str(BUILD), name]
            subprocess.run([sys.executable, "-m", *command], check=True)
            (wheel,) = BUILD.glob("docker_compose-*.whl")
            with zipfile.ZipFile(wheel) as archive:
                schema.write_bytes(archive.read("compose/config/compose_spec.json"))
            wheel.unlink()
    found: dict[str, Any] = json.loads(schema.read_bytes())
    return found


@pytest.mark.real
def test_the_compose_file_is_one_by_the_specification(specification: dict[str, Any]) -> None:
    check = Draft201909Validator(specification)
    assert [error.message for error in check.iter_errors(compose())] == []
    wrong = compose()
    wrong["services"]["chat"]["depends_on"]["engine"]["condition"] = "nonsense"
    assert not check.is_valid(wrong)


def test_every_service_of_the_compose_file_comes_back_and_is_looked_after() -> None:
    file = compose()
    for service in file["services"].values():
        assert service["restart"] == "always"
        assert service["healthcheck"]["test"][0] == "CMD"
        assert {name.partition(":")[0] for name in service["volumes"]} <= set(file["volumes"])
        assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


async def test_the_health_check_of_the_chat_tells_a_server_that_answers_from_none(tmp_path: Path) -> None:
    async with serving(tmp_path) as live:
        assert await health(live.port) == 0
    assert await health(free_port("127.0.0.1")) != 0


async def health(port: int) -> int:
    _, *command = compose()["services"]["chat"]["healthcheck"]["test"]
    command = [sys.executable, *(part.replace("8000", str(port)) for part in command[1:])]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    return await process.wait()


@pytest.mark.real
async def test_systemd_hears_when_the_page_answers_and_when_the_server_stops(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        loop = asyncio.get_running_loop()
        arguments = ("serve", "--engine", "scripted", "--port", "0")
        async with inkstream(tmp_path, *arguments, NOTIFY_SOCKET=str(tmp_path / "notify")) as server:
            assert await loop.sock_recv(systemd, 100) == b"READY=1"
            await address_of(server)
            server.send_signal(signal.SIGTERM)
            assert await loop.sock_recv(systemd, 100) == b"STOPPING=1"
            assert await server.wait() == 0
        with pytest.raises(BlockingIOError):
            systemd.recv(100)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract sockets")
def test_systemd_is_found_behind_an_abstract_socket() -> None:
    name = f"inkstream-test-{free_port('127.0.0.1')}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"\0{name}")
        notify("READY=1", {"NOTIFY_SOCKET": f"@{name}"})
        assert systemd.recv(100) == b"READY=1"


def test_a_systemd_that_is_gone_stops_no_server(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "gone")})
    assert "systemd cannot be told READY=1" in caplog.text
