"""The engine process takes its port. What it offers there is tested with the link and the engines."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from inkstream import engine_process
from inkstream.config import Settings
from inkstream.engine_process import offer
from inkstream.errors import ConfigError


def scripted(folder: Path, port: int) -> Settings:
    url = f"tcp://127.0.0.1:{port}"
    return Settings(data_dir=folder, engine="scripted", engine_url=url, engine_key="key")


async def test_a_port_that_is_taken_for_a_moment_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listening = asyncio.get_running_loop().create_future()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        offering = asyncio.create_task(offer(scripted(tmp_path, port), listening.set_result))
        while "trying again" not in caplog.text:  # noqa: ASYNC110  # nothing rings when it is logged
            await asyncio.sleep(0.01)
    assert await listening == f"tcp://127.0.0.1:{port}"
    offering.cancel()
    await asyncio.gather(offering, return_exceptions=True)


async def test_a_port_that_stays_taken_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_process, "LISTEN_PAUSE_SECONDS", 0)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port}.*--engine-url"):
            await offer(scripted(tmp_path, port), lambda _: None)
