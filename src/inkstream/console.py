"""How a process writes down what happens: for people, or as a JSON object per line.

What users ask and what models answer is never in it. Our own messages say nothing of that, but an exception
from anywhere may quote what it stumbled over: so its type and its place are written, and its words only where
they are ours or the system's. asyncio puts such quotations behind its own first line, which stays.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import orjson

from inkstream.config import Settings
from inkstream.errors import InkstreamError

FIELDS = ("run", "state", "code", "tokens", "seconds")
"""What a record may have in ``extra``, beside its message."""

CHATTY = ("httpx", "uvicorn.error")


def log_to_console(settings: Settings, process: str) -> None:
    """Everything goes to stderr from now on, what nobody catches included. ``process`` names this one."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Json(process) if settings.log_format == "json" else Text())
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    # What they say at this level is about themselves: each request to llama.cpp, each start.
    for chatty in CHATTY:
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.root.level))
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda args: _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def _log_uncaught(
    kind: type[BaseException], error: BaseException | None, place: TracebackType | None
) -> None:
    if error is None or not issubclass(kind, Exception):
        sys.__excepthook__(kind, error or kind(), place)
    else:
        logging.getLogger("inkstream").critical("nobody has caught it", exc_info=(kind, error, place))


class Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        line = f"{self.formatTime(record, self.datefmt)} {record.levelname} {record.name}: {_message(record)}"
        return "\n".join([line, *_failure(record)])


class Json(logging.Formatter):
    """``time`` in UTC, ``level``, ``process``, ``logger``, ``message``; the FIELDS and ``error`` if any."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": _message(record),
        }
        told |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if lines := list(_failure(record)):
            told["error"] = "\n".join(lines)
        return orjson.dumps(told, default=str).decode()


def _message(record: logging.LogRecord) -> str:
    # Half a surrogate pair, which a file name may have, cannot be written.
    message = record.getMessage().encode(errors="replace").decode()
    return message.partition("\n")[0] if record.name == "asyncio" else message


def _failure(record: logging.LogRecord) -> Iterator[str]:
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        yield from _told(error)


def _told(error: BaseException) -> Iterator[str]:
    """An exception and what led to it, the cause first; of a group its members too."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        yield from _told(cause)
    for frame in traceback.extract_tb(error.__traceback__):
        yield f"  {frame.filename}:{frame.lineno} in {frame.name}"
    yield _named(error)
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from _told(member)


def _named(error: BaseException) -> str:
    kind = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    has_said = isinstance(error, InkstreamError | OSError)
    return f"{kind}: {error}" if has_said else kind
