"""The app factory. It starts no engine: it is given one to talk to."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import inkstream
from inkstream.api import account, article, chats, docs, echo, metrics, models, native, openai, ops, transfer
from inkstream.api.body import BodyLimit
from inkstream.api.description import Described
from inkstream.api.errors import error_response
from inkstream.api.guard import GUARDED_PREFIXES, Guard
from inkstream.api.page import Page
from inkstream.api.proxies import behind
from inkstream.api.services import Services
from inkstream.api.sse import outlasting
from inkstream.errors import Closing, ConfigError, InkstreamError, Invalid


def create_app(services: Services) -> ASGIApp:
    """The whole server as one ASGI app over the given parts; see ``open_services``."""
    return _wrapped(routed(services), services)


def routed(services: Services) -> Described:
    """Every route, without what stands before them. What they leave over is the page's."""
    app = Described(
        title="inkstream",
        version=inkstream.__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        default_response_class=Response,
    )
    app.state.services = services
    # Looked through in this order.
    for module in (chats, native, article, openai, account, models, echo, transfer, ops, metrics, docs):
        app.include_router(module.router)
    # Not mounted at "/", where it would match first whatever has a wrong method: that is a 405.
    app.router.default = Page()
    app.add_exception_handler(InkstreamError, _ours)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _unforeseen)
    return app


def _wrapped(app: ASGIApp, services: Services) -> ASGIApp:
    """What a request goes through before any route, outermost last. All of it is plain ASGI."""
    settings = services.settings
    if "*" in settings.cors_origins:
        raise ConfigError("INKSTREAM_CORS_ORIGINS has value '*'. Name each origin: https://other.example")
    app = Guard(BodyLimit(app, settings), settings, services.door, services.errors)
    if settings.cors_origins:
        app = CORSMiddleware(
            app,
            allow_origins=[origin.rstrip("/") for origin in settings.cors_origins],
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["Retry-After"],
            allow_credentials=True,
        )
    app = behind(_answered(app), settings)
    return outlasting(_stripped(app, settings.base_path) if settings.base_path else app)


def _answered(app: ASGIApp) -> ASGIApp:
    """Tell those who are left when the server's patience with them ends: it cancels their requests."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def noting(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await app(scope, receive, noting)
        except asyncio.CancelledError:
            if has_begun:
                raise
            await error_response(Closing(), scope["path"])(scope, receive, send)

    return answer


def _stripped(app: ASGIApp, prefix: str) -> ASGIApp:
    """Take the base path off, for proxies that leave it on; those that take it off are served as well."""

    # A proxy may have taken it off, so such an address could mean either.
    if f"{prefix}/" in GUARDED_PREFIXES or prefix in GUARDED_PREFIXES:
        raise ConfigError(f"INKSTREAM_BASE_PATH has value {prefix!r}. That is an address of the API.")

    async def strip(scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope.get("path", "")
        if scope["type"] == "http" and path == prefix:
            # The page's relative addresses need the slash.
            await RedirectResponse(f"{prefix}/")(scope, receive, send)
            return
        # Starlette would take it off a second time, behind the guard, who would have seen another address.
        while path.startswith(f"{prefix}/"):
            path = path[len(prefix) :]
        scope = {**scope, "path": path, "root_path": prefix}
        await app(scope, receive, send)

    return strip


async def _ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, InkstreamError)
    return error_response(error, request.scope["path"])


async def _malformed(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return error_response(_fault(error.errors()[0]), request.scope["path"])


def _fault(first: dict[str, Any]) -> Invalid:  # Any: whatever was sent is in it
    """``first`` is what pydantic and the framework found, in their words."""
    if first["type"] == "json_invalid":
        text = f"the body is not valid JSON: {first['ctx']['error']}, at character {first['loc'][-1]}."
        return Invalid(text, code="bad_json")
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    text = first["msg"].removeprefix("Value error, ")
    is_raw = not where and isinstance(first.get("input"), bytes)  # what does not say that it is JSON
    if is_raw:
        text = "it does not say that it is JSON. Send it with 'Content-Type: application/json'."
    return Invalid(f"{where or 'the body'}: {text}", code="invalid_parameter", param=where or None)


async def _gone(_request: Request, _error: Exception) -> Response:
    """The caller has left in the middle of the body: nobody reads this, and nobody needs a traceback."""
    return Response(status_code=400)


async def _unforeseen(request: Request, _error: Exception) -> Response:
    """A fault of ours. The framework raises it again behind the reply, for the guard's count and the log."""
    error = InkstreamError("something went wrong here. The log says what.")
    body = error_response(error, request.scope["path"]).body
    return Response(body, 500, media_type="application/json")


async def _http(request: Request, error: Exception) -> Response:
    """What the framework refuses by itself, in our words where it has none worth reading."""
    assert isinstance(error, HTTPException)
    path = request.scope["path"]
    code, message = {
        404: ("unknown_path", f"there is nothing at {path!r}."),
        405: ("method_not_allowed", f"{request.method} is not for {path!r}."),
        408: ("body_too_slow", str(error.detail)),
        413: ("body_too_large", str(error.detail)),
    }.get(error.status_code, ("bad_request", str(error.detail)))
    response = error_response(Invalid(message, code=code), path)
    response.status_code = error.status_code
    response.headers.update(error.headers or {})
    if error.status_code == 405 and (allowed := request.app.allowed(path)):
        response.headers["allow"] = allowed
    return response
