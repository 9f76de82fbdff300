"""What ``inkstream serve`` runs: a gateway and an engine as processes of their own, under one small parent.

All three get the same settings, resolved once and handed down in the environment.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from inkstream import collector
from inkstream.config import Settings
from inkstream.console import log_to_console
from inkstream.errors import ConfigError, EngineLost, InkstreamError
from inkstream.probe import free_port
from inkstream.supervised import child
from inkstream.supervisor import Supervisor, control_channel, lifeline
from inkstream.words import Words, language

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

    def ready(address: str) -> None:
        notify("READY=1")
        on_ready(address)

    supervisor = Supervisor(
        child("gateway", settings, *([] if joins else ["--has-engine"])),
        None if joins else child("engine", settings),
        on_ready=ready,
        on_stop=lambda: notify("STOPPING=1"),
    )
    return asyncio.run(supervisor.run())


def run_gateway(settings: Settings, *, has_engine: bool) -> int:
    # Late: the parent and the engine have no use for a web framework.
    from inkstream.gateway import Gateway  # noqa: PLC0415

    log_to_console(settings, "gateway")
    collector.settle()  # modules and classes stay
    tell = control_channel()
    gateway = Gateway(settings, tell, has_engine=has_engine)

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

    def listening(url: str) -> None:
        logger.info("the engine listens at %s", url)
        if not is_child:
            notify("READY=1")

    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        if is_child:
            lifeline(_ignore)
        _on_signals(task.cancel)
        try:
            await offer(settings, listening)
        except EngineLost as error:
            logger.critical("%s", error.message)
            # No clean-up: on a device that has failed it may never return.
            os._exit(ENGINE_LOST)

    return _run_child(work(), tell)


def run_fetch(settings: Settings) -> int:
    """Have the model of the settings on this disk, and tell the parent how that goes."""
    from inkstream.provision import provide, require_loadable  # noqa: PLC0415

    log_to_console(settings, "fetch")
    tell = control_channel()
    say = Words(language(os.environ))

    async def work() -> None:
        lifeline(_ignore)
        found = await provide(settings, say, lambda each: tell({"download": asdict(each)}), is_wished=True)
        await require_loadable(settings, found)

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
    with FileLock(path.with_suffix(".lock")):  # an engine and a gateway may be started at the same moment
        if not path.exists():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(secrets.token_urlsafe(32))
        return path.read_text(encoding="ascii")


def notify(state: str, environ: Mapping[str, str] = os.environ) -> None:
    """Tell systemd, where it has started this process and waits for that. See sd_notify(3)."""
    address = environ.get("NOTIFY_SOCKET")
    if not address:
        return
    # A leading @ stands for the zero byte of an abstract socket.
    address = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect(address)
            sock.sendall(state.encode())
    except OSError as error:
        logger.warning("systemd cannot be told %s: %s", state, error)


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
