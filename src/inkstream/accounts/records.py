"""What the accounts hold, as their callers see it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

LOCAL = "local"
"""The principal where nobody signs in, and of whoever holds the server's one access key."""


class Role(StrEnum):
    """An admin may do what concerns everybody: users, models, settings."""

    ADMIN = "admin"
    USER = "user"


@dataclass(frozen=True, slots=True)
class User:
    """``id`` is the principal to which chats and runs belong. Times are Unix times."""

    id: str
    name: str
    role: Role
    created_at: float
    disabled_at: float | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """A bearer key without its secret, of which only a hash is kept."""

    id: str
    user: str
    label: str
    created_at: float


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks. ``credential`` names what proved it, for ``Accounts.gone``; it is no secret."""

    principal: str
    name: str
    role: Role
    credential: str = ""


@dataclass(frozen=True, slots=True)
class Proof:
    """What a request brings along to say who asks; empty where it brings none.

    ``name`` is what a trusted proxy says, ``bearer`` a key and ``session`` the page's cookie.
    """

    name: str = ""
    bearer: str = ""
    session: str = ""
