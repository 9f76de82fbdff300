"""The statements of the accounts. Each call is one transaction, made in one thread."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sqlite3
import time
import unicodedata
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from inkstream.accounts.records import LOCAL, Identity, Key, Proof, Role, User
from inkstream.errors import Conflict, Invalid, NotFound

USER = "id, name, role, created_at, disabled_at"
NAME_CHARS = 64
MOST_CHARS = 4 * NAME_CHARS  # normalizing takes time with the square of the length
LABEL_CHARS = 100
KEY_PREFIX = "ink_"  # so that tools which look for leaked secrets can know one
NOT_DISABLED = "users.disabled_at IS NULL"


class Rows:
    """``access_key`` is the server's one key, empty where there is none."""

    def __init__(self, db: sqlite3.Connection, access_key: str) -> None:
        self.db, self._access_key = db, access_key

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.db.execute("COMMIT")
        except BaseException:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise

    # Users

    def add_user(self, name: str, role: Role, principal: str) -> User:
        name = _checked(name)
        user = User(principal, name, role, time.time())
        with self.transaction():
            for column, value in (("folded", _folded(name)), ("id", principal)):
                if self.db.execute(f"SELECT 1 FROM users WHERE {column} = ?", (value,)).fetchone():
                    whose = f"the name {name!r}" if column == "folded" else f"what {LOCAL!r} has"
                    raise Conflict(f"{whose} belongs to a user already.", code="user_exists")
            self.db.execute(
                f"INSERT INTO users ({USER}, folded) VALUES (?, ?, ?, ?, ?, ?)",
                (user.id, user.name, user.role, user.created_at, None, _folded(name)),
            )
        return user

    def users(self) -> list[User]:
        return [_user(row) for row in self.db.execute(f"SELECT {USER} FROM users ORDER BY n")]

    def user(self, id_: str) -> User:
        return self._user("id", id_, id_)

    def user_named(self, name: str) -> User:
        return self._user("folded", _folded(name), name)

    def _user(self, column: str, value: str, said: str) -> User:
        row = self.db.execute(f"SELECT {USER} FROM users WHERE {column} = ?", (value,)).fetchone()
        if row is None:
            raise NotFound(f"there is no user {said!r}.", code="unknown_user")
        return _user(row)

    def change_user(self, id_: str, role: Role | None, is_disabled: bool | None) -> User:
        with self.transaction():
            before = self.user(id_)
            disabled_at = before.disabled_at
            if is_disabled is not None:
                disabled_at = (disabled_at or time.time()) if is_disabled else None
            self.db.execute(
                "UPDATE users SET role = ?, disabled_at = ? WHERE id = ?",
                (role or before.role, disabled_at, id_),
            )
            if is_disabled:
                # A key works again when its user does; who was signed in has to sign in anew.
                self.db.execute("DELETE FROM sessions WHERE user = ?", (id_,))
                self.db.execute("DELETE FROM links WHERE user = ?", (id_,))
            after = self.user(id_)
            if _rules(before) and not _rules(after) and not any(map(_rules, self.users())):
                raise Conflict(
                    f"{after.name!r} is the last admin. Make somebody else one first.", code="last_admin"
                )
        return after

    # Keys

    def add_key(self, user: str, label: str) -> tuple[Key, str]:
        if len(label) > LABEL_CHARS:
            raise Invalid(f"a label has at most {LABEL_CHARS} characters.", code="bad_label", param="label")
        owner, secret = self.user(user), KEY_PREFIX + secrets.token_urlsafe(32)
        key = Key(uuid.uuid4().hex[:12], owner.name, label, time.time())
        self.db.execute(
            "INSERT INTO keys (id, user, label, hash, created_at) VALUES (?, ?, ?, ?, ?)",
            (key.id, owner.id, label, _hash(secret), key.created_at),
        )
        return key, secret

    def keys(self, user: str | None) -> list[Key]:
        rows = self.db.execute(
            "SELECT keys.id, users.name, label, keys.created_at FROM keys JOIN users ON users.id = user"
            " WHERE ? IS NULL OR user = ? ORDER BY keys.n",
            (user, user),
        )
        return [Key(*row) for row in rows]

    def revoke_key(self, key: str, user: str | None) -> None:
        gone = self.db.execute("DELETE FROM keys WHERE id = ? AND (? IS NULL OR user = ?)", (key, user, user))
        if gone.rowcount == 0:
            raise NotFound(f"there is no key {key!r}.", code="unknown_key")

    # Signing in

    def add_link(self, user: str, seconds: float) -> str:
        secret = secrets.token_urlsafe(32)
        with self.transaction():
            owner = self.user(user)
            if owner.disabled_at is not None:
                raise Conflict(f"{owner.name!r} is disabled.", code="user_disabled")
            self.db.execute("DELETE FROM links WHERE user = ? OR expires_at < ?", (user, time.time()))
            self.db.execute(
                "INSERT INTO links VALUES (?, ?, ?)", (_hash(secret), user, time.time() + seconds)
            )
        return secret

    def open_by_link(self, link: str, seconds: float, before: str) -> str | None:
        with self.transaction():
            row = self.db.execute(
                "DELETE FROM links WHERE hash = ? AND expires_at >= ? RETURNING user",
                (_hash(link), time.time()),
            ).fetchone()
            return self._open(row[0], seconds, before) if row else None

    def open_by_key(self, key: str, seconds: float, before: str) -> str | None:
        with self.transaction():
            if self._is_access_key(key):
                return self._open(None, seconds, before)
            found = self._by_key(key)
            return self._open(found.principal, seconds, before) if found else None

    def _open(self, user: str | None, seconds: float, before: str) -> str:
        """A new session in place of the one that the browser had: a planted one is worth nothing."""
        self.close(before)
        secret, now = secrets.token_urlsafe(32), time.time()
        hash_ = _hash(secret) if user else self._local_hash(secret)
        self.db.execute("DELETE FROM sessions WHERE expires_at < ?", (now,))
        self.db.execute("INSERT INTO sessions VALUES (?, ?, ?)", (hash_, user, now + seconds))
        return secret

    def close(self, session: str) -> None:
        hashes = (_hash(session), self._local_hash(session))
        self.db.execute("DELETE FROM sessions WHERE hash IN (?, ?)", hashes)

    # Who asks

    def who(self, proof: Proof) -> Identity | None:
        """What is said first counts: a wrong key is not made good by a cookie."""
        if proof.name:
            return self._by_name(proof.name)
        if proof.bearer:
            return self._by_key(proof.bearer)
        if proof.session:
            return self._by_session(proof.session)
        return None

    def _by_name(self, name: str) -> Identity | None:
        """A proxy's users have their accounts with the proxy: here one is made when it is first named."""
        if len(name) > MOST_CHARS:
            return None
        try:
            found = self.user_named(name)
        except NotFound:
            try:
                found = self.add_user(name, Role.USER, new_principal())
            except Invalid:
                return None
        if found.disabled_at is not None:
            return None
        return Identity(found.id, found.name, found.role, f"user:{found.id}")

    def _by_key(self, key: str) -> Identity | None:
        row = self.db.execute(
            "SELECT users.id, name, role, keys.id FROM keys JOIN users ON users.id = user"
            f" WHERE hash = ? AND {NOT_DISABLED}",
            (_hash(key),),
        ).fetchone()
        return Identity(row[0], row[1], Role(row[2]), f"key:{row[3]}") if row else None

    def _by_session(self, session: str) -> Identity | None:
        hash_ = _hash(session)
        row = self.db.execute(
            "SELECT users.id, name, role FROM sessions JOIN users ON users.id = user"
            f" WHERE hash = ? AND expires_at >= ? AND {NOT_DISABLED}",
            (hash_, time.time()),
        ).fetchone()
        if row:
            return Identity(row[0], row[1], Role(row[2]), f"session:{hash_.hex()}")
        hash_ = self._local_hash(session)
        if not self._access_key or not self._is_open_session(hash_):
            return None
        return Identity(LOCAL, LOCAL, Role.ADMIN, f"session:{hash_.hex()}")

    def _is_open_session(self, hash_: bytes) -> bool:
        row = self.db.execute(
            f"SELECT 1 FROM sessions LEFT JOIN users ON users.id = user WHERE hash = ? AND expires_at >= ?"
            f" AND {NOT_DISABLED}",
            (hash_, time.time()),
        )
        return row.fetchone() is not None

    def has_users(self) -> bool:
        return self.db.execute("SELECT 1 FROM users LIMIT 1").fetchone() is not None

    def gone(self, credentials: Iterable[str]) -> set[str]:
        return {credential for credential in credentials if not self._holds(credential)}

    def _holds(self, credential: str) -> bool:
        kind, _, name = credential.partition(":")
        match kind:
            case "session":
                return self._is_open_session(bytes.fromhex(name))
            case "key":
                sql = f"SELECT 1 FROM keys JOIN users ON users.id = user WHERE keys.id = ? AND {NOT_DISABLED}"
                return self.db.execute(sql, (name,)).fetchone() is not None
            case "user":
                return self.user(name).disabled_at is None
            case "nobody":
                return not self.has_users()
            case _:
                return True

    def data_version(self) -> int:
        """Another number whenever another connection has written; see SQLite's ``data_version``."""
        version: int = self.db.execute("PRAGMA data_version").fetchone()[0]
        return version

    def _is_access_key(self, key: str) -> bool:
        return bool(self._access_key) and hmac.compare_digest(key.encode(), self._access_key.encode())

    def _local_hash(self, session: str) -> bytes:
        """A session that was opened with the access key ends when the server gets another key."""
        return hmac.digest(self._access_key.encode(), session.encode(), "sha256")


def new_principal() -> str:
    return uuid.uuid4().hex


def _user(row: tuple[Any, ...]) -> User:
    id_, name, role, created_at, disabled_at = row
    return User(id_, name, Role(role), created_at, disabled_at)


def _rules(user: User) -> bool:
    return user.role is Role.ADMIN and user.disabled_at is None


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _checked(name: str) -> str:
    name = unicodedata.normalize("NFC", name[: MOST_CHARS + 1]).strip()
    if not 0 < len(name) <= NAME_CHARS or not name.isprintable():
        raise Invalid(
            f"{name!r} is no name: 1 to {NAME_CHARS} characters that can be seen.",
            code="bad_name",
            param="name",
        )
    return name


def _folded(name: str) -> str:
    """Names that look alike but for case and width are one name."""
    return unicodedata.normalize("NFKC", name).strip().casefold()
