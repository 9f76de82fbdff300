"""The life of one answer while somebody drives it: claim, wait, ask, append, until there is an ending.

A drive ends its run with exactly one terminal event, or leaves it to whoever is next: when another holder
has fenced it off, or when the process shuts down, which appends nothing. An engine that dies under it is
asked again, from what the log holds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import asdict, dataclass, fields, replace
from secrets import randbits

from inkstream.admission import Admission, Ticket
from inkstream.ask import Ask, Pin, decode_pin, emitted_by, encode_pin
from inkstream.channels import ChannelSplitter
from inkstream.drafts import STOPPED, done, failed, joined, last_words, text_drafts
from inkstream.engines import (
    Capabilities,
    Chunk,
    Emitted,
    Engine,
    Finish,
    Phase,
    Progress,
    Prompt,
    Request,
    Sampling,
)
from inkstream.errors import EngineFailed, EngineLost, Fenced, LogError, LogUnwritable
from inkstream.events import Draft, Event, Kind, encode
from inkstream.log import Claim, Entry, Log, Run

logger = logging.getLogger(__name__)

READ_EVENTS = 4096
UNWRITABLE_RETRY_SECONDS = 1.0
ENGINE_RETRY_SECONDS = 0.05
SUSPECT_AFTER_DEATHS = 2
GUILTY_AFTER_DEATHS = 3
SEED_BITS = 31  # what every engine takes as a seed


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all drives of a process share. ``on_progress`` hears that the engine has been of use."""

    log: Log
    engine: Engine
    admission: Admission
    on_progress: Callable[[], None]


