"""One file from one address into the folder: resumed, checked, patient within bounds.

A half file goes on where it ended: by ``Range`` alone where a checksum will judge the whole, else also by
``If-Range`` with the entity tag that the first half came with (RFC 9110, sections 13.1.5 and 14.2).
"""

from __future__ import annotations

import asyncio
import errno
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from filelock import FileLock, Timeout

from inkstream.errors import ModelError
from inkstream.models.failures import (
    CLOSED_EARLY,
    Interrupted,
    Patience,
    SourceFailed,
    check_status,
    describe,
)
from inkstream.models.part import Identity, Part, WrongContent, has_begun, size_so_far
from inkstream.models.progress import Meter
from inkstream.models.store import writable

# Left free on the disk for the token log and the rest of the system.
RESERVE_BYTES = 64 << 20
WATCH_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Remote:
    """A file as a source offers it. ``source`` is its kind, ``host`` what people know it by."""

    source: str
    host: str
    name: str
    url: str
    size_bytes: int
    sha256: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


async def download(
    client: httpx.AsyncClient, remote: Remote, target: Path, meter: Meter, patience: Patience
) -> str | None:
    """Fetch the file. Returns its SHA-256, or None if another process had fetched it meanwhile.

    Raises SourceFailed, ModelError (``disk_full``, ``folder_unwritable``).
    """
    with disk_errors(target.parent, remote.size_bytes):
        async with alone(target, meter):
            if is_there(target):
                return None
            if has_begun(target):
                with suppress(WrongContent):
                    return await _once(client, remote, target, meter, patience)
                meter.note(
                    "what an earlier start had left does not fit; starting again",
                    "上次留下的部分与文件不符，重新下载",
                )
            try:
                return await _once(client, remote, target, meter, patience)
            except WrongContent as error:
                raise SourceFailed(f"{remote.name} came whole but wrong: {error}") from error


def is_there(target: Path) -> bool:
    return target.exists()


async def _once(
    client: httpx.AsyncClient, remote: Remote, target: Path, meter: Meter, patience: Patience
) -> str:
    """Raises WrongContent, after which nothing is left of it, SourceFailed, ModelError, OSError."""
    async with Part(target, Identity(remote.size_bytes, remote.sha256)) as part:
        require_space(target.parent, remote.size_bytes - part.size)
        meter.start(part.size)
        await _fill(client, remote, part, meter, patience)
        return await part.settle()


@contextmanager
def disk_errors(folder: Path, needed: int) -> Iterator[None]:
    """Say in words what the disk refuses while ``needed`` bytes are written into the folder."""
    with writable(folder):
        try:
            yield
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise _disk_full(folder, needed, shutil.disk_usage(folder).free) from error


def require_space(folder: Path, needed: int) -> None:
    """Raises ModelError ``disk_full`` before a byte is spent on a file that cannot fit."""
    free = shutil.disk_usage(folder).free
    if free < needed + RESERVE_BYTES:
        raise _disk_full(folder, needed, free)


def _disk_full(folder: Path, needed: int, free: int) -> ModelError:
    return ModelError(
        f"The disk of {folder} has {megabytes(free)} free; {megabytes(needed + RESERVE_BYTES)} are needed. "
        "Free some space, choose another data folder with --data-dir, or a smaller model.",
        code="disk_full",
    )


def megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"


@asynccontextmanager
async def alone(target: Path, meter: Meter) -> AsyncIterator[None]:
    """Hold the file's lock, so that one process writes it and the others watch it grow."""
    lock = FileLock(f"{target}.lock")
    while True:
        try:
            lock.acquire(blocking=False)
            break
        except Timeout:
            meter.at(size_so_far(target))
            meter.note("another process is fetching this file", "另一个进程正在下载此文件")
            await asyncio.sleep(WATCH_SECONDS)
    try:
        yield
    finally:
        lock.release()


