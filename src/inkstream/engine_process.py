"""The engine process: finds the weights, loads them once, and offers the engine to gateways over the link.

It can be connected to from its first moment, so a gateway sees the download and the loading. An engine that
cannot be had is reported with its reason for as long as the process lives: starting it again would change
nothing. An engine that was ready and is lost takes the process with it: its successor may find all well.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from urllib.parse import urlsplit

from inkstream import collector
from inkstream.config import Settings
from inkstream.engines import Engine, Phase, Status, create
from inkstream.engines.link import Host
from inkstream.errors import ConfigError, EngineLost, ModelError
from inkstream.models import Download
from inkstream.provision import provide
from inkstream.words import Words, language

logger = logging.getLogger(__name__)

LISTEN_ATTEMPTS = 20
LISTEN_PAUSE_SECONDS = 0.25


async def offer(settings: Settings, on_listening: Callable[[str], None]) -> None:
    """Offer the engine at ``settings.engine_url`` (port 0: any) until cancelled.

    Raises ConfigError, and EngineLost where an engine that was ready will not come back in this process.
    """
    host = Host(settings.engine_key)
    on_listening(await _listen(host, *_address(settings.engine_url or "tcp://127.0.0.1:0")))
    try:
        await _load_and_offer(settings, host)
    except ModelError as error:
        logger.error("%s", error.message)
        host.detach(Status(Phase.GIVEN_UP, code=error.code, message=error.message))
        await asyncio.get_running_loop().create_future()
    finally:
        await host.aclose()


def _address(url: str) -> tuple[str, int]:
    """Raises ConfigError."""
    with suppress(ValueError):  # a port that is none
        parts = urlsplit(url)
        if parts.scheme == "tcp" and parts.hostname and parts.port is not None:
            return parts.hostname, parts.port
    raise ConfigError(f"engine URL {url!r} is not of the form tcp://ADDRESS:PORT.")


async def _listen(host: Host, address: str, port: int) -> str:
    """Take the port. Somebody else's connection may have got it while no engine lived: that passes."""
    attempts = LISTEN_ATTEMPTS
    while True:
        try:
            return await host.listen(address, port)
        except OSError as error:
            attempts -= 1
            problem = f"the engine cannot listen at tcp://{address}:{port}: {error.strerror}"
            if not attempts:
                raise ConfigError(f"{problem}. Choose another --engine-url.") from error
        logger.warning("%s; trying again", problem)
        await asyncio.sleep(LISTEN_PAUSE_SECONDS)


async def _load_and_offer(settings: Settings, host: Host) -> None:
    say = Words(language(os.environ))
    found = await provide(settings, say, lambda download: host.report(_downloading(download)))
    if notice := found.notice:
        logger.warning("%s", say(notice["en"], notice["zh"]))
    host.report(Status(Phase.LOADING))
    settings = replace(settings, engine=found.engine)
    async with create(settings, found.weights, found.draft_weights) as engine:
        host.attach(engine, notice)
        try:
            await _announce(engine)
            await _until_lost(engine)
        finally:
            # Before the engine closes: it says that it will not come back, and its successor may.
            await host.aclose()


async def _announce(engine: Engine) -> None:
    """Tell the console how loading ended."""
    status = engine.status
    while status.phase not in (Phase.READY, Phase.GIVEN_UP):
        status = await engine.status_after(status)
    if status.phase is Phase.READY:
        gc.collect()  # what loading has left over would stay as well
        collector.settle()
        logger.info("%s is loaded and answers", engine.describe().model)
    else:
        logger.error("%s", status.message)


async def _until_lost(engine: Engine) -> None:
    """Raises EngineLost. An engine that was never ready is not lost: then this waits for ever."""
    status = engine.status
    if status.phase is Phase.GIVEN_UP:
        await asyncio.get_running_loop().create_future()
    while status.phase is not Phase.GIVEN_UP:
        status = await engine.status_after(status)
    raise EngineLost(status.message or "The engine is lost.")


def _downloading(download: Download) -> Status:
    detail = asdict(download)
    return Status(Phase.DOWNLOADING, share=download.share, detail=detail)
