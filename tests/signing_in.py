"""Users of a live server, signed in by a link like people, or with a key like programs."""

from __future__ import annotations

import httpx

from inkstream.accounts import Role
from tests.live import Live


async def invited(live: Live, name: str, role: Role = Role.USER) -> str:
    """A new user's sign-in link, as a secret."""
    accounts = live.services.accounts
    user = await accounts.add_user(name, role)
    return await accounts.add_link(user.id)


async def keyed(
    live: Live, name: str, role: Role = Role.USER, *, is_local: bool = False
) -> httpx.AsyncClient:
    """A new user's program."""
    accounts = live.services.accounts
    user = await accounts.add_user(name, role, is_local=is_local)
    _, secret = await accounts.add_key(user.id)
    return browser(live, Authorization=f"Bearer {secret}")


def browser(live: Live, **headers: str) -> httpx.AsyncClient:
    """A client that keeps cookies."""
    return httpx.AsyncClient(base_url=live.url, trust_env=False, headers=headers, timeout=20)


async def signed_in(live: Live, name: str, role: Role = Role.USER) -> httpx.AsyncClient:
    """A new user's browser."""
    async with browser(live) as http:
        reply = await http.post("/api/session", json={"link": await invited(live, name, role)})
        assert reply.status_code == 204
    returning = browser(live)
    returning.cookies = reply.cookies
    return returning
