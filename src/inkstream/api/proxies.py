"""What a proxy in front says of a request, believed from the proxies that the settings name and no other.

They tell the caller's address and scheme (``X-Forwarded-For``, ``X-Forwarded-Proto``) and, where the
settings name a header for it, the user whom they have signed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import ip_address, ip_network
from typing import Any, cast

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from inkstream.config import Settings

NAMED = "inkstream.named"


def behind(app: ASGIApp, settings: Settings) -> ASGIApp:
    """``app``, with the caller's true address and scheme, and in ``NAMED`` whom a trusted proxy has named."""
    trusted = list(settings.trusted_proxies)
    is_trusted = _among(trusted)
    header = settings.user_header.lower().encode("latin-1")
    # Any: uvicorn describes the interface in types of its own.
    forwarded: ASGIApp = cast(Any, ProxyHeadersMiddleware(cast(Any, app), trusted_hosts=trusted))

    async def named(scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        if header and client and is_trusted(client[0]):
            scope = {**scope, NAMED: _value(scope, header)}
        await forwarded(scope, receive, send)

    return named


def _among(trusted: Sequence[str]) -> Callable[[str], bool]:
    networks = [ip_network(proxy) for proxy in trusted]
    return lambda address: any(ip_address(address) in network for network in networks)


def _value(scope: Scope, header: bytes) -> str:
    """Of several the last: what was there already stands before what the proxy has added."""
    values = [value for name, value in scope["headers"] if name == header]
    return values[-1].decode("utf-8", "replace").strip() if values else ""
