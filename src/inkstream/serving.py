"""What ``inkstream serve`` runs: a gateway and an engine as processes of their own, under one small parent.

All three get the same settings, resolved once and handed down in the environment.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from inkstream.config import Settings, as_environ
from inkstream.console import log_to_console
from inkstream.errors import ConfigError, EngineLost, InkstreamError
from inkstream.probe import free_port
from inkstream.supervisor import Child, Supervisor, control_channel, lifeline

logger = logging.getLogger(__name__)

ENGINE_LOST = 70
"""Exit code, sysexits.h's for a fault in software. The parent starts the engine again."""

STANDALONE_ENGINE_URL = "tcp://127.0.0.1:8001"


def serve(settings: Settings, on_ready: Callable[[str], None]) -> int:
    """Run until a signal and return the exit code. ``on_ready`` is told the page's address, once.

    Raises ConfigError for a data folder that cannot be used.
    """
    log_to_console(settings, "parent")
    joins = bool(settings.engine_url)
    settings = replace(
        settings,
        # Any free port will do, but a process that is started again must be found where it was.
        port=settings.port or free_port(settings.host),
        engine_url=settings.engine_url or f"tcp://127.0.0.1:{free_port('127.0.0.1')}",
        engine_key=engine_key(settings),
    )
    supervisor = Supervisor(
        _child("gateway", settings),
        None if joins else _child("engine", settings),
        on_ready=on_ready,
    )
    return asyncio.run(supervisor.run())


def run_gateway(settings: Settings) -> int:
    # Late: the parent and the engine have no use for a web framework.
    from inkstream.gateway import Gateway  # noqa: PLC0415

    log_to_console(settings, "gateway")
    tell = control_channel()
    gateway = Gateway(settings, tell)

    async def work() -> None:
        loop = asyncio.get_running_loop()

        def hear(message: dict[str, Any]) -> None:
            loop.call_soon_threadsafe(gateway.hear, message)

        def end() -> None:
            loop.call_soon_threadsafe(gateway.stop)

        lifeline(hear, end)
        _on_signals(gateway.stop)
        await gateway.serve()

    return _run_child(work(), tell)


def run_engine(settings: Settings, *, is_child: bool) -> int:
    """Offer the engine until a signal, or until the parent is gone."""
    from inkstream.engine_process import offer  # noqa: PLC0415

    log_to_console(settings, "engine")
    settings = replace(
        settings, engine_url=settings.engine_url or STANDALONE_ENGINE_URL, engine_key=engine_key(settings)
    )
    tell = control_channel() if is_child else _ignore

    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        if is_child:
            lifeline(_ignore)
        _on_signals(task.cancel)
        try:
            await offer(settings, lambda url: logger.info("the engine listens at %s", url))
        except EngineLost as error:
            logger.critical("%s", error.message)
            # No clean-up: on a device that has failed it may never return.
            os._exit(ENGINE_LOST)

    return _run_child(work(), tell)


def _run_child(work: Coroutine[Any, Any, None], tell: Callable[[dict[str, Any]], None]) -> int:
    """Run to the end. Why a child cannot run is told to the parent before it is raised."""
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(work)
    except asyncio.CancelledError:
        return 0
    except InkstreamError as error:
        tell({"failed": {"code": error.code, "message": error.message}})
        raise
    return 0


def engine_key(settings: Settings) -> str:
    """The secret between gateway and engine: the given one, else one that is kept in the data folder.

    Raises ConfigError.
    """
    if settings.engine_key:
        return settings.engine_key
    path = settings.data_dir / "engine.key"
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        return _kept(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be used: {error.strerror}. Choose another --data-dir.") from error


def _kept(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text(encoding="ascii")
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_urlsafe(32))
    return path.read_text(encoding="ascii")


def _child(command: str, settings: Settings) -> Child:
    argv = [sys.executable, "-m", "inkstream", command, "--child"]
    # Bars that libraries draw, each step a line where stderr is no terminal, say what the status says.
    quiet = {"TQDM_DISABLE": "1"}
    return Child(command, argv, {**os.environ, **quiet, **as_environ(settings)})


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415  # there is none for Windows
    except ImportError:
        return None
    return uvloop.new_event_loop


def _on_signals(stop: Callable[[], object]) -> None:
    if sys.platform == "win32":
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)


def _ignore(_message: dict[str, Any]) -> None:
    pass