class Drive:
    """One run being driven. ``prompt`` may hold what was rendered when the run was admitted."""

    def __init__(self, run: Run, ask: Ask, around: Surroundings, prompt: Prompt | None = None) -> None:
        self.run, self.ask = run, ask
        self.readers = 0
        self._around, self._log = around, around.log
        self._prompt = prompt
        self._claim = Claim(run.id, run.epoch, run.last_seq)
        self._seq = run.last_seq
        self._deaths = run.deaths
        self._ending: Draft | None = None
        self._attempt_task: asyncio.Task[list[Draft]] | None = None
        self._ticket: Ticket
        self._was_asked = False
        self._first_token_at: float | None = None

    def end_with(self, ending: Draft) -> None:
        """End the run now, whatever it is doing. The first ending given counts."""
        if self._ending is None:
            self._ending = ending
            if self._attempt_task is not None:
                self._attempt_task.cancel()

    def note(self, key: str, payload: dict[str, object]) -> None:
        self._log.note(self._claim, key, encode({"key": key, **payload}))

    async def until_ended(self) -> bool:
        """Drive the run. Says whether it has ended; if not, somebody else goes on with it."""
        try:
            self._claim = await self._log.claim(self.run.id, self.run.epoch)
            if self._around.engine.status.phase is not Phase.READY:
                self.note("engine", asdict(self._around.engine.status))
            return await self._append_ending(await self._ended_somehow())
        except Fenced:
            return False

    # Attempts

    async def _ended_somehow(self) -> list[Draft]:
        """The run's last events, whatever goes wrong: every ending reaches the reader."""
        try:
            return await self._live()
        except LogUnwritable as error:
            return [self._unwritable(error)]
        except LogError:
            raise
        except Exception:
            logger.exception("run %s failed", self.run.id)
            return [failed("internal", "Something went wrong in the server. Its console says what.")]

    async def _live(self) -> list[Draft]:
        """Ask engines until one of them, or somebody else, gives the run its ending."""
        while self._ending is None:
            try:
                return await self._interruptible(self._attempt())
            except EngineLost as death:
                await self._outlive(death)
            except EngineFailed as error:
                return [failed(error.code, error.message, retryable=error.retryable)]
        return [self._ending]

    async def _interruptible(self, attempt: Awaitable[list[Draft]]) -> list[Draft]:
        """Run an attempt that ``end_with`` may cancel."""
        self._attempt_task = asyncio.ensure_future(attempt)
        try:
            return await self._attempt_task
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._ending is None or (task is not None and task.cancelling()):
                raise
            return [self._ending]
        finally:
            self._attempt_task.cancel()
            self._attempt_task = None

    async def _attempt(self) -> list[Draft]:
        """One engine, asked once. Returns the last events of the run. Raises EngineLost, EngineFailed."""
        self._was_asked = False
        is_suspect = self._deaths >= SUSPECT_AFTER_DEATHS
        async with self._around.admission.turn(self._tell_place, is_suspect=is_suspect) as self._ticket:
            capabilities = self._around.engine.describe()
            self._was_asked = True
            events = await self._events()
            pin = await self._pinned(capabilities, events)
            emitted = emitted_by(events, self._prefix_for(pin))
            if refusal := _refusal(pin, capabilities, emitted):
                return [refusal]
            if not events:
                opening = encode({"model": pin.model, "seed": pin.sampling.seed})
                await self._append(Draft(Kind.STARTED, opening, encode_pin(pin)))
            if self._ending is not None:
                return [self._ending]
            return await self._generate(pin, emitted)

    async def _generate(self, pin: Pin, emitted: Emitted) -> list[Draft]:
        assert pin.sampling.max_tokens is not None
        if emitted.tokens >= pin.sampling.max_tokens:
            return [done(Finish("length", pin.prompt.tokens, emitted.tokens), {})]
        splitter = ChannelSplitter(pin.prompt.channel)
        splitter.feed(emitted.text)
        request = Request(f"{self.run.id}:{self._claim.epoch}", pin.prompt, pin.sampling)
        unseen = Chunk("", 0, ())
        async with aclosing(self._around.engine.generate(request, emitted)) as items:
            async for item in items:
                match item:
                    case Chunk():
                        unseen = await self._show(splitter, joined(unseen, item))
                    case Progress():
                        self.note("prefill", {"share": item.share})
                    case Finish():
                        return [*last_words(splitter, unseen, item), done(item, self._timings(item))]
        raise EngineLost("the engine ended an answer without finishing it")

    async def _show(self, splitter: ChannelSplitter, chunk: Chunk) -> Chunk:
        """Append what of a chunk is visible; return what is still to be accounted for."""
        pieces = splitter.feed(chunk.text)
        if not pieces:
            return replace(chunk, text="")
        if self._first_token_at is None:
            self._first_token_at = time.time()
        await self._append(*text_drafts(pieces, chunk))
        self._deaths = 0
        if not self._ticket.has_written:
            self._around.admission.has_written(self._ticket)
            self._around.on_progress()
        return Chunk("", 0, ())

    async def _outlive(self, death: EngineLost) -> None:
        """Claim the run anew before another engine is asked for it."""
        if not self._was_asked:  # it was gone before it heard of this run
            await asyncio.sleep(ENGINE_RETRY_SECONDS)
            return
        logger.warning("run %s: %s", self.run.id, death.message)
        self._claim = await self._log.claim(self.run.id, self._claim.epoch, after_death=True)
        await self._catch_up()
        if self._deaths >= GUILTY_AFTER_DEATHS:
            self.end_with(
                failed(
                    "engine_crashed",
                    f"The engine died {self._deaths} times over this question without writing anything."
                    " Change the question or the model.",
                )
            )
            self._around.on_progress()

    async def _events(self) -> list[Event]:
        events: list[Event] = []
        while page := await self._log.read(self.run.id, len(events), READ_EVENTS):
            events += page
        return events

    async def _pinned(self, capabilities: Capabilities, events: list[Event]) -> Pin:
        """What the run is pinned to: by its first event, by the run it continues, or from now on."""
        pinned = decode_pin(events[0].seam) if events else None
        if pinned is not None:
            return pinned
        earlier = self.ask.pin
        if earlier is not None and earlier.fingerprint == capabilities.fingerprint:
            prompt, unsaid = earlier.prompt, replace(earlier.sampling, max_tokens=None)
        else:
            prompt = self._prompt or await self._around.engine.render(self.ask.messages)
            unsaid = capabilities.defaults
        sampling = resolved(self.ask.sampling, unsaid)
        room = capabilities.context_length - prompt.tokens
        budget = self.ask.prefix.tokens + (sampling.max_tokens or room)
        sampling = replace(sampling, max_tokens=max(1, min(room, budget)))
        return Pin(prompt, sampling, capabilities.model, capabilities.fingerprint)

    def _prefix_for(self, pin: Pin) -> Emitted:
        """What an earlier run left, its token ids only where they mean the same to this engine."""
        is_same = self.ask.pin is not None and self.ask.pin.fingerprint == pin.fingerprint
        return self.ask.prefix if is_same or not self.ask.prefix.text else replace(self.ask.prefix, ids=None)

    def _timings(self, finish: Finish) -> dict[str, float]:
        """Seconds since the run was created, beside what the engine measured."""
        now = time.time()
        timings = {**finish.timings, "total_seconds": now - self.run.created_at}
        if self._first_token_at is not None:
            timings["first_token_seconds"] = self._first_token_at - self.run.created_at
            timings["writing_seconds"] = now - self._first_token_at
        return {name: round(seconds, 4) for name, seconds in timings.items()}

    def _tell_place(self, place: int) -> None:
        self.note("queued", {"place": place})

    # Appending

    async def _append(self, *events: Draft) -> None:
        """Raises Fenced, LogUnwritable. A stop that somebody else asked for takes effect behind it."""
        [appended] = await self._log.append([Entry(self._claim, self._seq, events)])
        if appended is None:
            raise Fenced(f"run {self.run.id} is held by somebody else.")
        self._seq = appended.seq
        if appended.stop_requested:
            self.end_with(STOPPED)

    async def _append_ending(self, ending: list[Draft]) -> bool:
        """Append the run's last events, as soon as the log can be written."""
        while True:
            try:
                await self._append(*ending)
                return True
            except LogUnwritable as error:
                ending = [self._unwritable(error)]
                await asyncio.sleep(UNWRITABLE_RETRY_SECONDS)
            except Fenced:
                # An append that was cancelled may have gone through: then the numbers have moved on.
                before = self._seq
                if await self._catch_up():
                    return True
                if self._seq == before:
                    raise
                ending = ending[-1:]

    async def _catch_up(self) -> bool:
        """Learn from the log where the run stands. Says whether it has ended. Raises Fenced."""
        run = await self._log.get(self.run.id)
        if run is None or (run.epoch != self._claim.epoch and not run.state.is_terminal):
            raise Fenced(f"run {self.run.id} is held by somebody else.")
        self._seq, self._deaths = run.last_seq, run.deaths
        return run.state.is_terminal

    def _unwritable(self, error: LogUnwritable) -> Draft:
        self.note("log_unwritable", {"message": error.message})
        return failed("disk_full", f"The answer could not be kept: {error.message}", retryable=True)


def resolved(given: Sampling, unsaid: Sampling) -> Sampling:
    """The given parameters, for the others what counts where nothing is said, and a seed if there is none."""
    chosen = {f.name: getattr(given, f.name) for f in fields(given)}
    for name, value in chosen.items():
        if value is None or value == ():
            chosen[name] = getattr(unsaid, name)
    if chosen["seed"] is None:
        chosen["seed"] = randbits(SEED_BITS)
    return Sampling(**chosen)


def _refusal(pin: Pin, capabilities: Capabilities, emitted: Emitted) -> Draft | None:
    """Why this engine cannot go on with this answer, if it cannot."""
    if pin.fingerprint != capabilities.fingerprint:
        return failed(
            "model_changed",
            f"The answer was begun by {pin.model}; {capabilities.model} is here now."
            " Continue lets the new one go on.",
            retryable=True,
        )
    if emitted.text and capabilities.continues == "no":
        return failed(
            "engine_lost",
            "The engine was lost in mid-answer and cannot go on with a cut one. What it wrote is kept.",
            retryable=True,
        )
    return None
