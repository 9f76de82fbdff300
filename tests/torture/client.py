"""Calls to a server that may die at any moment: repeated until they are answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

import httpx

RETRY_SECONDS = 0.05
CALL_SECONDS = 10.0
HOPELESS = (400, 404, 405, 413, 422)


class Client:
    """``async with Client(...)``. Replies that nobody should get go to ``blame``."""

    def __init__(self, port: int, blame: Callable[[str], None]) -> None:
        limits = httpx.Limits(max_connections=None)
        self._http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=CALL_SECONDS, limits=limits
        )
        self._blame = blame
        self.repeats = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def call(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        key: str | None = None,
        hurry_seconds: float | None = None,
    ) -> dict[str, Any]:
        """The JSON of the reply. With ``hurry_seconds`` the first attempt is hung up on after that time.

        Raises RuntimeError for a reply that asking again cannot change.
        """
        headers = {"Idempotency-Key": key} if key else {}
        while True:
            with suppress(httpx.TransportError, TimeoutError):
                async with asyncio.timeout(hurry_seconds):
                    response = await self._http.request(method, path, json=body, headers=headers)
                if response.is_success:
                    reply: dict[str, Any] = response.json()
                    return reply
                said = f"{method} {path} was answered {response.status_code}: {response.text[:200]}"
                if response.status_code in HOPELESS:
                    raise RuntimeError(said)
                if "shutting_down" not in said:
                    self._blame(said)
                await asyncio.sleep(1)
            self.repeats += 1
            hurry_seconds = None
            await asyncio.sleep(RETRY_SECONDS)
