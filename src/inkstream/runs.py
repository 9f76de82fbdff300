"""The life of every run: started once, driven until it ends, followed by anybody, recovered after a death.

Runs belong to nobody's connection. What a request does is start one, follow one, or stop one; the drives
live here, in one task group, until the process ends. This is the log's only writer.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Self

from inkstream.admission import Admission
from inkstream.ask import Ask, Pin, decode_pin, emitted_by
from inkstream.chronicle import close_unreadable, fail_unreadable, message_of, write_down
from inkstream.clock import WallClock
from inkstream.config import Settings
from inkstream.conversation import Told
from inkstream.drafts import STOPPED, failed
from inkstream.drive import Drive, Surroundings
from inkstream.engines import Emitted, Engine, Phase, Status
from inkstream.errors import (
    Conflict,
    EngineLost,
    Expired,
    Fenced,
    LogError,
    NotFound,
    Unreadable,
)
from inkstream.events import Cursor, Parts, fold
from inkstream.history import History, Message
from inkstream.limits import Quotas
from inkstream.log import Log, NewRun, Reader, Run
from inkstream.news import Listener, News
from inkstream.pinning import events_of, require_engine, require_possible, told_at_once, used_tokens
from inkstream.tallies import RunTally
from inkstream.tasks import Tasks

logger = logging.getLogger(__name__)

RENEW_SECONDS = 3.0
BEATS_PER_ROUND = 10
EXPIRE_ROWS = 64
FIRST_READER_SECONDS = 10.0  # how long a run that dies with its reader waits for the first one
STOP_WAIT_SECONDS = 2.0

UNREACHABLE = Status(
    Phase.GIVEN_UP,
    code="engine_unreachable",
    message="No engine has answered for too long. `inkstream doctor` says what is wrong.",
)


class Runs:
    """``async with Runs.open(...)``: recovers what a dead process left, and ends no run when it closes."""

    def __init__(
        self,
        log: Log,
        history: History,
        engine: Engine,
        settings: Settings,
        news: News,
        on_progress: Callable[[], None],
        tally: RunTally,
    ) -> None:
        self.engine = engine
        self.history = history
        self.admission = Admission(settings.queue)
        self._quotas = Quotas(settings.user_runs, settings.user_tokens)
        self._log = log
        self._settings = settings
        self._news = news
        self._clock = WallClock()
        self._tally = tally
        self._around = Surroundings(log, engine, self.admission, on_progress, tally)
        self._drives: dict[str, Drive] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._tasks = Tasks(logger)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        log: Log,
        history: History,
        engine: Engine,
        settings: Settings,
        news: News,
        on_progress: Callable[[], None] = lambda: None,
        tally: RunTally | None = None,
    ) -> AsyncIterator[Self]:
        runs = cls(log, history, engine, settings, news, on_progress, tally or RunTally())
        try:
            await runs.recover("restart")
            runs._tasks.spawn(runs._watch_engine())
            runs._tasks.spawn(runs._keep_house())
            yield runs
        finally:
            for timer in runs._timers.values():
                timer.cancel()
            await runs._tasks.cancel_all()

    # Starting

    async def start(self, principal: str, ask: Ask, key: str | None = None, body_hash: bytes = b"") -> Run:
        """Create the run, or return the one that was created with ``key`` and the same ``body_hash``.

        Raises Invalid (nothing was created), KeyReused, Overloaded, LimitReached, LogUnwritable.
        """
        new = NewRun(uuid.uuid4().hex, principal, ask.encode(), key, body_hash)
        if key is not None and await self._log.find(principal, key) is not None:
            return (await self._log.create(new))[0]
        require_engine(self.engine)
        self.admission.require_room(self._quotas.present, self._quotas.of(principal))
        require_possible(self.engine, ask)
        with self._quotas.beginning(principal):
            known = await told_at_once(self.engine, ask)
            run, is_new = await self._log.create(new)
        if is_new:  # nothing is awaited in between: it counts as a run from here on
            self._start_driving(run, ask, known)
            await write_down(self.history, run, ask)
        return run

    # Driving

    def _start_driving(self, run: Run, ask: Ask, known: Told | None = None) -> None:
        drive = Drive(run, ask, self._around, known)
        self._drives[run.id] = drive
        self._tally.begin(drive.timeline)
        self._quotas.begin(run.principal)
        if ask.linger_seconds is not None:
            self._arm(drive, max(ask.linger_seconds, FIRST_READER_SECONDS))
        drive.task = self._tasks.spawn(self._drive(drive))
        self._news.tell(run)

    async def _drive(self, drive: Drive) -> None:
        try:
            if await drive.until_ended():
                await self._conclude(drive.id)
        except LogError as error:  # recovery takes it up again
            logger.error("run %s: %s", drive.id, error.message, extra={"run": drive.id})
        finally:
            self._disarm(drive)
            del self._drives[drive.id]
            self._quotas.end(drive.principal, drive.timeline.age_seconds)
            self._tally.leave(drive.timeline)

    async def _conclude(self, run_id: str) -> None:
        """After the terminal event: the message, then the run is settled."""
        run = await self._log.get(run_id)
        if run is None:
            return
        try:
            await self._tell_history(run)
        except Unreadable as error:
            logger.error("run %s: %s", run_id, error.message, extra={"run": run_id})
            await close_unreadable(self._log, self.history, run)
        await self._log.settle(run_id)
        self._news.tell(run)

    async def _tell_history(self, run: Run) -> None:
        ask = Ask.decode(run.record)
        if ask.answer is not None:
            # The question too: the process that created the run may have died before it was written down.
            asked = [ask.question] if ask.question else []
            await self.history.upsert(*asked, await message_of(self._log, run, ask.answer))
        if self._quotas.counts_tokens:
            self._quotas.charge(run.principal, await used_tokens(self._log, run))

    # Reading

    async def get(self, principal: str, run_id: str) -> Run:
        """Raises NotFound, or Expired for a run whose message is still stored."""
        run = await self._log.get(run_id)
        if run is not None and run.principal == principal:
            return run
        if run is None:
            with contextlib.suppress(NotFound):
                message = await self.history.message_of_run(principal, run_id)
                raise Expired(
                    f"the events of run {run_id!r} have expired; its message is kept.",
                    message_path=f"/api/messages/{message.id}",
                )
        raise NotFound(f"there is no run {run_id!r}.", code="unknown_run")

    async def find(self, principal: str, key: str) -> Run | None:
        """The run that was started with this idempotency key."""
        return await self._log.find(principal, key)

    async def left_by(self, principal: str, run_id: str | None) -> tuple[Pin | None, Emitted | None]:
        """What an ended run leaves to one that continues it; Nones where its events have expired."""
        run = await self._log.get(run_id) if run_id else None
        if run is None or run.principal != principal:
            return None, None
        events = await events_of(self._log, run)
        ask = Ask.decode(run.record)
        pin = decode_pin(events[0].seam) if events else None
        return pin or ask.pin, emitted_by(events, ask.prefix)

    async def fold(self, principal: str, message: Message) -> Message:
        """A message of a living run with what the log holds by now; any other as it is."""
        if message.run is None or message.state.is_terminal:
            return message
        run = await self._log.get(message.run)
        if run is None or run.principal != principal:
            return message
        answer = Ask.decode(run.record).answer
        return await message_of(self._log, run, answer) if answer else message

    async def as_begun(self, run: Run, answer: Message) -> Message:
        """The message of a run as of the moment when ``start`` found it."""
        return await message_of(self._log, run, answer)

    async def text(self, principal: str, run_id: str) -> Parts:
        """All parts that the run itself has written."""
        run = await self.get(principal, run_id)
        return fold(await events_of(self._log, run))

    async def require_cursor(self, run: Run, cursor: Cursor) -> None:
        """Raises Conflict ``reset`` where the log has no such event."""
        if cursor.seq == 0:
            return
        found = await self._log.read(run.id, cursor.seq - 1, 1)
        if not found or (cursor.epoch is not None and found[0].epoch != cursor.epoch):
            raise Conflict(
                f"run {run.id!r} has no event {cursor.seq} of that epoch. Read it from the start.",
                code="reset",
            )

    async def follow(
        self, principal: str, run_id: str, after: int, reader: Reader, *, waits: bool = True
    ) -> None:
        """See ``Log.follow``. Until this returns the run has a reader. Raises NotFound, Expired."""
        drive = self._drives.get(run_id)
        if drive is not None and drive.principal != principal:
            drive = None
        if drive is not None:  # before anything is awaited: a reader that leaves at once has been one
            drive.timeline.readers += 1
            self._disarm(drive)
        try:
            if drive is None:
                await self.get(principal, run_id)
            await self._log.follow(run_id, after, reader, waits=waits)
        finally:
            if drive is not None:
                drive.timeline.readers -= 1
                if drive.timeline.readers == 0 and drive.linger_seconds is not None:
                    self._arm(drive, drive.linger_seconds)

    # Stopping

    async def stop(self, principal: str, run_id: str) -> Run:
        """Ask for the end of a run. Durable when this returns, and as a rule the run has ended by then."""
        run = await self.get(principal, run_id)
        run = await self._log.request_stop(run.id)
        drive = self._drives.get(run_id)
        if drive is None or run.state.is_terminal:
            return run
        self._tally.stops["asked"] += 1
        drive.end_with(STOPPED)
        await asyncio.wait([drive.task], timeout=STOP_WAIT_SECONDS)
        return await self.get(principal, run_id)

    def _arm(self, drive: Drive, seconds: float) -> None:
        if drive.id in self._drives:
            loop = asyncio.get_running_loop()
            self._timers[drive.id] = loop.call_later(seconds, self._end_unread, drive)

    def _end_unread(self, drive: Drive) -> None:
        self._tally.stops["unread"] += 1
        drive.end_with(STOPPED)

    def _disarm(self, drive: Drive) -> None:
        if timer := self._timers.pop(drive.id, None):
            timer.cancel()

    # Looking after everything

    async def recover(self, why: str = "abandoned") -> None:
        """Take up every run that nobody drives: conclude what has ended, go on with the rest."""
        # Asked twice: a run may have been created, or its drive begun, since the log looked.
        left = [run for run in await self._log.open_runs(but=self._drives) if run.id not in self._drives]
        for run in left:
            if run.state.is_terminal:
                await self._conclude(run.id)
            else:
                await self._take_up(run, why)

    async def _take_up(self, run: Run, why: str) -> None:
        try:
            ask = Ask.decode(run.record)
        except Unreadable as error:
            logger.error("run %s: %s", run.id, error.message, extra={"run": run.id})
            with contextlib.suppress(Fenced):  # then it is somebody else's
                await fail_unreadable(self._log, run, error)
                await self._conclude(run.id)
            return
        await write_down(self.history, run, ask)
        self._tally.takeovers[why] += 1
        self._start_driving(run, ask)
        if run.stop_requested or ask.linger_seconds == 0:
            self._drives[run.id].end_with(STOPPED)

    async def _keep_house(self) -> None:
        """Renew the lease; now and then take up what was left and forget what is old, in small slices."""
        for beat in itertools.count(1):
            await asyncio.sleep(RENEW_SECONDS)
            try:
                await self._log.renew()
                if beat % BEATS_PER_ROUND == 0:
                    await self.recover()
                    await self._forget_old()
            except LogError as error:
                logger.error("%s", error.message)
            except Exception:
                logger.exception("the housekeeping failed")  # and is tried again: the lease hangs on it

    async def _forget_old(self) -> None:
        now = self._clock.now()
        if now is None:
            return
        while await self._log.expire(now - self._settings.retention_hours * 3600, EXPIRE_ROWS):
            pass
        await self.history.purge(now - self._settings.undo_hours * 3600)

    async def _watch_engine(self) -> None:
        """Open the gate while the engine is ready; tell those who wait what it is doing."""
        status = self.engine.status
        while True:
            self.admission.set_slots(self._slots(status))
            payload = asdict(status)
            for drive in list(self._drives.values()):
                drive.note("engine", payload)
            self._news.tell(status)
            if status.phase is Phase.GIVEN_UP:
                self._fail_all(status)
            was_ready = status.phase is Phase.READY
            status = await self._next_status(status)
            self._tally.engine_losses += was_ready and status.phase is not Phase.READY

    def _slots(self, status: Status) -> int:
        try:
            return self.engine.describe().slots if status.phase is Phase.READY else 0
        except EngineLost:  # since that status; the next one is on its way
            return 0

    async def _next_status(self, seen: Status) -> Status:
        """The engine's next status. While it answers nobody, nobody waits for it longer than the limit."""
        while True:
            limit = self._settings.engine_wait_seconds if seen.phase is Phase.CONNECTING else None
            try:
                async with asyncio.timeout(limit):
                    return await self.engine.status_after(seen)
            except TimeoutError:
                self._fail_all(UNREACHABLE)

    def _fail_all(self, status: Status) -> None:
        why = status.code or "engine_given_up", status.message or "The engine has been given up."
        for drive in list(self._drives.values()):
            drive.end_with(failed(*why, retryable=True))

    # The live feed

    @asynccontextmanager
    async def live(self, principal: str) -> AsyncIterator[tuple[list[Run], Listener]]:
        """The principal's living runs, and what happens from now on; see ``News.listen``."""
        with self._news.listen(principal) as queue:
            own = [drive.id for drive in self._drives.values() if drive.principal == principal]
            runs = [await self._log.get(run) for run in own]
            yield [run for run in runs if run], queue
