"""``inkstream users`` and ``inkstream keys``: what an admin does at the console, while the server runs."""

from __future__ import annotations

import asyncio
import json
import time
from argparse import Namespace
from dataclasses import asdict
from socket import gethostname

from inkstream.accounts import Accounts, Key, Role, User, sign_in_link
from inkstream.config import Settings
from inkstream.errors import ConfigError
from inkstream.words import Words, aligned

EVERYWHERE = ("0.0.0.0", "::")


def users(arguments: Namespace, settings: Settings, say: Words) -> str:
    """Do what was asked, and return what there is to print. Raises InkstreamError."""
    return asyncio.run(_users(arguments, settings, say))


def keys(arguments: Namespace, settings: Settings, say: Words) -> str:
    return asyncio.run(_keys(arguments, settings, say))


async def _users(arguments: Namespace, settings: Settings, say: Words) -> str:
    async with Accounts.open(settings.data_dir) as accounts:
        if arguments.action == "list":
            return _listed_users(await accounts.users(), arguments, say)
        name = _required(arguments.name, f"users {arguments.action}", "NAME")
        if arguments.action == "add":
            role = Role.ADMIN if arguments.admin else Role.USER
            user = await accounts.add_user(name, role, is_local=arguments.local)
        else:
            user = await accounts.user_named(name)
        if arguments.action in ("disable", "enable"):
            user = await accounts.change_user(user.id, is_disabled=arguments.action == "disable")
            return f"{user.name}: {_state(user, say)}"
        return _link(user, sign_in_link(address(settings), await accounts.add_link(user.id)), say)


async def _keys(arguments: Namespace, settings: Settings, say: Words) -> str:
    async with Accounts.open(settings.data_dir) as accounts:
        if arguments.action == "list":
            owner = await accounts.user_named(arguments.name) if arguments.name else None
            return _listed_keys(await accounts.keys(owner.id if owner else None), arguments, say)
        if arguments.action == "revoke":
            key_id = _required(arguments.name, "keys revoke", "ID")
            await accounts.revoke_key(key_id)
            return say(f"{key_id} is revoked", f"{key_id} 已吊销")
        owner = await accounts.user_named(_required(arguments.name, "keys add", "NAME"))
        key, secret = await accounts.add_key(owner.id, arguments.label)
    told = say("The key is shown this once:", "密钥只显示这一次：")
    return f"{told}\n{secret}\n" + say(
        f"It is revoked by: inkstream keys revoke {key.id}", f"吊销：inkstream keys revoke {key.id}"
    )


def address(settings: Settings) -> str:
    """Where people reach the page, as far as the settings tell."""
    if settings.public_url:
        return settings.public_url
    host = next(iter(settings.hosts), gethostname()) if settings.host in EVERYWHERE else settings.host
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}{settings.base_path}"


def _required(value: str | None, command: str, name: str) -> str:
    if not value:
        raise ConfigError(f"'inkstream {command}' needs {name}.", code="missing_argument")
    return value


def _link(user: User, link: str, say: Words) -> str:
    return say(
        f"{user.name} signs in with this link, once, within 24 hours:\n{link}",
        f"{user.name} 用此链接登录，24 小时内有效，只能使用一次：\n{link}",
    )


def _listed_users(found: list[User], arguments: Namespace, say: Words) -> str:
    if arguments.json:
        return json.dumps({"users": [asdict(user) for user in found]}, ensure_ascii=False)
    if not found:
        return say("There are no users.", "还没有用户。")
    head = say("NAME,ROLE,SINCE,STATE", "名称,角色,创建于,状态").split(",")
    return aligned([head, *([u.name, u.role, _day(u.created_at), _state(u, say)] for u in found)])


def _listed_keys(found: list[Key], arguments: Namespace, say: Words) -> str:
    if arguments.json:
        return json.dumps({"keys": [asdict(key) for key in found]}, ensure_ascii=False)
    if not found:
        return say("There are no keys.", "还没有密钥。")
    head = say("ID,USER,SINCE,LABEL", "编号,用户,创建于,备注").split(",")
    return aligned([head, *([key.id, key.user, _day(key.created_at), key.label] for key in found)])


def _state(user: User, say: Words) -> str:
    return say("active", "启用") if user.disabled_at is None else say("disabled", "停用")


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(at))