async def _fill(
    client: httpx.AsyncClient, remote: Remote, part: Part, meter: Meter, patience: Patience
) -> None:
    failures, best = 0, part.size
    while part.size < remote.size_bytes:
        try:
            await _receive(client, remote, part, meter)
        except Interrupted as error:
            interruption = error
        except httpx.HTTPError as error:
            interruption = Interrupted(*describe(error))
        else:
            continue
        failures = 1 if part.size > best else failures + 1
        best = max(best, part.size)
        pause = interruption.pause(failures, patience)
        if failures >= patience.attempts or pause > patience.longest_wait_seconds:
            raise _gave_up(remote, interruption, failures)
        most = patience.attempts - 1
        meter.note(
            f"{interruption.reason}; trying again in {pause:.1f} s ({failures} of {most})",
            f"{interruption.reason_zh}，{pause:.1f} 秒后重试（{failures}/{most}）",
        )
        await asyncio.sleep(pause)


def _gave_up(remote: Remote, interruption: Interrupted, failures: int) -> SourceFailed:
    if interruption.retry_after_seconds:
        return SourceFailed(
            f"{interruption.reason} and asks to wait {interruption.retry_after_seconds:.0f} s"
        )
    return SourceFailed(f"the download from {remote.host} broke off {failures} times: {interruption.reason}")


async def _receive(client: httpx.AsyncClient, remote: Remote, part: Part, meter: Meter) -> None:
    """One request: appends what it brings. Raises httpx.HTTPError, Interrupted, SourceFailed."""
    headers = {**remote.headers, "Accept-Encoding": "identity", **_range(part)}
    async with client.stream("GET", remote.url, headers=headers, follow_redirects=True) as response:
        if response.status_code == 416:
            await part.restart()
        check_status(response)
        await _line_up(response, remote, part)
        meter.start(part.size)
        async for block in response.aiter_raw():
            if part.size + len(block) > remote.size_bytes:
                raise SourceFailed(
                    f"{remote.host} sent more than the {remote.size_bytes:,} bytes it promised"
                )
            await part.write(block)
            meter.at(part.size)
    if part.size < remote.size_bytes:
        raise Interrupted(*CLOSED_EARLY)


def _range(part: Part) -> dict[str, str]:
    """Nothing where no checksum and no tag could tell that both halves are of one file."""
    wanted = {"Range": f"bytes={part.size}-"}
    if part.size and part.identity.sha256:
        return wanted
    if part.size and part.identity.etag:
        return {**wanted, "If-Range": part.identity.etag}
    return {}


async def _line_up(response: httpx.Response, remote: Remote, part: Part) -> None:
    """Make the part end where the response begins: it stays, or starts again. Raises Interrupted."""
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise SourceFailed(f"{response.url.host} sent a web page instead of the file")
    etag = _strong_etag(response.headers)
    if response.status_code != 206:
        _require_size(response.headers.get("Content-Length"), remote)
        await part.restart(etag)
        return
    start, total = _content_range(response.headers)
    _require_size(total, remote)
    changed = remote.sha256 is None and etag != part.identity.etag
    if start != part.size or changed:
        await part.restart()
        if changed:
            raise Interrupted("the file changed on the server", "服务器上的文件变了")
        raise Interrupted("the server sent another range", "服务器返回的不是请求的部分")


def _require_size(size: str | None, remote: Remote) -> None:
    """A sign-in page of a hotel's network answers 200 as well, with another length."""
    if size is not None and size.isdigit() and int(size) != remote.size_bytes:
        raise SourceFailed(
            f"{remote.host} sent {int(size):,} bytes where {remote.size_bytes:,} were promised"
        )


def _content_range(headers: httpx.Headers) -> tuple[int, str | None]:
    """The first byte's place and the whole length of ``bytes 5-9/10``; -1 where that cannot be read."""
    span, _, total = headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    start = span.partition("-")[0]
    return (int(start) if start.isdigit() else -1), total or None


def _strong_etag(headers: httpx.Headers) -> str | None:
    """Weak tags promise no equality of bytes."""
    etag = headers.get("ETag")
    return None if etag is None or etag.startswith("W/") else etag
