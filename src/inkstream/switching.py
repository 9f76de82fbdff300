"""The model is exchanged while the server runs: fetched, waited for, loaded, or all is as it was.

One straight story, told to everybody while it happens. Up to the moment in which the new engine is ready,
the model before is the one to come back to, whatever fails or dies: what has been chosen is written down
then, and that an engine is being tried is written down before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol, Self

from inkstream import chosen
from inkstream.chosen import Chosen
from inkstream.config import Settings
from inkstream.engines import Phase, Status
from inkstream.errors import Conflict, EngineLost, InkstreamError
from inkstream.news import News
from inkstream.runs import Runs

logger = logging.getLogger(__name__)


class Stage(StrEnum):
    FETCHING = "fetching"  # it is looked for, and downloaded; the present model answers
    WAITING = "waiting"  # answers that are being written are finished; new questions wait
    LOADING = "loading"  # the new engine starts
    RETURNING = "returning"  # it has failed, and the one before starts again
    FAILED = "failed"  # the model before answers; ``code`` and ``message`` say why


@dataclass(frozen=True, slots=True)
class Switch:
    """``share`` is 0…1 of the present stage where known, ``detail`` that of a download or of loading.

    ``answers`` is how many are waited for.
    """

    model: str
    stage: Stage
    share: float | None = None
    detail: dict[str, Any] = field(default_factory=dict)
    answers: int = 0
    code: str | None = None
    message: str | None = None


class Exchange(Protocol):
    """Who can put another engine in the place of the present one."""

    async def fetch(self, model: str, on_progress: Callable[[dict[str, Any]], None]) -> None:
        """Have the model on this disk, whole and likely to load. ``on_progress`` is given downloads.

        Raises ModelError, ConfigError.
        """
        ...

    async def load(self, model: str, on_progress: Callable[[Status], None]) -> None:
        """Put an engine with this model in the place of the present one; returns when it is ready.

        Until then everybody sees an engine that loads, and if this raises, until another call.
        Raises EngineLost, EngineFailed.
        """
        ...

    async def restore(self, model: str) -> None:
        """Put an engine with this model there, whatever becomes of it; returns when the other one is gone."""
        ...


class Switching:
    """``model`` is the one that answers, or is to, by the name under which it was asked for."""

    def __init__(self, settings: Settings, runs: Runs, news: News, exchange: Exchange | None) -> None:
        """Without an ``exchange`` there is nothing to switch: the engine is not ours."""
        self._folder = settings.data_dir
        self._runs, self._news, self._exchange = runs, news, exchange
        self._chosen = chosen.read(self._folder) if exchange else None
        self._configured = settings.model
        self._switch: Switch | None = None
        self._task: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls, settings: Settings, runs: Runs, news: News, exchange: Exchange | None
    ) -> AsyncIterator[Self]:
        """What a gateway that died has left half done is undone while the block runs."""
        switching = cls(settings, runs, news, exchange)
        if exchange is not None and switching._chosen is not None and switching._chosen.trying:
            left = switching._chosen
            switching._begin(left.trying, switching._undo(exchange, left))
        try:
            yield switching
        finally:
            await switching._end()

    @property
    def model(self) -> str:
        return self._chosen.model if self._chosen else self._configured

    @property
    def switch(self) -> Switch | None:
        """What is going on, or why the last one failed; None where all is well."""
        return self._switch

    @property
    def is_possible(self) -> bool:
        return self._exchange is not None

    @property
    def is_under_way(self) -> bool:
        return self._task is not None and not self._task.done()

    def begin(self, model: str, *, now: bool = False) -> bool:
        """Switch to the model. False if it answers already.

        Answers that are being written are finished first, or with ``now`` cut: what they have is kept.
        Raises Conflict ``engine_apart``, ``switch_under_way``.
        """
        if self._exchange is None:
            raise Conflict(
                "the engine runs apart from this server: start it again with another --model.",
                code="engine_apart",
            )
        if self.is_under_way:
            other = self._switch.model if self._switch else self.model
            raise Conflict(f"a switch to {other!r} is under way.", code="switch_under_way")
        if model == self.model and self._answers():
            self._say(None)
            return False
        self._say(Switch(model, Stage.FETCHING))
        self._begin(model, self._switch_to(self._exchange, model, now=now))
        return True

    def _answers(self) -> bool:
        """The model itself does, no stand-in, as far as it is known."""
        status = self._runs.engine.status
        return status.phase is not Phase.GIVEN_UP and "notice" not in status.detail

    async def call_off(self) -> None:
        """All is as it was, while that is possible: what has been downloaded is kept for another time.

        Raises Conflict ``no_switch``, and ``too_late`` once the engine is being replaced.
        """
        if self._task is None or not self.is_under_way:
            raise Conflict("no switch is under way.", code="no_switch")
        if self._switch is None or self._switch.stage not in (Stage.FETCHING, Stage.WAITING):
            raise Conflict("the engine is being replaced: switch again when it is ready.", code="too_late")
        await self._end()
        self._say(None)

    async def _switch_to(self, exchange: Exchange, model: str, *, now: bool) -> None:
        await exchange.fetch(model, lambda download: self._tell_download(model, download))
        with self._runs.admission.held():
            if not now:
                await self._wait_for_answers(model)
            await self._load(exchange, model)
        logger.info("switched to %s", model)
        self._say(None)

    async def _wait_for_answers(self, model: str) -> None:
        admission = self._runs.admission
        while admission.inside:
            self._say(Switch(model, Stage.WAITING, answers=admission.inside))
            await admission.somebody_left()

    async def _load(self, exchange: Exchange, model: str) -> None:
        before = self._chosen or Chosen(self.model, self._configured)
        self._say(Switch(model, Stage.LOADING))
        await self._keep(replace(before, trying=model))
        try:
            await exchange.load(model, lambda status: self._tell_loading(model, status))
            await self._keep(replace(before, model=model))
        except Exception:
            await self._return(exchange, before, Switch(model, Stage.RETURNING))
            raise

    async def _undo(self, exchange: Exchange, before: Chosen) -> None:
        """The gateway has died while ``before.trying`` was loading."""
        await self._return(exchange, before, Switch(before.trying, Stage.RETURNING))
        raise EngineLost(
            "The server was restarted while the model was loading. The one before is back.",
            code="switch_interrupted",
        )

    async def _return(self, exchange: Exchange, before: Chosen, switch: Switch) -> None:
        """Nobody is told that it is over before the engine has come back, or cannot."""
        self._say(switch)
        await exchange.restore(before.model)
        await self._keep(replace(before, trying=""))
        status = self._runs.engine.status
        while status.phase not in (Phase.READY, Phase.GIVEN_UP):
            status = await self._runs.engine.status_after(status)

    async def _keep(self, now: Chosen) -> None:
        await asyncio.to_thread(chosen.write, self._folder, now)
        self._chosen = now

    def _tell_download(self, model: str, download: dict[str, Any]) -> None:
        self._say(Switch(model, Stage.FETCHING, share=download.get("share"), detail=download))

    def _tell_loading(self, model: str, status: Status) -> None:
        # Everybody is about to be told of that status, and of this with it.
        self._switch = Switch(model, Stage.LOADING, share=status.share, detail=status.detail)

    def _say(self, switch: Switch | None) -> None:
        self._switch = switch
        self._news.tell(self._runs.engine.status)

    def _begin(self, model: str, work: Coroutine[Any, Any, None]) -> None:
        self._task = asyncio.get_running_loop().create_task(self._to_its_end(model, work))

    async def _to_its_end(self, model: str, work: Coroutine[Any, Any, None]) -> None:
        """Whatever goes wrong is told."""
        try:
            await work
        except InkstreamError as error:
            logger.warning("no switch to %s: %s", model, error.message)
            self._say(Switch(model, Stage.FAILED, code=error.code, message=error.message))
        except Exception:
            logger.exception("the switch to %s failed", model)
            message = "Something went wrong in the server. Its console says what."
            self._say(Switch(model, Stage.FAILED, code="internal", message=message))

    async def _end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
