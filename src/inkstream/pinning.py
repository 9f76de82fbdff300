"""What a run asks an engine for: settled once, and the same for every continuation.

What it would refuse is refused before there is a run, where the engine is there to say so.
"""

from __future__ import annotations

from dataclasses import replace
from secrets import randbits
from typing import NamedTuple

from inkstream.ask import Ask, Pin, decode_pin, emitted_by
from inkstream.conversation import Told, fit
from inkstream.drafts import unsupported
from inkstream.engines import Capabilities, Emitted, Engine, Phase, Prompt, Sampling
from inkstream.errors import EngineFailed, EngineLost, Fenced, Invalid, Overloaded
from inkstream.events import Event
from inkstream.log import Log, Run

READ_EVENTS = 4096
SEED_BITS = 31  # what every engine takes as a seed


class Pinned(NamedTuple):
    """``emitted`` is what earlier attempts, and the run that is continued, have made visible.

    ``is_begun`` says that the pin is in the log already.
    """

    pin: Pin
    emitted: Emitted
    is_begun: bool


async def told(engine: Engine, ask: Ask) -> Told:
    """The prompt. A conversation loses its oldest turns where it is too long, any other question nothing.

    Raises EngineLost, EngineFailed.
    """
    if ask.answer is None:
        fingerprint = engine.describe().fingerprint
        return Told(await engine.render(ask.messages), 0, fingerprint)
    room = ask.sampling.max_tokens
    return await fit(engine, ask.messages, room + ask.prefix.tokens if room else None)


def require_engine(engine: Engine) -> None:
    """Raises Overloaded where nobody is left to ask."""
    status = engine.status
    if status.phase is Phase.GIVEN_UP:
        raise Overloaded(
            status.message or "The engine has been given up. The server's console says why.",
            code=status.code or "engine_given_up",
            retry_after_seconds=60,
        )


def require_possible(engine: Engine, ask: Ask) -> None:
    """Raises Invalid where the engine is there to say that it cannot do this."""
    if engine.status.phase is not Phase.READY:
        return
    if missing := engine.describe().missing(ask.sampling):
        raise Invalid(unsupported(missing), code="unsupported_parameter", param=missing)


async def told_at_once(engine: Engine, ask: Ask) -> Told | None:
    """The prompt, where the engine is there to say whether it fits. Raises Invalid."""
    if engine.status.phase is not Phase.READY or ask.pin is not None:
        return None
    try:
        return await told(engine, ask)
    except EngineFailed as error:
        raise Invalid(error.message, code=error.code) from error
    except EngineLost:
        return None


async def pinned(
    log: Log, engine: Engine, run_id: str, ask: Ask | None = None, known: Told | None = None
) -> Pinned:
    """Find the pin in the log, or make it.

    ``ask`` spares reading the log, which has no event of the run then; ``known`` spares rendering, if the
    engine is still the same. Raises EngineLost, EngineFailed, and Fenced if the run has been forgotten.
    """
    events: list[Event] = []
    if ask is None:
        ask, events = await _stored(log, run_id)
    pin = decode_pin(events[0].seam) if events else None
    if pin is None:
        pin = await _new_pin(ask, engine, known)
    return Pinned(pin, emitted_by(events, _prefix(ask, pin)), bool(events))


async def _stored(log: Log, run_id: str) -> tuple[Ask, list[Event]]:
    run = await log.get(run_id)
    if run is None:
        raise Fenced(f"there is no run {run_id} any more.")
    return Ask.decode(run.record), await events_of(log, run)


async def used_tokens(log: Log, run: Run) -> int:
    """How many tokens a run has had read and written; what it went on from was written by another."""
    events = await events_of(log, run)
    pin = decode_pin(events[0].seam) if events else None
    read = pin.prompt.tokens if pin else 0
    return read + emitted_by(events, Emitted()).tokens


async def events_of(log: Log, run: Run) -> list[Event]:
    """All events of a run as it was found: one that is being written may grow faster than it is read."""
    events: list[Event] = []
    while missing := run.last_seq - len(events):
        page = await log.read(run.id, len(events), min(missing, READ_EVENTS))
        if not page:
            break
        events += page
    return events


async def _new_pin(ask: Ask, engine: Engine, known: Told | None) -> Pin:
    """The pin of the run that is continued where the engine is the same; else what is asked for now."""
    capabilities = engine.describe()
    earlier = ask.pin
    if earlier is not None and earlier.fingerprint == capabilities.fingerprint:
        prompt, left_out = earlier.prompt, earlier.left_out
        unsaid = replace(earlier.sampling, max_tokens=None)
    else:
        if known is None or known.fingerprint != capabilities.fingerprint:
            known = await told(engine, ask)
        prompt, left_out, unsaid = known.prompt, known.left_out, capabilities.defaults
    sampling = _limited(ask, resolved(ask.sampling, unsaid), prompt, capabilities)
    return Pin(prompt, sampling, capabilities.model, capabilities.fingerprint, left_out)


def _limited(ask: Ask, sampling: Sampling, prompt: Prompt, capabilities: Capabilities) -> Sampling:
    """``max_tokens`` counts what is continued, and ends with the context."""
    room = capabilities.context_length - prompt.tokens
    budget = ask.prefix.tokens + (sampling.max_tokens or room)
    return replace(sampling, max_tokens=max(1, min(room, budget)))


def _prefix(ask: Ask, pin: Pin) -> Emitted:
    """What an earlier run left, its token ids only where they mean the same to this engine."""
    is_same = ask.pin is not None and ask.pin.fingerprint == pin.fingerprint
    return ask.prefix if is_same or not ask.prefix.text else replace(ask.prefix, ids=None)


def resolved(given: Sampling, unsaid: Sampling) -> Sampling:
    """The given parameters, for the others what counts where nothing is said, and a seed if there is none."""
    chosen = given.over(unsaid)
    return chosen if chosen.seed is not None else replace(chosen, seed=randbits(SEED_BITS))
