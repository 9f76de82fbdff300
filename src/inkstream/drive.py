"""The life of one answer while somebody drives it: claim, wait, ask, append, until there is an ending.

A drive ends its run with exactly one terminal event, or leaves it to whoever is next: when another holder
has fenced it off, or when the process shuts down, which appends nothing. An engine that dies under it is
asked again, from what the log holds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass

from inkstream.admission import Admission, Ticket
from inkstream.ask import Ask, Pin
from inkstream.conversation import Told
from inkstream.drafts import done, failed, started, unsupported
from inkstream.engines import (
    Capabilities,
    Emitted,
    Engine,
    Finish,
    Phase,
    Request,
)
from inkstream.errors import EngineFailed, EngineLost, Fenced, LogError, LogUnwritable, Unreadable
from inkstream.events import Draft
from inkstream.figures import with_figures
from inkstream.log import Claim, Log, Run
from inkstream.pen import Pen
from inkstream.pinning import Pinned, pinned
from inkstream.tallies import RunTally
from inkstream.timeline import Attempt, Timeline

logger = logging.getLogger(__name__)

UNWRITABLE_RETRY_SECONDS = 1.0
ENGINE_RETRY_SECONDS = 0.05
SUSPECT_AFTER_DEATHS = 2
GUILTY_AFTER_DEATHS = 3


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all drives of a process share. ``on_progress`` hears that the engine has been of use."""

    log: Log
    engine: Engine
    admission: Admission
    on_progress: Callable[[], None]
    tally: RunTally


