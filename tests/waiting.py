"""Waiting for a condition where nothing rings when it comes true."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LOOK_SECONDS = 0.002


async def until(condition: Callable[[], object], seconds: float = 15) -> None:
    """What happens in another task, thread or process sets no event of ours. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(LOOK_SECONDS)
