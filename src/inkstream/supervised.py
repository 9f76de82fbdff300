"""The engine that our parent keeps, and how another takes its place. See ``switching.Exchange``.

What is fetched is fetched by a process of its own: a download, its checksum and the question which engine to
take would all hold up the streams of a gateway.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from inkstream import chosen
from inkstream.config import Settings, as_environ, env_name
from inkstream.engines import Phase, Status
from inkstream.engines.link import LinkEngine
from inkstream.errors import EngineFailed, EngineLost, ModelError
from inkstream.supervisor import GRACE_SECONDS, Child, Keeper, ending


class Supervised:
    """``tell`` reaches the parent, and what the parent says of its engine comes in by ``hear``."""

    def __init__(self, settings: Settings, link: LinkEngine, tell: Callable[[dict[str, Any]], None]) -> None:
        self._settings, self._link, self._tell = settings, link, tell
        self._replaced: asyncio.Future[None] | None = None
        self._death: asyncio.Future[EngineLost] | None = None  # there is one while an engine is on trial
        left = chosen.read(settings.data_dir)
        # An engine that a dead gateway was trying: no answer may meet it before the other is restored.
        self._is_covered = left is not None and left.trying != ""
        if self._is_covered:
            self._cover()

    def hear(self, word: dict[str, Any]) -> None:
        phase = word.get("phase")
        if phase == "replaced":
            if self._replaced is not None and not self._replaced.done():
                self._replaced.set_result(None)
            return
        if self._death is not None:
            if not self._death.done():
                self._death.set_result(EngineLost(word["message"], code=word["code"]))
        elif self._is_covered:
            pass  # it is about an engine that is being replaced
        elif phase == Phase.GIVEN_UP:
            self._link.show(Status(Phase.GIVEN_UP, code=word.get("code"), message=word.get("message")))
        else:
            self._link.resume()

    async def fetch(self, model: str, on_progress: Callable[[dict[str, Any]], None]) -> None:
        def on_message(message: dict[str, Any]) -> None:
            if "download" in message:
                on_progress(message["download"])

        keeper = Keeper(child("fetch", replace(self._settings, model=model)), on_message)
        try:
            code = await keeper.live()
        finally:
            await keeper.stop(GRACE_SECONDS)
        if code != 0:
            why = keeper.own_word or {"code": "fetch_failed", "message": f"Fetching it {ending(code)}."}
            raise ModelError(why["message"], code=why["code"])

    async def load(self, model: str, on_progress: Callable[[Status], None]) -> None:
        await self._replace(model)
        self._death = asyncio.get_running_loop().create_future()
        try:
            await self._until_ready(self._death, on_progress)
        finally:
            self._death = None
        self._uncover()

    async def restore(self, model: str) -> None:
        await self._replace(model)
        self._uncover()

    def _cover(self) -> None:
        """Everybody sees an engine that loads, whatever becomes of the one that is there."""
        self._is_covered = True
        self._link.show(Status(Phase.LOADING))

    def _uncover(self) -> None:
        self._is_covered = False
        self._link.resume()

    async def _replace(self, model: str) -> None:
        self._cover()
        self._replaced = asyncio.get_running_loop().create_future()
        self._tell({"replace": {env_name("model"): model}})
        await self._replaced
        await self._link.reconnect()

    async def _until_ready(
        self, death: asyncio.Future[EngineLost], on_progress: Callable[[Status], None]
    ) -> None:
        """Raises EngineLost, EngineFailed."""
        status = self._link.reported
        while status.phase is not Phase.READY:
            if death.done():
                raise death.result()
            if status.phase is Phase.GIVEN_UP:
                raise EngineFailed(status.message or "the engine does not load", code=status.code)
            shown = replace(status, phase=Phase.LOADING)
            self._link.show(shown)
            on_progress(shown)
            status = await self._next_report(status, death)

    async def _next_report(self, seen: Status, death: asyncio.Future[EngineLost]) -> Status:
        """What is reported next; the same again if the engine dies first."""
        following = asyncio.ensure_future(self._link.reported_after(seen))
        both: list[asyncio.Future[Any]] = [following, death]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            return following.result() if following.done() else seen
        finally:
            following.cancel()


def child(command: str, settings: Settings, *arguments: str) -> Child:
    """A process of ours that gets these settings."""
    argv = [sys.executable, "-m", "inkstream", command, "--child", *arguments]
    # Bars that libraries draw, each step a line where stderr is no terminal, say what the status says.
    quiet = {"TQDM_DISABLE": "1"}
    return Child(command, argv, {**os.environ, **quiet, **as_environ(settings)})
