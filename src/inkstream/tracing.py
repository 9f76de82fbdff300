"""Traces of runs, sent to an OpenTelemetry collector where the settings name one. See ``otel``."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from inkstream.errors import ConfigError
from inkstream.timeline import Timeline


@asynccontextmanager
async def tracing(url: str) -> AsyncIterator[Callable[[Timeline], None]]:
    """What is to be told each run's timeline. Without a URL nothing is imported, and nothing sent.

    Raises ConfigError where OpenTelemetry is not installed.
    """
    if not url:
        yield lambda _: None
        return
    try:
        otel = await asyncio.to_thread(importlib.import_module, "inkstream.otel")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"INKSTREAM_TRACES is set, but {error.name} is not installed: pip install 'inkstream[otel]'",
            code="otel_missing",
        ) from error
    traces = otel.Traces(url)
    try:
        yield traces.tell
    finally:
        await asyncio.to_thread(traces.close)
