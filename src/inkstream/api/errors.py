"""Errors of ours as HTTP replies: a status, a stable code, a message, and when to come back."""

from __future__ import annotations

import math

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from inkstream.errors import (
    Conflict,
    EngineFailed,
    EngineLost,
    Expired,
    Forbidden,
    InkstreamError,
    Invalid,
    KeyReused,
    LimitReached,
    LogUnwritable,
    NotFound,
    Overloaded,
    TooLarge,
    Unauthorized,
)
from inkstream.events import encode

STATUS = {
    Invalid: 400,
    Unauthorized: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    Expired: 410,
    TooLarge: 413,
    KeyReused: 422,
    EngineFailed: 400,
    LimitReached: 429,
    EngineLost: 503,
    Overloaded: 503,
    LogUnwritable: 507,
}
OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
RETRY_SECONDS = 10  # where the error itself does not say
TALLY = "inkstream.errors"  # in the scope of a request: where its error is counted, by code


def status_of(error: InkstreamError) -> int:
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


class ErrorReply(Response):
    media_type = "application/json"

    def __init__(self, code: str, body: dict[str, object], status: int, headers: dict[str, str]) -> None:
        super().__init__(encode({"error": body}), status, headers)
        self._code = code

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[TALLY][self._code] += 1
        await super().__call__(scope, receive, send)


def error_response(error: InkstreamError, path: str = "") -> Response:
    """The reply; below ``/v1`` in the shape that OpenAI's clients read."""
    status = status_of(error)
    body: dict[str, object] = {"code": error.code, "message": error.message}
    if path.startswith("/v1"):
        body = error_body(error)
    elif isinstance(error, Expired):
        body["message_path"] = error.message_path
    headers = {"cache-control": "no-store"}
    if status in (429, 503, 507):
        seconds = error.retry_after_seconds if isinstance(error, Overloaded) else RETRY_SECONDS
        headers["retry-after"] = str(math.ceil(seconds))
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return ErrorReply(error.code, body, status, headers)


def error_body(error: InkstreamError) -> dict[str, object]:
    """What OpenAI's clients read in ``error``."""
    status = status_of(error)
    kind = OPENAI_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    param = getattr(error, "param", None)
    return {"message": error.message, "type": kind, "param": param, "code": error.code}
