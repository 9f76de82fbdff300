"""Who asks: a user by session, key or proxy; the holder of the one access key; or ``local``, on loopback.

Checked when a request begins, never while a stream runs. What has run out meanwhile is noticed by ``watch``,
which ends the streams that it had opened.
"""

from __future__ import annotations

import asyncio
import hmac
import itertools
import logging
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address, ip_network
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.types import Scope

from inkstream.accounts import LOCAL, Accounts, Identity, Proof, Role
from inkstream.api.proxies import NAMED
from inkstream.api.sse import OpenStreams
from inkstream.config import Settings
from inkstream.errors import Forbidden, LimitReached, LogError, Unauthorized
from inkstream.limits import Rate

logger = logging.getLogger(__name__)

COOKIE = "inkstream"
# Whom a request is meant to come from, where it says so: percent-encoded, for names of any script.
MEANT = "if-user"
ATTEMPTS_PER_MINUTE = 20
WATCH_SECONDS = 1.0
BEATS_PER_EXPIRY = 60

NO_PROOF = Proof()
NOBODY = Identity(LOCAL, LOCAL, Role.ADMIN, "nobody")
KEY_HOLDER = Identity(LOCAL, LOCAL, Role.ADMIN)


class Door:
    def __init__(self, settings: Settings, accounts: Accounts) -> None:
        self._settings, self._accounts = settings, accounts
        self._failures = Rate(ATTEMPTS_PER_MINUTE)
        self._requests = Rate(settings.user_requests)

    async def identify(self, scope: Scope, headers: Headers) -> Identity:
        """Raises Unauthorized, and LimitReached for whoever has guessed too often."""
        proof = Proof(scope.get(NAMED, ""), bearer_of(headers), session_of(headers))
        if proof != NO_PROOF and (found := await self._accounts.who(proof)) is not None:
            return found
        if await self._is_open():
            return NOBODY
        if self._settings.key and proof.bearer and not proof.name:
            self.require_patience(scope)
            if hmac.compare_digest(proof.bearer.encode(), self._settings.key.encode()):
                return KEY_HOLDER
            self.has_failed(scope)
        raise Unauthorized("who asks is not known: 'Authorization: Bearer KEY', or sign in on the page.")

    async def _is_open(self) -> bool:
        """Whether nobody has to say who they are."""
        settings = self._settings
        is_closed = settings.key or settings.user_header or not settings.is_loopback
        return not is_closed and not await self._accounts.has_users()

    def count(self, identity: Identity, scope: Scope, headers: Headers) -> None:
        """One more request of a principal. Raises LimitReached.

        Who comes back to read on is always let in: a broken connection is nobody's fault.
        """
        path: str = scope["path"]
        if path.endswith("/events") or path == "/api/live" or "last-event-id" in headers:
            return
        if seconds := self._requests.wait_seconds(identity.principal):
            raise LimitReached(
                f"you have asked too often in this minute. Ask again in {seconds} seconds.",
                code="too_many_requests",
                retry_after_seconds=seconds,
            )
        self._requests.take(identity.principal)

    def require_patience(self, scope: Scope) -> None:
        """To be asked before a secret is compared. Raises LimitReached."""
        if seconds := self._failures.wait_seconds(_origin(scope)):
            raise LimitReached(
                "too many wrong keys came from your address. Try again later.",
                code="too_many_attempts",
                retry_after_seconds=seconds,
            )

    def has_failed(self, scope: Scope) -> None:
        origin = _origin(scope)
        self._failures.take(origin)
        if self._failures.wait_seconds(origin):
            logger.warning("wrong keys come from %s, one after the other", origin)


def require_meant(identity: Identity, headers: Headers) -> None:
    """Raises Forbidden where the request was meant to come from somebody else.

    What a page keeps to be sent later may find another user signed in, by a proxy that never told the page.
    """
    meant = headers.get(MEANT)
    if meant is not None and unquote(meant) != identity.name:
        raise Forbidden("somebody else is signed in than the request says.", code="other_user")


def bearer_of(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    # Clients write other than ASCII in UTF-8; the framework reads each byte as a character.
    return token.strip().encode("latin-1").decode(errors="replace") if scheme.lower() == "bearer" else ""


def session_of(headers: Headers) -> str:
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return cookie.value if cookie else ""


def _origin(scope: Scope) -> str:
    """Whom attempts are counted for: an address, of IPv6 the network that one household or host has."""
    client = scope.get("client")
    try:
        address = ip_address(client[0]) if client else None
    except ValueError:  # a proxy that we trust has said something else
        address = None
    if address is None:
        return ""
    return str(ip_network((address, 64), strict=False) if address.version == 6 else address)


async def watch(accounts: Accounts, streams: OpenStreams) -> None:
    """End the streams of whoever has been signed out or disabled, or whose session has expired."""
    for beat in itertools.count(1):
        await asyncio.sleep(WATCH_SECONDS)
        try:
            if await accounts.have_changed() or beat % BEATS_PER_EXPIRY == 0:
                streams.end_of(await accounts.gone(streams.credentials()))
        except LogError as error:
            logger.error("%s", error.message)
