"""The engine process: finds the weights, loads them once, and offers the engine to gateways over the link.

It can be connected to from its first moment, so a gateway sees the download and the loading. An engine that
cannot be had is reported with its reason for as long as the process lives: starting it again would change
nothing. An engine that was ready and is lost takes the process with it: its successor may find all well.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any
from urllib.parse import SplitResult, urlsplit

from inkstream import models
from inkstream.choice import choose
from inkstream.config import Settings
from inkstream.display import Progress
from inkstream.engines import NGRAM, Engine, Phase, Sampling, Status, Weights, create
from inkstream.engines.link import Host
from inkstream.errors import ConfigError, EngineLost, ModelError
from inkstream.words import Words, language

logger = logging.getLogger(__name__)

LISTEN_ATTEMPTS = 20
LISTEN_PAUSE_SECONDS = 0.25
SAMPLED = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


async def offer(settings: Settings, on_listening: Callable[[str], None]) -> None:
    """Offer the engine at ``settings.engine_url`` (port 0: any) until cancelled.

    Raises ConfigError, and EngineLost where an engine that was ready will not come back in this process.
    """
    host = Host(settings.engine_key)
    url = await _listen(host, urlsplit(settings.engine_url or "tcp://127.0.0.1:0"))
    on_listening(url)
    try:
        await _load_and_offer(settings, host)
    except ModelError as error:
        logger.error("%s", error.message)
        host.detach(Status(Phase.GIVEN_UP, code=error.code, message=error.message))
        await asyncio.get_running_loop().create_future()
    finally:
        await host.aclose()


async def _listen(host: Host, url: SplitResult) -> str:
    """Take the port. Somebody else's connection may have got it while no engine lived: that passes."""
    attempts = LISTEN_ATTEMPTS
    while True:
        try:
            return await host.listen(url.hostname or "127.0.0.1", url.port or 0)
        except OSError as error:
            attempts -= 1
            problem = f"the engine cannot listen at {url.geturl()}: {error.strerror}"
            if not attempts:
                raise ConfigError(f"{problem}. Choose another --engine-url.") from error
        logger.warning("%s; trying again", problem)
        await asyncio.sleep(LISTEN_PAUSE_SECONDS)


async def _load_and_offer(settings: Settings, host: Host) -> None:
    say = Words(language(os.environ))
    choice = await asyncio.to_thread(choose, settings, say)
    if choice.warning:
        logger.warning("%s", choice.warning)
    weights, draft, notice = None, None, None
    if choice.engine != "scripted":
        found = await _fetch(settings, choice.form, host, say)
        weights, notice = _weights(found), found.notice
    if choice.engine == "torch" and settings.draft_model not in ("", NGRAM):
        guessing = replace(settings, model=settings.draft_model)
        draft = _weights(await _fetch(guessing, choice.form, host, say))
    if notice:
        logger.warning("%s", say(notice["en"], notice["zh"]))
    host.report(Status(Phase.LOADING))
    async with create(replace(settings, engine=choice.engine), weights, draft) as engine:
        host.attach(engine, notice)
        try:
            await _announce(engine)
            await _until_lost(engine)
        finally:
            # Before the engine closes: it says that it will not come back, and its successor may.
            await host.aclose()


async def _fetch(settings: Settings, form: models.Form, host: Host, say: Words) -> models.Model:
    """Raises ModelError."""
    console = Progress(sys.stderr, say, is_terminal=False)

    def on_progress(download: models.Download) -> None:
        host.report(_downloading(download))
        if settings.log_format == "text":
            console(download)

    return await models.fetch(
        settings.model,
        settings.models_dir,
        on_progress=on_progress,
        offline=settings.offline,
        is_default=settings.is_default_model,
        form=form,
    )


async def _announce(engine: Engine) -> None:
    """Tell the console how loading ended."""
    status = engine.status
    while status.phase not in (Phase.READY, Phase.GIVEN_UP):
        status = await engine.status_after(status)
    if status.phase is Phase.READY:
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


def _weights(model: models.Model) -> Weights:
    recommended: dict[str, Any] = {name: model.sampling[name] for name in SAMPLED if name in model.sampling}
    return Weights(model.path, model.name, model.sha256, Sampling(**recommended))


def _downloading(download: models.Download) -> Status:
    detail = asdict(download)
    return Status(Phase.DOWNLOADING, share=download.share, detail=detail)
