"""The engine process: finds the weights, loads them once, and offers the engine to gateways over the link.

It can be connected to from its first moment, so a gateway sees the download and the loading. An engine that
cannot be had is reported with its reason for as long as the process lives: starting it again would change
nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

from inkstream import models
from inkstream.config import Settings
from inkstream.engines import Phase, Sampling, Status, Weights, create
from inkstream.engines.link import Host
from inkstream.errors import ConfigError, ModelError
from inkstream.words import Words, language

logger = logging.getLogger(__name__)

SAMPLED = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


async def offer(settings: Settings, on_listening: Callable[[str], None]) -> None:
    """Offer the engine at ``settings.engine_url`` (port 0: any) until cancelled. Raises ConfigError."""
    host = Host(settings.engine_key)
    address = urlsplit(settings.engine_url or "tcp://127.0.0.1:0")
    try:
        url = await host.listen(address.hostname or "127.0.0.1", address.port or 0)
    except OSError as error:
        raise ConfigError(f"the engine cannot listen at {settings.engine_url}: {error.strerror}.") from error
    on_listening(url)
    try:
        await _load_and_offer(settings, host)
    except ModelError as error:
        logger.error("%s", error.message)
        host.detach(Status(Phase.GIVEN_UP, code=error.code, message=error.message))
        await asyncio.get_running_loop().create_future()
    finally:
        await host.aclose()


async def _load_and_offer(settings: Settings, host: Host) -> None:
    weights, notice = None, None
    if settings.engine != "scripted":
        found = await models.fetch(
            settings.model,
            settings.data_dir / "models",
            on_progress=lambda download: host.report(_downloading(download)),
            offline=settings.offline,
            is_default=settings.model == Settings().model,
        )
        weights, notice = _weights(found), found.notice
    if notice:
        logger.warning("%s", Words(language(os.environ))(notice["en"], notice["zh"]))
    async with create(settings, weights) as engine:
        host.attach(engine, notice)
        await asyncio.get_running_loop().create_future()


def _weights(model: models.Model) -> Weights:
    recommended: dict[str, Any] = {name: model.sampling[name] for name in SAMPLED if name in model.sampling}
    return Weights(model.path, model.name, model.sha256, Sampling(**recommended))


def _downloading(download: models.Download) -> Status:
    detail = asdict(download)
    return Status(Phase.DOWNLOADING, share=download.share, detail=detail)
