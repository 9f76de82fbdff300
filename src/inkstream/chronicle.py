"""What the history is told of a run. All of it is derived from the log, so that it may be told again."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from inkstream.ask import Ask, decode_pin
from inkstream.conversation import made_with
from inkstream.drafts import failed
from inkstream.errors import NotFound, Unreadable
from inkstream.events import Event, fold
from inkstream.history import History, Message
from inkstream.log import Entry, Log, Run
from inkstream.pinning import events_of


async def write_down(history: History, run: Run, ask: Ask) -> None:
    """The messages of a run that has just begun."""
    rows = [ask.question] if ask.question else []
    if ask.answer:
        rows.append(replace(ask.answer, run=run.id, state=run.state, ending=None))
    if rows:
        await history.upsert(*rows)


async def message_of(log: Log, run: Run, answer: Message) -> Message:
    """The message as the log tells it now; ``answer`` is what it was before this run. Raises Unreadable."""
    events = await events_of(log, run)
    if events and (pin := decode_pin(events[0].seam)) is not None:
        answer = replace(answer, made_with=made_with(answer, pin), left_out=pin.left_out)
    return replace(
        _ended(answer, run, events),
        parts=fold(events, answer.parts),
        last_id=f"{events[-1].epoch}:{events[-1].seq}" if events else None,
    )


def _ended(answer: Message, run: Run, events: list[Event]) -> Message:
    ending = events[-1].payload if events and events[-1].kind.is_terminal else None
    return replace(answer, run=run.id, state=run.state, ending=ending)


async def fail_unreadable(log: Log, run: Run, error: Unreadable) -> None:
    """Give an ending to a run that nobody can go on with. Raises Fenced, LogUnwritable."""
    claim = await log.claim(run.id, run.epoch)
    await log.append(Entry(claim, claim.last_seq, [failed(error.code, error.message)]))


async def close_unreadable(log: Log, history: History, run: Run) -> None:
    """Tell its message that the run has ended; what it says stays as it stands in the history."""
    try:
        ending = await log.read(run.id, run.last_seq - 1, 1)
    except Unreadable:
        ending = []
    with contextlib.suppress(NotFound):
        message = await history.message_of_run(run.principal, run.id)
        await history.upsert(_ended(message, run, ending))
