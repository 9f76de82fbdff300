"""Signing in and out, one's own keys, and for admins the users. See ``docs/accounts.md``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator
from starlette.responses import Response

from inkstream.accounts import Accounts, Role, sign_in_link
from inkstream.api.body import StrictJson
from inkstream.api.description import replies
from inkstream.api.door import COOKIE, session_of
from inkstream.api.services import exactly_one_of, identity_of, json_response, require_admin, services
from inkstream.errors import Unauthorized

router = APIRouter(prefix="/api", route_class=StrictJson)

DAY_SECONDS = 24 * 3600


class SessionIn(BaseModel):
    """Exactly one of ``key``, a user's or the server's, and ``link``, what a sign-in link carries."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=exactly_one_of("key", "link"))
    key: str | None = None
    link: str | None = None

    @model_validator(mode="after")
    def _one_of(self) -> SessionIn:
        if (self.key is None) == (self.link is None):
            raise ValueError("give exactly one of 'key' and 'link'")
        return self


class KeyIn(BaseModel):
    model_config = ConfigDict(extra="forbid")
    label: Annotated[str, Field(max_length=100)] = ""


class UserIn(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    role: Role = Role.USER


class UserChangeIn(BaseModel):
    """What is not given stays."""

    model_config = ConfigDict(extra="forbid")
    role: Role | None = None
    disabled: StrictBool | None = None


# Oneself


@router.post("/session", status_code=204, responses=replies("", 401, 429, 507, status=204))
async def sign_in(request: Request, body: SessionIn) -> Response:
    """Exchange a key or a sign-in link for the page's cookie."""
    here = services(request)
    here.door.require_patience(request.scope)
    seconds = here.settings.session_days * DAY_SECONDS
    before = session_of(request.headers)
    if body.link is not None:
        session = await here.accounts.open_by_link(body.link, seconds, before)
    else:
        session = await here.accounts.open_by_key(body.key or "", seconds, before)
    if session is None:
        here.door.has_failed(request.scope)
        raise Unauthorized(
            "that key is not accepted."
            if body.link is None
            else "that link has been used, or is too old. Ask for another one.",
            code="unauthorized" if body.link is None else "link_used_up",
        )
    response = Response(status_code=204)
    response.set_cookie(COOKIE, session, max_age=int(seconds), **_cookie(request))
    return response


@router.delete("/session", status_code=204, responses=replies("", 507, status=204))
async def sign_out(request: Request) -> Response:
    """End the session of this browser, and its streams."""
    if session := session_of(request.headers):
        await services(request).accounts.close_session(session)
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, **_cookie(request))
    return response


def _cookie(request: Request) -> dict[str, Any]:  # Any: keyword arguments
    return {
        "httponly": True,
        "samesite": "strict",
        "secure": request.url.scheme == "https",
        "path": services(request).settings.base_path or "/",
    }


@router.get("/me", responses=replies("me"))
async def me(request: Request) -> Response:
    """Who asks, and what proved it: ``session``, ``key``, ``user`` (a proxy said so) or ``nobody``."""
    identity = identity_of(request)
    by = identity.credential.partition(":")[0] or "key"
    return json_response({"name": identity.name, "role": identity.role, "by": by})


@router.get("/keys", responses=replies("keys"))
async def list_keys(request: Request) -> Response:
    """One's own bearer keys, without their secrets."""
    keys = await services(request).accounts.keys(identity_of(request).principal)
    return json_response({"keys": [asdict(key) for key in keys]})


@router.post("/keys", status_code=201, responses=replies("key", 404, status=201))
async def add_key(request: Request, body: KeyIn) -> Response:
    """A new bearer key. Its secret is told here and never again."""
    key, secret = await services(request).accounts.add_key(identity_of(request).principal, body.label)
    return json_response({**asdict(key), "key": secret}, 201)


@router.delete("/keys/{key}", status_code=204, responses=replies("", 404, status=204))
async def revoke_key(request: Request, key: str) -> Response:
    """Whatever uses it is refused from now on, and its streams end."""
    await services(request).accounts.revoke_key(key, identity_of(request).principal)
    return Response(status_code=204)


# Everybody, for admins


@router.get("/users", responses=replies("users"))
async def list_users(request: Request) -> Response:
    users = await _administered(request).users()
    return json_response({"users": [asdict(user) for user in users]})


@router.post("/users", status_code=201, responses=replies("user", 409, status=201))
async def add_user(request: Request, body: UserIn) -> Response:
    """A new user, and the link by which they sign in."""
    accounts = _administered(request)
    user = await accounts.add_user(body.name, body.role)
    return json_response({**asdict(user), "link": await _link(request, accounts, user.id)}, 201)


@router.patch("/users/{user}", responses=replies("user", 404, 409))
async def change_user(request: Request, user: str, body: UserChangeIn) -> Response:
    """Disabling signs them out everywhere. Their conversations stay."""
    changed = await _administered(request).change_user(user, role=body.role, is_disabled=body.disabled)
    return json_response(asdict(changed))


@router.post("/users/{user}/link", status_code=201, responses=replies("link", 404, 409, status=201))
async def add_link(request: Request, user: str) -> Response:
    """A new sign-in link, in place of any older one."""
    return json_response({"link": await _link(request, _administered(request), user)}, 201)


def _administered(request: Request) -> Accounts:
    require_admin(request)
    return services(request).accounts


async def _link(request: Request, accounts: Accounts, user: str) -> str:
    address = services(request).settings.public_url or str(request.base_url)
    return sign_in_link(address, await accounts.add_link(user))
