"""The machine, and what processes cost: asked of Linux, so that one command needs no dependency.

Where there is no ``/proc`` (macOS, Windows) nothing is known about other processes, and the report says so.
"""

from __future__ import annotations

import contextlib
import os
import platform
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
LISTEN = "0A"
CPUCLOCK_SCHED = 2
ZOMBIE = "Z"


@dataclass(frozen=True, slots=True)
class Machine:
    """What figures depend on. ``load`` is how many processes wanted a core when the bench began."""

    cpu: str
    cores: int
    load: float | None
    system: str
    python: str

    @classmethod
    def here(cls) -> Machine:
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
        return cls(_cpu(), usable, load, platform.platform(terse=True), platform.python_version())


@dataclass(frozen=True, slots=True)
class Use:
    """What a process has used so far, its threads included."""

    pid: int
    name: str
    cpu_seconds: float
    rss_bytes: int


def allow_many_files() -> None:
    """Let this process and its children open what the system allows: the usual 1,024 are too few."""
    if sys.platform != "win32":
        import resource  # noqa: PLC0415  # there is none for Windows

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.suppress(ValueError, OSError):  # macOS calls its bound unlimited and refuses that
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def listeners(host: str, port: int) -> tuple[int, ...]:
    """The processes that listen on a port of this machine; none where that cannot be known."""
    if not PROC.is_dir() or not _is_here(host):
        return ()
    sockets = {f"socket:[{inode}]" for inode in _listening(port)}
    return tuple(pid for pid in _pids() if sockets & set(_links(PROC / str(pid) / "fd")))


def family(roots: Iterable[int]) -> list[int]:
    """The processes and all their descendants."""
    children: dict[int, list[int]] = {}
    for pid in _pids():
        if (stat := _stat(pid)) is not None:
            children.setdefault(int(stat[1]), []).append(pid)
    found: list[int] = []
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.append(pid)
            waiting += children.get(pid, [])
    return found


def use_of(pid: int) -> Use | None:
    """None for a process that is gone, or not ours to look at."""
    stat = _stat(pid)
    if stat is None or stat[0] == ZOMBIE:
        return None
    try:
        # clock_getcpuclockid(3): the clock of all its threads, ended ones included, in nanoseconds. The
        # ticks that /proc has are of 10 ms.
        seconds = time.clock_gettime(~pid << 3 | CPUCLOCK_SCHED)
    except OSError:
        return None
    return Use(pid, _name(pid), seconds, int(stat[21]) * os.sysconf("SC_PAGE_SIZE"))


def _stat(pid: int) -> list[str] | None:
    """The fields behind the name, which may hold blanks and brackets: state, parent, …; see proc(5)."""
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def _name(pid: int) -> str:
    """The program, or what Python runs: ``inkstream gateway``."""
    try:
        words = (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        words = []
    if "-m" in words[:-1]:
        words = words[words.index("-m") + 1 :]
    else:
        words = [Path(word).name for word in words if not word.startswith("-")]
        words = words[1:] if len(words) > 1 and words[0].startswith("python") else words
    return " ".join(word for word in words[:2] if not word.startswith("-")) or str(pid)


def _listening(port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        try:
            lines = (PROC / "net" / table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _links(folder: Path) -> Iterator[str]:
    try:
        names = os.listdir(folder)
    except OSError:  # another user's process, or one that has just gone
        return
    for name in names:
        try:
            yield os.readlink(folder / name)
        except OSError:
            continue


def _pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir(PROC) if name.isdigit()]
    except OSError:
        return []


def _is_here(host: str) -> bool:
    try:
        addresses = {found[4][0] for found in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return any(str(address).startswith("127.") or address == "::1" for address in addresses)


def _cpu() -> str:
    try:
        lines = (PROC / "cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