class Drive:
    """One run being driven.

    ``linger_seconds`` is how long it lives without a reader, None for ever; ``told`` may hold what was
    rendered when the run was admitted. There may be thousands of these: what the record says of a run that
    has to wait is read from the log when it is needed.
    """

    __slots__ = (
        "_around",
        "_ask",
        "_attempt_scope",
        "_break",
        "_deaths",
        "_log",
        "_pen",
        "_ticket",
        "_told",
        "_was_asked",
        "id",
        "linger_seconds",
        "principal",
        "task",
        "timeline",
    )

    def __init__(self, run: Run, ask: Ask, around: Surroundings, told: Told | None = None) -> None:
        self.id, self.principal, self.linger_seconds = run.id, run.principal, ask.linger_seconds
        self.task: asyncio.Task[None]
        self._around, self._log = around, around.log
        self._ask, self._told = ask if run.last_seq == 0 else None, told
        self._deaths = run.deaths
        self.timeline = Timeline(run.id, run.principal, run.created_at, was_begun=run.last_seq > 1)
        self._pen = self._new_pen(Claim(run.id, run.epoch, run.last_seq))
        self._break: Draft | LogError | None = None
        self._attempt_scope: asyncio.Timeout | None = None
        self._ticket: Ticket
        self._was_asked = False

    def end_with(self, ending: Draft) -> None:
        """End the run now, whatever it is doing. The first ending given counts."""
        self._break_off(ending)

    def note(self, key: str, payload: dict[str, object]) -> None:
        self._pen.note(key, payload)

    async def until_ended(self) -> bool:
        """Drive the run. Says whether it has ended; if not, somebody else goes on with it."""
        try:
            self._pen = self._new_pen(await self._log.claim(self.id, self._pen.claim.epoch))
            if self._around.engine.status.phase is not Phase.READY:
                self.note("engine", asdict(self._around.engine.status))
            ending = await self._ended_somehow()
            await self._append_ending(await with_figures(self._log, self.id, ending))
        except Fenced:
            return False
        finally:
            self._pen.put_down()
        return True

    # Attempts

    async def _ended_somehow(self) -> Sequence[Draft]:
        """The run's last events, whatever goes wrong: every ending reaches the reader."""
        try:
            return await self._live()
        except LogUnwritable as error:
            return [self._unwritable(error)]
        except LogError:
            raise
        except Exception:
            logger.exception("run %s failed", self.id, extra={"run": self.id})
            return [failed("internal", "Something went wrong in the server. Its console says what.")]

    async def _live(self) -> Sequence[Draft]:
        """Ask engines until one of them, or somebody else, gives the run its ending."""
        while self._break is None:
            try:
                return await self._interruptible(self._attempt())
            except EngineLost as death:
                await self._outlive(death)
            except EngineFailed as error:
                return [failed(error.code, error.message, retryable=error.retryable)]
            except Unreadable as error:
                return [failed(error.code, error.message)]
        return self._broken_off(self._break)

    async def _interruptible(self, attempt: Coroutine[None, None, Sequence[Draft]]) -> Sequence[Draft]:
        """Make an attempt that ``_break_off`` may cut short."""
        last_events: Sequence[Draft] = ()
        self._attempt_scope = scope = asyncio.timeout(None)
        try:
            async with scope:
                last_events = await attempt
        except TimeoutError:
            if not scope.expired():
                raise
        finally:
            self._attempt_scope = None
        return last_events if self._break is None else self._broken_off(self._break)

    def _break_off(self, why: Draft | LogError) -> None:
        if self._break is None:
            self._break = why
            if self._attempt_scope is not None:
                self._attempt_scope.reschedule(0)

    def _broken_off(self, why: Draft | LogError) -> Sequence[Draft]:
        if isinstance(why, LogError):
            raise why
        return [why]

    async def _attempt(self) -> Sequence[Draft]:
        """One engine, asked once. Returns the last events of the run. Raises EngineLost, EngineFailed."""
        self._was_asked = False
        is_suspect = self._deaths >= SUSPECT_AFTER_DEATHS
        turn = self._around.admission.turn(self.principal, self._tell_place, is_suspect=is_suspect)
        with self.timeline.attempt(self._pen.claim.epoch) as attempt:
            async with turn as self._ticket:
                attempt.asked_at = self.timeline.now()
                return await self._asked(attempt)

    async def _asked(self, attempt: Attempt) -> Sequence[Draft]:
        capabilities = self._around.engine.describe()
        self._was_asked = True
        pin, emitted, is_begun = await self._pinned()
        if refusal := _refusal(pin, capabilities, emitted):
            return [refusal]
        if not is_begun:
            await self._pen.append([started(pin)])
        self.timeline.model, self.timeline.prompt_tokens = pin.model, pin.prompt.tokens
        attempt.behind = emitted.tokens
        return await self._generate(pin, emitted, attempt)

    async def _pinned(self) -> Pinned:
        """What is known of the beginning is of use once, and only if nobody has begun yet."""
        ask, known, self._ask, self._told = self._ask, self._told, None, None
        if self._pen.claim.last_seq > 0:
            ask = None
        return await pinned(self._log, self._around.engine, self.id, ask, known)

    async def _generate(self, pin: Pin, emitted: Emitted, attempt: Attempt) -> Sequence[Draft]:
        assert pin.sampling.max_tokens is not None
        if emitted.tokens >= pin.sampling.max_tokens:
            return [done(Finish("length", pin.prompt.tokens, emitted.tokens), {})]
        pen = self._pen
        pen.begin(pin.prompt.channel, emitted.text)
        request = Request(f"{self.id}:{pen.claim.epoch}", pin.prompt, pin.sampling)
        try:
            finish = await self._around.engine.generate(request, emitted, pen.take)
        finally:
            await pen.settled()
        attempt.timings = finish.timings
        if last_words := pen.last_words(finish):
            self.timeline.has_text()
        return [*last_words, done(finish, self.timeline.timings(finish.completion_tokens))]

    def _has_text(self) -> None:
        """The engine has been of use, and the prompt is harmless."""
        self._deaths = 0
        self.timeline.has_text()
        self._around.admission.has_written(self._ticket)
        self._around.on_progress()

    async def _outlive(self, death: EngineLost) -> None:
        """Claim the run anew before another engine is asked for it."""
        if not self._was_asked:  # it was gone before it heard of this run
            self.timeline.attempts.pop()
            await asyncio.sleep(ENGINE_RETRY_SECONDS)
            return
        logger.warning("run %s: %s", self.id, death.message, extra={"run": self.id})
        epoch = self._pen.claim.epoch
        self._pen = self._new_pen(await self._log.claim(self.id, epoch, after_death=True))
        self._deaths += 1
        self._around.tally.takeovers["engine_lost"] += 1
        if self._deaths >= GUILTY_AFTER_DEATHS:
            self.end_with(
                failed(
                    "engine_crashed",
                    f"The engine died {self._deaths} times over this question without writing anything."
                    " Change the question or the model.",
                )
            )
            self._around.on_progress()

    def _tell_place(self, place: int) -> None:
        if place > 0:
            self._ask = None
        self.note("queued", {"place": place})

    # Writing

    def _new_pen(self, claim: Claim) -> Pen:
        return Pen(self._log, claim, self.timeline, self._has_text, self._break_off)

    async def _append_ending(self, ending: Sequence[Draft]) -> None:
        """Append the run's last events, as soon as the log can be written. Raises Fenced."""
        asked_at = self.timeline.now()
        while True:
            try:
                await self._pen.append(ending)
                break
            except LogUnwritable as error:
                ending = [self._unwritable(error)]
                await asyncio.sleep(UNWRITABLE_RETRY_SECONDS)
        self.timeline.end(ending[-1], asked_at)

    def _unwritable(self, error: LogUnwritable) -> Draft:
        self.note("log_unwritable", {"message": error.message})
        return failed("disk_full", f"The answer could not be kept: {error.message}", retryable=True)


def _refusal(pin: Pin, capabilities: Capabilities, emitted: Emitted) -> Draft | None:
    """Why this engine cannot go on with this answer, if it cannot."""
    if pin.fingerprint != capabilities.fingerprint:
        return failed(
            "model_changed",
            f"The answer was begun by {pin.model}; {capabilities.model} is here now."
            " Continue lets the new one go on.",
            retryable=True,
        )
    if missing := capabilities.missing(pin.sampling):
        return failed("unsupported_parameter", unsupported(missing))
    if emitted.text and capabilities.continues == "no":
        return failed(
            "engine_lost",
            "The engine was lost in mid-answer and cannot go on with a cut one. What it wrote is kept.",
            retryable=True,
        )
    return None
