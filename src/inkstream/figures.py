"""What is known of an answer that was broken off. Of one that ends by itself the engine tells its figures."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import orjson

from inkstream.ask import Ask, decode_pin, emitted_by
from inkstream.errors import InkstreamError
from inkstream.events import Draft, Kind, encode
from inkstream.log import Log
from inkstream.pinning import events_of

logger = logging.getLogger(__name__)


async def with_figures(log: Log, run_id: str, ending: Sequence[Draft]) -> Sequence[Draft]:
    """The ending of a run; one that was broken off says how many tokens there were and how long it took.

    Counted by the log, because the process that ends a run may not be the one that has written it.
    """
    last = ending[-1]
    if last.kind is Kind.DONE:
        return ending
    try:
        figures = await _figures(log, run_id)
    except (InkstreamError, ValueError, LookupError, TypeError) as error:
        logger.warning("run %s ends without figures: %r", run_id, error)  # the ending counts more
        return ending
    return [*ending[:-1], Draft(last.kind, encode({**orjson.loads(last.data), **figures}))]


async def _figures(log: Log, run_id: str) -> dict[str, object]:
    """``usage`` and ``timings``; nothing where no engine was asked."""
    run = await log.get(run_id)
    events = await events_of(log, run) if run else []
    pin = decode_pin(events[0].seam) if events else None
    if run is None or pin is None:
        return {}
    return {
        "usage": {
            "prompt_tokens": pin.prompt.tokens,
            "completion_tokens": emitted_by(events, Ask.decode(run.record).prefix).tokens,
            "cached_tokens": 0,
        },
        "timings": {"total_seconds": round(time.time() - run.created_at, 4)},
    }
