"""What this machine has, lacks and should change.

Each check looks at one thing and returns findings; ``serve`` asks the same checks that stand in its way.
A check changes nothing, raises nothing for what it can foresee, and looks at the real thing: it binds the
port, writes to the folder, loads the engine's library.
"""

from __future__ import annotations

import errno
import importlib.metadata
import importlib.resources
import locale
import secrets
import shutil
import sqlite3
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from inkstream import probe
from inkstream.config import Settings
from inkstream.probe import Device, bind_problem, size
from inkstream.words import Words

Level = Literal["ok", "warn", "fail"]

PACKAGES = ("inkstream", "fastapi", "starlette", "uvicorn", "httpx", "orjson", "xllamacpp")
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
    """What is examined, and in which language the doctor speaks."""

    settings: Settings
    environ: Mapping[str, str]
    say: Words


Check = Callable[[Subject], Iterator[Finding]]


def python(subject: Subject) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    text = f"Python {version}, {sys.executable}"
    if sys.version_info[:2] > (3, 14):
        fix = subject.say(
            "tested up to 3.14: if something fails, use that", "已测试到 3.14；若有异常，请改用 3.14"
        )
        yield Finding("python", "warn", text, fix)
    else:
        yield Finding("python", "ok", text)


def packages(subject: Subject) -> Iterator[Finding]:
    found, missing = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        text = subject.say("missing packages: ", "缺少软件包：") + ", ".join(missing)
        yield Finding("packages", "fail", text, f"{sys.executable} -m pip install inkstream")
    yield Finding("packages", "ok", ", ".join(found))


def page(subject: Subject) -> Iterator[Finding]:
    say = subject.say
    if importlib.resources.files("inkstream").joinpath("page", "index.html").is_file():
        yield Finding("page", "ok", say("the page is built", "页面已构建"))
    else:
        fix = say(
            "in a clone: make page. The wheel carries it.", "请在源码目录运行 make page（wheel 包自带页面）"
        )
        yield Finding("page", "fail", say("the page is not built", "页面尚未构建"), fix)


def sqlite(subject: Subject) -> Iterator[Finding]:
    yield Finding("sqlite", "ok", f"SQLite {sqlite3.sqlite_version}")


def language(subject: Subject) -> Iterator[Finding]:
    encoding = locale.getpreferredencoding(False)
    text = subject.say(f"language en, encoding {encoding}", f"语言 zh，编码 {encoding}")
    if encoding.lower().replace("-", "") == "utf8":
        yield Finding("locale", "ok", text)
    else:
        fix = subject.say(
            "set LC_ALL=C.UTF-8 to see every character", "设置 LC_ALL=C.UTF-8 以正常显示所有字符"
        )
        yield Finding("locale", "warn", text, fix)


def exposure(subject: Subject) -> Iterator[Finding]:
    """Whoever reaches the port spends this machine's time: beyond loopback a key is required."""
    settings, say = subject.settings, subject.say
    if settings.is_loopback or settings.key:
        level = say("only this machine", "仅本机") if settings.is_loopback else say("with a key", "需要密钥")
        yield Finding("access", "ok", f"{settings.host}: {level}")
        return
    text = say(
        f"{settings.host} can be reached from other machines, and no access key is set",
        f"其他机器可以访问 {settings.host}，但没有设置访问密钥",
    )
    command = f"inkstream serve --host {settings.host} --key {secrets.token_urlsafe(18)}"
    yield Finding("access", "fail", text, command)


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
        text = say(f"cannot listen on {where}: {problem.strerror}", f"无法监听 {where}:{problem.strerror}")
        fix = say("--host takes an address of this machine", "--host 应为本机的地址")
        yield Finding("port", "fail", text, fix)


def _free_port_after(settings: Settings) -> int:
    following = range(settings.port + 1, min(settings.port + 50, 65536))
    return next((port for port in following if bind_problem(settings.host, port) is None), 0)


def folder(subject: Subject) -> Iterator[Finding]:
    say, path = subject.say, subject.settings.data_dir
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        text = say(f"cannot write to {there}: {error.strerror}", f"无法写入 {there}:{error.strerror}")
        yield Finding("folder", "fail", text, "inkstream serve --data-dir FOLDER")
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


def engine(subject: Subject) -> Iterator[Finding]:
    """The engine's library and the devices that it can compute on, GPUs above all."""
    if subject.settings.engine == "scripted" or subject.settings.engine_url:
        return
    say = subject.say
    try:
        llama = probe.llama()
    except probe.ProbeError as error:
        text = say(f"llama.cpp does not load: {error}", f"llama.cpp 无法加载：{error}")
        yield Finding("llama", "fail", text, f"{sys.executable} -m pip install --force-reinstall xllamacpp")
        return
    names = ", ".join(f"{d.name} ({d.description}, {size(d.memory_total)})" for d in llama.devices)
    yield Finding("llama", "ok", f"llama.cpp (xllamacpp {llama.build}): {names}")
    yield from _gpu(subject, [device for device in llama.devices if device.kind != "CPU"])


def _gpu(subject: Subject, usable: list[Device]) -> Iterator[Finding]:
    say, seen = subject.say, probe.nvidia_gpus()
    if usable and subject.settings.gpu_layers != 0:
        yield Finding("gpu", "ok", say("used: ", "使用中：") + ", ".join(d.description for d in usable))
    elif usable:
        fix = say("drop --gpu-layers 0 to use it", "去掉 --gpu-layers 0 即可启用")
        yield Finding("gpu", "warn", say("there is a GPU, switched off", "有 GPU，但被设置关闭"), fix)
    elif seen:
        text = say(
            f"{', '.join(seen)} is here, but this build of llama.cpp computes on the CPU only",
            f"检测到 {'、'.join(seen)}，但当前的 llama.cpp 只支持 CPU",
        )
        fix = say(
            "install an xllamacpp built for CUDA or Vulkan; see its own documentation",
            "安装支持 CUDA 或 Vulkan 的 xllamacpp，见其文档",
        )
        yield Finding("gpu", "warn", text, fix)
    else:
        yield Finding("gpu", "ok", say("none seen; the CPU answers", "未检测到，使用 CPU"))


def network(subject: Subject) -> Iterator[Finding]:
    """Proxies and mirrors that downloads go through; never with their credentials."""
    say = subject.say
    proxies = sorted(urllib.request.getproxies())
    text = ", ".join(proxies) if proxies else say("none", "无")
    yield Finding("proxies", "ok", say("proxies: ", "代理：") + text)
    is_set = bool(subject.environ.get("HF_ENDPOINT"))
    text = say("set by HF_ENDPOINT", "由 HF_ENDPOINT 指定") if is_set else say("the default", "默认")
    yield Finding("mirrors", "ok", say("model hub: ", "模型库：") + text)
    text = say("one of your own", "自定义") if probe.has_package_index() else say("the default", "默认")
    yield Finding("mirrors", "ok", say("package index: ", "软件包源：") + text)


BEFORE_SERVING: tuple[Check, ...] = (exposure, folder, port)
CHECKS: tuple[Check, ...] = (
    python, packages, page, sqlite, language, exposure, port, folder, engine, network,
)  # fmt: skip


def examine(subject: Subject, checks: tuple[Check, ...] = CHECKS) -> Iterator[Finding]:
    for check in checks:
        yield from check(subject)
