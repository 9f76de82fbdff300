"""What can go wrong and what the caller can do about it.

InkstreamError                  all of ours: a stable ``code``, a ``message`` that names the way out
├── ConfigError                 a setting is unusable; the start is refused
├── Refused                     the request was not taken and cost nothing
│   ├── Invalid                 the caller must change it
│   ├── TooLarge                the body is larger than we read
│   ├── Unauthorized            who asks is not known: a key or a session is missing, wrong or over
│   ├── Forbidden               a foreign page or host asks, or somebody who may not
│   ├── NotFound                there is no such chat, message or run (for this principal)
│   ├── Expired                 the run's events are gone; its message is still stored
│   ├── Conflict                it contradicts what is there: a live run, another cursor
│   ├── KeyReused               the idempotency key was used for another body
│   └── Overloaded              not now: ``retry_after_seconds`` says when
│       ├── Closing             not now, because the server goes down
│       └── LimitReached        not now, because of what the caller itself has used up
├── LogError
│   ├── Fenced                  somebody else has claimed the run since; append nothing more
│   ├── LogUnwritable           disk full or broken; what was committed is safe
│   └── FolderInUse             another gateway holds the data folder
├── Unreadable                  what is stored of a run makes no sense, and never will
├── EngineError                 a generation ended without a Finish
│   ├── EngineLost              the engine's process or connection died: ask again
│   └── EngineFailed            the engine refused or failed this request alone
└── ModelError                  no usable weights: not found, cut off, corrupt, too large
"""

from __future__ import annotations


class InkstreamError(Exception):
    """``code`` is part of the interface and never changes; ``message`` is for people."""

    code = "internal"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class ConfigError(InkstreamError):
    code = "bad_config"


class Refused(InkstreamError):
    code = "refused"


class Invalid(Refused):
    """``param`` is the name of the field at fault, where there is one."""

    code = "invalid"

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message, code=code)
        self.param = param


class TooLarge(Refused):
    code = "body_too_large"


class Unauthorized(Refused):
    code = "unauthorized"


class Forbidden(Refused):
    code = "forbidden"


class NotFound(Refused):
    code = "not_found"


class Expired(Refused):
    """``message_path`` is where the stored message can be read, relative to the server's root."""

    code = "expired"

    def __init__(self, message: str, message_path: str) -> None:
        super().__init__(message)
        self.message_path = message_path


class Conflict(Refused):
    code = "conflict"


class KeyReused(Refused):
    code = "key_reused"


class Overloaded(Refused):
    code = "queue_full"

    def __init__(self, message: str, *, retry_after_seconds: int, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after_seconds = retry_after_seconds


class Closing(Overloaded):
    """The server goes down with the request unanswered. Nobody can say whether it was carried out."""

    code = "shutting_down"

    def __init__(self) -> None:
        super().__init__("the server is stopping. Ask its successor in a moment.", retry_after_seconds=1)


class LimitReached(Overloaded):
    code = "limit_reached"


class LogError(InkstreamError):
    code = "log_error"


class Fenced(LogError):
    code = "fenced"


class LogUnwritable(LogError):
    code = "log_unwritable"


class FolderInUse(LogError):
    code = "folder_in_use"


class Unreadable(InkstreamError):
    code = "run_unreadable"


class EngineError(InkstreamError):
    code = "engine_error"


class EngineLost(EngineError):
    code = "engine_lost"


class EngineFailed(EngineError):
    """``retryable`` says whether the same request can succeed later."""

    code = "engine_failed"

    def __init__(self, message: str, *, code: str | None = None, retryable: bool = False) -> None:
        super().__init__(message, code=code)
        self.retryable = retryable


class ModelError(InkstreamError):
    code = "model_not_found"
