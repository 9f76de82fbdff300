"""Who is let in, before any route is looked up. Pure ASGI.

A page on another site can make the user's browser send requests here, on loopback too, and a DNS name under
somebody's control can point here. So a request must name a host that we are, and must not come from another
site, unless its origin has been named in the settings. Behind the page everything has to say who asks: see
``door``.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections import Counter

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from inkstream.api.door import Door, require_meant
from inkstream.api.errors import TALLY, error_response
from inkstream.api.sse import CREDENTIAL
from inkstream.config import LOOPBACK, Settings
from inkstream.errors import Forbidden, InkstreamError, Invalid

# RFC 3986's authority without user information: nobody has a use for it in a Host.
HOST = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<name>[^\s\[\]:/?#@\\]+))(?::[0-9]{0,5})?")
OPEN_PATHS = frozenset({"/healthz", "/readyz", "/api/session", "/api/echo"})
GUARDED_PREFIXES = ("/api/", "/v1/", "/stream", "/metrics", "/docs", "/openapi.json")


class Guard:
    def __init__(self, app: ASGIApp, settings: Settings, door: Door, errors: Counter[str]) -> None:
        self._app, self._door, self._errors = app, door, errors
        self._origins = frozenset(origin.rstrip("/") for origin in settings.cors_origins)
        self._hosts = LOOPBACK | {
            settings.host,
            socket.gethostname().lower(),
            *map(str.lower, settings.hosts),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        scope[TALLY] = self._errors
        try:
            self._require_host(headers)
            self._require_same_site(headers, scope)
            if is_guarded(scope["path"]) and scope["path"] not in OPEN_PATHS:
                identity = await self._door.identify(scope, headers)
                require_meant(identity, headers)
                self._door.count(identity, scope, headers)
                scope[CREDENTIAL] = identity.credential
                scope.setdefault("state", {})["identity"] = identity
        except InkstreamError as refusal:
            await error_response(refusal, scope["path"])(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        except Exception:
            self._errors["internal"] += 1
            raise

    def _require_host(self, headers: Headers) -> None:
        given = headers.getlist("host")
        if len(given) > 1:  # RFC 9112, section 3.2: else a proxy in front might have read the other one
            raise Invalid("the request names more than one host.", code="bad_request")
        host = _host_of("".join(given))
        if host not in self._hosts and not _is_address(host):
            raise Forbidden(
                f"the host {host!r} is not one of ours. Add it to INKSTREAM_HOSTS if it is.",
                code="foreign_host",
            )

    def _require_same_site(self, headers: Headers, scope: Scope) -> None:
        """An address bar may lead to the page from anywhere; everything else comes from ourselves."""
        origins = headers.getlist("origin")
        if origins:
            self._require_own(origins, headers.get("host", "").lower())
            return
        is_navigation = headers.get("sec-fetch-mode") == "navigate" and not is_guarded(scope["path"])
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not is_navigation:
            raise Forbidden("pages of another site may not use this server.", code="foreign_origin")

    def _require_own(self, origins: list[str], host: str) -> None:
        ours = (f"http://{host}", f"https://{host}")
        for origin in origins:
            if origin not in self._origins and origin.lower() not in ours:
                raise Forbidden(
                    f"pages of {origin!r} may not use this server. INKSTREAM_CORS_ORIGINS can allow them.",
                    code="foreign_origin",
                )


def is_guarded(path: str) -> bool:
    """Whether there is more behind a path than the page."""
    return path.startswith(GUARDED_PREFIXES)


def _host_of(given: str) -> str:
    """The host without its port, empty where there is none."""
    found = HOST.fullmatch(given)
    return (found["v6"] or found["name"]).lower() if found else ""


def _is_address(host: str) -> bool:
    """A literal address cannot be a name that somebody else has pointed here."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
