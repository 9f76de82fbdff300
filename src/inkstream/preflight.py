"""What must be right before serving can begin: who may come, where to write, where to listen.

Each check looks at one thing and returns findings. A check changes nothing, raises nothing for what it can
foresee, and looks at the real thing: it binds the port and writes to the folder.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from inkstream.accounts import has_users
from inkstream.config import Settings
from inkstream.errors import LogError
from inkstream.log.sqlite import is_in_use
from inkstream.probe import bind_problem, size
from inkstream.words import Words

Level = Literal["ok", "warn", "fail"]

ENOUGH_DISK_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    """``fix`` says what to do; it is empty where nothing needs doing."""

    check: str
    level: Level
    text: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is examined, and in which language the doctor speaks. ``is_thorough``: read all of the model."""

    settings: Settings
    environ: Mapping[str, str]
    say: Words
    is_thorough: bool = False


Check = Callable[[Subject], Iterator[Finding]]


def examine(subject: Subject, checks: tuple[Check, ...]) -> Iterator[Finding]:
    for check in checks:
        yield from check(subject)


def exposure(subject: Subject) -> Iterator[Finding]:
    """Whoever reaches the port spends this machine's time: beyond loopback everybody says who they are."""
    settings, say = subject.settings, subject.say
    try:
        way = _way_in(settings, say)
    except LogError as error:
        yield Finding("access", "fail", error.message)
        return
    if way or settings.is_loopback:
        yield Finding("access", "ok", f"{settings.host}: {way or say('only this machine', '仅本机')}")
    if not way and settings.is_loopback and settings.hosts:
        text = say(
            f"reached as {settings.hosts[0]}, and nobody has to sign in",
            f"可通过 {settings.hosts[0]} 访问，而且无需登录",
        )
        yield Finding("access", "warn", text, "inkstream users add NAME --admin --local")
    elif not way and not settings.is_loopback:
        text = say(
            f"{settings.host} can be reached from other machines, and nobody has to sign in",
            f"其他机器可以访问 {settings.host}，而且无需登录",
        )
        # Hexadecimal: a key that begins with a dash would be taken for an option.
        command = f"inkstream serve --host {settings.host} --key {secrets.token_hex(16)}"
        yield Finding("access", "fail", text, f"inkstream users add NAME --admin --local, or: {command}")


def _way_in(settings: Settings, say: Words) -> str:
    """How people say who they are; empty where nobody has to. Raises LogError."""
    if settings.user_header:
        return say(
            f"users named by the proxy in {settings.user_header}", f"代理在 {settings.user_header} 中给出用户"
        )
    if has_users(settings.data_dir):
        return say("users sign in", "用户登录")
    return say("with a key", "需要密钥") if settings.key else ""


def port(subject: Subject) -> Iterator[Finding]:
    settings, say = subject.settings, subject.say
    where = f"{settings.host}:{settings.port}"
    problem = bind_problem(settings.host, settings.port)
    if problem is None:
        yield Finding("port", "ok", say(f"{where} is free", f"{where} 可用"))
        return
    if problem.errno == errno.EADDRINUSE:
        text = say(f"{where} is taken by another program", f"{where} 已被其他程序占用")
        yield Finding("port", "fail", text, f"inkstream serve --port {_free_port_after(settings)}")
    elif problem.errno == errno.EACCES:
        text = say(f"port {settings.port} needs root", f"端口 {settings.port} 需要 root 权限")
        yield Finding("port", "fail", text, "inkstream serve --port 8000")
    else:
        text = say(f"cannot listen on {where}: {problem.strerror}", f"无法监听 {where}：{problem.strerror}")
        fix = say("--host takes an address of this machine", "--host 应为本机的地址")
        yield Finding("port", "fail", text, fix)


def _free_port_after(settings: Settings) -> int:
    following = range(settings.port + 1, min(settings.port + 50, 65536))
    return next((port for port in following if bind_problem(settings.host, port) is None), 0)


def folder(subject: Subject) -> Iterator[Finding]:
    say, path = subject.say, subject.settings.data_dir
    # Path.exists raises where a folder above may not be read.
    there = next(parent for parent in (path, *path.parents) if os.path.exists(parent))
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        text = say(f"cannot write to {there}: {error.strerror}", f"无法写入 {there}：{error.strerror}")
        yield Finding("folder", "fail", text, "inkstream serve --data-dir FOLDER")
        return
    if is_in_use(path):
        text = say(
            f"another inkstream is running on {path}, and one gateway serves a folder",
            f"已有另一个 inkstream 在使用 {path}，而一个文件夹只能由一个网关使用",
        )
        fix = "inkstream serve --data-dir FOLDER --engine-url tcp://…"
        yield Finding(
            "folder",
            "fail",
            text,
            fix + say("; both over one 'inkstream engine'", "；可共用同一个 inkstream engine"),
        )
        return
    yield Finding("folder", "ok", say(f"{path} can be written", f"{path} 可写"))
    yield _disk(there, say)


def _disk(path: Path, say: Words) -> Finding:
    free = shutil.disk_usage(path).free
    text = say(f"{size(free)} free on its disk", f"所在磁盘剩余 {size(free)}")
    if free >= ENOUGH_DISK_BYTES:
        return Finding("disk", "ok", text)
    return Finding(
        "disk", "warn", text, say("a model takes 0.1 to 2 GB and more", "一个模型需要 0.1 至 2 GB 或更多")
    )


BEFORE_SERVING: tuple[Check, ...] = (exposure, folder, port)
