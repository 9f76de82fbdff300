"""Who there is, and who asks: users, their bearer keys, sign-in links and sessions, on SQLite.

They have a file of their own in the data folder, which the command line writes while the server runs.

All statements run in one thread of the accounts' own. What another process changes counts from the next
request on.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import ParamSpec, Self, TypeVar

from inkstream.accounts.records import LOCAL, Identity, Key, Proof, Role, User
from inkstream.accounts.rows import Rows, new_principal
from inkstream.accounts.schema import connect, has_users
from inkstream.errors import LogUnwritable
from inkstream.writer import Writer

LINK_SECONDS = 24 * 3600

P = ParamSpec("P")
T = TypeVar("T")


class Accounts:
    """Raises NotFound for a user or key that is not there, and LogUnwritable, from every call."""

    def __init__(self, db: sqlite3.Connection, folder: Path, access_key: str) -> None:
        self._rows, self._folder = Rows(db, access_key), folder
        self._writer = Writer("accounts")
        self._seen_version = 0
        self._has_written = False

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path, access_key: str = "") -> AsyncIterator[Self]:
        """``access_key`` is the server's one key, by which its holder is ``local``.

        Raises LogUnwritable, LogError for a file of a newer version.
        """
        accounts = cls(await asyncio.to_thread(connect, folder), folder, access_key)
        accounts._writer.start()
        try:
            yield accounts
        finally:
            await accounts._writer.stop()
            accounts._rows.db.close()

    # Users

    async def add_user(self, name: str, role: Role = Role.USER, *, is_local: bool = False) -> User:
        """``is_local``: the user goes on with the conversations of those who did not have to sign in.

        Raises Invalid ``bad_name``, Conflict ``user_exists``.
        """
        return await self._write(self._rows.add_user, name, role, LOCAL if is_local else new_principal())

    async def users(self) -> list[User]:
        """The oldest first, with those that are disabled."""
        return await self._run(self._rows.users)

    async def user_named(self, name: str) -> User:
        return await self._run(self._rows.user_named, name)

    async def change_user(
        self, user: str, *, role: Role | None = None, is_disabled: bool | None = None
    ) -> User:
        """Whoever is disabled is signed out everywhere, and no key of theirs is taken until they are enabled.

        Raises Conflict ``last_admin``.
        """
        return await self._write(self._rows.change_user, user, role, is_disabled)

    # Keys

    async def add_key(self, user: str, label: str = "") -> tuple[Key, str]:
        """The key and its secret, which nobody can find out again. Raises Invalid ``bad_label``."""
        return await self._write(self._rows.add_key, user, label)

    async def keys(self, user: str | None = None) -> list[Key]:
        """Those of a user, or all of them."""
        return await self._run(self._rows.keys, user)

    async def revoke_key(self, key: str, user: str | None = None) -> None:
        """Whoever it is of, or that user's only."""
        await self._write(self._rows.revoke_key, key, user)

    # Signing in

    async def add_link(self, user: str) -> str:
        """The secret of a sign-in link. It works once, for a day, and only until there is a newer one.

        Raises Conflict ``user_disabled``.
        """
        return await self._write(self._rows.add_link, user, LINK_SECONDS)

    async def open_by_link(self, link: str, seconds: float, before: str = "") -> str | None:
        """The secret of a new session, None if the link is not, or no longer, good for one.

        ``before`` is the session that the browser had, which ends.
        """
        return await self._write(self._rows.open_by_link, link, seconds, before)

    async def open_by_key(self, key: str, seconds: float, before: str = "") -> str | None:
        """The same for a user's bearer key, or the server's one key."""
        return await self._write(self._rows.open_by_key, key, seconds, before)

    async def close_session(self, session: str) -> None:
        await self._write(self._rows.close, session)

    # Who asks

    async def who(self, proof: Proof) -> Identity | None:
        """None for a proof that proves nothing. The server's one key is none of the users' keys."""
        return await self._run(self._rows.who, proof)

    async def has_users(self) -> bool:
        """Whether there are any, disabled or not."""
        return await self._run(self._rows.has_users)

    async def have_changed(self) -> bool:
        """Whether anything was written, here or by another process, since this was asked last."""
        version = await self._run(self._rows.data_version)
        has_changed = self._has_written or version != self._seen_version
        self._has_written, self._seen_version = False, version
        return has_changed

    async def gone(self, credentials: Iterable[str]) -> set[str]:
        """Those that prove nothing any more: revoked, signed out, expired, of a disabled user."""
        return await self._run(self._rows.gone, credentials)

    async def _write(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        written = await self._run(call, *args, **kwargs)
        self._has_written = True
        return written

    async def _run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._writer.ask(partial(self._translated, partial(call, *args, **kwargs)))

    def _translated(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except sqlite3.OperationalError as error:
            raise LogUnwritable(f"the accounts in {self._folder} cannot be written: {error}") from error


def sign_in_link(address: str, secret: str) -> str:
    """Behind the ``#``: what stands there is sent to no server and kept in no log on the way."""
    return f"{address.rstrip('/')}/#/sign-in/{secret}"


__all__ = ["LOCAL", "Accounts", "Identity", "Key", "Proof", "Role", "User", "has_users", "sign_in_link"]
